"""What a report says before anything about differences: which runs learned nothing, collapsed or failed."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from espo_gym.cli.compare import _audit, _show
from espo_gym.experiments import health as module
from espo_gym.experiments.compare import _write_results
from espo_gym.experiments.comparison import Comparison, seed_folder
from espo_gym.experiments.comparison_report import comparison_report
from espo_gym.experiments.fairness import fairness_checks
from espo_gym.experiments.health import health
from espo_gym.experiments.protocol import Protocol, ProtocolTask, Regime, protocol_report, protocol_results
from espo_gym.experiments.warm_start import add_columns
from espo_gym.files import write_json

SIZE = 64


def rows(rewards, active=None, **metrics) -> dict[str, np.ndarray]:
    """The metrics of a run with rewards 1 and 0; ``active`` share of tokens with an advantage, by default 0.4."""
    r = np.array(rewards, float)
    active = np.full(len(r), 0.4) if active is None else np.array(active, float)
    return {
        "time/timesteps": SIZE * np.arange(1.0, len(r) + 1),
        "time/cpu_seconds": np.arange(1.0, len(r) + 1),
        "train/n_updates": np.arange(1.0, len(r) + 1),
        "rollout/reward_mean": r,
        "rollout/reward_std": np.sqrt(r * (1 - r)),
        "rollout/accuracy": r,
        "rollout/truncated": np.zeros(len(r)),
        "train/gradient_token_share": active * 0.9,
        "train/clip_fraction_low": active * 0.1,
        "train/clip_fraction_high": active * 0,
    } | {f"rollout/{name}": np.array(values, float) for name, values in metrics.items()}


LEARNS = rows([0.3, 0.5, 0.7, 0.8])
WRONG = rows([0, 0, 0.03, 0], [0, 0, 0.2, 0])
RIGHT = rows([1, 1, 1, 1], [0, 0, 0, 0])
ALIKE = rows([0.5, 0.5, 0.25, 0.5], [0, 0, 0, 0])
CUT = rows([0, 0, 0, 0], [0, 0, 0, 0], truncated=[1, 1, 0.95, 1])
FALLS = rows([0.4, 0.6, 0.1, 0, 0, 0, 0, 0, 0, 0], [0.4, 0.4, 0.1, 0, 0, 0, 0, 0, 0, 0])


class TestOneRun:
    @pytest.mark.parametrize(
        ("run", "trouble", "learned"),
        [
            (LEARNS, None, True),
            (WRONG, module.ALL_WRONG, False),
            (RIGHT, module.ALL_RIGHT, False),
            (ALIKE, module.ALL_ALIKE, False),
            (CUT, module.TRUNCATED, False),
            (FALLS, module.COLLAPSED, True),
            (FALLS | {"rollout/truncated": np.array([0.0, 0] + [1] * 8)}, module.COLLAPSED, True),
        ],
        ids=["learns", "wrong", "right", "alike", "cut off", "falls", "falls and runs on"],
    )
    def test_what_becomes_of_it(self, run, trouble, learned):
        assert health(run, SIZE) == (trouble, learned)

    def test_equal_rewards_teach_a_value_head_nothing_either(self):
        """PPO's advantages are not 0 where all rewards are."""
        assert health(rows([0, 0, 0], [0.9, 0.9, 0.9]), SIZE) == (module.ALL_WRONG, False)

    def test_a_task_that_is_solved_on_the_way_is_no_trouble(self):
        solved = rows([0.5, 0.8, *[1] * 8], [0.4, 0.2, *[0] * 8])
        assert health(solved, SIZE) == (None, True)
        assert health(rows([0.5] * 7 + [1], [0.4] * 7 + [0]), SIZE) == (None, True), "a single rollout at the end"

    def test_a_failed_run_may_have_learned_before(self):
        assert health(LEARNS, SIZE, "the loss is nan") == (module.FAILED, True)
        assert health({}, SIZE, "the loss is nan") == (module.FAILED, False)
        assert health({}, SIZE) == (None, False), "it has not begun"

    def test_what_is_not_recorded_is_not_held_against_it(self):
        assert health({"time/timesteps": np.array([64.0, 128]), "rollout/reward_mean": np.zeros(2)}, SIZE).learned

    def test_of_few_completions_a_good_rollout_is_chance_and_no_collapse_follows(self):
        rng, few, many = np.random.default_rng(0), 8, 512
        found = dict.fromkeys((few, many), 0)
        for _ in range(200):
            for n in found:
                constant = rng.binomial(n, 0.3, 20) / n
                metrics = rows(constant) | {"time/timesteps": n * np.arange(1.0, 21)}
                found[n] += health(metrics, n).trouble is not None
        assert found[few] <= 20 and found[many] == 0, "without the standard errors 93 and 0"
        assert health(rows([0.3, 0.6, 0.2, 0.1, 0.1]), SIZE).trouble == module.COLLAPSED

    def test_one_lucky_rollout_is_no_learning(self):
        lucky = rows([0, 0, 0, 0.2, 0, 0, 0, 0], [0, 0, 0, 0.2, 0, 0, 0, 0])
        assert health(lucky, SIZE).trouble == module.ALL_WRONG


