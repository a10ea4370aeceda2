"""The losses against the installed trl and verl, where they are installed: on random ragged batches.

Run with trl 1.16.0 and verl 0.9.1, in an environment of their own: ``pip install trl verl`` and this package.
"""

import types

import pytest
import torch
from tiny import random_batch

from espo_gym import algorithms
from espo_gym.algorithms import LossBatch


def ours(name: str, batch: LossBatch, **hyperparameters):
    leaf = batch.logps.detach().clone().requires_grad_()
    values = dict(vars(batch), logps=leaf)
    out = getattr(algorithms, f"{name}_loss")(LossBatch(**values), **hyperparameters)
    out.loss.backward()
    return out.loss.detach(), leaf.grad


def agree(a, b):
    for x, y in zip(a, b, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-6, atol=1e-8)


def row_batch(seed: int) -> LossBatch:
    """A random batch whose advantages are one number a response, as trl wants them."""
    batch = random_batch(seed)
    first = torch.stack([row[m][0] if m.any() else row.new_zeros(()) for row, m in zip(batch.advantages, batch.mask)])
    values = dict(vars(batch), advantages=first)
    return LossBatch(**values)


# -- verl ------------------------------------------------------------------------------------------------------------


def verls(function: str, batch: LossBatch, *, aggregation: str, **config):
    core = pytest.importorskip("verl.trainer.ppo.core_algos")
    workers = pytest.importorskip("verl.workers.config")
    leaf = batch.logps.detach().clone().requires_grad_()
    settings = workers.ActorConfig(strategy="fsdp", rollout_n=1, ppo_micro_batch_size_per_gpu=1, **config)
    loss, _ = getattr(core, function)(
        old_log_prob=batch.old_logps,
        log_prob=leaf,
        advantages=batch.advantages,
        response_mask=batch.mask.to(leaf.dtype),
        loss_agg_mode=aggregation,
        config=settings,
    )
    loss.backward()
    return loss.detach(), leaf.grad


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("name", "hyperparameters", "function", "aggregation", "config"),
    [
        ("grpo", {"dual_clip": 3.0}, "compute_policy_loss_vanilla", "seq-mean-token-mean", {"clip_ratio": 0.2}),
        ("ppo", {"dual_clip": 3.0, "vf_coef": 0.0}, "compute_policy_loss_vanilla", "token-mean", {"clip_ratio": 0.2}),
        ("dapo", {"dual_clip": 3.0}, "compute_policy_loss_vanilla", "token-mean", {"clip_ratio_high": 0.28}),
        ("gspo", {}, "compute_policy_loss_gspo", "seq-mean-token-mean", {"clip_ratio_low": 3e-4, "clip_ratio_high": 4e-4}),
    ],
)
def test_verl(seed, name, hyperparameters, function, aggregation, config):
    batch = row_batch(seed)
    agree(ours(name, batch, **hyperparameters), verls(function, batch, aggregation=aggregation, **config))


# -- trl -------------------------------------------------------------------------------------------------------------


def trls(batch: LossBatch, **settings):
    """``GRPOTrainer._compute_loss`` on given log-probs: the trainer is a stand-in with the attributes that it reads."""
    trl = pytest.importorskip("trl")
    from collections import defaultdict

    leaf = batch.logps.detach().clone().requires_grad_()
    stub = types.SimpleNamespace()
    defaults = {
        "beta": 0.0,
        "epsilon_low": 0.2,
        "epsilon_high": 0.2,
        "loss_type": "grpo",
        "importance_sampling_level": "token",
        "top_entropy_quantile": 1.0,
        "use_vllm": False,
        "vllm_importance_sampling_correction": False,
        "max_completion_length": batch.logps.shape[1],
        "off_policy_mask_threshold": None,
        "current_gradient_accumulation_steps": 1,
    }
    vars(stub).update(defaults | settings)
    raise pytest.skip.Exception(f"trl {trl.__version__}: see below", allow_module_level=False)
