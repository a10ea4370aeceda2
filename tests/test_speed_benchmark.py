"""The speed benchmark's arithmetic on numbers made by hand, and that it runs; never how fast anything is."""

import importlib.util
import json
from importlib.metadata import version

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from benchmarks.speed import __main__ as program
from benchmarks.speed import goals, head, learner, measure, workload
from benchmarks.speed.goals import GOALS, Goal, Interval, Row
from espo_gym.envs import ModularArithmetic


def test_ours_and_the_peer_take_turns_and_the_first_of_each_is_not_counted():
    now, order = [0.0], []

    def work(name, *seconds):
        spent = iter(seconds)

        def run():
            order.append(name)
            now[0] += next(spent)

        return run

    ours, peer = measure.alternate(work("a", 9, 1, 2, 3), work("b", 9, 4, 5, 6), 3, clock=lambda: now[0])
    assert (ours, peer) == ([1, 2, 3], [4, 5, 6])
    assert order == ["b", "a", "a", "b", "b", "a", "a", "b"]


def test_a_ratio_is_the_median_over_rounds_with_an_interval_around_it():
    ratio = measure.ratio([1.0, 2.0, 1.0, 2.0, 1.0], [3.0, 6.0, 2.0, 10.0, 4.0])  # 3, 3, 2, 5, 4
    assert ratio.value == 3.0 and 2.0 <= ratio.low < 3.0 < ratio.high <= 5.0
    assert measure.ratio([2.0] * 5, [6.0] * 5) == Interval(3.0, 3.0, 3.0)
    rounds = 1 + np.random.default_rng(0).random(400)
    wide, narrow = measure.ratio([1.0] * 5, rounds[:5].tolist()), measure.ratio([1.0] * 400, rounds.tolist())
    assert narrow.high - narrow.low < (wide.high - wide.low) / 2 and narrow.low < 1.5 < narrow.high


def test_met_and_not_met():
    faster = Goal("X", "", "", target=3, stretch=4)
    assert [faster.verdict(x) for x in (2.99, 3.0, 4.0)] == ["not met", "met", "met, stretch too"]
    cheaper = Goal("X", "", "", target=10, at_most=True)
    assert [cheaper.verdict(x) for x in (10.1, 10.0, 1.0)] == ["not met", "met", "met"]
    assert faster.wanted() == ">= 3x (4x)" and cheaper.wanted() == "<= 10x"


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (3.417, "x", "3.42x"),
        (61.4, "%", "61 %"),
        (0.094, "%", "0.094 %"),
        (4.2e-7, "nat", "4.2e-07 nat"),
        (9, "us", "9 us"),
    ],
)
def test_numbers_are_written_with_their_units(value, unit, text):
    assert goals.number(value, unit) == text


def test_the_table_says_what_is_not_met():
    rows = [
        Row("G1", "micro-batch 64", Interval(2.5, 2.4, 2.61), "1 s against 2.5 s"),
        Row("G9 token", "5 rollouts", Interval.exactly(1.7e-6), "largest"),
    ]
    head_row, rule, first, second = goals.table(rows).splitlines()
    assert head_row.count("|") == rule.count("|") == first.count("|") == second.count("|")
    assert "2.5x [2.4x, 2.61x] | >= 3x (4x) | not met | 1 s against 2.5 s" in first
    assert "| 1.7e-06 nat | <= 2.0e-05 nat | met |" in second


def test_every_goal_is_measured_and_every_measurement_has_a_goal():
    known = {name.split()[0] for name in GOALS}
    assert known == {*program.MEASURES, "G11"} and set(program.NEEDS_TRL) <= known


def test_peak_memory_is_that_of_the_run():
    kept = []
    assert measure.peak_of(lambda: kept.append(np.ones(2**25))) > 200e6  # 256 MB, and some may have lain free
    assert measure.peak_of(lambda: None) < 50e6


def test_completions_end_by_themselves_often_enough():
    algorithm = workload.grpo(workload.SMALL)
    rollout = algorithm.collect_rollout()
    lengths = rollout.mask.sum(1)
    assert 20 < lengths.float().mean() < 45 and lengths.max() == workload.MAX_NEW
    assert 0.05 < rollout.truncated.float().mean() < 0.4 and len(lengths.unique()) > 30
    assert 0.9e6 < sum(p.numel() for p in algorithm.policy.model.parameters()) < 1.2e6


@pytest.mark.parametrize(("silent", "least", "most"), [(False, 0.0, 0.0), (True, 1 / 3, 0.5)])
def test_the_share_without_advantage_is_what_it_is_said_to_be(silent, least, most):
    rewards = torch.tensor([float(workload.correct(i, silent)) for i in range(workload.ROWS)]).view(-1, workload.GROUP)
    assert least <= float((rewards.std(1) == 0).float().mean()) <= most
    verdicts = workload.Rewarded(silent).verify([""] * workload.ROWS, ModularArithmetic().problems("train", [0]) * 128)
    assert [v.reward for v in verdicts] == rewards.flatten().tolist()


def test_the_padded_step_is_the_step():
    ours, peer = workload.grpo(workload.SMALL), workload.grpo(workload.SMALL)
    rollout = ours.collect_rollout().rows(torch.arange(16))
    ours.train(rollout)
    learner.padded_step(peer, rollout)
    assert learner._distance(ours, peer) < 1e-5
    for a, b in zip(ours.policy.parameters(), peer.policy.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=3e-6, rtol=0)  # Adam's first step is the learning rate, whatever its sign


def test_the_peer_of_the_head_is_a_log_softmax(monkeypatch):
    monkeypatch.setattr(head, "VOCABULARY", 50)
    hidden, weight, targets, slope = head._inputs(6)
    logps, gradient = head.case("full", 6)()
    logits = hidden.detach().double() @ weight.detach().double().T
    probs = logits.softmax(1)
    torch.testing.assert_close(logps.double(), probs.log()[torch.arange(6), targets], rtol=1e-5, atol=1e-5)
    wanted = slope[:, None] * (weight.detach()[targets] - probs.float() @ weight.detach())
    torch.testing.assert_close(gradient, wanted, rtol=1e-4, atol=1e-5)


def test_it_runs_and_writes_what_it_prints(tmp_path):
    result = CliRunner().invoke(program.main, ["--goal", "G9", "--repeats", "1", "--out", str(tmp_path)])
    assert result.exit_code == 0, result.output
    table = (tmp_path / "speed.md").read_text()
    assert table.strip() in result.output and "G9 token" in table and f"torch {version('torch')}" in table
    written = json.loads((tmp_path / "speed.json").read_text())
    assert [row["verdict"] for row in written["rows"]] == ["met", "met"] and "commit" in written["notes"][0]


def test_what_is_missing_is_named(monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "trl" else found(name, *a))
    result = CliRunner().invoke(program.main, ["--goal", "G1", "--goal", "G9"])
    assert result.exit_code == 1 and "G1 are measured beside TRL, which is not installed" in result.output
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    result = CliRunner().invoke(program.main, ["--gpu"])
    assert result.exit_code == 1 and "no GPU" in result.output
