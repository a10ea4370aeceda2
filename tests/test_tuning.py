"""Tuning on equal terms, protocols, warm starts, and the command line over them."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file

from espo_gym.cli.compare import parse_entry
from espo_gym.cli.main import main
from espo_gym.envs.registration import make_task
from espo_gym.experiments import protocol as protocols
from espo_gym.experiments.compare import compare
from espo_gym.experiments.comparison import Comparison
from espo_gym.experiments.protocol import TEACHING, read_protocol, run_protocol
from espo_gym.experiments.setting import Entry
from espo_gym.experiments.tuning import cells, tune
from espo_gym.experiments.warm_start import add_columns, combine_numbers, make_policy, work_down_chain

SMALL = {"rollout_size": 16, "n_minibatches": 2, "max_completion_tokens": 32}
SETTINGS: dict[str, Any] = {"timesteps": 16, "eval_problems": 2, "eval_k": 0, "jobs": 1, "log": lambda _: None}


class TestGrid:
    def test_every_algorithm_has_as_many_cells(self):
        assert {len(cells(Entry("a", algo), "teaching", {})) for algo in ("espo", "gspo", "grpo", "ppo", "cispo")} == {
            9
        }

    def test_the_clip_of_the_preset_is_scaled(self):
        grid = cells(Entry("a", "gspo"), "teaching", {}, [1e-4], [0.5, 2.0])
        assert [cell.hyperparameters for cell in grid] == [
            {"learning_rate": 1e-4, "clip_low": 0.015, "clip_high": 0.02},
            {"learning_rate": 1e-4, "clip_low": 0.06, "clip_high": 0.08},
        ]

    def test_an_entrys_own_values_come_before_the_shared_and_the_preset(self):
        entry = Entry("a", "espo", {"alpha": 0.1, "quantiles": (0.5,)})
        (cell,) = cells(entry, "teaching", {"alpha": 7.0}, [1e-5], [2.0])
        assert cell.hyperparameters == {"alpha": 0.2, "quantiles": (0.5,), "learning_rate": 1e-5}
        (cell,) = cells(Entry("a", "espo"), "teaching", {"alpha": 7.0}, [1e-5], [2.0])
        assert cell.hyperparameters["alpha"] == 14.0

    def test_no_clip_no_equal_grid(self, monkeypatch):
        monkeypatch.setattr("espo_gym.experiments.tuning.CLIPS", ())
        with pytest.raises(ValueError, match="no clip to tune"):
            cells(Entry("a", "grpo"), "teaching", {})


class TestTune:
    @pytest.fixture(scope="class")
    @classmethod
    def out(cls, tmp_path_factory) -> Path:
        out = tmp_path_factory.mktemp("tuning") / "out"
        grid: dict[str, Any] = {"learning_rates": (1e-4, 1e-2), "widths": (1.0,), "seeds": 2}
        frozen = tune(["espo", "grpo"], out=out, hyperparameters=SMALL, **grid, **(SETTINGS | {"timesteps": 32}))
        compare(frozen, out=out, seeds=1, hyperparameters=SMALL, **SETTINGS)
        return out

    def test_the_best_cell_of_the_tuning_seeds_is_frozen(self, out):
        tuned, comparison = Comparison.read(out / "tuning"), Comparison.read(out)
        assert tuned.seeds == (100, 101) and comparison.seeds == (0,)
        means = {name: scores.mean() for name, scores in tuned.scores("auc").items()}
        for entry in ("espo", "grpo"):
            grid = {name: mean for name, mean in means.items() if name.startswith(f"{entry}_")}
            assert len(grid) == 2
            best = max(grid, key=lambda name: grid[name])
            (run,) = comparison.of(entry)
            assert run.config["hyperparameters"] == tuned.of(best)[0].config["hyperparameters"] | {"seed": 0}

    def test_all_that_was_tried_is_told(self, out):
        record = json.loads((out / "tuning.json").read_text())
        assert [len(entry["cells"]) for entry in record["entries"]] == [2, 2]
        assert all(0 <= cell["auc"] <= 1 for entry in record["entries"] for cell in entry["cells"])
        report = (out / "report.md").read_text()
        assert "Configurations tried: 4, 2 for each tuned entry, judged by the mean AUC on the seeds 100, 101" in report


class TestDemonstrators:
    def test_chain(self):
        task, rng = make_task("espo_gym/ChainArithmetic-v0", terms=5, operators="+-"), np.random.default_rng(0)
        problems = [task.problem("train", i) for i in range(200)]
        texts = [work_down_chain(problem, rng) for problem in problems]
        assert all(verdict.correct for verdict in task.verify(texts, problems))
        for problem, text in zip(problems, texts, strict=True):
            steps = text.split(",")
            assert len(steps) == 4
            for step in steps:
                left, _, right = step.partition("=")
                assert sum(map(int, left.replace("-", "+-").split("+")[left.startswith("-") :])) == int(right)
            assert len(problem.prompt) + len(text) + 1 <= 64

    def test_countdown(self):
        task, rng = make_task("espo_gym/Countdown-v0"), np.random.default_rng(0)
        problems = [task.problem("train", i) for i in range(500)]
        texts = [combine_numbers(problem, rng) for problem in problems]
        right = np.mean([verdict.correct for verdict in task.verify(texts, problems)])
        assert 0.1 < right < 0.25, "a tenth on purpose, and some by chance"
        for problem, text in zip(problems, texts, strict=True):
            assert problem.data is not None
            assert sorted(c for c in text if c.isdigit()) == sorted(map(str, problem.data["numbers"]))

    def test_addition(self):
        task, rng = make_task("espo_gym/Addition-v0"), np.random.default_rng(0)
        problems = [task.problem("train", i) for i in range(300)]
        right = [v.correct for v in task.verify([add_columns(p, rng) for p in problems], problems)]
        assert 0.2 < np.mean(right) < 0.5

    def test_a_policy_is_a_function_of_its_seed(self, tmp_path):
        for name, seed in (("a", 1), ("b", 1), ("c", 2)):
            make_policy(tmp_path / name, seed, steps=2)
        a, b, c = (load_file(tmp_path / name / "model.safetensors") for name in "abc")
        assert all(torch.equal(a[k], b[k]) for k in a) and not all(torch.equal(a[k], c[k]) for k in a)
        assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "b", "c"], "nothing half done is left"


SHORT = replace(
    TEACHING,
    tasks=tuple(replace(task, steps=2, bundled=task.bundled) for task in TEACHING.tasks[:2]),
    regimes=tuple(replace(r, rollouts=1, hyperparameters=r.hyperparameters | SMALL) for r in TEACHING.regimes),
    warm_starts=2,
    eval_problems=2,
    eval_k=0,
)


class TestProtocol:
    @pytest.fixture(scope="class")
    @classmethod
    def out(cls, tmp_path_factory) -> Path:
        out = tmp_path_factory.mktemp("protocols") / "out"
        run_protocol(SHORT, ["espo", "grpo"], out=out, seeds=2, jobs=1, log=lambda _: None)
        return out

    def test_every_task_in_every_regime(self, out):
        comparisons = read_protocol(SHORT, out)
        assert list(comparisons) == ["addition_calm", "addition_stress", "chain_calm", "chain_stress"]
        for name, comparison in comparisons.items():
            assert not comparison.missing
            for run in comparison.runs.values():
                values = run.config["hyperparameters"]
                assert (values["n_epochs"], values["learning_rate"]) == ((1, 1e-4) if "calm" in name else (3, 3e-4))
                assert run.config["env_args"] == ({"terms": 5, "operators": "+-"} if "chain" in name else {})

    def test_seeds_take_turns_with_the_warm_starts(self, out):
        starts = [Path(run.config["policy"]).name for run in read_protocol(SHORT, out)["chain_calm"].of("espo")]
        assert starts == ["chain_steps2_seed0", "chain_steps2_seed1"]
        starts = [run.config["policy"] for run in read_protocol(SHORT, out)["addition_calm"].of("espo")]
        assert starts[0] == "espo_gym/teaching" and starts[1].endswith("addition_steps2_seed1")

    def test_the_report_is_over_all_tasks(self, out):
        report = (out / "report.md").read_text()
        assert all(heading in report for heading in ("## Calm", "## Stress", "### chain, stress"))
        results = json.loads((out / "results.json").read_text())
        assert np.shape(results["regimes"]["calm"]["auc"]["espo"]) == (2, 2), "seeds and tasks"

    def test_again_it_does_nothing(self, out, monkeypatch):
        monkeypatch.setattr(protocols, "make_policy", None)
        messages: list[str] = []
        run_protocol(SHORT, ["espo", "grpo"], out=out, seeds=2, jobs=1, log=messages.append)
        assert messages.count("4 of 4 runs are there already") == 4

    def test_a_folder_of_other_things_is_left_alone(self, tmp_path):
        (tmp_path / "thesis.txt").write_text("years of work")
        with pytest.raises(ValueError, match="not the folder of a protocol"):
            run_protocol(SHORT, ["espo"], out=tmp_path)

    def test_teaching_is_what_its_page_says(self):
        assert [(r.name, r.rollouts * r.hyperparameters["rollout_size"]) for r in TEACHING.regimes] == [
            ("calm", 7680),
            ("stress", 5120),
        ]
        assert (TEACHING.warm_starts, TEACHING.eval_problems, TEACHING.eval_k) == (3, 512, 8)


class TestCommand:
    def invoke(self, *args: object):
        return CliRunner().invoke(main, ["compare", *map(str, args)])

    def test_compare(self, tmp_path):
        args = ["--algos", "grpo", "--entry", "wide=espo,alpha=1.0", "--seeds", 1, "--timesteps", 16, "--jobs", 1]
        args += ["--rollout-size", 16, "--eval-problems", 2, "--eval-k", 2, "--out", tmp_path / "out"]
        result = self.invoke(*args)
        assert result.exit_code == 0, result.output
        assert "grpo and wide, " in result.output and "one seed in common" in result.output
        assert "checks passed" in result.output and "AUDIT" not in result.output
        comparison = Comparison.read(tmp_path / "out")
        assert comparison.runs["wide", 0].config["hyperparameters"]["alpha"] == 1.0
        assert comparison.runs["grpo", 0].config["hyperparameters"]["rollout_size"] == 16
        assert "2 of 2 runs are there already" in self.invoke(*args).output

    def test_entries(self):
        assert parse_entry("a=espo") == Entry("a", "espo")
        entry = parse_entry("a=espo,quantiles=[0.5,0.8],ratio=group_token,alpha_high=null")
        assert entry.hyperparameters == {"quantiles": [0.5, 0.8], "ratio": "group_token", "alpha_high": None}

    @pytest.mark.parametrize(
        ("args", "code", "message"),
        [
            (["--seed", "3"], 2, "no --seed here"),
            (["--entry", "espo"], 2, "--entry takes NAME=ALGORITHM"),
            (["--algos", "nope"], 1, "no algorithm 'nope'"),
            (["--seconds", "5", "--timesteps", "16"], 1, "either timesteps or seconds"),
            (["--protocol", "teaching", "--env", "espo_gym/Addition-v0"], 2, "no --env with it"),
            (["--alpha", "1"], 1, "has no hyperparameter 'alpha', which belongs to ESPO"),
        ],
    )
    def test_mistakes(self, tmp_path, args, code, message):
        result = self.invoke("--out", tmp_path / "out", *args)
        assert (result.exit_code, result.output.count("Error: ")) == (code, 1), result.output
        assert message in " ".join(result.output.split())
        assert not list(tmp_path.glob("out/runs/*"))
