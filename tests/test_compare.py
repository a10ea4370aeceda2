"""Comparisons: equal terms at every seed, budgets that are equal, a folder that a killed comparison resumes from."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from runs import read_points
from tiny import teaching_policy

from espo_gym.experiments import compare as module
from espo_gym.experiments.budget import BudgetCallback, text_fingerprint, weights_fingerprint
from espo_gym.experiments.compare import compare, locked
from espo_gym.experiments.comparison import ComparedRun, Comparison, seed_folder
from espo_gym.experiments.comparison_report import comparison_report
from espo_gym.experiments.config import RunConfig
from espo_gym.experiments.fairness import fairness_checks
from espo_gym.experiments.pairs import compare_pairs, resolved
from espo_gym.experiments.setting import Entry
from espo_gym.experiments.statistics import paired_difference
from espo_gym.files import write_json

ENTRIES = ["espo", "grpo", "dapo"]
SETTINGS: dict[str, Any] = {
    "hyperparameters": {"rollout_size": 32, "n_minibatches": 2, "max_completion_tokens": 32},
    "timesteps": 64,
    "eval_problems": 4,
    "eval_k": 2,
    "save_every": 32,
    "log": lambda _: None,
}


def run(out: Path, entries=("espo", "grpo"), **changes) -> Comparison:
    return compare(entries, out=out, **({"seeds": 2, "jobs": 1} | SETTINGS | changes))


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A comparison of three algorithms; tests must not change it."""
    out = tmp_path_factory.mktemp("comparisons") / "finished"
    run(out, ENTRIES)
    return out


PATHS = os.pathsep.join(map(str, (Path(__file__).parent, Path(__file__).parents[1])))


def wait_for(condition, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)


def curves(comparison: Comparison) -> dict:
    """Every metric of every run that is no time."""
    return {
        key: {name: values.tolist() for name, values in r.rows.items() if not name.startswith("time/")}
        for key, r in comparison.runs.items()
    }


def same(a: Comparison, b: Comparison) -> None:
    np.testing.assert_equal(curves(a), curves(b))
    assert {k: r.evaluation for k, r in a.runs.items()} == {k: r.evaluation for k, r in b.runs.items()}
    assert {k: r.pairing for k, r in a.runs.items()} == {k: r.pairing for k, r in b.runs.items()}


class TestEqualTerms:
    def test_every_run_is_a_run(self, finished):
        for entry in ENTRIES:
            folder = seed_folder(finished, entry, 1)
            config = RunConfig.read(folder / "config.json")
            assert (config.algo, config.hyperparameters["seed"], config.timesteps) == (entry, 1, 64)
            assert read_points(folder)["time/timesteps"][-1] == (64, 64)
            assert not (folder / "checkpoint.zip").exists(), "what many runs leave behind is small"

    def test_weights_problems_and_completions_are_those_of_the_seed(self, finished):
        """Collected here by a separate algorithm, not read from the runs."""
        comparison = Comparison.read(finished)
        hyperparameters = SETTINGS["hyperparameters"]
        for seed in (0, 1):
            config = RunConfig(algo="gspo", hyperparameters=hyperparameters | {"seed": seed})
            rollout = config.make().collect_rollout()
            for entry in ENTRIES:
                pairing = comparison.runs[entry, seed].pairing
                assert pairing["problems"] == text_fingerprint(rollout.prompts)
                assert pairing["completions"] == text_fingerprint(rollout.texts)
                assert pairing["initial_weights"] == weights_fingerprint(teaching_policy().model)

    def test_there_is_something_to_compare(self, finished):
        rewards = Comparison.read(finished).curves()["espo"]
        assert rewards.shape == (2, 2) and rewards.min() > 0 and rewards.max() < 1

    def test_seeds_differ(self, finished):
        first, second = (Comparison.read(finished).runs["espo", seed].pairing for seed in (0, 1))
        assert first["problems"] != second["problems"] and first["completions"] != second["completions"]

    def test_prints_tell_every_bit_and_boundary(self):
        model = torch.nn.Linear(2, 2)
        before = weights_fingerprint(model)
        with torch.no_grad():
            model.bias[1] = torch.nextafter(model.bias[1], torch.tensor(9.0))
        assert weights_fingerprint(model) != before
        assert text_fingerprint(["ab", "c"]) != text_fingerprint(["a", "bc"]) != text_fingerprint(["bc", "a"])

    def test_seed_s_starts_from_policy_s_modulo_their_number(self, tmp_path):
        other = tmp_path / "other"
        teaching_policy().save_pretrained(other)
        comparison = run(tmp_path / "out", ["espo"], policy=["espo_gym/teaching", str(other)], seeds=3, timesteps=32)
        assert [r.config["policy"] for r in comparison.of("espo")] == [
            "espo_gym/teaching",
            str(other),
            "espo_gym/teaching",
        ]

    def test_an_algorithm_under_two_names_is_the_same(self, tmp_path):
        comparison = run(tmp_path / "out", [Entry("one", "espo"), Entry("two", "espo")], timesteps=32)
        (pair,) = compare_pairs(comparison.scores("auc"))
        assert pair.difference.mean == pair.difference.low == pair.difference.high == 0
        assert str(pair) == "one and two: the same on each of 2 seeds"