def compared(folder: Path, **entries: Sequence[dict[str, np.ndarray] | None]) -> Comparison:
    """A comparison of entries with these metrics for each seed; None for a run that has not finished.

    A run without metrics failed.
    """
    n = max(map(len, entries.values()))
    setting: dict[str, Any] = {"env": "e", "env_args": {}, "policies": ["p"], "hyperparameters": {}, "eval_k": 0}
    setting |= {"timesteps": 4 * SIZE, "seconds": None}
    folder.mkdir()
    contents = {"entries": [{"name": name} for name in entries], "seeds": list(range(n)), "setting": setting}
    write_json(folder / "comparison.json", contents)
    for name, runs in entries.items():
        for seed, metrics in enumerate(runs):
            if metrics is None:
                continue
            run = seed_folder(folder, name, seed)
            run.mkdir(parents=True)
            hyperparameters = {"rollout_size": SIZE, "seed": seed}
            write_json(run / "config.json", {"eval_k": 0, "hyperparameters": hyperparameters, "versions": {}})
            reason = None if metrics else "the loss is nan"
            write_json(run / "outcome.json", {"status": "failed" if reason else "finished", "reason": reason})
            write_json(run / "pairing.json", dict.fromkeys(("initial_weights", "problems", "completions"), str(seed)))
            write_json(run / "evaluation.json", {} if reason else {"after": {"greedy": {"value": 0.5}}})
            columns = {key: values.tolist() for key, values in metrics.items()}
            lines = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
            (run / "progress.json").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return Comparison.read(folder)


def results(comparison: Comparison) -> dict[str, Any]:
    """results.json."""
    assert comparison.folder is not None
    _write_results(comparison.folder, comparison)
    return dict(json.loads((comparison.folder / "results.json").read_text()))


