"""Types, checked in a tree laid out as the wheel is, where ``espo_gym.envs`` and ``espo_gym.algorithms`` resolve.

In the checkout the two packages lie under other names, so mypy would take everything imported from them for ``Any``.
``python tests/check_types.py`` checks the library, the benchmarks, the examples and the tests. Then it plants an error
across each seam between packages and fails unless mypy finds all of them.
"""

import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TREE = ROOT / "build" / "types"
PACKAGES = {"espo_gym": ROOT / "espo_gym", "espo_gym/algorithms": ROOT / "algorithms", "espo_gym/envs": ROOT / "envs"}
BESIDE = ("benchmarks", "examples", "tests")

SEAMS = {
    "espo_gym/metrics.py": "from espo_gym.envs import Verdict as V\nV(status=3, nonsense='x').no_such_attribute\n",
    "espo_gym/collect.py": "from espo_gym.policy import Policy as P\nP.no_such_attribute\n",
    "espo_gym/algorithms/grpo.py": "from espo_gym.rollout import Rollout as R\nR.no_such_attribute\n",
    "espo_gym/experiments/run.py": "from espo_gym.algorithms import ESPO as E\nE.no_such_attribute\n",
    "espo_gym/reports/plot.py": "from espo_gym.experiments.config import RunConfig as C\nC.no_such_attribute\n",
    "espo_gym/cli/errors.py": "from espo_gym.reports.curves import Curve as C\nC.no_such_attribute\n",
    "espo_gym/testing/exact.py": "from espo_gym.algorithms import LossBatch as L\nL.no_such_attribute\n",
    "benchmarks/compare_self.py": "from espo_gym import Comparison as C\nC.no_such_attribute\n",
    "examples/own_trainer.py": "from espo_gym.algorithms import grpo_loss as g\ng.no_such_attribute\n",
    "tests/tiny.py": "from espo_gym.envs import Task as T\nT.no_such_attribute\n",
}
"""Errors in a module about what it imports from another package."""


def lay_out() -> None:
    """Links to every file, so that an error names a path that leads to the source."""
    shutil.rmtree(TREE, ignore_errors=True)
    for name, source in (*PACKAGES.items(), *((name, ROOT / name) for name in BESIDE)):
        for path in sorted(source.rglob("*.py")):
            link = TREE / name / path.relative_to(source)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(path)
    (TREE / "espo_gym" / "py.typed").touch()


def mypy() -> tuple[int, str]:
    # Lessons and tests are single files, not packages.
    files = ["espo_gym", "benchmarks", *(str(p.relative_to(TREE)) for d in BESIDE[1:] for p in (TREE / d).glob("*.py"))]
    command = [sys.executable, "-m", "mypy", "--config-file", str(ROOT / "pyproject.toml"), *files]
    command += ["--cache-dir", str(ROOT / ".mypy_cache")]
    done = subprocess.run(command, cwd=TREE, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def main() -> None:
    lay_out()
    code, output = mypy()
    print(output, end="")
    if code:
        sys.exit(code)
    for name, planted in SEAMS.items():
        path = TREE / name
        source = path.read_text(encoding="utf-8")
        path.unlink()
        path.write_text(f"{source}\n{planted}", encoding="utf-8")
    found = set(re.findall(r"^([\w/]+\.py):\d+: error: .*no_such_attribute", mypy()[1], re.MULTILINE))
    lay_out()
    if missed := sorted(SEAMS.keys() - found):
        sys.exit(f"mypy does not see a planted error in {', '.join(missed)}: types are not checked across that seam")
    print(f"and an error planted across each of {len(SEAMS)} seams is found")


if __name__ == "__main__":
    main()
