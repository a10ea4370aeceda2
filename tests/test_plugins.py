"""A package outside the repository, with an algorithm and an environment, through every command; and what may be
imported because a file names it."""

import json
import os
import subprocess
import sys
import warnings
import zipfile
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest
from click.testing import CliRunner, Result
from tiny import SMALL, tiny_policy

import espo_gym.environment
from espo_gym import plugins
from espo_gym.algorithms import ALGORITHMS, ESPO, GRPO, PolicyOptimizer
from espo_gym.algorithms.registry import name_of, resolve
from espo_gym.cli.main import main
from espo_gym.experiments.compare import compare
from espo_gym.experiments.config import RunConfig
from espo_gym.experiments.setting import Entry, entry_list

ALGORITHM = '''"""Somebody else's algorithm."""
from dataclasses import dataclass

from torch import Tensor

from espo_gym import GRPO, LossBatch


@dataclass(kw_only=True, eq=False)
class SqrtGRPO(GRPO):
    """GRPO whose ratio is raised to a power."""

    power: float = 0.5
    """Exponent of the importance ratio."""
    shape: "list[int] | None" = None
    """A type that no option is made for."""

    def ratios(self, batch: LossBatch) -> Tensor:
        return super().ratios(batch) ** self.power
'''
TASKS = '''"""Somebody else's task."""
from espo_gym.envs import Problem, ProceduralTask


class Double(ProceduralTask):
    """Twice a number."""

    name = "double"
    template = "{n}+{n}="

    def sample(self, rng):
        n = int(rng.integers(10, 99))
        return Problem(prompt=self.template.format(n=n), answer=str(2 * n), key=str(n))
'''
INIT = """from espo_gym.envs import register_task
from .algorithm import SqrtGRPO

register_task("mylab/Double-v0", "mylab.tasks:Double")
"""
ENTRY_POINTS = """[espo_gym.algorithms]
sqrt_grpo = mylab:SqrtGRPO

[espo_gym.envs]
mylab/Double-v0 = mylab.tasks:Double
"""
TINY: dict[str, Any] = dict(SMALL)
RUN: list[Any] = [
    "--rollout-size",
    16,
    "--group-size",
    4,
    "--eval-problems",
    4,
    "--eval-k",
    1,
    "--max-completion-tokens",
    24,
]
TRUSTED = ("--allow-import", "mylab")


def invoke(*args: object) -> Result:
    return CliRunner().invoke(main, [str(a) for a in args])


def succeeds(*args: object) -> str:
    """Run a command in a process that, as far as the package goes, is a fresh one."""
    forget("mylab")
    result = invoke(*args)
    assert result.exit_code == 0, result.output
    return result.output


def fails(*args: object, code: int = 1) -> str:
    forget("mylab")
    result = invoke(*args)
    assert result.exit_code == code and isinstance(result.exception, SystemExit), result.output
    assert result.output.count("Error: ") == 1 and "Traceback" not in result.output
    return result.output.partition("Error: ")[2]


def forget(package: str) -> None:
    """As if ``package`` had not been imported."""
    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        del sys.modules[name]
    for env_id in [env_id for env_id in gym.registry if env_id.startswith(f"{package}/")]:
        del gym.registry[env_id]
        espo_gym.environment._REGISTERED_BY.pop(env_id, None)


def install(folder: Path, name: str, entry_points: str) -> None:
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(entry_points)


