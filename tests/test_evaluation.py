"""Evaluation: estimators against brute force, intervals by simulation, and what it reports on a run."""

import itertools
import pickle
from functools import partial

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv
from tiny import teaching_policy, tiny_policy

from espo_gym.collect import collect
from espo_gym.environment import as_vector_env
from espo_gym.envs import Addition, MathVectorEnv, UnicodeText, Verdict
from espo_gym.estimate import Estimate
from espo_gym.evaluation import evaluate, majority, pass_at_k
from espo_gym.sampling import Sampling

SAMPLING = Sampling(max_completion_tokens=40)

# -- estimators ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", range(1, 8))
def test_pass_at_k_is_the_share_of_all_subsets_that_hold_a_correct_one(n):
    for c in range(n + 1):
        outcomes = [True] * c + [False] * (n - c)
        for k in range(1, n + 1):
            subsets = list(itertools.combinations(outcomes, k))
            assert pass_at_k(n, c, k) == pytest.approx(sum(map(any, subsets)) / len(subsets), rel=1e-12)


def verdict(answer):
    if answer is None:
        return Verdict("no_answer")
    return Verdict("correct" if answer == "r" else "incorrect", answer=answer)


@pytest.mark.parametrize("n", range(1, 6))
def test_majority_is_the_share_of_tie_breaks_that_are_correct(n):
    for answers in itertools.product(["r", "a", "b", None], repeat=n):
        given = [a for a in answers if a is not None]
        winners = [a for a in set(given) if given.count(a) == max(given.count(b) for b in given)]
        expected = winners.count("r") / len(winners) if winners else 0.0
        assert majority([verdict(a) for a in answers]) == pytest.approx(expected)


def test_votes_are_counted_on_the_normal_form_of_an_answer():
    half = [Verdict("correct", answer=a, normalized="1/2") for a in ("0.5", "1/2", "\\frac12")]
    other = [Verdict("incorrect", answer="3", normalized="3")] * 2
    assert majority(half + other) == 1.0


# -- intervals -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [20, 64, 256])
@pytest.mark.parametrize("p", [0.05, 0.3, 0.5, 0.9])
def test_the_interval_of_a_share_covers_the_truth_about_95_times_in_100(p, n):
    """3000 simulated evaluations; 91 to 98.5 % allows for discreteness and for six standard errors of the count."""
    rng = np.random.default_rng([n, int(100 * p)])
    draws = rng.random((3000, n)) < p
    estimates = [Estimate.of(row.astype(float)) for row in draws]
    covered = np.mean([e.low <= p <= e.high for e in estimates])
    assert 0.91 < covered < 0.985


@pytest.mark.parametrize("n", [64, 256])
def test_the_interval_of_a_mean_over_problems_covers_the_truth_too(n):
    """avg@8 where problems differ in difficulty: completions of one problem are not independent."""
    rng = np.random.default_rng(n)
    difficulty = rng.beta(0.5, 0.5, (2000, n))
    means = rng.binomial(8, difficulty) / 8
    covered = np.mean([(e := Estimate.of(row)).low <= 0.5 <= e.high for row in means])
    assert 0.92 < covered < 0.98
    naive = Estimate.of((rng.random(8 * n) < 0.5).astype(float))  # as if 8 n problems had been tried
    assert Estimate.of(means[0]).high - Estimate.of(means[0]).low > 1.5 * (naive.high - naive.low)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_the_interval_does_not_shrink_to_a_point_where_all_values_are_equal(value):
    estimate = Estimate.of([value] * 20)
    assert estimate == value and 0.1 < estimate.high - estimate.low < 0.3
    assert 0 <= estimate.low <= value <= estimate.high <= 1


@pytest.mark.parametrize("p", np.linspace(0, 1, 11))
@pytest.mark.parametrize("n", [1, 2, 10])
def test_an_interval_holds_its_value_and_stays_between_0_and_1(p, n):
    estimate = Estimate.of([p] * n)
    assert 0 <= estimate.low <= estimate.value <= estimate.high <= 1
    assert estimate.value == pytest.approx(p)


def test_more_problems_make_a_narrower_interval():
    widths = [(e := Estimate.of([0.0, 1.0] * n)).high - e.low for n in (5, 20, 80)]
    assert widths[0] > 1.7 * widths[1] > 1.7 * 1.9 * widths[2]


