"""The list of ids in docs/environments.md is complete; test_docs.py runs the examples of the page."""

import re
from pathlib import Path

import gymnasium

import espo_gym  # noqa: F401

PAGE = (Path(__file__).parents[1] / "docs" / "environments.md").read_text(encoding="utf-8")


def test_every_id_is_listed():
    listed = set(re.findall(r"^\| `(espo_gym/[^`]+)`", PAGE, re.MULTILINE))
    assert listed == {id for id in gymnasium.registry if id.startswith("espo_gym/")}
