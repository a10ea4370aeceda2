"""What is declared in pyproject.toml is what lies in the folders."""

import ast
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import espo_gym
from espo_gym import extras

ROOT = Path(__file__).resolve().parents[1]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def project() -> dict[str, Any]:
    tomllib = pytest.importorskip("tomllib", reason="tomllib came with Python 3.11")
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def folder_of(package: str, mapped: dict[str, str]) -> Path:
    """Where setuptools looks for a package: the longest mapped parent decides."""
    for n in range(package.count(".") + 1, 0, -1):
        parent = ".".join(package.split(".")[:n])
        if parent in mapped:
            return ROOT / mapped[parent] / Path(*package.split(".")[n:])
    return ROOT / Path(*package.split("."))


def test_every_folder_of_modules_is_declared_as_a_package_and_the_other_way_round():
    tool = project()["tool"]["setuptools"]
    declared = {folder_of(name, tool["package-dir"]) for name in tool["packages"]}
    existing = {path.parent for top in ("espo_gym", "algorithms", "envs") for path in (ROOT / top).rglob("__init__.py")}
    assert declared == existing and len(tool["packages"]) == len(set(tool["packages"]))


def test_every_module_lies_in_a_package():
    for top in ("espo_gym", "algorithms", "envs"):
        for path in (ROOT / top).rglob("*.py"):
            assert (path.parent / "__init__.py").is_file(), f"{path.parent} has no __init__.py"


def test_no_package_but_espo_gym_reaches_site_packages():
    assert {name.split(".")[0] for name in project()["tool"]["setuptools"]["packages"]} == {"espo_gym"}


def test_the_bundled_policy_is_package_data_and_small():
    files = list((ROOT / "espo_gym" / "teaching").iterdir())
    assert "teaching/*" in project()["tool"]["setuptools"]["package-data"]["espo_gym"]
    assert {"model.safetensors", "config.json", "tokenizer.json"} <= {f.name for f in files}
    assert sum(f.stat().st_size for f in files) < 0.5e6


def test_the_versions_agree():
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == espo_gym.__version__
    declared = project()["project"]
    assert "version" in declared.get("dynamic", []) or declared["version"] == espo_gym.__version__


def test_the_packages_of_a_checkout_are_those_of_the_checkout():
    import espo_gym.algorithms
    import espo_gym.envs

    for module, folder in ((espo_gym.envs, "envs"), (espo_gym.algorithms, "algorithms")):
        assert module.__file__ is not None
        if Path(espo_gym.__file__).parent == (ROOT / "espo_gym"):
            assert Path(module.__file__).parent == ROOT / folder


def test_the_three_lists_of_public_names_agree():
    """What type checkers see, what is loaded at first use, and ``__all__``."""
    tree = ast.parse((ROOT / "espo_gym" / "__init__.py").read_text())
    block = next(node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    seen = {
        (node.module, alias.name)
        for node in ast.walk(block)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert seen == {(module, name) for module, names in espo_gym._HOMES.items() for name in names}
    assert {name for _, name in seen} | {"envs"} == set(espo_gym.__all__)
    assert all(getattr(espo_gym, name) is not None for name in espo_gym.__all__)


def test_coverage_is_measured_over_all_folders_of_the_package():
    settings = project()["tool"]["coverage"]
    folders = {"espo_gym", *project()["tool"]["setuptools"]["package-dir"].values()}
    assert set(settings["run"]["source"]) == set(settings["paths"]) == folders
    assert settings["report"]["fail_under"] > 0


def test_a_commit_hook_is_the_version_that_lint_runs():
    pinned = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line)
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    revisions = {repo["repo"].rpartition("/")[2].removesuffix("-pre-commit"): repo.get("rev") for repo in hooks}
    assert revisions == {"ruff": f"v{pinned['ruff']}", "codespell": f"v{pinned['codespell']}", "local": None}


def test_every_action_is_pinned_by_a_full_commit_and_its_version_noted():
    pins: dict[str, str] = {}
    for path in WORKFLOWS:
        for used in re.findall(r"^\s*(?:- )?uses:\s*(.+)$", path.read_text(), re.MULTILINE):
            if used.startswith("./"):  # a workflow of this repository, at this commit
                assert (ROOT / used).is_file(), f"{path.name} uses {used}, which does not exist"
                continue
            match = re.fullmatch(r"([\w.-]+/[\w./-]+)@([0-9a-f]{40} # v\d+\.\d+\.\d+)", used)
            assert match, f"{path.name} uses {used!r}: pin it as owner/action@<40 hex digits> # v1.2.3"
            action, pin = match.groups()
            assert pins.setdefault(action, pin) == pin, f"{path.name} pins another {action} than a workflow before it"
    assert {"actions/checkout", "actions/setup-python", "pypa/gh-action-pypi-publish"} <= pins.keys()


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_may_only_read_and_a_job_that_may_more_says_so(path):
    workflow = yaml.safe_load(path.read_text())
    assert workflow["permissions"] == {"contents": "read"}
    writing = {name: job["permissions"] for name, job in workflow["jobs"].items() if "permissions" in job}
    expected = {"publish": {"id-token": "write"}, "github": {"contents": "write"}} if path.stem == "release" else {}
    assert writing == expected


def requirements() -> dict[str, Requirement]:
    """What the package and its extras depend on, the package itself left out."""
    declared = project()["project"]
    extras = declared["optional-dependencies"].values()
    lines = [*declared["dependencies"], *(line for extra in extras for line in extra)]
    return {canonicalize_name(r.name): r for r in map(Requirement, lines) if r.name != declared["name"]}


def test_the_constraints_satisfy_what_is_declared():
    pinned = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line)
    versions: dict[str, str] = {canonicalize_name(name): version for name, version in pinned.items()}
    for name, requirement in requirements().items():
        if name != "vllm":  # needs a GPU
            assert requirement.specifier.contains(versions[name]), f"constraints.txt: {name}=={versions[name]}"