def test_an_estimate_is_a_float_with_two_ends():
    estimate = Estimate.of([1.0, 0.0, 1.0, 1.0])
    assert isinstance(estimate, float) and estimate == 0.75 == estimate.value and estimate + 0.25 == 1
    assert f"{estimate:.2f}" == "0.75" and str(estimate).startswith("0.750 [")
    again = pickle.loads(pickle.dumps(estimate))
    assert (again, again.low, again.high) == (estimate, estimate.low, estimate.high) and type(again) is Estimate


def test_no_values_are_no_estimate():
    assert np.isnan(Estimate.of([])) and np.isnan(Estimate.of([]).low)


# -- a whole evaluation ----------------------------------------------------------------------------------------------


def addition(n=16, **kwargs):
    return MathVectorEnv(Addition(**kwargs), num_envs=n)


def test_the_figures_are_those_of_the_completions():
    result = evaluate(teaching_policy(), addition(), n_problems=24, k=4, sampling=SAMPLING, details=True)
    greedy, rows = [], []
    for problem in result.problems:
        a, b = map(int, problem.prompt.removesuffix("=").split("+"))
        right = lambda text, s=str(a + b): text.rpartition(",")[2] == s  # noqa: E731
        greedy.append(right(problem.greedy) and problem.greedy_verdict.status != "no_answer")
        rows.append(
            [right(t) and v.status != "no_answer" for t, v in zip(problem.samples, problem.verdicts, strict=True)]
        )
        assert [v.correct for v in problem.verdicts] == rows[-1]
    assert len(rows) == result.n_problems == 24 and all(len(row) == 4 for row in rows)
    assert result["greedy"] == pytest.approx(np.mean(greedy))
    assert result["avg@4"] == pytest.approx(np.mean(rows))
    assert result["pass@4"] == pytest.approx(np.mean([any(row) for row in rows]))
    assert result["pass@4"] > result["avg@4"] > 0
    assert set(result) == {"greedy", "avg@4", "pass@4", "maj@4"}
    assert (result.split, result.no_verdict) == ("test", 0) and "greedy 0." in str(result)


def test_the_problems_are_the_same_each_time_whatever_the_seed_and_the_number_of_rows():
    prompts = [
        [
            p.prompt
            for p in evaluate(tiny_policy(), env, n_problems=10, k=k, sampling=s, seed=seed, details=True).problems
        ]
        for env, k, seed, s in [
            (addition(16), 2, 0, Sampling(max_completion_tokens=2)),
            (addition(3), 0, 1, Sampling(max_completion_tokens=3)),
            (addition(64), 1, 2, Sampling(0.5, max_completion_tokens=2)),
        ]
    ]
    assert prompts[0] == prompts[1] == prompts[2] and len(set(prompts[0])) == 10


def test_the_same_evaluation_gives_the_same_figures_and_another_seed_other_samples():
    runs = [
        evaluate(teaching_policy(), addition(n), n_problems=12, k=2, sampling=SAMPLING, seed=s, details=True)
        for n, s in ((16, 0), (5, 0), (16, 1))
    ]
    assert dict(runs[0]) == dict(runs[1]) and runs[0].problems == runs[1].problems
    assert [p.greedy for p in runs[0].problems] == [p.greedy for p in runs[2].problems]
    assert [p.samples for p in runs[0].problems] != [p.samples for p in runs[2].problems]


def test_splits_are_different_problems():
    def prompts(split):
        result = evaluate(
            tiny_policy(),
            addition(),
            split=split,
            n_problems=50,
            k=0,
            sampling=Sampling(max_completion_tokens=1),
            details=True,
        )
        assert result.split == split
        return {p.prompt for p in result.problems}

    train, validation, test = map(prompts, ("train", "validation", "test"))
    assert len(train) > 40 and not train & validation and not train & test and not validation & test


def test_an_unknown_split_is_an_error_that_names_the_known_ones():
    with pytest.raises(ValueError, match=r"dev.*(train|validation|test)"):
        evaluate(tiny_policy(), addition(), split="dev", sampling=SAMPLING)


def test_without_samples_there_is_greedy_alone_and_without_details_no_problems():
    result = evaluate(tiny_policy(), addition(), n_problems=4, k=0, sampling=Sampling(max_completion_tokens=2))
    assert list(result) == ["greedy"] and result.problems == []


class Small(Addition):
    def size(self, split):
        return 5


