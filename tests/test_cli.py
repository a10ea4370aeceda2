"""The command line as its user meets it: options, messages, exit codes."""

import json
import os
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import click
import gymnasium as gym
import pytest
from click.testing import CliRunner, Result
from runs import read_points

from espo_gym import choices
from espo_gym.algorithms import ALGORITHMS
from espo_gym.cli.evaluate import load_policy
from espo_gym.cli.hyperparameters import algorithm_classes, built_in, of_class
from espo_gym.cli.main import main
from espo_gym.experiments.protocol import PROTOCOLS
from espo_gym.experiments.tuning import SEEDS
from espo_gym.reports.inspector import MOST

SMALL = ["--rollout-size", "32", "--timesteps", "64", "--eval-problems", "8", "--eval-k", "2", "--no-progress"]


def invoke(*args: object) -> Result:
    return CliRunner().invoke(main, [str(a) for a in args])


def fails(*args: object, code: int = 1) -> str:
    """Run a command that must fail, and return its message: one, in words, without a traceback."""
    result = invoke(*args)
    assert result.exit_code == code, result.output
    assert isinstance(result.exception, SystemExit), result.exception
    assert "Traceback" not in result.output
    assert result.output.count("Error: ") == 1
    return result.output.partition("Error: ")[2]


def parameters(command: str) -> dict[str, Any]:
    """Options and arguments of a command by name."""
    found = main.commands[command]
    return {str(p.name): p for p in found.get_params(click.Context(found, info_name=command))}


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """The folder of a run; tests must not change it."""
    out = tmp_path_factory.mktemp("runs") / "espo"
    result = invoke("train", *SMALL, "--save-every", 32, "--out", out)
    assert result.exit_code == 0, result.output
    return out