@pytest.mark.parametrize(
    ("name", "vulnerable"),
    [("transformers", "5.2.0"), ("torch", "2.9.1"), ("torch", "2.5.1"), ("jinja2", "3.1.5"), ("tqdm", "4.66.2")],
)
def test_no_version_is_admitted_that_is_known_to_run_code_from_a_file(name, vulnerable):
    assert not requirements()[name].specifier.contains(vulnerable)


def test_the_extra_for_training_is_what_its_advice_names():
    extra = {canonicalize_name(Requirement(r).name) for r in project()["project"]["optional-dependencies"]["train"]}
    assert extra == set(map(canonicalize_name, extras.TRAINING))
    assert not extra & {canonicalize_name(Requirement(r).name) for r in project()["project"]["dependencies"]}


WITHOUT = f"""
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {(*extras.TRAINING, "tokenizers", "pandas")!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Missing())
"""


def without_training(code: str) -> str:
    """What ``code`` prints where the packages of the extra ``train`` cannot be imported."""
    command = [sys.executable, "-c", WITHOUT + code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_environments_and_the_verifier_need_no_torch():
    printed = without_training("""
import gymnasium, espo_gym
from espo_gym.envs import verify
from espo_gym.envs.verifier import audit, close
env = gymnasium.make("espo_gym/Addition-v0", verifier="audit", audit_share=1.0)
env.reset(seed=0); env.step("1")
gymnasium.make_vec("espo_gym/Countdown-v0", num_envs=2).reset(seed=0)
verdicts = verify([r"\\boxed{x+1}", r"\\int_0^1 x dx"], ["1+x", "1/2"])
print([v.status for v in verdicts], verdicts[1].tier, audit(verdicts, ["1+x", "1/2"]).rate)
close()
""")
    assert printed == "['correct', 'correct'] math-verify 0.0\n"


def test_the_command_line_without_training_works_or_says_what_to_install():
    printed = without_training("""
from click.testing import CliRunner
from espo_gym.cli.main import main
run = lambda words: CliRunner().invoke(main, words.split())
assert "correct" in run("verify 7 7").output
listed = run("list")
assert listed.exit_code == 0 and "espo_gym/Addition-v0" in listed.output, listed.output
print(listed.output.splitlines()[0])
evaluate = "eval espo_gym/teaching --env espo_gym/Addition-v0"
for words in ("train --out x", evaluate, "compare --out x", "report .", "plot ."):
    failed = run(words)
    assert failed.exit_code == 1 and failed.output.count("Error") == 1, failed.output
    print(failed.output)
""")
    assert len(re.findall(r"is not installed\. Training, .*: pip install 'espo-gym\[train\]'", printed)) == 6
    assert printed.startswith("No algorithms: torch is not installed. ")


def test_the_names_that_need_training_say_what_to_install():
    assert (
        without_training("""
import espo_gym
for name in ("ESPO", "Policy", "LiveTable", "compare"):
    try:
        getattr(espo_gym, name)
    except ImportError as error:
        assert "pip install 'espo-gym[train]'" in str(error), error
    else:
        raise AssertionError(name)
""")
        == ""
    )
    assert extras.advice(ModuleNotFoundError("No module named 'mine'", name="mine")) is None
    assert extras.advice(ImportError("torch is broken")) is None


def test_the_versions_that_are_installed_are_audited():
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "check.yml").read_text())["jobs"]
    assert any("make audit" in step.get("run", "") for step in jobs["audit"]["steps"])
    recipe = (ROOT / "Makefile").read_text().partition("\naudit:\n")[2].partition("\n\n")[0]
    assert "pip-audit --strict --requirement constraints.txt" in recipe