class TestBudget:
    def test_dynamic_sampling_draws_as_many_completions_as_the_others(self, tmp_path):
        """Addition of six digits is out of reach, so that every group is thrown away and more are drawn, if they may
        be: up to five rollouts for one update, which would be 160 + 160 completions."""
        comparison = run(tmp_path / "out", ["dapo", "grpo"], env_args={"digits": 6}, timesteps=224, seeds=1)
        drawn, usual = (comparison.runs[name, 0] for name in ("dapo", "grpo"))
        assert drawn.timesteps == usual.timesteps == 224
        assert drawn.rows["time/timesteps"].tolist() == [160, 224]
        assert drawn.config["hyperparameters"]["max_resamples"] == 4
        assert drawn.curve("rollout/reward_mean").shape == usual.curve("rollout/reward_mean").shape == (7,)

    def test_seconds_end_a_run_after_the_rollout_in_which_they_ran_out(self, tmp_path, monkeypatch):
        ticks = iter(range(10**6))
        monkeypatch.setattr("espo_gym.algorithms.base._clocks", lambda: np.array([1.0, 10.0]) * next(ticks))
        comparison = run(tmp_path / "out", ["espo"], timesteps=None, seconds=2.5, seeds=1)  # a rollout takes one tick
        (r,) = comparison.of("espo")
        assert r.rows["time/cpu_seconds"].tolist() == [1, 2, 3]
        assert (r.cpu_seconds, r.wall_seconds) == (3, 30)
        assert all(ok is not False for ok, _ in fairness_checks(comparison))
        assert comparison.scores("auc")["espo"][0] == pytest.approx(r.rows["rollout/reward_mean"].mean())

    @pytest.mark.parametrize("budget", [{"timesteps": 32, "seconds": 1.0}, {"timesteps": None, "seconds": -1.0}])
    def test_one_budget(self, tmp_path, budget):
        with pytest.raises(ValueError, match=r"budget|above 0"):
            run(tmp_path / "out", **budget)
        assert not (tmp_path / "out" / "comparison.json").exists()


class TestAudit:
    def test_all_is_well(self, finished):
        checks = fairness_checks(Comparison.read(finished))
        assert [text for ok, text in checks if ok is False] == []
        assert len([ok for ok, _ in checks if ok]) >= 6

    @pytest.mark.parametrize(
        ("change", "found"),
        [
            (
                lambda r: replace(r, pairing=r.pairing | {"initial_weights": "0"}),
                "initial weights: different at seed 1",
            ),
            (lambda r: replace(r, pairing=r.pairing | {"problems": "0"}), "problems of the first rollout: different"),
            (lambda r: replace(r, pairing={}), "completions of the first rollout"),
            (lambda r: replace(r, rows={n: v[:-1] for n, v in r.rows.items()}), "budget: 64 completions"),
            (lambda r: replace(r, config=r.config | {"versions": {"torch": "0"}}), "versions"),
            (lambda r: None, "5 of 6 runs finished"),
        ],
    )
    def test_what_is_wrong_is_found(self, finished, change, found):
        comparison = Comparison.read(finished)
        changed = change(comparison.runs["grpo", 1])
        runs = {k: r for k, r in comparison.runs.items() if k != ("grpo", 1)}
        runs |= {} if changed is None else {("grpo", 1): changed}
        wrong = [text for ok, text in fairness_checks(replace(comparison, runs=runs)) if ok is False]
        assert any(text.startswith(found) for text in wrong), wrong