@pytest.fixture(scope="module")
def package(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("elsewhere")
    (folder / "mylab").mkdir()
    for name, text in (("__init__", INIT), ("algorithm", ALGORITHM), ("tasks", TASKS)):
        (folder / "mylab" / f"{name}.py").write_text(text)
    return folder


@pytest.fixture(scope="module")
def on_path(package):
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(package)
        yield package
        forget("mylab")


@pytest.fixture(scope="module")
def run(on_path, tmp_path_factory) -> Path:
    """A run with the package's algorithm and environment, resumed once; tests must not change it."""
    out = tmp_path_factory.mktemp("runs") / "own"
    named = ("--algo", "mylab:SqrtGRPO", "--env", "mylab:mylab/Double-v0")
    succeeds("train", *named, "--power", 0.3, *RUN, "--timesteps", 32, "--no-progress", "--out", out)
    resumed = succeeds("train", "--resume", "--out", out, "--timesteps", 48, "--no-progress", *TRUSTED)
    assert resumed.startswith("resuming at 32 of 48")
    return out


@pytest.mark.usefixtures("no_picture")
class TestAPackageElsewhere:
    def test_the_run_keeps_its_names_and_hyperparameters(self, run):
        config = json.loads((run / "config.json").read_text())
        assert (config["algo"], config["env"]) == ("mylab:SqrtGRPO", "mylab:mylab/Double-v0")
        assert config["hyperparameters"]["power"] == 0.3
        with zipfile.ZipFile(run / "checkpoint.zip") as zipped:
            state = json.loads(zipped.read("state.json"))
        assert state["algorithm"] == "mylab.algorithm:SqrtGRPO"
        assert state["env"] == {"id": "mylab/Double-v0", "module": "mylab", "kwargs": {}}

    def test_naming_it_on_the_command_line_is_permission_enough(self, run, tmp_path):
        named = ("--algo", "mylab:SqrtGRPO", "--env", "mylab:mylab/Double-v0")
        succeeds("train", "--resume", "--out", run, *named, "--no-progress", "--timesteps", 48)

    def test_config_with_another_value_of_its_own_hyperparameter(self, run, tmp_path):
        config = ("--config", run / "config.json", "--timesteps", 16, "--no-progress", "--out", tmp_path / "again")
        succeeds("train", *config, "--power", 0.7, *TRUSTED)
        changed = json.loads((tmp_path / "again" / "config.json").read_text())
        assert changed["hyperparameters"]["power"] == 0.7

    def test_eval(self, run, tmp_path):
        shown = succeeds("eval", run, *TRUSTED, "--problems", 4, "--k", 1)
        assert shown.startswith("mylab/Double-v0, 4 problems")
        elsewhere = ("--env", "espo_gym/Addition-v0", "--problems", 4, "--k", 0)
        assert "espo_gym/Addition-v0" in succeeds("eval", run, *elsewhere, "--allow-import", "mylab.algorithm")
        changed = succeeds("eval", run, *TRUSTED, "--env-arg", "template={n}+{n}=0", "--problems", 4, "--k", 0)
        assert changed.startswith("mylab/Double-v0, 4 problems")
        policy = ("--env", "mylab:mylab/Double-v0", "--problems", 4, "--k", 0)
        assert "mylab/Double-v0" in succeeds("eval", run / "policy", *policy)

    def test_inspect_report_and_plot(self, run, tmp_path):
        inspected, reported = tmp_path / "inspect.html", tmp_path / "report.html"
        succeeds("inspect", run, *TRUSTED, "--out", inspected)
        assert "SqrtGRPO" in inspected.read_text()
        assert "Warning" not in succeeds("report", run, *TRUSTED, "--out", reported)
        assert '"own":"SqrtGRPO"' in reported.read_text()
        succeeds("plot", run, "--out", tmp_path / "curves.png")
        assert "mylab" not in sys.modules, "curves are drawn without it"

    def test_report_without_permission_has_everything_but_the_tokens(self, run, tmp_path):
        shown = succeeds("report", run, "--out", tmp_path / "report.html")
        assert "could not be inspected" in shown and "--allow-import mylab.algorithm" in shown
        assert "mylab" not in sys.modules

    def test_load(self, run):
        forget("mylab")
        algorithm = PolicyOptimizer.load(run, device="cpu", allow_import=["mylab"])
        assert type(algorithm).__name__ == "SqrtGRPO" and vars(algorithm)["power"] == 0.3
        assert algorithm.num_timesteps == 48
        assert algorithm.env.spec is not None and algorithm.env.spec.id == "mylab/Double-v0"
        own = type(algorithm)
        assert isinstance(own.load(run, device="cpu"), own), "a class in hand needs no permission"
        assert isinstance(PolicyOptimizer.load(run, device="cpu"), own), "nor does what is imported already"
        with pytest.raises(ValueError, match=r"a checkpoint of mylab\.algorithm:SqrtGRPO; read it with SqrtGRPO\.load"):
            ESPO.load(run)

    @pytest.mark.parametrize("jobs", [1, pytest.param(2, marks=pytest.mark.slow)])
    def test_compare_and_go_on(self, on_path, tmp_path, monkeypatch, jobs):
        """The entries by --algos and --entry, here and in other processes; then more seeds, without naming them."""
        out = tmp_path / "comparison"
        settings = [*RUN[:4], "--env", "mylab:mylab/Double-v0", "--timesteps", 16, "--eval-problems", 4, "--eval-k", 0]
        settings += ["--max-completion-tokens", 24, "--out", out]
        algos = ("--algos", "mylab:SqrtGRPO", "--entry", "flat=mylab:SqrtGRPO,power=0.1")
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(on_path), *filter(None, sys.path)]))
        succeeds("compare", *algos, *settings, "--seeds", 1, "--jobs", jobs)
        for entry, power in (("SqrtGRPO", 0.5), ("flat", 0.1)):
            config = json.loads((out / "runs" / entry / "seed_0000" / "config.json").read_text())
            assert config["hyperparameters"]["power"] == power
        # The environment is named, and so is its module.
        shown = succeeds("compare", "--algos", "grpo", *settings, "--seeds", 2, "--jobs", 1)
        assert "2 of 6 runs are there already" in shown and (out / "runs/flat/seed_0001/outcome.json").is_file()

    def test_its_options_are_shown_where_it_is_named(self, on_path):
        shown = succeeds("train", "--algo", "mylab:SqrtGRPO", "--help")
        assert "--power FLOAT" in shown and "[SqrtGRPO] Exponent of the importance ratio." in " ".join(shown.split())
        assert "--power" not in succeeds("train", "--help")
        assert "--shape JSON" in shown

    @pytest.mark.parametrize(
        ("options", "code", "message"),
        [
            ("--algo mylab:SqrtGRP", 2, "mylab has no attribute 'SqrtGRP'. Did you mean 'SqrtGRPO'?"),
            ("--algo mylab:register_task", 2, "'register_task' is no policy optimizer"),
            ("--algo no_lab:X", 2, "no algorithm 'no_lab:X': No module named 'no_lab'"),
            ("--algo mylab:SqrtGRPO --power x", 2, "'x' is not a valid float"),
            ("--algo sqrt_grp", 2, "'sqrt_grp' is not one of"),
            ("--env mylab:mylab/Doble-v0", 1, "Did you mean: `Double`?"),
            ("--env mylab/Double-v0", 1, "name another package's as module:id"),
            ("--env Addition-v0", 1, "Did you mean 'espo_gym/Addition-v0'?"),
        ],
    )
    def test_mistakes(self, on_path, options, code, message, tmp_path):
        assert message in fails("train", *options.split(), "--out", tmp_path / "run", code=code)
        assert not (tmp_path / "run").exists()

    @pytest.mark.parametrize("algos", ["grpo,no_such_lab:X", "grpo,foo"])
    def test_mistakes_in_a_comparison(self, algos, tmp_path):
        forget("mylab")
        result = invoke("compare", "--algos", algos, "--out", tmp_path / "comparison")
        assert result.exit_code in (1, 2) and isinstance(result.exception, SystemExit)
        assert "no_such_lab" in result.output or "no algorithm 'foo'" in result.output


