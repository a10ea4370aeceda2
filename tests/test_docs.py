"""The documentation: its examples run, its commands parse, its links resolve, and its tables match the code."""

import json
import re
import shlex
import sys
import types
from collections.abc import Iterator
from contextlib import suppress
from itertools import takewhile
from pathlib import Path
from typing import Any

import click
import gymnasium
import pytest
import torch
from stable_baselines3.common.callbacks import BaseCallback, ConvertCallback

from espo_gym import ALGORITHMS, ESPO, EvaluateCallback, LossBatch, Policy, PolicyOptimizer
from espo_gym.cli.main import main
from espo_gym.diagnostics import DIAGNOSES
from espo_gym.envs import Verdict, register_task
from espo_gym.envs.tasks.addition import Addition
from espo_gym.experiments.budget import BudgetCallback
from espo_gym.experiments.config import RunConfig
from espo_gym.experiments.run import train
from espo_gym.experiments.run_folder import read_progress

ROOT = Path(__file__).parents[1]
DOCS = sorted((ROOT / "docs").glob("*.md"))
PAGES = sorted({*DOCS, *ROOT.glob("*.md")})


def examples() -> Iterator:
    """The Python blocks of README, CONTRIBUTING and docs/*.md, except those that begin with ``# not run``.

    CONTRIBUTING's worked algorithm, which is written for algorithms/, has a test below.
    """
    for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *DOCS):
        blocks = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
        for number, code in enumerate(blocks, 1):
            if not code.startswith("# not run") and "from .base import" not in code:
                yield pytest.param(page, code, id=f"{page.stem}-{number}")


@pytest.mark.parametrize(("page", "code"), list(examples()))
def test_example_runs(page, code, tmp_path, monkeypatch):
    """As it stands, but for the length of the training."""
    learn = PolicyOptimizer.learn

    def shortened(self: PolicyOptimizer, total_timesteps: int, *args: Any, **kwargs: Any) -> PolicyOptimizer:
        return learn(self, min(total_timesteps, 256), *args, **kwargs)

    monkeypatch.setattr(PolicyOptimizer, "learn", shortened)
    monkeypatch.chdir(tmp_path)
    before = set(gymnasium.registry)
    try:
        exec(compile(code, str(page), "exec"), {"__name__": "example"})
    finally:
        for id in set(gymnasium.registry) - before:
            del gymnasium.registry[id]


def anchors(page: Path) -> set[str]:
    """What can follow # in a link to ``page``: its headings, as GitHub names them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_to_files_resolve(page):
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path) if path else page
        assert file.exists(), f"{page.name} links to {target}, which is not there"
        if anchor:
            assert anchor in anchors(file), f"{page.name} links to {target}, and {file.name} has no such heading"


# -- commands ----------------------------------------------------------------------------------------------------------


def commands(text: str) -> Iterator[str]:
    """Every ``espo-gym ...`` command of a page: the lines of its code blocks, and its inline code spans.

    A backslash continues a line, variables before a command (``PYTHONPATH=.``) are dropped, and so is ``...``, which
    stands for further options.
    """
    fence = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)
    indented = re.compile(r"^ {4}.*$", re.MULTILINE)
    blocks = "\n".join([*fence.findall(text), *indented.findall(fence.sub("", text))])
    lines = [line.strip() for line in blocks.replace("\\\n", " ").splitlines()]
    spans = [" ".join(span.split()) for span in re.findall(r"(?<!`)`([^`]+)`(?!`)", fence.sub("", text))]
    for line in lines + spans:
        command = re.sub(r"^(?:\$ )?(?:\w+=\S* )*", "", line)
        if command.startswith("espo-gym "):
            yield command.replace(" ...", "")


def parse(command: str) -> None:
    """Parse ``command`` as the command line does, and run nothing.

    A group option stands before the name of the subcommand and takes no value. ``espo-gym NAME`` alone only names a
    command, whose arguments may be missing.

    Raises:
        click.UsageError: no such command, option or value, or a missing argument.
    """
    _, *words = shlex.split(command, comments=True)
    options = list(takewhile(lambda word: word.startswith("-"), words))
    if options == words:  # --version
        with suppress(click.exceptions.Exit):
            main.make_context("espo-gym", options)
        return
    name, *arguments = words[len(options) :]
    with main.make_context("espo-gym", [*options, name]) as context:
        subcommand = main.get_command(context, name)
        if subcommand is None:
            raise click.UsageError(f"no such command: {name}")
        if arguments:
            with suppress(click.exceptions.Exit):  # --help
                subcommand.make_context(name, arguments, parent=context)


@pytest.fixture
def mylab(tmp_path, monkeypatch) -> Iterator[None]:
    """The module ``mylab`` of training.md, which parsing ``--algo mylab:SqrtGRPO`` imports for its options."""
    (code,) = re.findall(r"```python\n(# mylab.py\n.*?)```", (ROOT / "docs" / "training.md").read_text(), re.DOTALL)
    (tmp_path / "mylab.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("mylab", None)
    gymnasium.registry.pop("mylab/Double-v0", None)


@pytest.mark.usefixtures("mylab")
@pytest.mark.parametrize(
    ("page", "command"),
    [
        pytest.param(page, command, id=f"{page.stem}-{number}")
        for page in PAGES
        for number, command in enumerate(commands(page.read_text(encoding="utf-8")), 1)
    ],
)
def test_command_parses(page, command):
    try:
        parse(command)
    except click.UsageError as error:
        pytest.fail(f"{page.name}: {command}\n{error.format_message()}")


def test_the_commands_of_a_page_are_found():
    page = """`espo-gym list` and `x`, `espo-gym
eval a`

    espo-gym plot a