class TestResuming:
    @pytest.mark.slow  # tests/faults kills at chosen moments
    def test_killed_and_run_again_equals_uninterrupted(self, finished, tmp_path):
        """SIGKILL at a moment of no one's choosing, once the first run has finished."""
        out, code = tmp_path / "out", "from test_compare import *; run(Path(sys.argv[1]), ENTRIES)"
        process = subprocess.Popen([sys.executable, "-c", code, str(out)], env=os.environ | {"PYTHONPATH": PATHS})
        try:
            wait_for(lambda: list(out.glob("runs/*/*/outcome.json")), process)
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
        assert Comparison.read(out).missing
        kept = {p: p.stat().st_mtime_ns for p in out.glob("runs/*/*/outcome.json")}
        same(run(out, ENTRIES), Comparison.read(finished))
        assert kept.items() <= {p: p.stat().st_mtime_ns for p in out.glob("runs/*/*/outcome.json")}.items()

    @pytest.mark.slow
    def test_results_do_not_depend_on_the_number_of_processes(self, finished, tmp_path):
        same(run(tmp_path / "out", ENTRIES, jobs=2), Comparison.read(finished))

    @pytest.mark.parametrize("at", [1, 2])
    def test_a_run_goes_on_from_its_checkpoint(self, finished, tmp_path, monkeypatch, at):
        out, step, calls = tmp_path / "out", BudgetCallback._on_step, []

        def stopping(self):
            calls.append(self.model.num_timesteps)
            if len(calls) == at:
                raise KeyboardInterrupt
            return step(self)

        with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
            patched.setattr(BudgetCallback, "_on_step", stopping)
            run(out, ENTRIES, seeds=1)
        reached = Comparison.read(out)
        assert not reached.runs
        comparison, whole = run(out, ENTRIES, seeds=1), Comparison.read(finished)
        same(comparison, replace(whole, runs={k: r for k, r in whole.runs.items() if k[1] == 0}))

    def test_what_is_finished_is_not_run_again(self, finished, monkeypatch):
        monkeypatch.setattr(module, "carry_out", None)
        messages: list[str] = []
        run(finished, ENTRIES, log=messages.append)
        assert messages == ["6 of 6 runs are there already"]

    def test_seeds_and_entries_are_added(self, tmp_path):
        out = tmp_path / "out"
        before = run(out, ["espo"], seeds=1, timesteps=32)
        comparison = run(out, ["grpo"], seeds=[2], timesteps=32)
        assert (comparison.entries, comparison.seeds) == (("espo", "grpo"), (0, 2))
        assert not comparison.missing and len(comparison.runs) == 4
        assert curves(comparison)["espo", 0] == curves(before)["espo", 0]

    def test_another_comparison_is_not_mixed_in(self, finished):
        before = (finished / "comparison.json").read_text()
        with pytest.raises(ValueError, match="differs in timesteps"):
            run(finished, timesteps=32)
        with pytest.raises(ValueError, match="a different entry 'espo'"):
            run(finished, [Entry("espo", "espo", {"alpha": 1.0})])
        assert (finished / "comparison.json").read_text() == before

    def test_a_folder_of_other_things_is_left_alone(self, tmp_path):
        (tmp_path / "thesis.txt").write_text("years of work")
        with pytest.raises(ValueError, match="not the folder of a comparison"):
            run(tmp_path)
        assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]

    def test_one_process_at_a_time(self, tmp_path, monkeypatch):
        monkeypatch.setattr("espo_gym.experiments.folder_lock.PATIENCE", 0.0)
        with locked(tmp_path / "out"), pytest.raises(RuntimeError, match=f"process {os.getpid()} .* is working in"):
            run(tmp_path / "out")