@pytest.mark.usefixtures("no_picture")
class TestInstalled:
    @pytest.fixture
    def installed(self, package, tmp_path, monkeypatch):
        forget("mylab")
        install(tmp_path, "mylab", ENTRY_POINTS)
        monkeypatch.syspath_prepend(package)
        monkeypatch.syspath_prepend(tmp_path)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            plugins.register_environments()
        yield
        forget("mylab")

    @staticmethod
    def run(*args: object) -> str:
        """A command in a process that has imported nothing of the package but knows its entry points."""
        forget("mylab")
        plugins.register_environments()
        assert "mylab" not in sys.modules
        result = invoke(*args)
        assert result.exit_code == 0, result.output
        return result.output

    @pytest.mark.filterwarnings("error")
    def test_bare_names_through_every_command(self, installed, tmp_path):
        out = tmp_path / "own"
        named = ("--algo", "sqrt_grpo", "--env", "mylab/Double-v0")
        self.run("train", *named, "--power", 0.3, *RUN, "--timesteps", 16, "--no-progress", "--out", out)
        assert json.loads((out / "config.json").read_text())["algo"] == "sqrt_grpo"
        self.run("train", "--resume", "--out", out, "--timesteps", 32, "--no-progress")
        self.run("eval", out, "--problems", 4, "--k", 0)
        self.run("inspect", out, "--out", tmp_path / "inspect.html")
        assert "Warning" not in self.run("report", out, "--out", tmp_path / "report.html")
        self.run("plot", out, "--out", tmp_path / "curves.png")
        settings = ("--env", "mylab/Double-v0", "--timesteps", 16, "--eval-problems", 4, "--eval-k", 0, *RUN[:4])
        settings = (*settings, "--max-completion-tokens", 24, "--jobs", 1, "--out", tmp_path / "comparison")
        entry = ("--entry", "flat=sqrt_grpo,power=0.1")
        self.run("compare", "--algos", "sqrt_grpo,grpo", *entry, *settings, "--seeds", 1)
        assert "3 of 6 runs are there already" in self.run("compare", "--algos", "grpo", *settings, "--seeds", 2)
        forget("mylab")
        plugins.register_environments()
        assert type(PolicyOptimizer.load(out, device="cpu")).__name__ == "SqrtGRPO"

    def test_they_are_listed(self, installed):
        shown = self.run("list")
        assert "sqrt_grpo" in shown and "power 0.5" in shown
        assert "mylab/Double-v0" in shown and "Twice a number." in shown

    def test_what_it_offers_is_found_by_class_too(self, installed):
        assert name_of(resolve("sqrt_grpo")) == "mylab.algorithm:SqrtGRPO"
        for key, cls in ALGORITHMS.items():
            assert name_of(cls) == key and resolve(key) is cls

    def test_importing_the_library_registers_it_and_imports_nothing_of_it(self, package, tmp_path):
        install(tmp_path, "mylab", ENTRY_POINTS)
        code = "import sys, gymnasium, espo_gym; print('mylab' in sys.modules, 'mylab/Double-v0' in gymnasium.registry)"
        assert self.python(code, tmp_path, package).stdout.split() == ["False", "True"]

    def test_a_broken_one_warns_with_its_package_and_breaks_nothing_else(self, package, tmp_path):
        install(tmp_path, "mylab", ENTRY_POINTS)
        broken = "[espo_gym.algorithms]\nbad = no_such_module:X\nworse = brokenlab:X\n[espo_gym.envs]\n"
        broken += "brokenlab/One-v0 = not a class\nespo_gym/Addition-v0 = brokenlab:Other\n"
        broken += "brokenlab/Two-v0 = brokenlab:Task\n"
        install(tmp_path, "brokenlab", broken)
        (tmp_path / "brokenlab.py").write_text("this is no Python\n")
        done = self.python("from espo_gym.cli.main import main; main(['list'])", tmp_path, package)
        assert done.returncode == 0, done.stderr
        assert all(name in done.stdout for name in ("sqrt_grpo", "mylab/Double-v0", "espo_gym/Addition-v0"))
        for name in ("bad", "worse", "brokenlab/One-v0", "espo_gym/Addition-v0", "brokenlab/Two-v0"):
            assert any(repr(name) in line and "the package brokenlab" in line for line in done.stderr.splitlines()), (
                name
            )
        assert "Traceback" not in done.stderr

    @staticmethod
    def python(code: str, *paths: Path) -> subprocess.CompletedProcess:
        variables = os.environ | {"PYTHONPATH": os.pathsep.join([*map(str, paths), *filter(None, sys.path)])}
        command = [sys.executable, "-c", code]
        return subprocess.run(command, env=variables, capture_output=True, text=True, timeout=120)