@pytest.mark.usefixtures("no_picture")
class TestTrain:
    def test_the_folder(self, finished):
        names = {p.name for p in finished.iterdir()}
        assert names >= {"config.json", "progress.csv", "progress.json", "evaluation.json", "samples.jsonl"}
        assert names >= {"curves.png", "checkpoint.zip", "policy"}

    def test_what_a_person_sees(self, tmp_path):
        result = invoke("train", *SMALL, "--out", tmp_path / "run")
        lines = result.output.splitlines()
        assert lines[0].startswith("before: greedy 0.") and "maj@2" in lines[0]
        assert "espo_gym/Addition-v0, 8 problems of the split test, with 95 % intervals" in lines
        for name in ("greedy", "avg@2", "pass@2", "maj@2"):
            assert any(line.strip().startswith(name) and line.count("[") == 2 for line in lines)
        assert lines[-1] == f"Everything is in {tmp_path / 'run'}/"
        assert max(map(len, lines[:-1])) <= 80

    def test_progress(self, tmp_path):
        result = invoke("train", *[a for a in SMALL if a != "--no-progress"], "--out", tmp_path / "run")
        assert result.exit_code == 0
        shown = [line for line in result.output.splitlines() if line.startswith("completions ")]
        assert [line.split(",")[0] for line in shown] == ["completions 32", "completions 64"], "no terminal, so lines"

    @pytest.mark.parametrize("name", ALGORITHMS)
    def test_every_algorithm(self, name, tmp_path):
        result = invoke("train", *SMALL, "--eval-k", 0, "--algo", name, "--out", tmp_path / "run")
        assert result.exit_code == 0, result.output
        assert json.loads((tmp_path / "run" / "config.json").read_text())["algo"] == name
        assert invoke("eval", tmp_path / "run", "--problems", 4, "--k", 0).exit_code == 0

    def test_options_reach_the_algorithm_and_the_environment(self, tmp_path):
        options = ["--alpha", 0.3, "--quantiles", "0.5,0.8", "--reference-kl", "--stop", ",", "--stop", "="]
        options += ["--preset", "paper", "--max-completion-tokens", 20, "--env-arg", "digits=2"]
        result = invoke("train", *SMALL, *options, "--out", tmp_path / "run")
        assert result.exit_code == 0, result.output
        config = json.loads((tmp_path / "run" / "config.json").read_text())
        wanted = {"alpha": 0.3, "quantiles": [0.5, 0.8], "reference_kl": True, "stop": [",", "="], "preset": "paper"}
        assert wanted.items() <= config["hyperparameters"].items()
        assert config["env_args"] == {"digits": 2}
        assert "train/ref_kl_k3" in read_points(tmp_path / "run")

    def test_config_reruns_and_options_change_it(self, finished, tmp_path):
        config = finished / "config.json"
        assert invoke("train", "--config", config, "--no-progress", "--out", tmp_path / "again").exit_code == 0
        for name in ("evaluation.json", "samples.jsonl", "config.json"):
            assert (tmp_path / "again" / name).read_text() == (finished / name).read_text()
        changed = invoke("train", "--config", config, "--seed", 1, "--no-progress", "--out", tmp_path / "other")
        assert changed.exit_code == 0
        assert json.loads((tmp_path / "other" / "config.json").read_text())["hyperparameters"]["seed"] == 1
        assert read_points(tmp_path / "other")["rollout/reward_mean"] != read_points(finished)["rollout/reward_mean"]

    def test_resume(self, finished, tmp_path):
        out = tmp_path / "run"
        assert invoke("train", *SMALL, "--timesteps", 32, "--out", out).exit_code == 0
        result = invoke("train", "--resume", "--timesteps", 64, "--no-progress", "--out", out)
        assert result.exit_code == 0, result.output
        assert result.output.startswith("resuming at 32 of 64 timesteps")
        weights = Path("policy") / "model.safetensors"
        assert (out / weights).read_bytes() == (finished / weights).read_bytes()

    def test_overwrite(self, tmp_path):
        out = tmp_path / "run"
        assert invoke("train", *SMALL, "--out", out).exit_code == 0
        message = fails("train", *SMALL, "--out", out)
        assert "--resume" in message and "--overwrite" in message
        assert invoke("train", *SMALL, "--timesteps", 32, "--overwrite", "--out", out).exit_code == 0
        assert read_points(out)["time/timesteps"] == [(32, 32)]

    @pytest.mark.filterwarnings("always")
    def test_a_run_that_learns_nothing_is_told_so(self, tmp_path):
        result = invoke("train", *SMALL, "--n-minibatches", 1, "--out", tmp_path / "run")
        assert result.exit_code == 0
        (line,) = (line for line in result.output.splitlines() if "every importance ratio is 1" in line)
        assert line.startswith("Warning: ratio_one: ")

    def test_an_environment_from_a_module(self, tmp_path, monkeypatch):
        """Also in a process that has not imported it yet, as a resumed run's."""
        (tmp_path / "sums.py").write_text(
            "from espo_gym.envs import register_task\n"
            "register_task('sums/Small-v0', 'espo_gym.envs.tasks.addition:Addition', digits=2)\n"
        )
        monkeypatch.syspath_prepend(tmp_path)
        out = tmp_path / "run"
        first = invoke("train", *SMALL, "--timesteps", 32, "--env", "sums:sums/Small-v0", "--out", out)
        assert first.exit_code == 0, first.output
        del gym.registry["sums/Small-v0"], sys.modules["sums"]
        resume = ("train", "--resume", "--timesteps", 64, "--no-progress", "--out", out)
        assert "--allow-import sums" in fails(*resume) and "sums" not in sys.modules
        second = invoke(*resume, "--env", "sums:sums/Small-v0")
        assert second.exit_code == 0, second.output
        gym.registry.pop("sums/Small-v0")

    def test_interrupt_says_how_to_go_on(self, tmp_path, monkeypatch):
        from espo_gym import ESPO

        monkeypatch.setattr(ESPO, "learn", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        result = invoke("train", *SMALL, "--out", tmp_path / "run")
        assert result.exit_code == 130
        assert f"espo-gym train --resume --out {tmp_path / 'run'}" in result.output


class TestMistakes:
    """Each is one clear message, and leaves nothing behind."""

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ("--env espo_gym/Addision-v0", "Did you mean: `Addition`?"),
            ("--env CartPole-v1", "a language model reads and writes text"),
            ("--env Addition-v0", "Did you mean 'espo_gym/Addition-v0'?"),
            ("--env my/Env-v0", "name another package's as module:id"),
            ("--env no_such_module:my/Env-v0", "set PYTHONPATH: PYTHONPATH=. espo-gym ..."),
            ("--env-arg task=json:nothing", "no task 'json:nothing': json has no attribute 'nothing'"),
            ("--env-arg task=json:loads", "expected a Task, a Task subclass, 'module:Class' or a registered id, got"),
            ("--env espo_gym/JSONL-v0 --env-arg path=none.jsonl", "there is no file 'none.jsonl'"),
            ("--env-arg digitz=3", "Addition has no argument 'digitz'. Did you mean 'digits'?"),
            ("--env-arg digits=x", "digits must be an integer from 1 to 18, not 'x'"),
            ("--env-arg split=exam", "unknown split 'exam'"),
            ("--algo grpo --alpha 0.1", "GRPO has no hyperparameter 'alpha', which belongs to ESPO"),
            ("--alpha -1", "alpha must be > 0"),
            ("--preset large", "preset must be one of paper, teaching"),
            ("--group-size 5", "a rollout of 32 completions cannot be split into groups of 5"),
            ("--policy /no/such/folder", "there is no folder '/no/such/folder'"),
            ("--timesteps 0", "timesteps must be at least 1"),
            ("--eval-every -1", "eval_every must be at least 0"),
            ("--config none.json", "no config at none.json"),
            ("--resume", "nothing to resume"),
        ],
    )
    def test_exit_1(self, options, message, tmp_path):
        text = fails("train", *SMALL, "--out", tmp_path / "run", *options.split())
        assert message in text
        assert "raised from the environment creator" not in text
        assert not (tmp_path / "run").exists()

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ("--algo reinforce", "'reinforce' is not one of"),
            ("--alpha x", "'x' is not a valid float"),
            ("--quantiles 0.5;0.8", "is not a list of numbers such as 0.5,0.8"),
            ("--env-arg digits", "--env-arg takes KEY=VALUE, not 'digits'"),
            ("--colour 3", "No such option"),
            ("--dtype int8", "'int8' is not one of"),
        ],
    )
    def test_exit_2_for_wrong_usage(self, options, message, tmp_path):
        assert message in fails("train", *SMALL, "--out", tmp_path / "run", *options.split(), code=2)
        assert not (tmp_path / "run").exists()

    def test_malformed_line_with_its_number(self, tmp_path):
        path = tmp_path / "problems.jsonl"
        path.write_text('{"question": "1+1=", "answer": "2"}\n{"question": "1+2=",\n')
        text = fails(
            "train", *SMALL, "--env", "espo_gym/JSONL-v0", "--env-arg", f"path={path}", "--out", tmp_path / "r"
        )
        assert f"{path}, line 2" in text

    def test_configs(self, tmp_path):
        path = tmp_path / "config.json"
        for content, message in (
            ("{", "Expecting"),
            ('{"colour": 3}', "no such field: colour"),
            ('{"hyperparameters": {"alpha": "x"}}', "alpha must be > 0 and finite"),
        ):
            path.write_text(content)
            assert message in fails("train", "--config", path, "--out", tmp_path / "run")
        path.write_text("{}")
        for option in ("--algo=grpo", "--preset=paper"):
            text = fails("train", "--config", path, option, "--out", tmp_path / "run", code=2)
            assert "no --algo or --preset with it" in text
        assert not (tmp_path / "run").exists()

    def test_a_resumed_run_keeps_its_config(self, finished):
        text = fails("train", "--resume", "--out", finished, "--alpha", 1, code=2)
        assert "only --timesteps and --out go with --resume" in text

    def test_traceback_on_request(self, tmp_path):
        result = invoke("--traceback", "train", *SMALL, "--alpha", -1, "--out", tmp_path / "run")
        assert isinstance(result.exception, ValueError)


