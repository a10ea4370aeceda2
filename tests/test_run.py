"""The folder of a run: what it holds, that it can be run again and resumed, and that nothing in it is lost."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.spaces import Text
from runs import read_points
from safetensors.torch import load_file
from stable_baselines3.common.callbacks import ConvertCallback
from transformers import AutoModelForCausalLM, AutoTokenizer

from espo_gym import ESPO, Policy
from espo_gym.experiments import run as module
from espo_gym.experiments.config import RunConfig
from espo_gym.experiments.run import train
from espo_gym.experiments.run_folder import read_progress
from espo_gym.files import write_json
from espo_gym.reports.plot import plot_run

SMALL = {"timesteps": 96, "eval_problems": 8, "eval_k": 2, "eval_every": 2, "save_every": 32}
HYPERPARAMETERS = {"rollout_size": 32, "n_minibatches": 2, "micro_batch_tokens": 64, "seed": 3}


def config(**changes) -> RunConfig:
    return RunConfig(**(SMALL | {"hyperparameters": dict(HYPERPARAMETERS)} | changes))


def run(out: Path, settings: RunConfig | None = None, **kwargs):
    return train(settings or config(), out, progress_bar=False, log=lambda _: None, **kwargs)


def weights(out: Path):
    return load_file(out / "policy" / "model.safetensors")


def same(a, b) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def curves(out: Path):
    """Every metric that is not a time."""
    return {k: v for k, v in read_points(out).items() if not k.startswith("time/") or k == "time/timesteps"}


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A run of three rollouts; tests must not change it."""
    out = tmp_path_factory.mktemp("runs") / "finished"
    run(out)
    return out


class TestFolder:
    def test_config_has_every_hyperparameter_and_version(self, finished):
        written = json.loads((finished / "config.json").read_text())
        assert written["hyperparameters"]["rollout_size"] == 32
        assert written["hyperparameters"]["alpha"] == 0.5, "the preset that the policy recommends"
        assert written["versions"].keys() >= {"espo-gym", "python", "torch", "transformers"}

    def test_progress_in_csv_and_json_lines(self, finished):
        with (finished / "progress.csv").open() as file:
            rows = list(csv.DictReader(file))
        lines = [json.loads(line) for line in (finished / "progress.json").read_text().splitlines()]
        assert [int(row["time/timesteps"]) for row in rows] == [32, 64, 96]
        assert [line["time/timesteps"] for line in lines] == [32, 64, 96]
        assert float(rows[0]["rollout/accuracy"]) == lines[0]["rollout/accuracy"]
        assert [bool(row["eval/greedy"]) for row in rows] == [False, True, False]

    def test_tensorboard_events(self, finished):
        pytest.importorskip("tensorboard")
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        events = EventAccumulator(str(finished)).Reload()
        assert [e.step for e in events.Scalars("rollout/accuracy")] == [32, 64, 96]

    def test_evaluation_before_and_after(self, finished):
        evaluation = json.loads((finished / "evaluation.json").read_text())
        assert list(evaluation) == ["before", "after"]
        for figures in evaluation.values():
            assert {"greedy", "avg@2", "pass@2", "maj@2"} <= figures.keys()
            assert figures["greedy"]["low"] <= figures["greedy"]["value"] <= figures["greedy"]["high"]
            assert (figures["split"], figures["n_problems"], figures["no_verdict"]) == ("test", 8, 0)

    def test_samples(self, finished):
        rows = [json.loads(line) for line in (finished / "samples.jsonl").read_text().splitlines()]
        assert len(rows) == 2 * 8 * 3, "before and after, 8 problems, one greedy and two sampled completions"
        assert {(row["when"], row["timesteps"]) for row in rows} == {("before", 0), ("after", 96)}
        assert all(
            row["prompt"].endswith("=") and row["verdict"] in ("correct", "incorrect", "no_answer") for row in rows
        )
        before = json.loads((finished / "evaluation.json").read_text())["before"]["greedy"]["value"]
        greedy = [row["verdict"] == "correct" for row in rows if row["when"] == "before" and row["kind"] == "greedy"]
        assert sum(greedy) / len(greedy) == before

    def test_curves_are_a_picture(self, finished):
        from matplotlib.image import imread

        plot_run(finished)  # as espo-gym train does
        assert (finished / "curves.png").read_bytes().startswith(b"\x89PNG\r\n")
        assert imread(finished / "curves.png").shape[:2] == (780, 1380), "6.9 inches at 200 dots"

    def test_plain_transformers_load_the_policy(self, finished):
        model = AutoModelForCausalLM.from_pretrained(finished / "policy")
        tokenizer = AutoTokenizer.from_pretrained(finished / "policy")
        ids = tokenizer("1+2=", return_tensors="pt")["input_ids"]
        assert model(ids).logits.shape[:2] == ids.shape

    def test_no_partial_files_are_left(self, finished):
        assert not [p for p in finished.iterdir() if p.name.startswith(".") or p.suffix == ".part"]


