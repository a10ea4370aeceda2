"""Every loss against reference numbers, the papers' sums as loops, and finite differences."""

import ast
import inspect
import itertools
import json
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import not_none, random_batch, random_rollout, tiny_policy

from espo_gym import algorithms
from espo_gym.algorithms import (
    ALGORITHMS,
    ESPO,
    GRPO,
    GSPO,
    PPO,
    LossBatch,
    PolicyOptimizer,
    espo_loss,
    grpo_loss,
    gspo_loss,
    ppo_loss,
)
from espo_gym.algorithms.loss import update_metrics

LOSSES = {name: getattr(algorithms, f"{name}_loss") for name in ALGORITHMS}
WITH_SLOPE = [name for name in LOSSES if name != "cispo"]  # whose ratio is a constant to the gradient


def name_of(algorithm):
    return next(name for name, cls in ALGORITHMS.items() if cls is algorithm)


# -- reference numbers -----------------------------------------------------------------------------------------------

GOLDEN = json.loads((Path(__file__).parent / "data/losses.json").read_text())
INPUTS = {name: torch.tensor(value, dtype=torch.float64) for name, value in GOLDEN["inputs"].items()}
REFS = GOLDEN["refs"]
WIDE = {"clip_low": 3e-4, "clip_high": 4e-4}


def golden_batch() -> LossBatch:
    return LossBatch(
        logps=INPUTS["logp"].clone().requires_grad_(),
        old_logps=INPUTS["old_logp"],
        mask=INPUTS["mask"],
        advantages=torch.tensor(REFS["advantages"]["verl.grpo"], dtype=torch.float64),
        entropies=INPUTS["entropy"],
        vocab_size=151936,
        ref_logps=INPUTS["ref_logp"],
        values=INPUTS["vpreds"],
        old_values=INPUTS["values"],
        returns=INPUTS["returns"],
    )


@pytest.mark.parametrize(
    ("loss", "hyperparameters", "name"),
    [
        (grpo_loss, {}, "trl.grpo"),
        (grpo_loss, {}, "openrlhf.ppo.sample"),
        (grpo_loss, {}, "policy-gradients.grpo"),
        (grpo_loss, {"kl_coef": 0.04}, "trl.grpo.beta(.04)"),
        (gspo_loss, {}, "trl.gspo(3e-4,4e-4)"),
        (gspo_loss, WIDE, "trl.gspo_token(3e-4,4e-4)"),
        (gspo_loss, WIDE, "verl.gspo(3e-4,4e-4)"),
        (gspo_loss, WIDE, "openrlhf.gspo(3e-4,4e-4)"),
        (gspo_loss, WIDE, "policy-gradients.gspo(3e-4,4e-4)"),
        (ppo_loss, {"vf_coef": 0.0}, "verl.vanilla.token-mean.no_dual_clip"),
        (ppo_loss, {"vf_coef": 0.0}, "openrlhf.ppo.token"),
        (espo_loss, {}, "espo.group(K=2,20%,a=.02,V=151936) [ours, from spec]"),
        (espo_loss, {"ratio": "group_token"}, "espo.group_token [ours, from spec]"),
        (LOSSES["dapo"], {}, "trl.dapo.eps_high(.28)"),
        (LOSSES["dr_grpo"], {"max_completion_tokens": 6}, "trl.dr_grpo"),
        (LOSSES["cispo"], {}, "trl.cispo(max=5)"),
        (LOSSES["cispo"], {"ratio_min": 0.8, "ratio_max": 1.2}, "verl.cispo.default(.8,1.2)"),
        (LOSSES["gmpo"], {}, "trl.gmpo(.4)"),
        (LOSSES["gmpo"], {}, "verl.gmpo(.4)"),
        (LOSSES["sapo"], {}, "verl.sapo"),
        (LOSSES["rloo"], {}, "trl.bnpo"),
        (LOSSES["reinforce_pp"], {}, "trl.bnpo"),
        (LOSSES["reinforce_pp"], {"dual_clip": 3.0}, "trl.dapo.delta3"),
        (ppo_loss, {"vf_coef": 0.0, "dual_clip": 3.0}, "verl.vanilla.token-mean"),
        (grpo_loss, {"dual_clip": 3.0}, "verl.vanilla.seq-mean-token-mean"),
    ],
)
def test_loss_and_gradient_equal_the_reference_numbers(loss, hyperparameters, name):
    leaf = INPUTS["logp"].clone().requires_grad_()
    out = loss(replace(golden_batch(), logps=leaf), **hyperparameters)
    out.loss.backward()
    ours = [float(out.loss.detach()), float(not_none(leaf.grad).abs().sum()), float(not_none(leaf.grad).norm())]
    np.testing.assert_allclose(ours, [REFS[name][key] for key in ("loss", "grad_l1", "grad_l2")], rtol=1e-6)