class TestEval:
    EVAL = ("--problems", 8, "--k", 2)

    def test_every_kind_of_source_is_the_same_policy(self, finished):
        """The folder of a run, a checkpoint with and without ending, a policy's folder."""
        env = ("--env", "espo_gym/Addition-v0", "--max-completion-tokens", 48)
        outputs = {
            invoke("eval", source, *self.EVAL, *options).output
            for source, options in (
                (finished, ()),
                (finished / "checkpoint.zip", ()),
                (finished / "checkpoint", ()),
                (finished / "policy", env),
            )
        }
        assert len(outputs) == 1
        (output,) = outputs
        after = json.loads((finished / "evaluation.json").read_text())["after"]
        assert output.startswith("espo_gym/Addition-v0, 8 problems of the split test")
        assert f"{after['avg@2']['value']:.3f} [{after['avg@2']['low']:.3f}, {after['avg@2']['high']:.3f}]" in output

    def test_bundled_policy(self, finished):
        result = invoke("eval", "espo_gym/teaching", "--env", "espo_gym/Addition-v0", *self.EVAL)
        before = json.loads((finished / "evaluation.json").read_text())["before"]
        assert f"greedy  {before['greedy']['value']:.3f}" in result.output

    def test_dtype(self, finished):
        env = ("--env", "espo_gym/Addition-v0", "--max-completion-tokens", 48, "--dtype", "bfloat16")
        outputs = [invoke("eval", source, *self.EVAL, *env) for source in (finished, finished / "policy")]
        assert outputs[0].exit_code == outputs[1].exit_code == 0
        assert outputs[0].output == outputs[1].output

    def test_shortcuts_are_checked_in_the_dtype_that_is_evaluated(self, finished):
        assert load_policy(str(finished), None, {}).policy.checked_shortcuts
        assert load_policy(str(finished), None, {}, dtype="bfloat16").policy.checked_shortcuts == {}

    def test_arguments_change_a_checkpoints_own_environment(self, finished):
        plain, other = (invoke("eval", finished, *self.EVAL, *args) for args in ((), ("--env-arg", "digits=1")))
        assert other.exit_code == 0
        assert plain.output != other.output

    def test_json_keeps_every_completion(self, finished, tmp_path):
        path = tmp_path / "new" / "completions.jsonl"
        assert invoke("eval", finished, *self.EVAL, "--json", path).exit_code == 0
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        assert [row["kind"] for row in rows] == ["greedy", "sample", "sample"] * 8

    @pytest.mark.parametrize(
        ("options", "code", "message"),
        [
            ("--split exam", 1, "unknown split 'exam'. Known: train, validation, test"),
            ("--env espo_gym/Addision-v0", 1, "Did you mean: `Addition`?"),
            ("--env-arg digits=99", 1, "digits must be an integer from 1 to 18"),
            ("--k -1", 2, "not in the range"),
            ("--problems 0", 2, "not in the range"),
            ("--max-completion-tokens 0", 2, "not in the range"),
            ("--temperature -1", 1, "temperature must be >= 0"),
        ],
    )
    def test_mistakes(self, finished, options, code, message):
        assert message in fails("eval", finished, *self.EVAL, *options.split(), code=code)

    def test_sources_that_are_none(self, finished, tmp_path):
        env = ("--env", "espo_gym/Addition-v0")
        assert "no checkpoint at" in fails("eval", tmp_path / "none.zip", *env)
        assert "there is no folder" in fails("eval", tmp_path / "none", *env)
        assert "give --env" in fails("eval", finished / "policy", code=2)
        (tmp_path / "broken.zip").write_bytes((finished / "checkpoint.zip").read_bytes()[:5000])
        assert "is not a checkpoint" in fails("eval", tmp_path / "broken.zip")