```
$ A=1 espo-gym train \\
  --seed 1  # comment
```
"""
    assert [shlex.split(command, comments=True)[1:] for command in commands(page)] == [
        ["train", "--seed", "1"],
        ["plot", "a"],
        ["list"],
        ["eval", "a"],
    ]


@pytest.mark.parametrize("command", ["train --no-such-option 1", "no-such-command", "eval --k 1", "train --seed x"])
def test_a_wrong_command_is_found(command):
    with pytest.raises(click.UsageError):
        parse(f"espo-gym {command}")


# -- algorithms.md -----------------------------------------------------------------------------------------------------

SECTIONS = dict(
    re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", (ROOT / "docs" / "algorithms.md").read_text(), re.DOTALL | re.MULTILINE)
)


@pytest.mark.parametrize("name", ALGORITHMS)
class TestAlgorithms:
    def test_the_formula_is_that_of_the_code(self, name):
        cls = ALGORITHMS[name]
        block = (sys.modules[cls.__module__].__doc__ or "").partition("::\n\n")[2]
        formula = re.findall(r"\A(?: {4}.*\n| *\n)+", block)[0].rstrip()
        assert formula in SECTIONS[cls.__name__], f"the section {cls.__name__} lacks the formula of its module"
        assert f"`--algo {name}`" in SECTIONS[cls.__name__]

    def test_the_table_has_its_own_options_with_their_defaults(self, name):
        cls = ALGORITHMS[name]
        shared = PolicyOptimizer.hyperparameters()
        presets = [cls.hyperparameters(preset) for preset in ("paper", "teaching")]
        own = {key for key, value in presets[0].items() if key not in shared or value != shared[key]}
        rows = re.findall(r"^\| `(\w+)` \| `(.*?)` \| `(.*?)` \|$", SECTIONS[cls.__name__], re.MULTILINE)
        listed = {key: (paper, teaching) for key, paper, teaching in rows}
        expected = {
            key: tuple(json.dumps(p[key]) if isinstance(p[key], str) else str(p[key]) for p in presets) for key in own
        }
        assert listed == expected


# -- metrics.md --------------------------------------------------------------------------------------------------------


def listed_metrics() -> set[str]:
    table = re.findall(r"^\| (`(?!diagnostics)\w+/.*?) \|", (ROOT / "docs" / "metrics.md").read_text(), re.MULTILINE)
    return {key for cell in table for key in re.findall(r"`([^`]+)`", cell)}


class Unreliable(Addition):
    """A verifier that fails on one completion in four."""

    name = "addition"

    def verify(self, completions, problems):
        verdicts = super().verify(completions, problems)
        return [Verdict("no_verdict", reason="timeout") if i % 4 == 0 else v for i, v in enumerate(verdicts)]


def logged_keys(algorithm: PolicyOptimizer, *callbacks: BaseCallback) -> set[str]:
    """What ``algorithm`` records for one rollout."""
    keys: set[str] = set()

    def keep(*_: object) -> bool:
        keys.update(algorithm.logger.name_to_value)
        return True

    algorithm.learn(algorithm.rollout_size, [*callbacks, ConvertCallback(keep)])
    return keys | {"time/timesteps", "time/rollouts"}  # recorded as the row is written


@pytest.fixture(scope="module")
def logged(tmp_path_factory) -> set[str]:
    """The keys of runs that between them use everything which logs."""
    keys: set[str] = set()
    folder = tmp_path_factory.mktemp("metrics")
    small: dict[str, Any] = {"rollout_size": 32, "group_size": 4, "n_minibatches": 2}
    cases: list[tuple[str, dict[str, Any]]] = [
        ("espo", {"kl_coef": 0.1, "kl_target": 0.01, "entropy_coef": 0.01}),
        ("ppo", {"reference_kl": True, "critic": "separate"}),
        ("dapo", {"sampler_correction": "token", "dual_clip": 3.0}),
    ]
    register_task("test/Unreliable-v0", Unreliable)
    try:
        for i, (algo, options) in enumerate(cases):
            config = RunConfig(
                algo=algo,
                env="test/Unreliable-v0",
                env_args={"verifier": "audit", "audit_share": 1.0},
                timesteps=64,
                eval_problems=4,
                eval_k=2,
                eval_every=1,
                hyperparameters=small | options,
            )
            budget = BudgetCallback(folder / str(i), config.timesteps)  # of comparisons
            train(config, folder / str(i), progress_bar=False, log=lambda _: None, callbacks=[budget])
            keys |= read_progress(folder / str(i)).keys()
        policy = Policy.from_pretrained("espo_gym/teaching", dtype=torch.bfloat16)
        algorithm = ESPO(policy, "test/Unreliable-v0", **small)
        keys |= logged_keys(algorithm, EvaluateCallback(k=2, n_problems=4))
    finally:
        del gymnasium.registry["test/Unreliable-v0"]
    keys = {key for key in keys if not key.startswith("diagnostics/")}  # they have a test of their own
    return {re.sub(r"@\d+", "@k", key.replace("no_verdict_timeout", "no_verdict_REASON")) for key in keys}


def test_every_diagnosis_is_in_the_page():
    page = (ROOT / "docs" / "metrics.md").read_text()
    rows = re.findall(r"^\| `diagnostics/(\w+)` \| .* \| (\d+) \|$", page, re.MULTILINE)
    assert dict(rows) == {d.name: str(d.rollouts) for d in DIAGNOSES}


def test_every_logged_metric_is_in_the_page(logged):
    assert logged - listed_metrics() == set()


def test_every_metric_of_the_page_is_logged(logged):
    assert listed_metrics() - logged == set()


def test_every_algorithm_logs_the_same_keys():
    """Apart from PPO's value head."""
    keys = {
        name: frozenset(logged_keys(cls("espo_gym/teaching", "espo_gym/Addition-v0", rollout_size=16)))
        - {"train/value_loss", "train/explained_variance"}
        for name, cls in ALGORITHMS.items()
    }
    assert len(set(keys.values())) == 1