def test_value_loss_equals_the_reference_number():
    reference = REFS["verl.value_loss(.2)"]["loss"]
    out = ppo_loss(golden_batch(), value_clip=0.2)
    np.testing.assert_allclose(out.metrics["value_loss"], reference, rtol=1e-6)
    policy = REFS["verl.vanilla.token-mean.no_dual_clip"]["loss"]
    for vf_coef in (0.5, 2.0):
        total = ppo_loss(golden_batch(), vf_coef=vf_coef).loss
        np.testing.assert_allclose(total.detach(), policy + vf_coef * reference, rtol=1e-6)


def test_divergence_and_clip_fraction_equal_the_reference_numbers():
    metrics = ppo_loss(golden_batch()).metrics
    np.testing.assert_allclose(metrics["kl_k1"], REFS["approx_kl"]["k1_old_minus_new"], rtol=1e-6)
    np.testing.assert_allclose(metrics["kl_k3"], REFS["approx_kl"]["k3_sb3"], rtol=1e-6)
    fraction = REFS["verl.vanilla.token-mean.no_dual_clip"]["metrics"]["actor/pg_clipfrac"]
    np.testing.assert_allclose(metrics["clip_fraction_low"] + metrics["clip_fraction_high"], fraction, rtol=1e-6)


# -- the papers' sums as loops ---------------------------------------------------------------------------------------


def entropy_groups(entropies: list[float], quantiles: tuple[float, ...]) -> list[list[int]]:
    """Positions of each group, the most uncertain first: Eq. 7 with the documented conventions."""
    length = len(entropies)
    order = sorted(range(length), key=lambda t: (-entropies[t], t))
    cuts = [round(round((1 - q) * length, 9)) for q in sorted(quantiles, reverse=True)]
    cuts[0] = max(1, cuts[0])
    bounds = [0, *(max(cut, cuts[0]) for cut in cuts), length]
    groups = [order[a:b] for a, b in itertools.pairwise(bounds)]
    return [group for group in groups if group]


def espo_by_loops(batch: LossBatch, alpha=0.02, quantiles=(0.8,), ratio="group") -> tuple[float, np.ndarray]:
    """Eq. 5 of arXiv:2512.00499 with minus in front, and its gradient worked out by hand, token by token."""
    logps, old, entropies = (not_none(x).detach().numpy() for x in (batch.logps, batch.old_logps, batch.entropies))
    mask, advantages = batch.mask.numpy(), batch.advantages.numpy()
    kept = [i for i in range(len(mask)) if mask[i].any()]
    total, gradient = 0.0, np.zeros_like(logps)
    for i in kept:
        own = [t for t in range(mask.shape[1]) if mask[i, t]]
        groups = entropy_groups([entropies[i, t] for t in own], quantiles)
        for group in groups:
            tokens = [own[j] for j in group]
            s = math.exp(sum(logps[i, t] - old[i, t] for t in tokens) / len(tokens))
            eps = alpha / math.log(not_none(batch.vocab_size)) * sum(entropies[i, t] for t in tokens) / len(tokens)
            for t in tokens:
                a = advantages[i, t]
                r = s if ratio == "group" else s * math.exp(logps[i, t] - old[i, t])
                bounded = min(max(r, 1 - eps), 1 + eps)
                weight = 1 / (len(kept) * len(groups) * len(tokens))
                total -= weight * min(r * a, bounded * a)
                if r * a <= bounded * a:  # d r / d logp = r, s being held fixed
                    gradient[i, t] -= weight * r * a
    return total, gradient


