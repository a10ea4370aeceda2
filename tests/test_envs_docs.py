"""The list of ids in docs/environments.md is complete, and the docstrings of the environments are true.

test_docs.py runs the examples of the page.
"""

import ast
import doctest
import inspect
import re
from pathlib import Path

import gymnasium
import pytest

import espo_gym
from espo_gym.envs import MathVectorEnv, Task, TextEnv, task_arguments
from espo_gym.envs.registration import task_spec

PAGE = (Path(__file__).parents[1] / "docs" / "environments.md").read_text(encoding="utf-8")
IDS = sorted(id for id in gymnasium.registry if id.startswith("espo_gym/"))
HEADINGS = ["Description", "Observation", "Action", "Reward", "Arguments", "Example", "Version history"]


def task_class(id: str) -> type[Task]:
    module, _, name = task_spec(id).kwargs["task"].partition(":")
    found = getattr(__import__(module, fromlist=[name]), name)
    assert issubclass(found, Task)
    return found


TASKS = [task_class(id) for id in IDS]
every_task = pytest.mark.parametrize("task", TASKS, ids=lambda task: task.__name__)


def manual_page(cls: type) -> str:
    return inspect.cleandoc(cls.__dict__["__doc__"])  # its own, not the parent's


def test_every_id_is_listed():
    listed = set(re.findall(r"^\| `(espo_gym/[^`]+)`", PAGE, re.MULTILINE))
    assert listed == set(IDS)


@every_task
def test_class_docstring_is_a_manual_page(task):
    page = manual_page(task)
    titles = re.findall("^## (.+)$", page, re.MULTILINE)
    assert [part for title in titles for part in title.split(", ")] == HEADINGS
    assert re.search("^## Version history\n\n- v0: ", page, re.MULTILINE)
    assert all(len(line) <= 116 for line in page.splitlines())


@every_task
def test_the_table_of_arguments_is_that_of_the_constructor(task):
    """Every argument of the class is there, and its default is the one that holds."""
    arguments = task_arguments(task)
    if task.open_arguments:  # those that it passes on are in the other environment's table
        arguments = {name: p for name, p in arguments.items() if name in task.__init__.__annotations__}
    rows = re.findall(r"^\| `(\w+)` \| .+? \| `(.+?)` \| ", manual_page(task), re.MULTILINE)
    assert [name for name, _ in rows] == list(arguments)
    settings = {"question": "question_field", "answer": "answer_field", "dataset": "hub", "name": "hub_name"}
    for name, written in rows:
        default = arguments[name].default
        if default is None and name != "system_prompt":  # None stands for what the class says
            default = getattr(task, settings.get(name, name), None)
        assert ast.literal_eval(written) == default, name


@pytest.mark.parametrize("cls", [*TASKS, TextEnv, MathVectorEnv], ids=lambda cls: cls.__name__)
def test_the_example_in_the_docstring_runs(cls, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    [example] = doctest.DocTestFinder(recurse=False).find(cls, cls.__name__, globs=vars(espo_gym.envs).copy())
    result = doctest.DocTestRunner().run(example)
    assert result.failed == 0 and result.attempted >= 4


def test_a_default_that_is_wrong_in_the_table_is_noticed(monkeypatch):
    addition = task_class("espo_gym/Addition-v0")
    monkeypatch.setattr(addition, "__doc__", manual_page(addition).replace("| `3` |", "| `4` |"))
    with pytest.raises(AssertionError, match="digits"):
        test_the_table_of_arguments_is_that_of_the_constructor(addition)