# -- CONTRIBUTING.md ---------------------------------------------------------------------------------------------------


def test_the_layout_shows_every_room():
    """In the diagram and in the table, and nothing that is not there."""
    layout = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").partition("## Layout")[2].partition("\n## ")[0]
    (diagram,) = re.findall(r"```text\n(.*?)```", layout, re.DOTALL)
    rooms = {
        path.parent.relative_to(ROOT).as_posix() + "/"
        for package in ("espo_gym", "algorithms", "envs")
        for path in (ROOT / package).rglob("__init__.py")
    }
    assert set(re.findall(r"[a-z_]+/(?:[a-z_]+/)*", diagram)) == rooms
    assert set(re.findall(r"^\| `(.*?)` \|", layout, re.MULTILINE)) == rooms
    core = diagram[diagram.index(" core ") : diagram.index(" envs ")]
    files = re.findall(r"\b[a-z_]+\b", re.sub(r"[a-z_]+/|imports lead|down| core ", "", core))
    assert sorted(files) == sorted(p.stem for p in (ROOT / "espo_gym").glob("*.py") if p.stem != "__init__")


def test_the_worked_algorithm_works():
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(), re.DOTALL)
    name = "espo_gym.algorithms.reinforce"
    module = sys.modules[name] = types.ModuleType(name)
    try:
        exec(compile(code, "CONTRIBUTING.md", "exec"), vars(module))
        algo = module.Reinforce("espo_gym/teaching", "espo_gym/Addition-v0", rollout_size=32).learn(32)
        assert algo.n_updates == algo.n_minibatches
        batch = LossBatch(
            logps=torch.full((2, 3), -1.0),
            old_logps=torch.full((2, 3), -1.0),
            mask=torch.ones(2, 3),
            advantages=torch.tensor([1.0, -3.0]),
        )
        assert float(module.reinforce_loss(batch).loss) == pytest.approx(1.0)
    finally:
        del sys.modules[name]