class TestWhatAFileMayNotImport:
    """A module with a side effect on import, named by every file that is read, in every place that a name can stand."""

    @pytest.fixture
    def trap(self, tmp_path, monkeypatch):
        """Written for the check: importing ``trap`` leaves a file behind."""
        (tmp_path / "trap.py").write_text(f"open({str(tmp_path / 'sprung')!r}, 'w').close()\n")
        monkeypatch.syspath_prepend(tmp_path)
        yield tmp_path / "sprung"
        sys.modules.pop("trap", None)

    @staticmethod
    def checkpoint(path: Path, change) -> Path:
        """A checkpoint whose state ``change`` alters."""
        written = GRPO(tiny_policy(), "espo_gym/Addition-v0", **TINY).save(path.with_name("good.zip"))
        with zipfile.ZipFile(written) as old, zipfile.ZipFile(path, "w") as new:
            for name in old.namelist():
                data = old.read(name)
                if name == "state.json":
                    state = json.loads(data)
                    change(state)
                    data = json.dumps(state).encode()
                new.writestr(name, data)
        return path

    CHECKPOINTS = (
        lambda s: s.update(algorithm="trap:X"),
        lambda s: s["env"].update(id="trap:trap/X-v0"),
        lambda s: s["env"].update(id="trap/X-v0", module="trap"),
        lambda s: s["env"].update(id="trap:espo_gym/Addition-v0", module=None),
        lambda s: s["env"]["kwargs"].update(task="trap:X"),
        lambda s: s["env"].update(id="espo_gym/Retry-v0", kwargs={"env": "trap:X"}),
        lambda s: s["env"].update(id="espo_gym/Retry-v0", kwargs={"env": "trap:trap/X-v0"}),
    )

    @pytest.mark.parametrize("change", CHECKPOINTS)
    def test_checkpoints(self, change, trap, tmp_path):
        path = self.checkpoint(tmp_path / "x.zip", change)
        for arguments in (("eval", path), ("eval", path, "--env-arg", "digits=2"), ("inspect", path)):
            fails(*arguments, "--allow-import", "trapdoor", "--allow-import", "tra")
            assert not trap.exists()
        with pytest.raises(ValueError):
            PolicyOptimizer.load(path)
        assert not trap.exists() and "trap" not in sys.modules

    def test_the_refusal_says_what_to_add_and_that_works(self, trap, tmp_path):
        path = self.checkpoint(tmp_path / "x.zip", lambda s: s.update(algorithm="trap:X"))
        assert "add --allow-import trap (in Python: allow_import=['trap'])" in fails("eval", path)
        assert "trap has no attribute 'X'" in fails("eval", path, "--allow-import", "trap") and trap.exists()

    @pytest.mark.parametrize(
        "values",
        [
            {"algo": "trap:X"},
            {"env": "trap:trap/X-v0"},
            {"env": "trap:espo_gym/Addition-v0"},
            {"env_args": {"task": "trap:X"}},
            {"env": "espo_gym/Retry-v0", "env_args": {"env": "trap:X"}},
        ],
    )
    def test_configs(self, values, trap, tmp_path):
        path = tmp_path / "config.json"
        path.write_text(json.dumps(values))
        assert "--allow-import trap" in fails("train", "--config", path, "--out", tmp_path / "run")
        assert "--allow-import trap" in fails("train", "--resume", "--out", tmp_path)
        with pytest.raises(ValueError, match=r"allow_import=\['trap'\]"):
            RunConfig.read(path)
        assert not trap.exists()

    def test_comparisons(self, trap, tmp_path):
        out = tmp_path / "comparison"
        shared: dict[str, Any] = {"timesteps": 8, "hyperparameters": TINY, "eval_problems": 2, "eval_k": 0, "jobs": 1}
        compare(["grpo"], out=out, seeds=1, log=lambda _: None, **shared)
        path = out / "comparison.json"
        there = json.loads(path.read_text())
        there["entries"].append({"name": "x", "algo": "trap:X", "hyperparameters": {}})
        path.write_text(json.dumps(there))
        with pytest.raises(ValueError, match=r"comparison\.json names trap:X.*allow_import=\['trap'\]"):
            compare(["grpo"], out=out, seeds=1, log=lambda _: None, **shared)
        assert not trap.exists()

    def test_a_class_in_a_script_is_an_error_that_says_so(self, tmp_path):
        path = self.checkpoint(tmp_path / "x.zip", lambda s: s.update(algorithm="__main__:Mine"))
        with pytest.raises(ValueError, match="defined in a script"):
            PolicyOptimizer.load(path)

    def test_a_loaded_module_is_not_asked_for_what_it_would_import(self, tmp_path):
        """``espo_gym`` and transformers import a submodule where a name of it is asked for."""
        path = self.checkpoint(tmp_path / "x.zip", lambda s: s.update(algorithm="transformers:BertModel"))
        before = set(sys.modules)
        with pytest.raises(ValueError, match="--allow-import transformers"):
            PolicyOptimizer.load(path)
        assert set(sys.modules) == before


def test_entries_by_name(tmp_path, monkeypatch):
    wide = Entry("wide", "espo", {"alpha": 1.0})
    own = "espo_gym.algorithms.grpo:GRPO"
    assert entry_list(["grpo", wide, own]) == [Entry("grpo", "grpo"), wide, Entry("GRPO", own)]