@pytest.mark.parametrize("ratio", ["group", "group_token"])
@pytest.mark.parametrize("quantiles", [(0.8,), (0.5,), (0.9,), (0.5, 0.8), (0.25, 0.5, 0.75), ()])
@pytest.mark.parametrize("seed", range(1, 5))
def test_espo_equals_equation_5_written_as_loops(seed, quantiles, ratio):
    wide = seed % 2 == 0
    batch = random_batch(seed, rows=12, width=13, noise=0.8 if wide else 0.02)
    leaf = batch.logps.detach().clone().requires_grad_()
    alpha = 0.2 if wide else 0.02
    out = espo_loss(replace(batch, logps=leaf), alpha=alpha, quantiles=quantiles, ratio=ratio)
    out.loss.backward()
    if quantiles:
        expected, gradient = espo_by_loops(batch, alpha, quantiles, ratio)
    else:  # one group
        expected, gradient = espo_by_loops(batch, alpha, (1e-9,), ratio)
    np.testing.assert_allclose(out.loss.detach(), expected, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(not_none(leaf.grad), gradient, rtol=1e-12, atol=1e-14)
    assert out.clipped.any() and (~out.clipped & batch.mask).any()  # the case says something about both sides


@pytest.mark.parametrize("length", range(1, 31))
def test_the_high_entropy_group_holds_a_fifth_of_the_tokens_and_at_least_one(length):
    batch = random_batch(rows=4, width=length)
    batch = LossBatch(
        logps=torch.zeros(1, length),
        old_logps=torch.zeros(1, length),
        mask=torch.ones(1, length),
        advantages=torch.ones(1),
        entropies=torch.rand(1, length, generator=torch.Generator().manual_seed(length)),
    )
    groups = ESPO.formula().groups(batch)[0]
    entropies = not_none(batch.entropies)[0]
    high = entropies[groups == groups.max()]
    assert len(high) == max(1, round(0.2 * length))
    assert length == 1 or high.min() >= entropies[groups == 0].max()


def test_equally_uncertain_tokens_are_ranked_by_position():
    batch = random_batch(entropies=torch.ones(6, 7, dtype=torch.float64), mask=torch.ones(6, 7), has_verdict=None)
    assert ESPO.formula(quantiles=(0.5,)).groups(batch).tolist() == [[1, 1, 1, 1, 0, 0, 0]] * 6


def test_ties_go_to_the_earlier_token_in_long_completions_too():
    n = 5000  # short rows are sorted stably even where no stability is asked for
    ones = torch.ones(1, n)
    batch = LossBatch(-ones, -ones, ones, torch.ones(1), entropies=(torch.arange(n) % 3 == 0)[None] * 1.0)
    groups = ESPO.formula(quantiles=(0.8, 0.5)).groups(batch)[0].tolist()
    expected = np.zeros(n)
    for number, group in zip((2, 1, 0), entropy_groups(not_none(batch.entropies)[0].tolist(), (0.5, 0.8)), strict=True):
        expected[group] = number
    assert groups == expected.tolist()


@pytest.mark.parametrize("seed", range(3))
def test_espo_equals_the_loops_where_entropies_are_zero_and_the_mask_has_holes(seed):
    batch = random_batch(seed, rows=9, width=12)
    entropies = not_none(batch.entropies)
    batch = replace(batch, entropies=torch.where(entropies > 1.5, entropies, 0.0))
    expected, _ = espo_by_loops(batch, 0.3, (0.3,))
    np.testing.assert_allclose(espo_loss(batch, alpha=0.3, quantiles=(0.3,)).loss.detach(), expected, rtol=1e-12)


def test_the_reward_stands_at_the_last_token_of_the_policy_in_ppo():
    policy = tiny_policy()
    policy.add_value_head()
    rollout = random_rollout(policy, lengths=[3, 1, 4])
    rollout.mask[2, 1] = False  # the environment's
    rollout.mask[2, 3] = False
    rollout.rewards = torch.tensor([1.0, 2.0, 3.0])
    rollout.values = torch.zeros(3, 4)
    rollout = PPO.formula(gamma=0.5, lam=1.0).annotate(rollout)
    assert not_none(rollout.returns).tolist() == [[0.25, 0.5, 1, 0], [2, 0, 0, 0], [1.5, 0, 3, 0]]


def surrogate_by_loops(batch, ratio_of, low, high, weight_of) -> float:
    total, mask = 0.0, batch.mask.numpy()
    logps, old, advantages = (x.detach().numpy() for x in (batch.logps, batch.old_logps, batch.advantages))
    rows = [i for i in range(len(mask)) if mask[i].any()]
    for i in rows:
        own = np.flatnonzero(mask[i])
        for t in own:
            r, a = ratio_of(logps[i], old[i], own, t), advantages[i, t]
            total -= weight_of(len(rows), len(own), int(mask.sum())) * min(r * a, min(max(r, 1 - low), 1 + high) * a)
    return total


def token_ratio(logps, old, own, t):
    return math.exp(logps[t] - old[t])


def sequence_ratio(logps, old, own, t):
    return math.exp(np.mean(logps[own] - old[own]))


@pytest.mark.parametrize("seed", range(3))
def test_grpo_gspo_and_ppo_equal_their_sums_written_as_loops(seed):
    batch = random_batch(seed)
    clip = {"clip_low": 0.1, "clip_high": 0.15}

    def per_sequence(n, length, total):
        return 1 / (n * length)

    def per_token(n, length, total):
        return 1 / total

    ours = {name: float(LOSSES[name](batch, **clip).loss.detach()) for name in ("grpo", "gspo")}
    ours["ppo"] = float(ppo_loss(batch, vf_coef=0.0, **clip).loss.detach())
    assert ours["grpo"] == pytest.approx(surrogate_by_loops(batch, token_ratio, 0.1, 0.15, per_sequence), rel=1e-12)
    assert ours["gspo"] == pytest.approx(surrogate_by_loops(batch, sequence_ratio, 0.1, 0.15, per_sequence), rel=1e-12)
    assert ours["ppo"] == pytest.approx(surrogate_by_loops(batch, token_ratio, 0.1, 0.15, per_token), rel=1e-12)


# -- finite differences ----------------------------------------------------------------------------------------------


def difference_quotients(function, x: torch.Tensor, mask: torch.Tensor, h: float = 1e-6) -> np.ndarray:
    """Central differences of ``function`` at the unmasked entries of ``x``."""
    gradient = np.zeros(x.shape)
    for i, t in mask.nonzero().tolist():
        up, down = x.clone(), x.clone()
        up[i, t] += h
        down[i, t] -= h
        gradient[i, t] = (function(up) - function(down)) / (2 * h)
    return gradient


@pytest.mark.parametrize("kl", [{}, {"kl_coef": 0.1}, {"kl_coef": 0.1, "kl_estimator": "k2"}])
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", WITH_SLOPE)
def test_the_gradient_of_the_log_probs_is_the_slope_of_the_loss(name, seed, kl):
    # GSPO's and ESPO's stop-gradients move gradient between the tokens of a group; with one advantage and one weight
    # per group the result is the slope of the sequence form, and the value of the loss is the sequence form's.
    own = {"espo": {"alpha": 0.5}, "ppo": {"vf_coef": 0.3}, "dr_grpo": {"max_completion_tokens": 6}, "sapo": {}}
    hyperparameters = kl | own.get(name, {"clip_low": 0.1})
    batch = random_batch(seed)
    x = batch.logps.detach().clone()
    leaf = x.clone().requires_grad_()
    LOSSES[name](replace(batch, logps=leaf), **hyperparameters).loss.backward()
    slope = difference_quotients(
        lambda y: float(LOSSES[name](replace(batch, logps=y), **hyperparameters).loss.detach()), x, batch.mask
    )
    np.testing.assert_allclose(not_none(leaf.grad), slope, rtol=1e-6, atol=1e-8)
    assert np.abs(slope).max() > 0.01


@pytest.mark.parametrize("seed", range(3))
def test_the_gradient_of_the_printed_form_is_the_slope_with_the_group_ratio_held(seed):
    batch = random_batch(seed)
    x = batch.logps.detach().clone()
    leaf = x.clone().requires_grad_()
    out = espo_loss(replace(batch, logps=leaf), alpha=0.5, ratio="group_token")
    out.loss.backward()
    held = out.ratio / (x - batch.old_logps).exp()  # s, by the documented value s * r
    _, gradient = espo_by_loops(batch, 0.5, (0.8,), "group_token")

    def loss(y):
        r = held * (y - batch.old_logps).exp()
        low, high = ESPO.formula(alpha=0.5).clip_range(batch)
        product = torch.minimum(r * batch.advantages, r.clamp(1 - low, 1 + high) * batch.advantages)
        return -float((out.weights * product)[batch.mask].sum())

    np.testing.assert_allclose(not_none(leaf.grad), difference_quotients(loss, x, batch.mask), rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(not_none(leaf.grad), gradient, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("seed", range(3))
def test_the_gradient_of_the_values_is_the_slope_of_the_loss(seed):
    batch = random_batch(seed)
    x = not_none(batch.values).detach().clone()
    leaf = x.clone().requires_grad_()
    ppo_loss(replace(batch, values=leaf), vf_coef=0.7).loss.backward()
    slope = difference_quotients(
        lambda y: float(ppo_loss(replace(batch, values=y), vf_coef=0.7).loss.detach()), x, batch.mask
    )
    np.testing.assert_allclose(not_none(leaf.grad), slope, rtol=1e-6, atol=1e-8)


# -- what a loss says of the clip ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LOSSES)
def test_clipped_tokens_are_those_without_gradient(name):
    batch = random_batch(1)
    leaf = batch.logps.detach().clone().requires_grad_()
    out = LOSSES[name](replace(batch, logps=leaf))
    out.loss.backward()
    assert torch.equal(out.clipped, batch.mask & (leaf.grad == 0))
    assert out.clipped.any() == (name not in ("cispo", "sapo")) and not out.clipped.all()


def test_clip_fractions_count_tokens_by_the_sign_of_the_advantage():
    def batch(ratios, advantages, mask):
        return LossBatch(torch.tensor(ratios).log(), torch.zeros(2, 4), torch.tensor(mask), torch.tensor(advantages))

    metrics = grpo_loss(
        batch(
            [[1.5, 0.5, 1.0, 9.0], [1.5, 0.5, 0.6, 1.0]],
            [[1.0, 1.0, 1.0, 1.0], [-1.0, -1.0, -1.0, 0.0]],
            [[1, 1, 1, 0], [1, 1, 1, 1]],
        )
    ).metrics
    assert metrics["clip_fraction_high"] == pytest.approx(1 / 7)
    assert metrics["clip_fraction_low"] == pytest.approx(2 / 7)
    assert metrics["clip_fraction_active"] == pytest.approx(3 / 6)
    assert metrics["gradient_token_share"] == pytest.approx(3 / 7)
    assert metrics["ratio_max"] == pytest.approx(1.5) and metrics["ratio_min"] == pytest.approx(0.5)
    assert metrics["ratio_mean"] == pytest.approx((1.5 + 0.5 + 1 + 1.5 + 0.5 + 0.6) / 6)  # of active tokens


@pytest.mark.parametrize("name", LOSSES)
def test_metrics_of_parts_are_those_of_the_whole(name):
    batch = random_batch(2)
    whole = LOSSES[name](batch).detach()
    parts = [LOSSES[name](random_rows(batch, rows)).detach() for rows in ([0, 1], [2], [3, 4, 5])]
    assert update_metrics(parts) == pytest.approx(update_metrics([whole]), rel=1e-12)


def random_rows(batch, rows):
    chosen: dict[str, Any] = {}
    for key, value in vars(batch).items():
        chosen[key] = value[rows] if isinstance(value, torch.Tensor) else value
    return LossBatch(**chosen)


def test_a_batch_without_a_verdict_has_loss_zero_and_no_metrics():
    for loss in LOSSES.values():
        batch = random_batch(has_verdict=torch.zeros(6, dtype=torch.bool))
        out = loss(batch)
        assert float(out.loss.detach()) == 0 and update_metrics([out]) == {}


# -- micro-batches, through the optimizers' own step -----------------------------------------------------------------


SHORT = {"max_completion_tokens": 8}  # Dr. GRPO divides by it


def gradients(algorithm, *, micro_batch_tokens=None, rollout=None, policy=None, **hyperparameters):
    policy = policy or tiny_policy(dtype=torch.float64)
    names = algorithm.hyperparameters().keys() - ({"clip_low"} if algorithm is ESPO else set())  # its clip is alpha
    algo = algorithm(
        policy,
        "espo_gym/Addition-v0",
        rollout_size=8,
        group_size=4,
        n_minibatches=1,
        micro_batch_tokens=micro_batch_tokens,
        max_grad_norm=1e12,
        **{n: v for n, v in {"clip_low": 0.05, "alpha": 0.5, **SHORT, **hyperparameters}.items() if n in names},
    )
    rollout = rollout or random_rollout(policy, lengths=[3, 1, 7, 2, 5, 5, 1, 4], no_verdict=[4])
    if hyperparameters.get("kl_coef"):
        rollout.ref_logps = rollout.old_logps + 0.1
    if algorithm.needs_values and rollout.values is None:
        rollout.values = 0.1 + 0.2 * rollout.entropies.double()
    rollout = algo.annotate(rollout)
    outputs = algo.step(rollout, algo.advantages(rollout), torch.arange(8))
    loss = sum(float(out.loss) for out in outputs)
    return loss, {n: p.grad.clone() for n, p in policy.named_parameters()}


@pytest.mark.parametrize("kl_coef", [0.0, 0.1])
def test_the_gradient_does_not_depend_on_the_micro_batches(algorithm, kl_coef):
    loss, whole = gradients(algorithm, kl_coef=kl_coef)
    assert max(float(g.abs().max()) for g in whole.values()) > 1e-3
    for size in (1, 4, 7, 12, 25, 100):
        other, parts = gradients(algorithm, micro_batch_tokens=size, kl_coef=kl_coef)
        assert other == pytest.approx(loss, rel=1e-6, abs=1e-7)
        for name, g in whole.items():
            np.testing.assert_allclose(
                parts[name], g, rtol=1e-5, atol=1e-7 * float(g.abs().max()) + 1e-12, err_msg=name
            )


STILL = {"learning_rate": 1e-30, "max_grad_norm": 1e12}


def test_the_gradient_of_a_step_holds_nothing_of_the_step_before(algorithm):
    policy = tiny_policy()
    rollout = random_rollout(policy, lengths=[3, 1, 7, 2])
    algo = algorithm(policy, "espo_gym/Addition-v0", rollout_size=4, group_size=4, n_minibatches=1, **STILL)
    rollout.values = torch.zeros_like(rollout.old_logps)
    norms = []
    for _ in range(2):
        rollout = algo.annotate(rollout)
        algo.step(rollout, algo.advantages(rollout), torch.arange(4))
        norms.append(sum(float(not_none(p.grad).square().sum()) for p in policy.parameters()))
    assert norms[0] > 0 and norms[1] == pytest.approx(norms[0], rel=1e-5)


def test_the_step_takes_the_loss_of_the_pure_function(algorithm):
    policy = tiny_policy(dtype=torch.float64)
    if algorithm is PPO:
        policy.add_value_head()
    rollout = random_rollout(policy, lengths=[3, 1, 7, 2, 5, 5, 1, 4], no_verdict=[4])
    formula = algorithm.formula()
    rollout = formula.annotate(rollout)  # PPO's fills in the returns
    advantages = formula.advantages(rollout)
    scores = policy.logps(rollout)
    batch = LossBatch(
        logps=scores.logps,
        old_logps=rollout.old_logps,
        mask=rollout.mask,
        advantages=advantages,
        entropies=rollout.entropies,
        vocab_size=22,
        has_verdict=rollout.has_verdict,
        values=scores.values,
        old_values=rollout.values,
        returns=rollout.returns,
    )
    expected = float(LOSSES[name_of(algorithm)](batch).loss.detach())
    algo = algorithm(policy, "espo_gym/Addition-v0", rollout_size=8, group_size=4, n_minibatches=1)
    rollout = algo.annotate(rollout)
    outputs = algo.step(rollout, algo.advantages(rollout), torch.arange(8))
    assert float(outputs[0].loss) == pytest.approx(expected, rel=1e-6)


# -- bad input -------------------------------------------------------------------------------------------------------


def test_a_tensor_of_the_wrong_shape_is_named():
    with pytest.raises(ValueError, match=r"entropies must be \(B, T\) = \(6, 7\) like logps, not \(6, 5\)"):
        random_batch(entropies=torch.zeros(6, 5))
    with pytest.raises(ValueError, match=r"has_verdict must be \(B,\) = \(6,\), not \(5,\)"):
        random_batch(has_verdict=torch.ones(5))
    with pytest.raises(ValueError, match=r"logps must be \(B, T\), not of shape \(3,\)"):
        LossBatch(torch.zeros(3), torch.zeros(3), torch.ones(3), torch.zeros(3))


@pytest.mark.parametrize(
    ("loss", "field"),
    [(espo_loss, "entropies"), (espo_loss, "vocab_size"), (ppo_loss, "values"), (ppo_loss, "returns")],
)
def test_a_field_that_a_loss_needs_and_has_not_is_named(loss, field):
    with pytest.raises(ValueError, match=rf"LossBatch.{field}, which is None"):
        missing: dict[str, Any] = {field: None}
        loss(random_batch(**missing))


def test_a_divergence_without_reference_is_an_error():
    with pytest.raises(ValueError, match=r"LossBatch.ref_logps, which is None"):
        grpo_loss(random_batch(ref_logps=None), kl_coef=0.1)


# -- the pure functions and the classes are the same code; hyperparameters ------------------------------------------


OPTIONS = {
    "preset": None,
    "kl_coef": 0.0,
    "kl_estimator": "k3",
    "kl_in": "loss",
    "dual_clip": None,
    "entropy_coef": 0.0,
    "sampler_correction": None,
    "sampler_cap": 2.0,
}


@pytest.mark.parametrize(
    ("loss", "own"),
    [
        (
            espo_loss,
            {
                "alpha": 0.02,
                "alpha_high": None,
                "eps_min": 0.0,
                "clip_low": None,
                "clip_high": None,
                "quantiles": (0.8,),
                "quantiles_over": "completion",
                "ratio": "group",
                "group_weighting": "groups",
            },
        ),
        (grpo_loss, {"clip_low": 0.2, "clip_high": 0.2}),
        (gspo_loss, {"clip_low": 3e-4, "clip_high": 4e-4}),
        (
            ppo_loss,
            {"clip_low": 0.2, "clip_high": 0.2, "value_clip": 0.2, "critic": "shared", "value_learning_rate": None}
            | {"vf_coef": 0.5, "gamma": 1.0, "lam": 0.95},
        ),
    ],
)
def test_the_signature_shows_the_papers_hyperparameters(loss, own):
    signature = inspect.signature(loss)
    defaults = {n: p.default for n, p in signature.parameters.items() if p.kind is p.KEYWORD_ONLY}
    assert defaults == own | OPTIONS
    assert next(iter(signature.parameters)) == "batch"


def test_the_pure_function_takes_every_hyperparameter_that_it_shows(algorithm):
    loss = LOSSES[name_of(algorithm)]
    shown = {n: p.default for n, p in inspect.signature(loss).parameters.items() if p.kind is p.KEYWORD_ONLY}
    assert torch.equal(loss(random_batch(), **shown).loss, loss(random_batch()).loss)


def test_the_pure_function_is_documented(algorithm):
    loss = LOSSES[name_of(algorithm)]
    assert "Maximizes" in loss.__doc__ and loss.__name__ == f"{name_of(algorithm)}_loss"
    assert loss.__module__ == algorithm.__module__


@pytest.mark.parametrize("call", ["function", "formula"])
def test_an_unknown_hyperparameter_is_an_error_that_names_the_possible_ones(algorithm, call):
    make = LOSSES[name_of(algorithm)] if call == "function" else None
    for name, hint in (("kl_coeff", r"Did you mean 'kl_coef'\?"), ("zzz", "It has .*kl_coef.*kl_estimator")):
        with pytest.raises(TypeError, match=f"{algorithm.__name__} has no hyperparameter '{name}'.*{hint}"):
            make(random_batch(), **{name: 1}) if make else algorithm.formula(**{name: 1})


def test_an_unknown_keyword_of_the_class_is_an_error(algorithm, policy):
    with pytest.raises(TypeError, match="clip_lo"):
        algorithm(policy, "espo_gym/Addition-v0", clip_lo=1)


# -- presets ---------------------------------------------------------------------------------------------------------

TEACHING = {
    GRPO: {"clip_low": 0.2, "clip_high": 0.2, "learning_rate": 1e-4},
    GSPO: {"clip_low": 3e-2, "clip_high": 4e-2, "learning_rate": 1e-4},
    ESPO: {"alpha": 0.5, "learning_rate": 1e-4, "n_minibatches": 8},
    PPO: {"clip_low": 0.2, "learning_rate": 1e-4},
}


def test_a_preset_changes_the_defaults(algorithm):
    made = algorithm.formula(preset="teaching")
    for name, value in TEACHING.get(algorithm, {"learning_rate": 1e-4}).items():
        assert getattr(made, name) == value
    assert algorithm.formula().learning_rate == 1e-6


@pytest.mark.parametrize("made_by", ["formula", "class"])
@pytest.mark.parametrize(
    ("algorithm", "name", "value"), [(ESPO, "alpha", 0.02), (ESPO, "alpha", 0.7), (GSPO, "clip_low", 3e-4)]
)
def test_an_explicit_argument_wins_over_the_preset_also_where_it_is_the_default(
    algorithm, name, value, made_by, policy
):
    chosen = {"preset": "teaching", name: value, "learning_rate": 1e-6}
    made = algorithm.formula(**chosen) if made_by == "formula" else algorithm(policy, "espo_gym/Addition-v0", **chosen)
    assert getattr(made, name) == value and made.learning_rate == 1e-6
    assert made.rollout_size == 256  # the preset's


def test_an_explicit_argument_wins_in_the_pure_function():
    batch = random_batch()
    plain, teaching = espo_loss(batch), espo_loss(batch, preset="teaching")
    assert not torch.equal(plain.loss, teaching.loss)
    assert torch.equal(espo_loss(batch, preset="teaching", alpha=0.02).loss, plain.loss)
    assert torch.equal(espo_loss(batch, alpha=0.5).loss, teaching.loss)


def test_an_unknown_preset_is_an_error_that_names_the_known_ones(algorithm):
    with pytest.raises(ValueError, match="preset must be one of paper, teaching, not 'fast'"):
        algorithm.formula(preset="fast")


OUT_OF_RANGE: list[tuple[str, Any]] = [
    *((name, value) for name in ("group_size", "rollout_size", "n_epochs", "n_minibatches") for value in (0, -1)),
    ("micro_batch_tokens", 0),
    ("learning_rate", 0.0),
    ("learning_rate", -1e-6),
    ("warmup_steps", -1),
    ("weight_decay", -0.1),
    ("max_grad_norm", 0.0),
    ("temperature", 0.0),
    ("temperature", -1.0),
    ("top_p", 0.0),
    ("top_p", 1.1),
    ("top_k", -1),
    ("max_completion_tokens", 0),
    ("stop", "x"),
    ("stop", ("",)),
    ("old_logps", "guessed"),
    ("kl_coef", -0.1),
    ("kl_estimator", "k4"),
    ("adam_beta1", 1.0),
    ("adam_beta1", -0.1),
    ("adam_beta2", 1.0),
    ("adam_eps", -1e-8),
    ("truncated_reward", float("inf")),
    ("truncated_reward", float("nan")),
    ("max_no_verdict", -0.1),
    ("max_no_verdict", 1.1),
    ("seed", -1),
    ("learning_rate", math.nan),
    ("temperature", math.nan),
    ("temperature", math.inf),
    ("kl_coef", math.nan),
    ("max_grad_norm", math.nan),
]
OWN_OUT_OF_RANGE: list[tuple[type[PolicyOptimizer], str, Any]] = [
    (ESPO, "alpha", 0.0),
    (ESPO, "alpha", -1.0),
    (ESPO, "alpha", math.nan),
    (ESPO, "quantiles", (0.0,)),
    (ESPO, "quantiles", (1.0,)),
    (ESPO, "quantiles", (0.5, 0.5)),
    (ESPO, "ratio", "token"),
    *((c, name, v) for c in (GRPO, GSPO, PPO) for name in ("clip_low", "clip_high") for v in (-0.1, math.nan)),
    (PPO, "value_clip", 0.0),
    (PPO, "vf_coef", -1.0),
    (PPO, "gamma", 1.1),
    (PPO, "gamma", -0.1),
    (PPO, "lam", 1.1),
    (PPO, "lam", -0.1),
]


@pytest.mark.parametrize(
    ("algorithm", "name", "value"), [*((GRPO, *bad) for bad in OUT_OF_RANGE), *OWN_OUT_OF_RANGE], ids=str
)
def test_a_hyperparameter_out_of_range_is_an_error_that_names_it(algorithm, name, value):
    with pytest.raises(ValueError, match=name):
        algorithm.formula(**{name: value})


@pytest.mark.parametrize("name", ["group_size", "rollout_size", "n_epochs", "n_minibatches", "max_completion_tokens"])
def test_a_count_that_is_no_integer_is_an_error_that_names_it(name):
    with pytest.raises((TypeError, ValueError), match=name):
        GRPO.formula(**{name: 8.0})


def test_a_group_size_that_does_not_divide_the_rollout_is_an_error():
    with pytest.raises(ValueError, match="rollout of 10 completions cannot be split into groups of 4"):
        GRPO.formula(rollout_size=10, group_size=4)


def test_more_minibatches_than_completions_are_an_error():
    with pytest.raises(ValueError, match="9 minibatches of a rollout of 8"):
        GRPO.formula(rollout_size=8, group_size=4, n_minibatches=9)


def test_every_hyperparameter_has_a_docstring():
    """The command line makes its help of them."""
    for algorithm in ALGORITHMS.values():
        documented = set()
        for cls in algorithm.__mro__:
            if cls.__module__.startswith("espo_gym"):
                (definition,) = ast.parse(inspect.getsource(cls)).body
                assert isinstance(definition, ast.ClassDef)
                body = definition.body
                for statement, after in itertools.pairwise(body):
                    if isinstance(statement, ast.AnnAssign) and isinstance(after, ast.Expr):
                        assert isinstance(after.value, ast.Constant) and isinstance(after.value.value, str)
                        documented.add(ast.unparse(statement.target))
        missing = set(algorithm.hyperparameters()) - documented
        assert not missing, f"{algorithm.__name__}: no docstring under {', '.join(sorted(missing))}"


# -- for other trainers -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ALGORITHMS)
@pytest.mark.parametrize("seed", range(5))
def test_weights_of_parts_times_their_share_of_the_denominator_are_the_weights_of_the_whole(name, seed):
    """What a trainer needs that sees an optimizer batch one micro-batch, or one rank, at a time."""
    batch, formula = random_batch(seed, rows=12, width=9), ALGORITHMS[name].formula()
    whole = formula.token_weights(batch)
    parts = torch.from_numpy(np.random.default_rng(seed).permutation(12)).split([1, 4, 7])
    cut = [random_rows(batch, rows) for rows in parts]
    total = sum(int(formula.denominator(part.mask)) for part in cut)
    for rows, part in zip(parts, cut, strict=True):
        share = int(formula.denominator(part.mask)) / total
        torch.testing.assert_close(formula.token_weights(part) * share, whole[rows], rtol=1e-12, atol=1e-15)


def test_denominators_count_completions_or_tokens():
    mask = torch.tensor([[1, 1, 1], [1, 0, 0], [0, 0, 0]]).bool()
    for name, algorithm in ALGORITHMS.items():
        over_tokens = name in ("ppo", "dapo", "cispo", "rloo", "reinforce_pp")
        assert int(algorithm.formula().denominator(mask)) == (4 if over_tokens else 2), name


def test_a_denominator_of_another_kind_has_to_be_given():
    @dataclass(kw_only=True, eq=False)
    class Sum(GRPO):
        def token_weights(self, batch):
            return batch.mask.double()

    @dataclass(kw_only=True, eq=False)
    class Odd(GRPO):
        def token_weights(self, batch):
            return batch.mask / batch.mask.sum().sqrt()

    mask = torch.ones(2, 3).bool()
    assert Sum.formula().denominator(mask) == 1
    with pytest.raises(ValueError, match="Odd averages neither over completions nor over tokens: override denominator"):
        Odd.formula().denominator(mask)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_no_choice_changes_its_argument(name):
    formula = ALGORITHMS[name].formula()
    rollout = random_rollout(tiny_policy(), lengths=[5, 3, 6, 2, 4, 4, 1, 6], no_verdict=[3])
    rollout.values = rollout.old_logps * 0.1
    before = {k: v.clone() if isinstance(v, torch.Tensor) else v for k, v in vars(rollout).items()}
    annotated = formula.annotate(rollout)
    seen = dict(vars(annotated))
    formula.advantages(annotated)
    assert all(vars(annotated)[k] is v for k, v in seen.items())
    for key, value in before.items():
        same = (
            torch.equal(vars(rollout)[key], value) if isinstance(value, torch.Tensor) else vars(rollout)[key] == value
        )
        assert same, key
