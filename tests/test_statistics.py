"""Statistics of paired runs, against numbers made by hand, brute force, rliable and statsmodels."""

from itertools import product
from math import inf, isnan, nan

import numpy as np
import pytest
from tiny import global_random_state

from espo_gym.experiments.statistics import (
    holm,
    iqm,
    paired_difference,
    performance_profile,
    probability_of_improvement,
)


class TestPairedDifference:
    def test_by_hand(self):
        """Differences 1, 2, 3: mean 2, standard error 1 / sqrt 3, Student's quantile with 2 degrees 4.3027."""
        d = paired_difference(np.array([2.0, 4, 6]), np.array([1.0, 2, 3]))
        assert (d.mean, d.n) == (2, 3)
        assert d.low == pytest.approx(2 - 4.30265 / 3**0.5, abs=1e-4)
        assert d.high == pytest.approx(2 + 4.30265 / 3**0.5, abs=1e-4)
        assert d.p == pytest.approx(0.0742, abs=1e-4)  # 1 - t / sqrt(t^2 + 2) with t^2 = 12

    def test_flips_of_signs_by_all_of_them(self):
        x = np.random.default_rng(0).normal(0.5, 1, 7)
        means = [abs(np.mean(x * signs)) for signs in product([-1, 1], repeat=7)]
        share = np.mean(np.array(means) >= abs(x.mean()) - 1e-12)
        assert paired_difference(x, 0 * x).p_signs == pytest.approx(share)

    def test_tasks_are_averaged_within_a_seed(self):
        x = np.array([[1.0, 3], [4, 0], [2, 2]])
        assert paired_difference(x, 0 * x) == paired_difference(x.mean(1), np.zeros(3))

    def test_pairing_takes_out_what_the_seeds_share(self):
        seeds = np.array([0.0, 10, 20, 30])
        d = paired_difference(seeds + np.array([1, 1.1, 0.9, 1]), seeds)
        assert 0 < d.low < 1 < d.high

    def test_a_seed_without_a_score_is_left_out(self):
        x, y = np.array([1.0, nan, 3, 2]), np.array([0.0, 5, 1, nan])
        assert paired_difference(x, y) == paired_difference(x[[0, 2]], y[[0, 2]])

    def test_one_seed_has_no_interval_and_none_has_nothing(self):
        d = paired_difference(np.array([1.0]), np.array([0.5]))
        assert (d.mean, d.n) == (0.5, 1) and isnan(d.low) and isnan(d.p)
        assert paired_difference(np.array([nan]), np.array([0.5])).n == 0

    def test_the_same_difference_on_every_seed(self):
        """No variance to divide by: p is that of n equal signs, and of no difference at all 1."""
        d = paired_difference(np.full(5, 0.5), np.full(5, 0.25))
        assert (d.mean, d.low, d.high, d.p, d.p_signs) == (0.25, 0.25, 0.25, 2 / 2**5, 2 / 2**5)
        assert paired_difference(np.ones(5), np.ones(5)).p == 1

    def test_shapes_must_be_equal(self):
        with pytest.raises(ValueError, match="one shape"):
            paired_difference(np.ones(3), np.ones(2))


class TestHolm:
    def test_by_hand(self):
        assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
        assert holm([0.6, 0.7]) == [1.0, 1.0]

    def test_against_statsmodels(self):
        multitest = pytest.importorskip("statsmodels.stats.multitest")
        p = np.random.default_rng(0).uniform(0, 0.2, 9).tolist()
        assert holm(p) == pytest.approx(multitest.multipletests(p, method="holm")[1])

    def test_what_was_not_tested_does_not_count(self):
        adjusted = holm([0.01, nan, 0.03])
        assert isnan(adjusted[1]) and [adjusted[0], adjusted[2]] == pytest.approx([0.02, 0.03])


SCORES = np.random.default_rng(1).normal(size=(2, 10, 3))


class TestRliablesEstimators:
    def test_points_equal_rliables(self):
        metrics = pytest.importorskip("rliable.metrics")
        x, y = SCORES
        assert float(iqm(x)) == pytest.approx(metrics.aggregate_iqm(x))
        assert float(probability_of_improvement(x, y)) == pytest.approx(metrics.probability_of_improvement(x, y))

    def test_intervals_are_near_rliables(self):
        """Which draws from NumPy's global stream: the two can only be near each other."""
        library, metrics = pytest.importorskip("rliable.library"), pytest.importorskip("rliable.metrics")
        x = SCORES[0]
        _, theirs = library.get_interval_estimates({"x": x}, lambda s: np.array([metrics.aggregate_iqm(s)]), reps=5000)
        assert [iqm(x).low, iqm(x).high] == pytest.approx(theirs["x"][:, 0], abs=0.03)

    def test_interquartile_mean_by_hand(self):
        assert float(iqm(np.array([100.0, 1, 2, 3, 4, 5, 6, -100]))) == np.mean([2, 3, 4, 5])

    def test_probability_of_improvement_counts_pairs_of_runs(self):
        x, y = np.array([1.0, 2, 2, inf]), np.array([2.0, 0, 3, inf])
        wins = np.mean([1.0 if a > b else 0.5 if a == b else 0.0 for a, b in product(x, y)])
        assert float(probability_of_improvement(x, y)) == wins

    def test_probability_of_improvement_is_averaged_over_tasks(self):
        x, y = SCORES
        each = [float(probability_of_improvement(x[:, j], y[:, j])) for j in range(3)]
        assert float(probability_of_improvement(x, y)) == pytest.approx(np.mean(each))

    def test_intervals_by_all_resamples(self):
        """With three seeds the rarest resample has probability 1/27 > 2.5 %, so the interval is their whole range."""
        x, y = np.array([1.0, 5, 2]), np.array([3.0, 4, 0])
        draws = [list(rows) for rows in product(range(3), repeat=3)]
        means = [np.mean(x[rows]) for rows in draws]  # of 3 values a quarter of each side is none
        assert (iqm(x).low, iqm(x).high) == pytest.approx((min(means), max(means)))
        wins = [np.mean([a > b or 0.5 * (a == b) for a, b in product(x[rows], y[rows])]) for rows in draws]
        e = probability_of_improvement(x, y)
        assert (e.low, e.high) == pytest.approx((min(wins), max(wins)))

    def test_seeds_are_drawn_for_each_task_by_itself(self):
        """Two tasks with opposite scores: drawn together their mean would be 0 in every resample."""
        x = np.array([[-1.0, 1], [1, -1], [-1, 1], [1, -1]])
        assert iqm(x).low < 0 < iqm(x).high

    def test_performance_profile_counts_runs_above(self):
        x = np.array([[0.1, 0.5], [0.6, 0.9]])
        assert [float(e) for e in performance_profile(x, [0.0, 0.5, 0.9])] == [1.0, 0.5, 0.0]

    def test_a_seed_without_a_score_is_left_out(self):
        x = np.array([[1.0, 2], [nan, 9], [3, 4]])
        assert float(iqm(x)) == float(iqm(x[[0, 2]]))

    def test_one_seed_has_no_interval(self):
        assert float(iqm(np.array([0.5]))) == 0.5 and isnan(iqm(np.array([0.5])).low)

    def test_the_streams_are_owned(self):
        unchanged, x = global_random_state(), SCORES[0]
        first = iqm(x)
        np.testing.assert_equal([first.low, first.high], [iqm(x).low, iqm(x).high])
        assert unchanged()