def loaded_by(arguments: str, shown: str = "", **environment: str) -> list[str]:
    """Which heavy packages a process has loaded after ``espo-gym`` with these arguments."""
    code = f"""
import sys
from espo_gym.cli.main import main
try:
    main({arguments.split()!r}, prog_name="espo-gym")
except SystemExit:
    pass
heavy = ("torch", "transformers", "stable_baselines3", "scipy", "matplotlib", "sympy")
print("LOADED", *sorted(set(heavy) & set(sys.modules)))
"""
    command = [sys.executable, "-c", code]
    done = subprocess.run(
        command, env=os.environ | environment, capture_output=True, text=True, timeout=120, check=True
    )
    assert shown in done.stdout
    return done.stdout.splitlines()[-1].split()[1:]


class TestHelp:
    def test_every_option_has_help(self):
        for command in main.commands:
            for parameter in parameters(command).values():
                if isinstance(parameter, click.Option):
                    assert parameter.help and parameter.help.endswith((".", "]", ")")), (command, parameter.name)

    def test_every_hyperparameter_is_an_option_with_its_docstring(self):
        options = parameters("train")
        for cls in ALGORITHMS.values():
            for name, hyperparameter in of_class(cls).items():
                assert hyperparameter.doc and hyperparameter.doc in options[name].help

    def test_a_hyperparameter_of_few_names_its_algorithms(self):
        assert parameters("train")["alpha"].help.startswith("[ESPO")

    def test_what_is_read_from_the_sources_is_what_the_classes_have(self):
        """Names, order, types and docstrings; those of an option that takes no such type would show here too."""
        assert algorithm_classes() == {name: cls.__name__ for name, cls in ALGORITHMS.items()}
        for cls in ALGORITHMS.values():
            read, keywords = built_in()[cls.__name__], [f for f in fields(cls) if f.kw_only and f.init]
            assert list(read) == [f.name for f in keywords]
            assert read.keys() == cls.hyperparameters().keys()
            assert [h.type for h in read.values()] == [eval(str(f.type)) for f in keywords]
            assert read == of_class(cls)

    def test_what_help_says_of_things_that_it_does_not_import(self):
        assert tuple(PROTOCOLS) == choices.PROTOCOLS
        assert parameters("compare")["tune_seeds"].default == len(SEEDS)
        assert f"Seeds of it: {SEEDS[0]}, ..." in parameters("compare")["tune_seeds"].help
        assert f"up to {MOST}]" in parameters("inspect")["completions"].help

    @pytest.mark.parametrize("command", ["train", "eval", "compare", "list"])
    def test_help(self, command):
        result = invoke(command, "--help")
        assert result.exit_code == 0
        assert result.output.startswith("Usage: ")

    def test_list_names_everything(self):
        result = invoke("list")
        assert result.exit_code == 0
        for name in [*ALGORITHMS, "espo_gym/teaching", *(id for id in gym.registry if id.startswith("espo_gym/"))]:
            assert name in result.output

    @pytest.mark.parametrize(
        "arguments",
        [
            "--version",
            "--help",
            *(f"{command} --help" for command in main.commands),
            "train --micro-batch-size 16",
            "train --algo nothing",
            "trayn",
        ],
    )
    def test_what_needs_no_torch_loads_none(self, arguments):
        assert loaded_by(arguments) == []

    @pytest.mark.parametrize(
        ("words", "wanted"), [("espo-gym tr", "train"), ("espo-gym train --micro", "--micro-batch-tokens")]
    )
    def test_completion_in_the_shell_loads_no_torch(self, words, wanted):
        completion = {"_ESPO_GYM_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
        assert loaded_by("", shown=wanted, **completion) == []

    def test_version(self):
        import espo_gym

        assert espo_gym.__version__ in invoke("--version").output