class TestFailure:
    @pytest.fixture(scope="class")
    @classmethod
    def comparison(cls, tmp_path_factory) -> Comparison:
        diverges = Entry("diverges", "espo", {"learning_rate": 1e30, "warmup_steps": 0})
        return run(tmp_path_factory.mktemp("failure") / "out", ["espo", diverges])

    def test_it_is_kept_with_its_reason(self, comparison):
        for r in comparison.of("diverges"):
            assert "learning rate" in r.failure
        assert not comparison.missing
        assert "diverges, seed 0, failed after" in comparison_report(comparison)
        rows = (comparison.folder / "results.csv").read_text().splitlines()
        assert sum("learning rate too large" in row for row in rows) == 2

    def test_it_counts_as_what_it_is(self, comparison):
        assert comparison.scores("collapsed")["diverges"].tolist() == [1, 1]
        for metric in ("auc", "final", "greedy", "avg@2", "pass@2"):
            assert comparison.scores(metric)["diverges"].tolist() == [0, 0], "it failed in its first rollout"
        assert comparison.curves()["diverges"].shape == (2, 2) and np.isnan(comparison.curves()["diverges"]).all()
        assert (
            json.loads((comparison.folder / "results.json").read_text())["scores"]["rollouts_to_0.8"]["diverges"]
            == [None] * 2
        )

    def test_the_others_are_untouched(self, comparison, finished):
        assert {k: v for k, v in curves(comparison).items() if k[0] == "espo"} == {
            k: v for k, v in curves(Comparison.read(finished)).items() if k[0] == "espo"
        }

    def test_any_other_error_is_raised_and_tried_again(self, tmp_path, monkeypatch):
        def broken(*args, **kwargs):
            raise OSError("the disk is full")

        with monkeypatch.context() as patched, pytest.raises(OSError, match="disk is full"):
            patched.setattr(module, "train", broken)
            run(tmp_path / "out", ["espo"], seeds=1, timesteps=32)
        assert not run(tmp_path / "out", ["espo"], seeds=1, timesteps=32).missing


def fake(folder: Path, rewards, timesteps, *, reason=None, entry="a") -> ComparedRun:
    """The folder of a run with these rewards, its rollouts 10 completions large."""
    folder.mkdir(parents=True)
    config = {"eval_k": 2, "hyperparameters": {"rollout_size": 10}, "versions": {}}
    write_json(folder / "config.json", config)
    write_json(folder / "outcome.json", {"status": "failed" if reason else "finished", "reason": reason})
    figures = {name: {"value": v} for name, v in (("greedy", 0.9), ("avg@2", 0.8), ("pass@2", 1.0), ("maj@2", 0.8))}
    write_json(folder / "evaluation.json", {} if reason else {"after": figures | {"split": "test"}})
    lines = [
        {"rollout/reward_mean": r, "eval/greedy": r, "time/timesteps": t, "time/cpu_seconds": 2.0 * (i + 1)}
        for i, (r, t) in enumerate(zip(rewards, timesteps, strict=True))
    ]
    (folder / "progress.json").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return ComparedRun.of(entry, folder)


