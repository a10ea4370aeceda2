"""The pure functions of tensors: against the reference numbers, loops and hand-worked values."""

import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import not_none

from espo_gym.algorithms import terms

GOLDEN = json.loads((Path(__file__).parent / "data/losses.json").read_text())
INPUTS = {name: torch.tensor(value, dtype=torch.float64) for name, value in GOLDEN["inputs"].items()}
REFS = GOLDEN["refs"]


def all_true(n):
    return torch.ones(n, dtype=torch.bool)


# -- advantages ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "scale", "eps"),
    [
        ("verl.grpo", "group", 1e-6),
        ("trl.group(+1e-4)", "group", 1e-4),
        ("trl.batch(+1e-4)", "batch", 1e-4),
        ("verl.dr_grpo", None, 1e-6),
    ],
)
def test_group_advantages_equal_the_reference_numbers(name, scale, eps):
    groups = torch.arange(8) // GOLDEN["G"]
    ours = terms.group_advantages(INPUTS["rewards"], groups, all_true(8), scale=scale, eps=eps)
    np.testing.assert_allclose(ours, REFS["advantages"][name], rtol=1e-6)


def test_leave_one_out_equals_the_reference_numbers():
    ours = terms.leave_one_out(INPUTS["rewards"], torch.arange(8) // GOLDEN["G"], all_true(8))
    np.testing.assert_allclose(ours, REFS["advantages"]["verl.rloo"], rtol=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_group_advantages_equal_a_loop_over_the_completions_with_a_verdict(seed):
    rng = np.random.default_rng(seed)
    rewards, groups, judged = rng.normal(size=20), rng.integers(0, 5, 20), rng.random(20) < 0.7
    expected = np.zeros(20)
    for i in range(20):
        peers = [rewards[j] for j in range(20) if groups[j] == groups[i] and judged[j]]
        if judged[i] and len(peers) > 1:
            expected[i] = (rewards[i] - np.mean(peers)) / (np.std(peers, ddof=1) + 1e-6)
    ours = terms.group_advantages(torch.tensor(rewards), torch.tensor(groups), torch.tensor(judged))
    np.testing.assert_allclose(ours, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("reward", [0.0, 1.0, 0.1, 1 / 3, -0.7, 1e6 / 3])
@pytest.mark.parametrize("n", [1, 2, 3, 7, 8])
def test_equal_rewards_have_advantage_exactly_zero(reward, n, dtype):
    rewards = torch.full((n,), reward, dtype=dtype)
    assert terms.group_advantages(rewards, torch.zeros(n, dtype=torch.long), all_true(n)).eq(0).all()


def test_a_completion_without_verdict_changes_nothing_for_its_group():
    rewards = torch.tensor([1.0, 0.0, 0.0, 5.0], dtype=torch.float64)
    judged = torch.tensor([True, True, True, False])
    ours = terms.group_advantages(rewards, torch.zeros(4, dtype=torch.long), judged)
    alone = terms.group_advantages(rewards[:3], torch.zeros(3, dtype=torch.long), all_true(3))
    assert ours[3] == 0 and torch.equal(ours[:3], alone)


def test_a_group_that_failed_altogether_has_advantage_zero():
    ours = terms.group_advantages(torch.tensor([1.0, 0.0, 1.0, 0.0]), torch.tensor([0, 0, 1, 1]), torch.arange(4) > 1)
    assert ours[:2].tolist() == [0, 0] and ours[2] > 0 > ours[3]


def test_the_numbers_of_the_groups_do_not_matter():
    rewards, judged = torch.tensor([1.0, 0.0, 0.0, 1.0, 1.0, 0.0]), all_true(6)
    ours = terms.group_advantages(rewards, torch.tensor([0, 0, 0, 1, 1, 1]), judged)
    assert torch.equal(ours, terms.group_advantages(rewards, torch.tensor([7, 7, 7, -2, -2, -2]), judged))


def test_gae_then_whitened_equals_the_reference_numbers():
    mask = INPUTS["mask"].bool()
    rewards = torch.zeros_like(INPUTS["mask"])
    for i, length in enumerate(mask.sum(1).tolist()):
        rewards[i, length - 1] = INPUTS["rewards"][i]
    advantages, returns = terms.gae(rewards, INPUTS["values"], mask, 1.0, 0.95)
    reference = REFS["verl.gae(1,.95)"]
    np.testing.assert_allclose(terms.whiten(advantages, mask).norm(), reference["adv_l2"], rtol=1e-6)
    np.testing.assert_allclose(returns.norm(), reference["ret_l2"], rtol=1e-6)
    np.testing.assert_allclose(returns[mask], INPUTS["returns"][mask], rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize(("gamma", "lam"), [(1.0, 0.95), (0.9, 0.8), (1.0, 1.0), (0.99, 0.0)])
def test_gae_equals_its_definition_over_own_tokens_alone(gamma, lam):
    rng = np.random.default_rng(0)
    mask = rng.random((6, 9)) < 0.7
    mask[0] = False  # a completion without a token
    rewards, values = rng.normal(size=(6, 9)) * mask, rng.normal(size=(6, 9))
    expected = np.zeros((6, 9))
    for i in range(6):
        own = np.flatnonzero(mask[i])
        for a, t in enumerate(own):
            for b in range(a, len(own)):
                following = values[i, own[b + 1]] if b + 1 < len(own) else 0.0
                delta = rewards[i, own[b]] + gamma * following - values[i, own[b]]
                expected[i, t] += (gamma * lam) ** (b - a) * delta
    advantages, returns = terms.gae(torch.tensor(rewards), torch.tensor(values), torch.tensor(mask), gamma, lam)
    np.testing.assert_allclose(advantages, expected, atol=1e-12)
    np.testing.assert_allclose(returns, (expected + values) * mask, atol=1e-12)


def test_whitened_numbers_have_mean_zero_and_standard_deviation_one_where_they_count():
    rng = torch.Generator().manual_seed(0)
    x = 3 + 5 * torch.randn(5, 7, generator=rng, dtype=torch.float64)
    mask = torch.rand(5, 7, generator=rng) < 0.6
    x[~mask] = torch.nan
    white = terms.whiten(torch.where(mask, x, 0.0), mask)
    assert white[mask].mean().abs() < 1e-12 and abs(white[mask].std() - 1) < 1e-8
    assert white[~mask].eq(0).all()


# -- means and weights -----------------------------------------------------------------------------------------------


def test_group_mean_and_sizes_equal_loops():
    rng = np.random.default_rng(0)
    x, groups, mask = rng.normal(size=(4, 8)), rng.integers(0, 3, (4, 8)), rng.random((4, 8)) < 0.7
    mask[0] = False
    means, sizes = np.zeros((4, 8)), np.zeros((4, 8), dtype=int)
    for i, t in itertools.product(range(4), range(8)):
        if mask[i, t]:
            peers = [x[i, u] for u in range(8) if mask[i, u] and groups[i, u] == groups[i, t]]
            means[i, t], sizes[i, t] = np.mean(peers), len(peers)
    counts = [[len(set(groups[i][mask[i]]))] for i in range(4)]
    g, m = torch.tensor(groups), torch.tensor(mask)
    np.testing.assert_allclose(terms.group_mean(torch.tensor(x), g, m), means, atol=1e-12)
    size, count = terms.group_sizes(g, m)
    assert size.tolist() == sizes.tolist() and count.tolist() == counts


@pytest.mark.parametrize("weigh", [terms.per_sequence, terms.per_token])
def test_token_weights_sum_to_one_and_are_zero_where_masked(weigh):
    mask = torch.tensor([[1, 1, 0], [1, 0, 0], [0, 0, 0], [1, 1, 1]]).bool()
    weights = weigh(mask, torch.float64)
    assert math.isclose(float(weights.sum()), 1, rel_tol=1e-12)
    assert weights[~mask].eq(0).all() and weights[mask].gt(0).all()


def test_each_completion_weighs_the_same_or_each_token_does():
    mask = torch.tensor([[1, 1, 0], [1, 0, 0], [0, 0, 0], [1, 1, 1]]).bool()
    assert terms.per_sequence(mask, torch.float64).sum(1).tolist() == pytest.approx([1 / 3, 1 / 3, 0, 1 / 3])
    assert terms.per_token(mask, torch.float64).sum(1).tolist() == pytest.approx([2 / 6, 1 / 6, 0, 3 / 6])


# -- ratios, clip, divergence ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ratio", "advantage", "surrogate", "clipped"),
    [
        (1.5, 1, 1.3, True),  # a good token that got likelier than 1 + high: cut
        (1.5, -1, -1.5, False),  # a bad one that got likelier: still pushed down
        (0.5, 1, 0.5, False),  # a good one that got less likely: still pushed up
        (0.5, -1, -0.8, True),  # a bad one that got less likely than 1 - low: cut
        (1.1, 1, 1.1, False),
        (0.9, -1, -0.9, False),
        (1.5, 0, 0.0, False),
    ],
)
def test_the_clip_is_pessimistic_on_both_sides(ratio, advantage, surrogate, clipped):
    value, cut = terms.clipped_surrogate(torch.tensor([[ratio]]), torch.tensor([[float(advantage)]]), 0.2, 0.3)
    assert float(value) == pytest.approx(surrogate) and bool(cut) is clipped


def test_through_has_the_value_of_one_and_the_gradient_of_the_other():
    value = torch.tensor([[2.0, 3.0]], dtype=torch.float64, requires_grad=True)
    logps = torch.tensor([[-1.0, -5.0]], dtype=torch.float64, requires_grad=True)
    out = terms.through(value, logps)
    out.sum().backward()
    assert out.tolist() == [[2.0, 3.0]] and not_none(logps.grad).tolist() == [[2.0, 3.0]] and value.grad is None


@pytest.mark.parametrize("estimator", ["k1", "k2", "k3"])
def test_kl_estimates_equal_the_reference_numbers(estimator):
    mask = INPUTS["mask"].bool()
    ours = terms.kl_estimate((INPUTS["logp"] - INPUTS["ref_logp"])[mask], estimator).mean()
    np.testing.assert_allclose(ours, REFS[f"verl.kl.{estimator}"]["mean"], rtol=1e-6)


@pytest.mark.parametrize("estimator", ["k1", "k3"])
def test_kl_estimates_are_unbiased(estimator):
    p = torch.tensor([0.5, 0.3, 0.15, 0.05], dtype=torch.float64)
    q = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64)
    exact = (p * (p / q).log()).sum()
    assert (p * terms.kl_estimate((p / q).log(), estimator)).sum() == pytest.approx(float(exact), rel=1e-12)


def test_unknown_kl_estimator_is_an_error():
    with pytest.raises(ValueError, match="'k1', 'k2' or 'k3', not 'k4'"):
        terms.kl_estimate(torch.zeros(1), "k4")