def test_a_small_data_set_is_gone_through_once():
    env = MathVectorEnv(Small(), num_envs=4)
    result = evaluate(tiny_policy(), env, n_problems=100, k=1, sampling=Sampling(max_completion_tokens=2), details=True)
    assert result.n_problems == 5 == len({p.prompt for p in result.problems})


class Shaky(Addition):
    """Every second problem cannot be verified."""

    def verify(self, completions, problems):
        verdicts = super().verify(completions, problems)
        failed = Verdict("no_verdict", reason="timeout")
        return [failed if p.data["a"] % 2 else v for v, p in zip(verdicts, problems, strict=True)]


def test_completions_without_a_verdict_are_in_none_of_the_figures():
    shaky = evaluate(
        teaching_policy(), MathVectorEnv(Shaky(), num_envs=32), n_problems=32, k=2, sampling=SAMPLING, details=True
    )
    whole = evaluate(teaching_policy(), addition(32), n_problems=32, k=2, sampling=SAMPLING, details=True)
    kept = [p for p in whole.problems if int(p.prompt.split("+")[0]) % 2 == 0]
    assert 5 < len(kept) < 27
    assert shaky["greedy"] == pytest.approx(np.mean([p.greedy_verdict.correct for p in kept]))
    assert shaky["avg@2"] == pytest.approx(np.mean([v.correct for p in kept for v in p.verdicts]))
    assert shaky["pass@2"] == pytest.approx(np.mean([any(v.correct for v in p.verdicts) for p in kept]))
    unknown = [v for p in shaky.problems for v in (p.greedy_verdict, *p.verdicts) if not v.has_verdict]
    assert shaky.no_verdict == len(unknown) > 0


def test_an_environment_without_splits_needs_to_be_told():
    env = as_vector_env(NoSplits(), 4)
    with pytest.raises(ValueError, match=r"has no splits.*evaluate\(split=None\)"):
        evaluate(tiny_policy(), env)
    sampling = Sampling(max_completion_tokens=20)
    result = evaluate(tiny_policy(), env, split=None, n_problems=10, k=2, sampling=sampling, details=True)
    finished = [v.reason != "truncated" for p in result.problems for v in p.verdicts]
    assert result["avg@2"] == pytest.approx(np.mean(finished)) and 0 < sum(finished) < 20
    assert result.split is None and [p.prompt for p in result.problems] == [f"{i}=" for i in range(10)]


def test_environments_in_other_processes_have_their_splits_and_system_prompt():
    make = [partial(gymnasium.make, "espo_gym/Addition-v0", digits=2, system_prompt="Add.")] * 2
    envs = {cls: cls(make) for cls in (AsyncVectorEnv, SyncVectorEnv)}
    policy, sampling = tiny_policy("gpt2", tokenizer="byte", context=256), Sampling(max_completion_tokens=2)
    try:
        there, here = (
            evaluate(policy, env, split="validation", n_problems=5, k=1, sampling=sampling, details=True)
            for env in envs.values()
        )
        assert there.problems == here.problems and there.split == "validation"
        asked = [collect(env, policy, [0, 0], [0, 1], sampling).prompt_ids for env in envs.values()]
        assert torch.equal(*asked) and "Add." in policy.decode(asked[0].tolist())[0]
    finally:
        envs[AsyncVectorEnv].close()


def test_environments_from_elsewhere_in_other_processes_have_no_splits():
    env = AsyncVectorEnv([NoSplits] * 2)
    try:
        with pytest.raises(ValueError, match="AsyncVectorEnv has no splits"):
            evaluate(tiny_policy(), env)
        assert evaluate(tiny_policy(), env, split=None, n_problems=2, k=0, sampling=Sampling(max_completion_tokens=2))
    finally:
        env.close()


class NoSplits(gymnasium.Env):
    """From elsewhere; whatever one says is right, if one comes to an end."""

    observation_space, action_space = UnicodeText(10), UnicodeText(100)

    def reset(self, *, seed=None, options=None):
        return f"{seed}=", {}

    def step(self, action):
        return "", 1.0, True, False, {"is_success": True}


def test_an_evaluation_can_be_pickled():
    result = evaluate(
        tiny_policy(), addition(), n_problems=3, k=1, sampling=Sampling(max_completion_tokens=2), details=True
    )
    again = pickle.loads(pickle.dumps(result))
    assert dict(again) == dict(result) and again.problems == result.problems and again.split == "test"