class TestAgain:
    def test_the_config_reruns_to_equal_metrics_and_weights(self, finished, tmp_path):
        run(tmp_path / "again", RunConfig.read(finished / "config.json"))
        assert curves(tmp_path / "again") == curves(finished)
        assert same(weights(tmp_path / "again"), weights(finished))
        for name in ("evaluation.json", "samples.jsonl", "config.json"):
            assert (tmp_path / "again" / name).read_text() == (finished / name).read_text()

    def test_resumed_equals_uninterrupted(self, finished, tmp_path):
        out = tmp_path / "run"
        run(out, config(timesteps=32))
        run(out, config(), resume=True)
        assert same(weights(out), weights(finished))
        assert curves(out) == curves(finished), "the earlier metrics are kept and evaluations come at the same rollouts"
        before, after = (json.loads((p / "evaluation.json").read_text()) for p in (out, finished))
        assert before == after

    def test_resuming_a_finished_run_changes_nothing(self, finished, tmp_path):
        out = tmp_path / "run"
        run(out)
        run(out, config(), resume=True)
        assert same(weights(out), weights(finished))
        assert curves(out) == curves(finished)

    @pytest.mark.slow  # tests/faults kills at chosen moments
    def test_killed_and_resumed_equals_uninterrupted(self, finished, tmp_path):
        """SIGKILL at a moment of no one's choosing between the first checkpoint and the end."""
        out, code = tmp_path / "run", "from test_run import *; run(Path(sys.argv[1]), config(timesteps=100_000))"
        paths = os.pathsep.join(map(str, (Path(__file__).parent, Path(__file__).parents[1])))
        process = subprocess.Popen([sys.executable, "-c", code, str(out)], env=os.environ | {"PYTHONPATH": paths})
        try:
            deadline = time.monotonic() + 120
            while not ((out / "progress.json").is_file() and (out / "progress.json").read_text().count("\n") > 1):
                assert process.poll() is None and time.monotonic() < deadline
                time.sleep(0.01)
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
        assert not (out / "policy").exists()
        reached = max(step for step, _ in read_points(out)["time/timesteps"])
        messages: list[str] = []
        train(config(timesteps=max(96, reached)), out, resume=True, progress_bar=False, log=messages.append)
        assert messages[0].startswith("resuming at ") and not messages[0].startswith("resuming at 0 ")
        mine, theirs = curves(out), curves(finished)
        assert {k: v[: len(theirs[k])] for k, v in mine.items()} == theirs
        if reached <= 96:
            assert same(weights(out), weights(finished))

    def test_a_later_file_wins_and_the_rest_is_kept(self, tmp_path):
        (tmp_path / "progress.csv").write_text("a,time/timesteps\n1,10\n2,20\n3,30\n")
        (tmp_path / "progress_20.csv").write_text("a,time/timesteps,b\n5,30,\n6,40,7\n")
        assert read_points(tmp_path)["a"] == [(10, 1), (20, 2), (30, 5), (40, 6)]
        assert read_points(tmp_path)["b"] == [(40, 7)]

    def test_json_lines_and_csv_are_read_alike(self, finished, tmp_path):
        csv_only = tmp_path / "csv"
        csv_only.mkdir()
        shutil.copy(finished / "progress.csv", csv_only)
        rows, from_csv = read_progress(finished), read_progress(csv_only)
        assert from_csv.keys() == rows.keys()
        for name, values in rows.items():
            np.testing.assert_array_equal(from_csv[name], values)

    def test_of_each_start_json_lines_are_preferred_and_torn_lines_left_out(self, tmp_path):
        (tmp_path / "progress.csv").write_text("a,time/timesteps\n7,10\n7,20\n")
        (tmp_path / "progress.json").write_text(
            '{"a": 1, "time/timesteps": 10}\n{"a": NaN, "time/timesteps": 20}\n{"a"'
        )
        (tmp_path / "progress_20.csv").write_text("a,time/timesteps\n3,30\n4,4")  # cut off, and yet a row
        np.testing.assert_array_equal(read_progress(tmp_path)["a"], [1, np.nan, 3])
        assert read_points(tmp_path)["a"] == [(10, 1), (30, 3)]

    def test_a_write_that_is_interrupted_leaves_the_old_file(self, tmp_path, monkeypatch):
        write_json(tmp_path / "a.json", "old")

        def killed(self, text, **_):
            with self.open("w") as file:
                file.write(text[:2])
            raise KeyboardInterrupt

        monkeypatch.setattr(Path, "write_text", killed)
        with pytest.raises(KeyboardInterrupt):
            write_json(tmp_path / "a.json", "new")
        assert json.loads((tmp_path / "a.json").read_text()) == "old"

    def test_a_row_is_on_file_before_the_checkpoint_that_counts_it(self, tmp_path, monkeypatch):
        counted, save = [], ESPO.save

        def saving(self, path):
            if self.num_timesteps:
                counted.append((self.num_timesteps, read_progress(Path(path).parent)["time/timesteps"].tolist()))
            return save(self, path)

        monkeypatch.setattr(ESPO, "save", saving)
        run(tmp_path / "run", config(save_every=40))
        assert counted == [(64, [32, 64]), (96, [32, 64, 96])], "at the first boundary past each multiple, and the end"

    @pytest.mark.parametrize("point", ["checkpoint", "config", "after", "policy", "samples", "finished"])
    def test_an_error_at_any_point_is_mended_by_starting_or_resuming(self, finished, tmp_path, monkeypatch, point):
        """Where config.json is there the run can be resumed, and where it is not it can be started."""
        out, calls = tmp_path / "run", []
        target, name, at = {
            "checkpoint": (ESPO, "save", 1),
            "config": (RunConfig, "write", 1),
            "after": (module, "_evaluate", 2),
            "policy": (Policy, "save_pretrained", 5),  # four of the checkpoints, and the policy's own
            "samples": (module, "write_samples", 2),
            "finished": (module, "_record", 2),
        }[point]
        call = getattr(target, name)

        def failing(*arguments, **options):
            calls.append(point)
            if len(calls) == at and point != "finished":
                raise OSError("No space left on device")
            result = call(*arguments, **options)
            if len(calls) == at:
                raise OSError("No space left on device")
            return result

        with monkeypatch.context() as patched, pytest.raises(OSError, match="No space"):
            patched.setattr(target, name, failing)
            run(out)
        begun = (out / "config.json").is_file()
        if not begun:
            with pytest.raises(FileNotFoundError, match="ended before it began"):
                run(out, resume=True)
        run(out, resume=begun)
        assert curves(out) == curves(finished) and same(weights(out), weights(finished))
        for file in ("evaluation.json", "samples.jsonl", "config.json"):
            assert (out / file).read_bytes() == (finished / file).read_bytes()
        assert not [path.name for path in out.iterdir() if path.name.startswith(".")]

    def test_an_error_while_the_earlier_run_is_removed_leaves_nothing_to_resume(self, finished, tmp_path, monkeypatch):
        out = tmp_path / "run"
        shutil.copytree(finished, out)

        def failing(path, **_):
            raise OSError("Input/output error")

        with monkeypatch.context() as patched, pytest.raises(OSError, match="Input/output"):
            patched.setattr(shutil, "rmtree", failing)
            run(out, overwrite=True)
        assert (out / "policy").is_dir()
        with pytest.raises(FileNotFoundError, match="ended before it began"):
            run(out, resume=True)
        run(out)
        assert curves(out) == curves(finished) and same(weights(out), weights(finished))

    @pytest.mark.parametrize(
        "change", [lambda r: r.pop("env"), lambda r: r["greedy"].pop("high"), lambda r: r.update(greedy={"value": "1"})]
    )
    def test_a_damaged_evaluation_is_named(self, finished, tmp_path, change):
        out = tmp_path / "run"
        shutil.copytree(finished, out)
        evaluations = json.loads((out / "evaluation.json").read_text())
        change(evaluations["before"])
        write_json(out / "evaluation.json", evaluations)
        with pytest.raises(ValueError, match=r"evaluation\.json is damaged: its evaluation before training"):
            run(out, resume=True)

    def test_a_finished_run_says_so(self, finished, tmp_path):
        shutil.copytree(finished, tmp_path / "run")
        messages: list[str] = []
        before = TestNothingIsLost().snapshot(tmp_path / "run")
        train(config(), tmp_path / "run", resume=True, log=messages.append)
        assert messages == ["nothing to do: this run is finished, at 96 timesteps"]
        assert TestNothingIsLost().snapshot(tmp_path / "run") == before

    def test_a_run_that_was_made_longer_stays_longer(self, finished, tmp_path):
        """Killed while it was, it must not be taken for finished."""
        out = tmp_path / "run"
        shutil.copytree(finished, out)

        def killed(*_):
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            run(out, config(timesteps=160), resume=True, callbacks=[ConvertCallback(killed)])
        again = RunConfig.read(out / "config.json")
        assert again.timesteps == 160
        run(out, again, resume=True)
        run(tmp_path / "whole", config(timesteps=160))
        assert curves(out) == curves(tmp_path / "whole") and same(weights(out), weights(tmp_path / "whole"))
        rows = [json.loads(line)["when"] for line in (out / "samples.jsonl").read_text().splitlines()]
        assert rows == ["before"] * 24 + ["after"] * 24


