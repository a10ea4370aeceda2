"""Floors: what may import what. Read from the sources, so that an import inside a function counts too."""

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import check_types
import pytest

ROOT = Path(__file__).resolve().parents[1]
HEAVY = {"torch", "transformers", "stable_baselines3", "safetensors", "tokenizers"}


MUTUAL = ("espo_gym.envs.verifier.relations", "espo_gym.envs.verifier.compare")
"""The one pair that may import each other: two halves of one recursion. The first may leave out the second."""


def modules() -> dict[str, Path]:
    """Every module of the package by the name that it is imported by."""
    found = {}
    for folder, package in (("espo_gym", "espo_gym"), ("algorithms", "espo_gym.algorithms"), ("envs", "espo_gym.envs")):
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT / folder).with_suffix("").parts
            found[".".join([package, *(p for p in parts if p != "__init__")])] = path
    return found


MODULES = modules()


FLOORS = ("envs", "core", "algorithms", "experiments", "reports", "cli")
"""From the lowest to the highest: imports lead down, or stay on their floor. Everything unnamed is the core."""


def floor(module: str) -> str:
    for name in (*FLOORS, "testing"):
        if module == f"espo_gym.{name}" or module.startswith(f"espo_gym.{name}."):
            return name
    return "core"


@cache
def imports(module: str, *, typing_too: bool, lazy_too: bool = True) -> set[str]:
    """Absolute names of what ``module`` imports; a ``from`` import gives the module or, if it is one, the submodule."""
    tree = ast.parse(MODULES[module].read_text())
    package = module if MODULES[module].name == "__init__.py" else module.rpartition(".")[0]
    found: set[str] = set()

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            for child in (*node.orelse, *(node.body if typing_too else [])):
                visit(child)
            return
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) and not lazy_too:
            return
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = package.split(".")
                base = ".".join([*parts[: len(parts) - node.level + 1], *([node.module] if node.module else [])])
            for alias in node.names:
                name = f"{base}.{alias.name}"
                found.add(name if name in MODULES else base)
        for inner in ast.iter_child_nodes(node):
            visit(inner)

    visit(tree)
    return found


def test_the_reader_of_imports_sees_them():
    assert {"espo_gym.algorithms.terms", "espo_gym.rollout", "torch"} <= imports(
        "espo_gym.algorithms.loss", typing_too=True
    )
    assert "espo_gym.experiments.compare" in imports("espo_gym", typing_too=True)
    assert "espo_gym.experiments.compare" not in imports("espo_gym", typing_too=False)
    assert {floor(m) for m in MODULES} >= {"core", "envs", "algorithms"} and len(MODULES) > 30


@pytest.mark.parametrize("module", [m for m in MODULES if floor(m) == "envs"])
def test_the_environments_import_nothing_of_ours_but_themselves_and_no_torch(module):
    for name in imports(module, typing_too=True):
        assert not name.startswith("espo_gym") or floor(name) == "envs", f"{module} imports {name}"
        assert name.split(".")[0] not in HEAVY, f"{module} imports {name}"


@pytest.mark.parametrize("module", [m for m in MODULES if floor(m) in FLOORS and m != "espo_gym"])
def test_imports_lead_down(module):
    for name in imports(module, typing_too=True):
        above = (*FLOORS[FLOORS.index(floor(module)) + 1 :], "testing")
        assert not (name.startswith("espo_gym") and floor(name) in above), f"{module} imports {name}"
        assert name.split(".")[0] not in ("benchmarks", "tests", "examples"), f"{module} imports {name}"


@pytest.mark.parametrize("module", [m for m in MODULES if floor(m) == "testing"])
def test_the_conformance_checks_know_no_algorithm_by_name(module):
    named = [a.name for node in ast.walk(ast.parse(MODULES[module].read_text())) if isinstance(node, ast.ImportFrom)
             for a in node.names if node.module == "espo_gym.algorithms"]  # fmt: skip
    assert set(named) <= {"PolicyOptimizer", "LossBatch", "LossOutput"}, f"{module} imports {named}"
    assert not any(floor(name) in FLOORS[3:] for name in imports(module, typing_too=True))


def test_there_is_no_circle_of_imports():
    """Nor of knowledge: imports under TYPE_CHECKING and inside functions count too."""
    graph = {m: {n for n in imports(m, typing_too=True) if n in MODULES} for m in MODULES}
    for module in graph:
        graph[module] -= {module, "espo_gym"}  # a package is there while its modules are being imported
    graph[MUTUAL[0]].remove(MUTUAL[1])
    finished: set[str] = set()

    def walk(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " -> ".join([*path[path.index(module) :], module])
        if module in finished:
            return
        for name in sorted(graph[module]):
            # what a package's own __init__ gathers does not count as a way back to it
            if not module.startswith(name + "."):
                walk(name, (*path, module))
        finished.add(module)

    for module in graph:
        walk(module, ())


def test_types_are_checked_across_every_seam():
    """Of two readers of the imports, this file's and that of check_types.py, which plants an error for each pair."""

    def of(module: str) -> str:
        return "policy" if f"{module}.".startswith("espo_gym.policy.") else floor(module)

    pairs = {(of(m), of(n)) for m in MODULES for n in imports(m, typing_too=True) if n.startswith("espo_gym")}
    seams = check_types.seams()
    outside = {"benchmarks", "examples", "tests"}
    assert {seam for seam in seams if seam[0] not in outside} == {(a, b) for a, b in pairs if a != b}
    assert {("core", "envs"), ("algorithms", "policy"), ("experiments", "algorithms"), ("cli", "reports")} <= set(seams)
    assert outside == {a for a, b in seams if a in outside and b == "core"}
    assert all(path in check_types.sources() for path, _ in seams.values())


def python(code: str, **environment: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-c", code]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)


def test_importing_the_package_and_making_an_environment_loads_no_torch():
    code = f"""
import sys, gymnasium, espo_gym
env = gymnasium.make("espo_gym/Addition-v0")
env.reset(seed=0); env.step("1")
gymnasium.make_vec("espo_gym/Addition-v0", num_envs=2).reset(seed=0)
loaded = sorted({HEAVY!r} & set(sys.modules))
assert not loaded, loaded
"""
    done = python(code)
    assert done.returncode == 0, done.stderr


def test_a_loss_costs_torch_alone():
    """It is loaded inside other people's workers, which have a trainer and an engine of their own."""
    code = f"""
import sys, torch
from espo_gym.algorithms import LossBatch, espo_loss
x = torch.zeros(2, 3)
espo_loss(LossBatch(x, x, x == 0, torch.ones(2), entropies=x + 1, vocab_size=9))
loaded = sorted({HEAVY - {"torch"} | {"scipy", "matplotlib", "rich", "math_verify"}!r} & set(sys.modules))
assert not loaded, loaded
"""
    done = python(code)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("package", ["algorithms", "envs"])
def test_importing_a_package_by_its_bare_name_says_the_right_one(package):
    done = python(f"import {package}")
    assert done.returncode != 0
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError") and f"espo_gym.{package}" in last
