"""Intervals over seeds: inside [0, 1] for shares, true as often as they claim, and none where nothing varies."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.optimize import brentq
from scipy.stats import t as student

from espo_gym.estimate import Estimate, over_seeds
from espo_gym.experiments.comparison_report import mean_interval
from espo_gym.experiments.statistics import iqm, paired_difference, performance_profile, probability_of_improvement

SHARES = st.one_of(st.floats(0, 1), st.sampled_from([0.0, 1.0, 0.5, 1e-300, 1 - 1e-16, 0.1]))
SEEDS = st.integers(1, 12).flatmap(lambda n: arrays(np.float64, n, elements=SHARES))
PAIRED = st.integers(1, 12).flatmap(lambda n: arrays(np.float64, (2, n), elements=SHARES))


@given(SEEDS)
@settings(max_examples=100, deadline=None)
def test_an_interval_of_shares_is_a_range_of_shares_and_holds_the_mean(values):
    mean, low, high = map(float, over_seeds(values, share=True))
    if math.isnan(low):
        assert math.isnan(high) and (len(values) == 1 or np.ptp(values) <= 1e-12 * values.max())
    else:
        assert 0 <= low <= mean <= high <= 1 and low < high


@given(PAIRED)
@settings(max_examples=30, deadline=None)
def test_no_number_of_a_report_on_shares_leaves_their_range(values):
    x, y = values
    d = paired_difference(x, y, limit=1)
    assert math.isnan(d.low) or (-1 <= d.low <= d.mean + 1e-12 and d.mean - 1e-12 <= d.high <= 1)
    free = paired_difference(x, y)
    assert (d.mean, d.p, d.p_signs) == pytest.approx((free.mean, free.p, free.p_signs), nan_ok=True)
    assert (d.low > 0, d.high < 0) == (free.low > 0, free.high < 0), "what is cut off says nothing about 0"
    for estimate in (iqm(x), *performance_profile(x, [0.3]), probability_of_improvement(x, y)):
        assert math.isnan(estimate.low) or 0 <= estimate.low < estimate.high <= 1


@pytest.mark.parametrize("values", [[0.0, 1.0, 1.0], [0.84, 0.86, 0.85], [0.9, 1.0, 1.0, 1.0], [0.02, 0.9]])
def test_its_ends_solve_the_equation(values):
    """(mean - mu)^2 = t^2 f mu (1 - mu) / n, f the variance relative to that of coins, and 1 at most."""
    x = np.array(values)
    n, mean = len(x), x.mean()
    f = min(x.var(ddof=1) / (mean * (1 - mean)), 1)
    excess = lambda mu: (mean - mu) ** 2 - student.ppf(0.975, n - 1) ** 2 * f * mu * (1 - mu) / n  # noqa: E731
    assert over_seeds(x, share=True)[1:] == pytest.approx((brentq(excess, 0, mean), brentq(excess, mean, 1)))


def test_of_seeds_that_hardly_differ_it_is_students():
    x = np.array([0.500, 0.503, 0.499, 0.502])
    np.testing.assert_allclose(over_seeds(x, share=True), over_seeds(x, share=False), atol=1e-4)
    half = student.ppf(0.975, 3) * x.std(ddof=1) / 2
    assert over_seeds(x, share=False) == pytest.approx((x.mean(), x.mean() - half, x.mean() + half))


def test_where_nothing_varies_there_is_no_interval_and_that_is_said():
    assert (
        mean_interval(np.full(3, 0.875), True) == mean_interval(np.full(3, 0.875), False) == "0.875 (equal on 3 seeds)"
    )
    assert mean_interval(np.array([0.875]), True) == "0.875 (one seed)"
    assert mean_interval(np.array([0.875, np.nan]), True) == "0.875 (one seed)", "a run has not finished"
    assert mean_interval(np.array([np.nan]), True) == "-"
    assert mean_interval(np.array([1.0, 1.0, 0.625]), True).startswith("0.875 [0.")
    assert str(iqm(np.ones(3))) == str(Estimate(1.0)) == "1.000"
    assert str(paired_difference(np.full(3, 0.5), np.full(3, 0.25), limit=1)) == "+0.250 (on each of 3 seeds)"


KINDS = {
    "coins": (lambda rng, size: (rng.random(size) < 0.8).astype(float), 0.8),
    "two modes": (
        lambda rng, size: np.where(rng.random(size) < 0.5, rng.beta(170, 30, size), rng.beta(4, 196, size)),
        0.435,
    ),
    "like each other": (lambda rng, size: rng.beta(85, 15, size), 0.85),
    "near 1": (lambda rng, size: rng.beta(29.1, 0.9, size), 0.97),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n", [3, 5, 10])
def test_it_is_true_as_often_as_students_cut_off_at_0_and_1_and_more(kind, n):
    """Given that seeds differ. With three seeds of two modes, one of four times all are of one, and no method knows."""
    draw, truth = KINDS[kind]
    x = draw(np.random.default_rng(n), (n, 20_000))
    x = x[:, np.ptp(x, axis=0) > 0]
    covered = {share: _coverage(over_seeds(x, share=share), truth) for share in (True, False)}
    assert covered[True] >= covered[False] - 0.03
    if kind != "two modes":
        assert covered[True] >= 0.92
    elif n > 3:
        assert covered[True] >= 0.93


def _coverage(interval, truth: float) -> float:
    _, low, high = interval
    return float(((low <= truth) & (truth <= high)).mean())
