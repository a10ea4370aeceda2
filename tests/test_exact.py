"""Bias of the estimators against the true gradient, on problems small enough to go through every batch there is.

Nothing is sampled: an expectation is a finite sum, and "unbiased" means equal up to rounding.
"""

import itertools
import math
from functools import cache
from pathlib import Path
from statistics import mean

import pytest
import torch
from click.testing import CliRunner

from benchmarks import estimator_bias
from espo_gym.algorithms import ALGORITHMS, CISPO, DAPO, ESPO, GMPO, GRPO, GSPO, PPO, RLOO, SAPO, DrGRPO, ReinforcePP
from espo_gym.algorithms.terms import per_constant, per_sequence, through
from espo_gym.testing.exact import Group, World, compare, estimator

EQUAL, RAGGED = World(equal_lengths=True), World(equal_lengths=False)
OFF = World(equal_lengths=False, step=0.3)
NO_CLIP = {"clip_low": 1.0, "clip_high": 1e9}
ROUNDING = 1e-9  # degrees, or of a scale
worlds = pytest.mark.parametrize("world", [EQUAL, RAGGED], ids=["equal", "ragged"])


@cache
def bias(world: World, cls, group_size: int = 4, n_groups: int = 1, **hyperparameters):
    return world.bias(estimator(cls, **hyperparameters), group_size=group_size, n_groups=n_groups)


# -- the problems themselves -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("world", [EQUAL, RAGGED, OFF], ids=["equal", "ragged", "off"])
def test_the_true_gradient_is_that_of_the_expected_reward(world):
    logits = world.new.clone().requires_grad_()
    total = torch.zeros((), dtype=torch.float64)
    for problem, (i, y) in itertools.product(range(2), enumerate(world.completions)):
        rows = [world.prefixes.index(y[:t]) for t in range(len(y))]
        chance = math.prod(logits[problem, row].softmax(-1)[token] for row, token in zip(rows, y, strict=True))
        total = total + chance * world.rewards[problem, i] / 2
    total.backward()
    torch.testing.assert_close(world.gradient, logits.grad.flatten(), rtol=1e-12, atol=1e-15)
    assert world.gradient.norm() > 0.05


@worlds
def test_probabilities_add_up_and_the_critic_is_right(world):
    torch.testing.assert_close(world.old_probabilities.sum(1), torch.ones(2, dtype=torch.float64))
    for size in (1, 2, 5):
        groups = world.groups(size)
        assert sum(g.probability for g in groups) == pytest.approx(1, abs=1e-12)
        assert len(groups) == 2 * math.comb(size + 3, 3)
    expected = (world.old_probabilities * world.rewards).sum(1)
    torch.testing.assert_close(world.values[:, :, 0], expected[:, None].expand(2, 4))
    assert expected[0] > 0.6 > 0.4 > expected[1]  # an easy and a hard one


@pytest.mark.parametrize("cls", [RLOO, GRPO, ESPO])
def test_going_through_unordered_groups_equals_going_through_all_sequences(cls):
    algo = estimator(cls)
    mean = torch.zeros_like(OFF.gradient)
    for problem in range(2):
        for members in itertools.product(range(4), repeat=3):
            chance = math.prod(float(OFF.old_probabilities[problem, y]) for y in members) / 2
            mean += chance * OFF.estimate(algo, (Group(problem, members, chance),))
    there, here = compare(mean, float(mean @ mean), OFF.gradient), bias(OFF, cls, group_size=3)
    assert (there.angle, there.scale) == pytest.approx((here.angle, here.scale), rel=1e-9)


# -- unbiased --------------------------------------------------------------------------------------------------------


@worlds
@pytest.mark.parametrize(("group_size", "n_groups"), [(2, 1), (4, 1), (8, 1), (2, 2)])
def test_dr_grpo_is_unbiased_up_to_its_constant_scale(world, group_size, n_groups):
    found = bias(world, DrGRPO, group_size, n_groups)
    assert found.angle < ROUNDING and found.scale == pytest.approx(1 - 1 / group_size, abs=1e-12)


def test_rloo_is_unbiased_where_completions_are_equally_long():
    for group_size in (2, 4, 8):
        found = bias(EQUAL, RLOO, group_size)
        assert found.angle < ROUNDING and found.scale == pytest.approx(1 / 2, abs=1e-12)  # 2 tokens a completion


class SummingRLOO(RLOO):
    """RLOO whose weights do not depend on the lengths."""

    def token_weights(self, batch):
        return per_constant(batch.mask, batch.logps.dtype, 1)


def test_rloo_owes_its_bias_to_the_mean_over_tokens_and_not_to_its_advantages():
    assert bias(RAGGED, RLOO).angle > 1
    found = bias(RAGGED, SummingRLOO)
    assert found.angle < ROUNDING and found.scale == pytest.approx(1, abs=1e-12)


# -- the known biases ------------------------------------------------------------------------------------------------


def test_the_division_by_the_std_turns_the_gradient_and_more_so_in_larger_groups():
    angles = [bias(EQUAL, GRPO, size).angle for size in (2, 4, 8)]
    assert angles[0] < ROUNDING  # in a pair that differs the std is always the same
    assert 0.1 < angles[1] < angles[2]