class TestScores:
    def test_by_hand(self, tmp_path):
        r = fake(tmp_path / "run", [0.1, 0.5, 0.9, 0.7, 0.8], [10, 20, 30, 40, 50])
        scores = {m: r.score(m, 50) for m in ("auc", "final", "rollouts_to_0.8", "collapsed", "greedy", "pass@2")}
        assert scores == {
            "auc": pytest.approx(0.6),
            "final": 0.8,
            "rollouts_to_0.8": 3,
            "collapsed": 0,
            "greedy": 0.9,
            "pass@2": 1,
        }

    def test_several_rollouts_for_one_update_weigh_as_several(self, tmp_path):
        r = fake(tmp_path / "run", [0.1, 0.9], [30, 40])
        assert r.score("auc", 40) == pytest.approx((3 * 0.1 + 0.9) / 4)
        assert r.score("rollouts_to_0.8", 40) == 4
        np.testing.assert_equal(r.curve("rollout/reward_mean", 5), [0.1, 0.1, 0.1, 0.9, np.nan])
        np.testing.assert_equal(r.curve("eval/greedy", 4), [np.nan, np.nan, 0.1, 0.9])

    def test_area_over_seconds(self, tmp_path):
        r = fake(tmp_path / "run", [0.1, 0.9], [30, 40])
        assert r.score("auc", 4, clock="time/cpu_seconds") == pytest.approx((0.1 + 0.9) / 2)

    def test_a_failed_run_has_nothing_after_its_failure(self, tmp_path):
        r = fake(tmp_path / "run", [0.5, 0.9], [10, 20], reason="diverged")
        assert r.score("auc", 50) == pytest.approx((0.5 + 0.9) / 5)
        assert [r.score(m, 50) for m in ("final", "greedy", "collapsed")] == [0, 0, 1]
        assert r.score("rollouts_to_0.8", 50) == 2

    @pytest.mark.parametrize(
        ("rewards", "collapsed"),
        [([0.3, 0.9, 0.4, 0.4], 1), ([0.3, 0.9, 0.5, 0.5], 0), ([0.05, 0.09, 0.0, 0.0], 0), ([0.2, 0.0, 0.0, 0.0], 1)],
    )
    def test_collapse(self, tmp_path, rewards, collapsed):
        assert fake(tmp_path / "run", rewards, [10, 20, 30, 40]).score("collapsed", 40) == collapsed

    def test_never_learned(self, tmp_path):
        assert fake(tmp_path / "run", [0.1, 0.79], [10, 20]).score("rollouts_to_0.8", 20) == np.inf

    def test_unknown_metric(self, tmp_path):
        with pytest.raises(ValueError, match="no metric 'colour'; there are auc, final"):
            fake(tmp_path / "run", [0.1], [10]).score("colour", 10)

    def test_a_line_cut_off_by_a_kill_is_not_read(self, tmp_path):
        fake(tmp_path / "run", [0.1, 0.2], [10, 20])
        with (tmp_path / "run" / "progress.json").open("a") as file:
            file.write('{"rollout/reward_m')
        (tmp_path / "run" / "progress_20.json").write_text('{"rollout/reward_mean": 0.3, "time/timesteps": 30}\n')
        rows = ComparedRun.of("a", tmp_path / "run").rows
        assert rows["rollout/reward_mean"].tolist() == [0.1, 0.2, 0.3]


