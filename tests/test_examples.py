"""Every example runs from start to finish, and gives the result that its docstring describes."""

import importlib.util
import re
from pathlib import Path

import gymnasium as gym
from click.testing import CliRunner

EXAMPLES = Path(__file__).parents[1] / "examples"


def run(name: str, *args: object) -> str:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    result = CliRunner().invoke(module.main, [str(a) for a in args], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def values(output: str, name: str) -> list[float]:
    """The numbers that follow ``name`` in ``output``."""
    return [float(x) for x in re.findall(rf"\b{re.escape(name)} +(\d\.\d+)", output)]


def test_every_example_is_tested_and_says_what_it_teaches():
    for path in EXAMPLES.glob("*.py"):
        assert f'run("{path.stem}"' in Path(__file__).read_text()
        assert re.match(r'"""Lesson \d: ', path.read_text())


def test_first_run():
    output = run("first_run", "--timesteps", 1280, "--problems", 32)
    before, after = values(output, "greedy")
    assert before < 0.4 and after > before
    assert "incorrect" in output


def test_compare_losses_starts_on_equal_terms():
    output = run("compare_losses", "--timesteps", 512, "--algo", "espo", "--algo", "grpo")
    lines = output.splitlines()
    assert [line.split()[2] for line in lines] == ["espo", "grpo"]
    assert len({line.split()[3] for line in lines}) == 1, "the first rollout is the same for all"


def test_own_environment():
    try:
        output = run("own_environment", "--timesteps", 512)
    finally:
        gym.registry.pop("my/Greater-v0", None)
    before, after = values(output, "avg@8")
    assert after > before
    assert "no_verdict" not in output


def test_own_algorithm():
    output = run("own_algorithm", "--timesteps", 256, "--problems", 8)
    assert [line.split()[0] for line in output.splitlines()] == ["GSPO", "WeightedGSPO", "ESPO"]
    assert len(set(output.splitlines())) == 3


def test_own_trainer():
    output = run("own_trainer", "--steps", 3)
    accuracy = values(output, "accuracy")
    assert len(accuracy) == 3 and accuracy[-1] > accuracy[0]


def test_head_to_head(tmp_path):
    output = run("head_to_head", "--timesteps", 256, "--seeds", 1, "--jobs", 1, "--out", tmp_path / "out")
    assert "espo and twin, +0.000, one seed in common" in output
    assert "NOT OK" not in output and "3 of 3 runs finished" in output