class LongestMatters(DrGRPO):
    """Dr. GRPO with GRPO's mean over the tokens of a completion."""

    def token_weights(self, batch):
        return per_sequence(batch.mask, batch.logps.dtype)


def test_the_division_by_the_length_turns_the_gradient():
    assert bias(EQUAL, LongestMatters).angle < ROUNDING
    assert bias(RAGGED, LongestMatters).angle > 5
    for seed in range(5):  # by a completion's length, and by the batch's
        world = World(equal_lengths=False, seed=seed)
        assert bias(world, GRPO).angle > 2 * bias(world, ReinforcePP).angle > 1


@worlds
def test_on_policy_algorithms_of_equal_weights_and_advantages_are_one(world):
    for same in ((GRPO, GSPO, GMPO, SAPO), (CISPO, ReinforcePP)):
        first, *others = (bias(world, cls) for cls in same)
        for other in others:
            assert vars(other) == pytest.approx(vars(first), rel=1e-9)


def test_the_weights_of_entropy_groups_are_a_bias_of_their_own():
    assert bias(EQUAL, ESPO).angle == pytest.approx(bias(EQUAL, GRPO).angle, rel=1e-9)  # two tokens: two groups of one
    assert abs(bias(RAGGED, ESPO).angle - bias(RAGGED, GSPO).angle) > 1e-3
    assert bias(RAGGED, ESPO, group_weighting="tokens").angle == pytest.approx(bias(RAGGED, GSPO).angle, rel=1e-9)


@worlds
def test_dynamic_sampling_raises_the_signal_and_leaves_the_direction(world):
    # One group a batch: those thrown away had no gradient, so their share is a scale.
    kept, all_of_them = bias(world, DAPO), bias(world, DAPO, dynamic_sampling=False)
    assert kept.angle == pytest.approx(all_of_them.angle, rel=1e-6)
    assert kept.noise < all_of_them.noise and kept.scale > all_of_them.scale


def test_whitened_advantages_are_biased_even_with_a_true_critic():
    assert bias(EQUAL, PPO).angle > 1 and bias(RAGGED, PPO).angle > 1


# -- off policy ------------------------------------------------------------------------------------------------------


class WholeRatio(DrGRPO):
    """The importance ratio of the whole completion, which is the true one."""

    def ratios(self, batch):
        return through(((batch.logps - batch.old_logps) * batch.mask).sum(1, keepdim=True).exp(), batch.logps)


def test_off_policy_the_ratio_of_the_whole_completion_is_unbiased_and_that_of_a_token_is_not():
    found = bias(OFF, WholeRatio, **NO_CLIP)
    assert found.angle < ROUNDING and found.scale == pytest.approx(3 / 4, abs=1e-12)
    assert bias(OFF, DrGRPO, **NO_CLIP).angle > 1


MOVED = [OFF, *(World(equal_lengths=False, step=0.3, seed=seed) for seed in range(1, 5))]


def test_the_clip_turns_the_gradient_and_takes_noise_away():
    for world in MOVED:
        assert bias(world, WholeRatio, **NO_CLIP).angle < ROUNDING
    assert sum(bias(world, WholeRatio).angle > 1 for world in MOVED) >= 4
    clipped, free = ([bias(world, ReinforcePP, **h) for world in MOVED] for h in ({}, NO_CLIP))
    assert mean(b.angle for b in clipped) > mean(b.angle for b in free) + 1
    assert mean(b.noise for b in clipped) < mean(b.noise for b in free)
    assert bias(RAGGED, ReinforcePP, **NO_CLIP) == bias(RAGGED, ReinforcePP)  # on policy it does nothing
    assert bias(OFF, CISPO).angle == pytest.approx(bias(OFF, ReinforcePP, **NO_CLIP).angle, rel=1e-9)


def test_a_clip_far_narrower_than_the_step_leaves_little_of_the_direction():
    narrow, wide = (mean(bias(w, GSPO, **h).angle for w in MOVED) for h in ({}, {"clip_low": 0.2, "clip_high": 0.2}))
    assert narrow > 2 * wide > 2


# -- the table -------------------------------------------------------------------------------------------------------


def test_the_benchmark_prints_a_row_for_every_algorithm(monkeypatch):
    monkeypatch.setattr(estimator_bias, "SEEDS", range(1))
    result = CliRunner().invoke(estimator_bias.main, ["--group-size", "2"], catch_exceptions=False)
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in result.output.splitlines()]
    assert len({len(row) for row in rows}) == 1
    found = {row[0]: row[1:] for row in rows[2:]}
    assert set(found) >= {cls.__name__ for cls in ALGORITHMS.values()}
    assert found["DrGRPO"][:2] == found["DrGRPO"][3:5] == found["RLOO"][:2] == ["0", "0"]


def test_the_page_shows_what_the_benchmark_prints(monkeypatch):
    monkeypatch.setattr(estimator_bias, "COLUMNS", dict(list(estimator_bias.COLUMNS.items())[:1]))
    page = (Path(__file__).parents[1] / "docs" / "conformance.md").read_text()
    row = estimator_bias.row("GRPO", group_size=6)
    assert any(line.startswith(row) for line in page.splitlines())