class TestNothingIsLost:
    def snapshot(self, out: Path):
        return {p.relative_to(out): p.read_bytes() for p in out.rglob("*") if p.is_file()}

    def test_a_run_is_not_replaced_unasked(self, finished):
        before = self.snapshot(finished)
        with pytest.raises(ValueError, match="holds a run"):
            run(finished)
        assert self.snapshot(finished) == before

    def test_a_folder_of_other_things_is_never_replaced(self, tmp_path):
        (tmp_path / "thesis.txt").write_text("years of work")
        with pytest.raises(ValueError, match="not the folder of a run"):
            run(tmp_path, overwrite=True)
        assert (tmp_path / "thesis.txt").read_text() == "years of work"

    @pytest.mark.parametrize(
        "changes",
        [
            {"env": "espo_gym/Addision-v0"},
            {"env_args": {"digits": 99}},
            {"policy": "/no/such/folder"},
            {"hyperparameters": {"alpha": -1}},
            {"hyperparameters": {"clip_low": 0.1}},
            {"algo": "reinforce"},
            {"env_args": {"template": "{a} and {b}: "}},  # the tokenizer has no token for "n", which shows at last
        ],
    )
    def test_a_mistake_does_not_cost_the_run_that_was_to_be_replaced(self, finished, changes):
        before = self.snapshot(finished)
        with pytest.raises((ValueError, OSError, gym.error.Error)):
            run(finished, config(**changes), overwrite=True)
        assert self.snapshot(finished) == before

    def test_a_second_process_is_refused_and_costs_nothing(self, tmp_path, monkeypatch):
        monkeypatch.setattr("espo_gym.experiments.folder_lock.PATIENCE", 0.0)
        out = tmp_path / "run"

        def second(*_):
            with pytest.raises(RuntimeError, match=f"process {os.getpid()} .* is working in"):
                run(out, config(hyperparameters=HYPERPARAMETERS | {"seed": 9}), overwrite=True)
            with pytest.raises(RuntimeError, match="is working in"):
                run(out, resume=True)
            return True

        run(out, callbacks=[ConvertCallback(second)])
        assert RunConfig.read(out / "config.json").hyperparameters["seed"] == 3

    @pytest.mark.parametrize("how", [shutil.rmtree, lambda out: out.rename(out.with_name("moved"))])
    def test_a_folder_that_has_gone_ends_the_run_and_is_not_made_again(self, tmp_path, how):
        def gone(where, _):
            if where["self"].num_timesteps == 64:
                how(tmp_path / "run")
            return True

        with pytest.raises(FileNotFoundError, match="the folder of the run, was removed or moved"):
            run(tmp_path / "run", callbacks=[ConvertCallback(gone)])
        assert not (tmp_path / "run").exists()

    def test_a_link_to_an_empty_folder(self, tmp_path):
        (tmp_path / "disk").mkdir()
        (tmp_path / "run").symlink_to(tmp_path / "disk")
        run(tmp_path / "run", config(timesteps=32))
        run(tmp_path / "run", config(timesteps=32), overwrite=True)
        assert (tmp_path / "run").is_symlink() and (tmp_path / "disk" / "policy").is_dir()

    def test_a_name_that_is_no_text(self, tmp_path):
        with pytest.raises(ValueError, match="cannot be written: choose another folder"):
            run(tmp_path / os.fsdecode(b"run\xff"))
        assert not list(tmp_path.iterdir())

    @pytest.mark.parametrize(
        ("name", "message"), [("evaluation.json", "the evaluation"), ("config.json", "the config")]
    )
    @pytest.mark.parametrize("text", ["", "[]", '{"after": [], "hyperparameters": 3}', "\xff"])
    def test_a_damaged_file_is_named(self, finished, tmp_path, name, message, text):
        """An empty one is what a power cut used to leave."""
        out = tmp_path / "run"
        shutil.copytree(finished, out)
        (out / name).write_bytes(text.encode("latin-1"))
        with pytest.raises(ValueError, match=f"{name} is not {message} of a run: "):
            run(out, resume=True)

    def test_a_mistake_leaves_no_folder(self, tmp_path):
        with pytest.raises(ValueError):
            run(tmp_path / "run", config(env_args={"digits": 99}))
        assert not (tmp_path / "run").exists()

    def test_overwrite_starts_anew_even_from_the_policy_of_the_old_run(self, tmp_path):
        out = tmp_path / "run"
        run(out, config(timesteps=32))
        run(out, config(timesteps=32, policy=str(out / "policy")), overwrite=True)
        assert json.loads((out / "config.json").read_text())["policy"] == str(out / "policy")
        assert list(read_points(out)["time/timesteps"]) == [(32, 32)]

    def test_a_gradient_that_is_not_finite_keeps_the_last_checkpoint(self, tmp_path):
        from espo_gym import ESPO

        out = tmp_path / "run"
        with pytest.raises(FloatingPointError, match="learning rate"):
            run(
                out,
                config(timesteps=6400, hyperparameters=HYPERPARAMETERS | {"learning_rate": 1e30, "warmup_steps": 0}),
            )
        assert not any(p.isnan().any() for p in ESPO.load(out / "checkpoint.zip").policy.parameters())


