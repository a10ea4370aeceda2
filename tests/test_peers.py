"""The losses against the installed trl and verl, where they are installed: on random ragged batches.

Run with trl 1.16.0 and verl 0.9.1, in an environment of their own: ``pip install trl verl`` and this package.
"""

from typing import Any
from unittest.mock import MagicMock

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
    """A random batch whose advantages are one number a completion, as trl wants them."""
    batch = random_batch(seed)
    rows = batch.mask.any(1)  # the peers' means count completions without a token
    made: dict[str, Any] = {
        name: value[rows] if isinstance(value, torch.Tensor) else value for name, value in vars(batch).items()
    }
    made["advantages"] = (made["advantages"] * made["mask"]).sum(1) / made["mask"].sum(1)
    return LossBatch(**made)


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
        (
            "gspo",
            {},
            "compute_policy_loss_gspo",
            "seq-mean-token-mean",
            {"clip_ratio_low": 3e-4, "clip_ratio_high": 4e-4},
        ),
    ],
)
def test_verl(seed, name, hyperparameters, function, aggregation, config):
    batch = row_batch(seed)
    agree(ours(name, batch, **hyperparameters), verls(function, batch, aggregation=aggregation, **config))


# -- trl -------------------------------------------------------------------------------------------------------------


def trls(batch: LossBatch, *, delta=None, **settings):
    """``GRPOTrainer._compute_loss`` itself, on given log-probs: a stand-in carries the attributes that it reads."""
    pytest.importorskip("trl")
    trainer = pytest.importorskip("trl.trainer.grpo_trainer").GRPOTrainer
    leaf = batch.logps.detach().clone().requires_grad_()
    stub = MagicMock()
    plain = {
        "beta": 0.0,
        "epsilon_low": 0.2,
        "epsilon_high": 0.2,
        "loss_type": "grpo",
        "importance_sampling_level": "token",
        "top_entropy_quantile": 1.0,
        "use_vllm": False,
        "off_policy_mask_threshold": None,
        "aux_loss_enabled": False,
        "_entropy_bonus_enabled": False,
        "current_gradient_accumulation_steps": 1,
        "max_completion_length": leaf.shape[1],
    }
    stub.configure_mock(**(plain | settings))
    stub.args.configure_mock(
        delta=delta,
        sapo_temperature_pos=1.0,
        sapo_temperature_neg=1.05,
        use_bias_correction_kl=False,
        steps_per_generation=1,
    )
    stub.accelerator.configure_mock(num_processes=1)
    stub.accelerator.gather = stub.accelerator.gather_for_metrics = lambda x: x
    stub.accelerator.reduce = lambda x, reduction=None: x
    stub.model.training = True
    stub._get_per_token_logps_and_entropies.return_value = (leaf, torch.zeros_like(leaf.detach()), None)
    mask = batch.mask.to(leaf.dtype)
    inputs = {
        "prompt_ids": mask.long(),
        "prompt_mask": mask.long(),
        "completion_ids": mask.long(),
        "completion_mask": mask,
        "advantages": (batch.advantages * mask).sum(1) / mask.sum(1),  # a token may be masked
        "old_per_token_logps": batch.old_logps,
        "ref_per_token_logps": batch.ref_logps,
        "num_items_in_batch": mask.sum(),
    }
    loss = trainer._compute_loss(stub, None, inputs)
    loss.backward()
    return loss.detach(), leaf.grad


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("name", "hyperparameters", "settings"),
    [
        ("grpo", {}, {}),
        ("grpo", {"kl_coef": 0.04}, {"beta": 0.04}),
        ("grpo", {"dual_clip": 3.0}, {"delta": 3.0}),
        ("dapo", {}, {"loss_type": "dapo", "epsilon_high": 0.28}),
        ("rloo", {}, {"loss_type": "bnpo"}),
        ("reinforce_pp", {}, {"loss_type": "bnpo"}),
        ("dr_grpo", {"max_completion_tokens": 7}, {"loss_type": "dr_grpo", "max_completion_length": 7}),
        ("cispo", {}, {"loss_type": "cispo", "epsilon_high": 5.0}),
        ("sapo", {}, {"loss_type": "sapo"}),
        (
            "gspo",
            {},
            {"importance_sampling_level": "sequence", "epsilon_low": 3e-4, "epsilon_high": 4e-4},
        ),
    ],
)
def test_trl(seed, name, hyperparameters, settings):
    batch = row_batch(seed)
    agree(ours(name, batch, **hyperparameters), trls(batch, **settings))