class TestWords:
    SAME = np.array([0.80, 0.81, 0.79, 0.82, 0.78, 0.80])

    def sentence(self, x, y) -> str:
        (pair,) = compare_pairs({"a": np.asarray(x), "b": np.asarray(y)})
        return str(pair)

    def test_no_difference(self):
        noise = np.array([0.01, -0.01, 0.02, -0.02, 0.01, -0.01])
        assert self.sentence(self.SAME, self.SAME + noise) == "a and b: no difference detected, +0.000 [-0.016, +0.016]"

    def test_an_interval_that_holds_zero_shows_it(self):
        d = np.array([0.0021, -0.0005, 0.0031, 0.0001, 0.0005, 0.0009])
        assert self.sentence(d, 0 * d) == "a and b: no difference detected, +0.001 [-0.000, +0.002]"
        assert self.sentence(0 * d, d) == "a and b: no difference detected, -0.001 [-0.002, +0.000]"
        assert str(paired_difference(d, d)) == "+0.000 (on each of 6 seeds)"

    def test_the_better_one_comes_first(self):
        worse = self.SAME - [0.1, 0.11, 0.09, 0.1, 0.12, 0.08]
        assert self.sentence(self.SAME, worse).startswith("a is better than b, +0.100 [+0.085, +0.115] (p < 0.001")
        assert self.sentence(worse, self.SAME).startswith("b is better than a, +0.100 [+0.085, +0.115] (p < 0.001")

    def test_many_pairs_must_be_resolved_together(self):
        """p = 0.02 is below 0.05 alone, and not among three pairs."""
        d = np.array([0.04, 0.01, 0.05, 0.01, 0.03, 0.02, -0.004])
        alone = compare_pairs({"a": d, "b": 0 * d})
        assert alone[0].resolved and 0.0167 < alone[0].difference.p < 0.05
        among = compare_pairs({"a": d, "b": 0 * d, "c": d[::-1] / 2})
        assert not among[0].resolved
        assert among[0].p_holm == pytest.approx(3 * alone[0].difference.p)
        assert str(among[0]) == (
            "a and b: no difference detected, +0.022 [+0.005, +0.040] (p = 0.021 alone, p = 0.062 among 3 pairs)"
        )

    def test_signs_have_a_say(self):
        """Student's p is 0.038; with two seeds at 0, of 128 flips of signs 8 are as extreme: 0.0625."""
        d = np.array([0.04, 0.0, 0.05, 0.01, 0.03, 0.0, 0.01])
        sentence = self.sentence(d, 0 * d)
        assert sentence == (
            "a and b: no difference detected, +0.020 [+0.002, +0.038] (p = 0.038 alone, p = 0.062 by flips of signs)"
        )

    @pytest.mark.parametrize("kind", ["normal", "uniform", "heavy", "two values"])
    def test_an_algorithm_against_itself_is_told_apart_in_five_per_cent_at_most(self, kind):
        """Were both names the same algorithm, each of the 2^8 ways to swap them at some seeds would be as likely."""
        rng = np.random.default_rng(0)
        x, y = {
            "normal": lambda: rng.normal(size=(2, 8)),
            "uniform": lambda: rng.uniform(size=(2, 8)),
            "heavy": lambda: rng.standard_cauchy(size=(2, 8)),
            "two values": lambda: np.where(rng.random((2, 8)) < 0.3, 0.1, 0.8) + rng.normal(0, 0.01, (2, 8)),
        }[kind]()
        told_apart = 0
        for swaps in product([False, True], repeat=8):
            difference = paired_difference(np.where(swaps, x, y), np.where(swaps, y, x))
            told_apart += resolved(difference, difference.p)
        assert told_apart / 2**8 <= 0.05

    def test_too_few(self):
        assert self.sentence([0.5], [0.25]) == "a and b, +0.250, one seed in common: nothing can be said"
        assert self.sentence([0.5, 0.5], [0.25, 0.25]) == "a and b: +0.250 on each of 2 seeds, too few to say"
        assert self.sentence([np.nan], [0.25]) == "a and b: no seed in common: nothing can be said"

    def test_the_report_says_how_much_was_tried(self, finished):
        report = (finished / "report.md").read_text()
        assert report == comparison_report(Comparison.read(finished))
        assert "Configurations tried: 3, one for each entry; none was tuned." in report
        assert "espo and grpo: " in report and "Holm over the 3 pairs" in report

    def test_a_comparison_that_has_only_begun(self, tmp_path):
        write_json(tmp_path / "comparison.json", {"entries": [{"name": "a"}], "seeds": [0], "setting": {}})
        assert "No run has finished yet" in comparison_report(Comparison.read(tmp_path))
        with pytest.raises(FileNotFoundError, match="not the folder of a comparison"):
            Comparison.read(tmp_path / "none")


class TestEntries:
    @pytest.mark.parametrize(
        ("entry", "message"),
        [
            (("../up", "espo"), "invalid entry name"),
            (("", "espo"), "invalid entry name"),
            (("a", "nope"), "no algorithm 'nope'"),
            (("a", "espo", {"seed": 1}), "every entry has the seeds of the comparison"),
        ],
    )
    def test_mistakes(self, entry, message):
        with pytest.raises(ValueError, match=message):
            Entry(*entry)

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"entries": ["espo", Entry("espo", "grpo")]}, "must differ"),
            ({"entries": []}, "at least one entry"),
            ({"seeds": 0}, "at least one seed"),
            ({"seeds": [-1]}, "not be negative"),
            ({"seeds": [1, 1]}, "must differ"),
            ({"policy": []}, "at least one policy"),
            ({"entries": [Entry("a", "grpo", {"alpha": 1.0})]}, "'alpha', which belongs to ESPO"),
            ({"jobs": 0}, "jobs must be at least 1"),
        ],
    )
    def test_mistakes_cost_nothing(self, tmp_path, changes, message):
        with pytest.raises(ValueError, match=message):
            run(tmp_path / "out", **changes)
        assert not list(tmp_path.glob("out/runs/*"))