class TestComparison:
    def test_nothing_was_learned_and_nothing_is_compared(self, tmp_path, capsys):
        comparison = compared(tmp_path / "c", espo=[WRONG] * 3, grpo=[WRONG] * 3)
        first = "0 of 6 runs learned anything: this compares nothing."
        why = "3 of 3 runs of espo and 3 of 3 runs of grpo had nothing to learn from in most rollouts, because all"
        sentence = "espo and grpo: no run of either learned anything: nothing can be said"
        report, written = comparison_report(comparison), results(comparison)
        assert report.index(first) < report.index(why) < report.index("## In words") < report.index(sentence)
        assert "Take an easier environment" in report and "the same on" not in report
        assert "**NOT OK**: training: 0 of 6 runs trained as they should." in report
        assert written["headline"] == first and written["warnings"][0].startswith(why)
        assert written["health"]["grpo"]["2"] == {"trouble": "no_advantage", "learned": False}
        assert written["pairs"][0]["sentence"] == sentence and written["pairs"][0]["resolved"] is False
        _show(comparison)
        printed = capsys.readouterr()
        assert printed.out.index(first) < printed.out.index(why) < printed.out.index(sentence)
        assert "AUDIT: training: 0 of 6" in printed.err and "checks passed" not in printed.out

    def test_each_kind_is_said_with_its_count_and_what_to_do(self, tmp_path):
        falls = {name: values[[0, 1, 4, 5]] for name, values in FALLS.items()} | {
            "time/timesteps": LEARNS["time/timesteps"]
        }
        comparison = compared(tmp_path / "c", a=[LEARNS, falls, {}], b=[RIGHT, CUT, LEARNS])
        report = comparison_report(comparison)
        assert "**4 of 6 runs did not train as they should: a difference may show no more than that.**" in report
        for words in (
            "1 of 3 runs of a collapsed: they ended below half of their best rollout. Lower the learning rate",
            "1 of 3 runs of a failed: the loss or gradient was not finite. Lower the learning rate",
            "1 of 3 runs of b had nothing to learn from, because all answers were right from the start (no_advantage)",
            "1 of 3 runs of b had more than 90 % of the completions cut off in most rollouts (all_truncated). Raise",
        ):
            assert report.index(words) < report.index("## In words")
        assert "a and b: no difference detected" in report, "some of them did learn"
        assert comparison.scores("collapsed")["a"].tolist() == [0, 1, 1]

    def test_where_all_is_well_nothing_stands_before_the_sentences(self, tmp_path, capsys):
        comparison = compared(tmp_path / "c", a=[LEARNS] * 2, b=[LEARNS] * 2)
        report = comparison_report(comparison)
        assert "Read this first" not in report and "NOT OK" not in report
        assert "- ok: training: 4 of 4 runs trained as they should" in report
        assert "a and b: the same on each of 2 seeds." in report
        assert results(comparison)["headline"] is None and results(comparison)["warnings"] == []
        _audit(comparison)
        assert "checks passed: training, weights" in capsys.readouterr().out

    @pytest.mark.parametrize(
        ("a", "b", "sentence"),
        [
            ([WRONG], [WRONG], "no run of either learned anything"),
            ([LEARNS], [WRONG], "a and b, .*, one seed in common: nothing can be said"),
            ([LEARNS, None], [LEARNS, LEARNS], "a and b, .*, one seed in common: nothing can be said"),
            ([LEARNS, None], [None, LEARNS], "no seed in common"),
            ([{}, {}], [{}, {}], "no run of either learned anything"),
            ([{}, {}, {}], [LEARNS] * 3, r"b is better than a|a and b: -0.575 on each of 3 seeds"),
        ],
        ids=["one stuck", "one", "unfinished", "none in common", "all failed", "one entry failed"],
    )
    def test_few_failed_and_unfinished_runs(self, tmp_path, a, b, sentence):
        report = comparison_report(compared(tmp_path / "c", a=a, b=b))
        assert re.search(sentence, report) and "nan" not in re.sub("the loss is nan", "", report)

    def test_intervals_of_shares_stay_in_their_range_and_those_of_shaped_rewards_need_not(self, tmp_path):
        seeds = [rows([0.1, 0.1]), rows([0.9, 1.0]), rows([1.0, 0.9])]
        shares = compared(tmp_path / "a", a=seeds, b=seeds[::-1])
        report = comparison_report(shares)
        assert not re.search(r"\[-[^\]]*\]", report.partition("## Scores")[2].partition("## Pairs")[0])
        numbers = [float(x) for part in re.findall(r"\[([^\]]*,[^\]]*)\]", report) for x in part.split(",")]
        assert numbers and min(numbers) >= -1 and max(numbers) <= 1
        assert "Wilson's with Student's quantile" in report and "which cannot leave [-1, 1]" in report
        shaped = [metrics | {"rollout/reward_mean": 3 * metrics["rollout/reward_mean"] - 1} for metrics in seeds]
        report = comparison_report(compared(tmp_path / "b", a=shaped, b=shaped[::-1]))
        assert "of the AUC Student's" in report and "which cannot leave" not in report
        assert re.search(r"\| a \| 1\.\d+ \[-\d", report)

    def test_the_audit_counts_it_as_one_check(self, tmp_path):
        comparison = compared(tmp_path / "c", a=[WRONG, LEARNS], b=[LEARNS] * 2)
        wrong = [check for check in fairness_checks(comparison) if check.ok is False]
        assert len(wrong) == 1 and "1 of 2 runs of a had nothing to learn from" in wrong[0].finding


def test_a_protocol_says_it_for_every_regime_and_task(tmp_path):
    tasks = tuple(ProtocolTask(name, "e", add_columns, 1) for name in ("easy", "hard"))
    protocol = Protocol("p", tasks, (Regime("calm", 1, {}), Regime("stress", 1, {})))
    comparisons = {
        "easy_calm": compared(tmp_path / "easy_calm", a=[LEARNS] * 2, b=[LEARNS] * 2),
        "hard_calm": compared(tmp_path / "hard_calm", a=[WRONG] * 2, b=[WRONG] * 2),
        "easy_stress": compared(tmp_path / "easy_stress", a=[LEARNS] * 2, b=[LEARNS] * 2),
        "hard_stress": compared(tmp_path / "hard_stress", a=[LEARNS] * 2, b=[LEARNS] * 2),
    }
    calm, stress = protocol_report(protocol, comparisons).split("## Stress")
    assert "### Read this first, calm" in calm and "2 of 4 runs of a and 2 of 4 runs of b had nothing" in calm
    assert "#### Read this first, hard, calm" in calm and "a and b: no run of either learned anything" in calm
    assert "#### Read this first, easy" not in calm and "Read this first" not in stress
    assert "Wilson's with Student's quantile" in calm
    regimes = protocol_results(protocol, comparisons)["regimes"]
    assert regimes["calm"]["headline"].startswith("4 of 8 runs did not train") and regimes["stress"]["warnings"] == []