class Echo(gym.Env):
    """An environment from elsewhere: text, but no task and no splits."""

    observation_space = action_space = Text(48, min_length=0, charset="0123456789+-*/=,>:$ ")

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return f"{self.np_random.integers(10)}+1=", {}

    def step(self, action):
        return "", float("1" in action), True, False, {}


class TestWhereToEvaluate:
    def test_an_environment_without_splits(self, tmp_path):
        gym.register("test/Echo-v0", lambda **_: Echo())
        try:
            result = run(tmp_path / "run", config(env="test/Echo-v0"))
        finally:
            del gym.registry["test/Echo-v0"]
        assert result["after"]["split"] is None
        assert "eval/greedy" in read_points(tmp_path / "run")

    def test_data_without_a_validation_split_is_evaluated_on_test(self, tmp_path):
        for name in ("train", "test"):
            rows = [{"question": f"{i}+{i}=", "answer": str(2 * i)} for i in range(5)]
            (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        path = {name: str(tmp_path / f"{name}.jsonl") for name in ("train", "test")}
        result = run(tmp_path / "run", config(env="espo_gym/JSONL-v0", env_args={"path": path}))
        assert (result["after"]["split"], result["after"]["n_problems"]) == ("test", 5)
        assert "eval/greedy" in read_points(tmp_path / "run")


def test_dynamic_sampling_that_finds_no_group_to_learn_from(tmp_path):
    """Addition of six digits is out of reach of the bundled policy: all rewards are 0."""
    run(tmp_path / "run", config(algo="dapo", env_args={"digits": 6}, timesteps=64))
    metrics = curves(tmp_path / "run")
    assert [value for _, value in metrics["train/gradient_token_share"]] == [0.0] * len(metrics["train/loss"])


class TestConfig:
    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("{", "Expecting"),
            ("[1]", "JSON object"),
            ('{"colour": 3}', "no such field: colour"),
            ('{"timesteps": "many"}', "timesteps must be of type int"),
            ('{"eval_k": -1}', "eval_k must be at least 0"),
            ('{"dtype": "int8"}', "dtype must be one of"),
            ("algo: espo", "it must be JSON, as the config.json of a run is"),
            ('{"algo": "nope"}', "no algorithm 'nope'"),
            ('{"algo": "no_such_module:Mine"}', "no algorithm 'no_such_module:Mine': No module named 'no_such_module'"),
            ('{"algo": "espo_gym.algorithms:Mine"}', "has no attribute 'Mine'"),
            ('{"algo": "espo_gym.envs:Addition"}', "no policy optimizer"),
            ('{"algo": "grpo", "hyperparameters": {"alpha": 1}}', "'alpha', which belongs to ESPO"),
        ],
    )
    def test_what_is_wrong_is_said(self, tmp_path, text, message):
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(ValueError, match="is not the config of a run") as error:
            RunConfig.read(tmp_path / "config.json", allow_import=["no_such_module"])
        assert message in str(error.value)

    def test_missing(self, tmp_path):
        with pytest.raises(FileNotFoundError, match="no config at"):
            RunConfig.read(tmp_path / "config.json")

    def test_dtype(self):
        policy = config(dtype="bfloat16").make().policy
        assert (policy.dtype, policy.compute_dtype) == (torch.float32, torch.bfloat16)
