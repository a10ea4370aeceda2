"""The examples of docs/environments.md run, and its list of ids is complete."""

import re
from pathlib import Path

import gymnasium
import pytest

import espo_gym  # noqa: F401

PAGE = (Path(__file__).parents[1] / "docs" / "environments.md").read_text(encoding="utf-8")
EXAMPLES = [code for code in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL) if not code.startswith("# not run")]


@pytest.mark.parametrize("example", EXAMPLES)
def test_example_runs(example):
    before = set(gymnasium.registry)
    try:
        exec(compile(example, "docs/environments.md", "exec"), {"__name__": "example"})
    finally:
        for id in set(gymnasium.registry) - before:
            del gymnasium.registry[id]


def test_every_id_is_listed():
    listed = set(re.findall(r"^\| `(espo_gym/[^`]+)`", PAGE, re.MULTILINE))
    assert listed == {id for id in gymnasium.registry if id.startswith("espo_gym/")}
