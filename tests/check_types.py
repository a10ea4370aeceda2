"""Types, checked in a tree laid out as the wheel is, where ``espo_gym.envs`` and ``espo_gym.algorithms`` resolve.

In the checkout the two packages lie under other names, so mypy would take everything imported from them for ``Any``.
``python tests/check_types.py`` checks the library, the benchmarks, the examples and the tests. Then it plants an error
across each seam, that is, for each pair of packages of which one imports the other, and fails unless mypy finds all.
"""

import ast
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TREE = ROOT / "build" / "types"
PACKAGES = {"espo_gym": ROOT / "espo_gym", "espo_gym/algorithms": ROOT / "algorithms", "espo_gym/envs": ROOT / "envs"}
BESIDE = ("benchmarks", "examples", "tests")

ROOMS = ("envs", "policy", "algorithms", "experiments", "reports", "cli", "testing")


def sources() -> dict[str, Path]:
    """Every file by its path in the tree."""
    folders = {**PACKAGES, **{name: ROOT / name for name in BESIDE}}
    return {
        f"{name}/{path.relative_to(folder).as_posix()}": path
        for name, folder in folders.items()
        for path in sorted(folder.rglob("*.py"))
    }


def room(path: str) -> str:
    """The package that a path in the tree belongs to; what is not in a room of ``espo_gym`` is its core."""
    top, _, rest = path.partition("/")
    return top if top != "espo_gym" else next((name for name in ROOMS if f"{rest}/".startswith(f"{name}/")), "core")


def seams() -> dict[tuple[str, str], tuple[str, str]]:
    """(importing package, imported package) -> a file of the first, and an error in it about what it imports."""
    found: dict[tuple[str, str], tuple[str, str]] = {}
    files = sources()
    # An __init__.py last: mypy may not have made up its mind about a package's own modules where it is read.
    for path, source in sorted(files.items(), key=lambda item: item[0].endswith("__init__.py")):
        for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.ImportFrom):
                continue
            above = path.split("/")[: -node.level] if node.level else []
            base = [*above, *(node.module.split(".") if node.module else [])]
            if base[0] not in ("espo_gym", *BESIDE):
                continue
            for name in (alias.name for alias in node.names):
                target = "/".join([*base, name])
                if not any(f"{target}{end}" in files for end in (".py", "/__init__.py")):
                    target = "/".join(base)
                seam = (room(path), room(target))
                alias = f"seam_{seam[1]}"
                planted = f"from {'.'.join(base)} import {name} as {alias}\n{alias}.no_such_{alias}\n"
                if seam[0] != seam[1]:
                    found.setdefault(seam, (path, planted))
    return found


def lay_out() -> None:
    """Links to every file, so that an error names a path that leads to the source."""
    shutil.rmtree(TREE, ignore_errors=True)
    for path, source in sources().items():
        (TREE / path).parent.mkdir(parents=True, exist_ok=True)
        (TREE / path).symlink_to(source)
    (TREE / "espo_gym" / "py.typed").touch()


def mypy() -> tuple[int, str]:
    # Lessons and tests are single files, not packages.
    single = [path for folder in BESIDE[1:] for path in (TREE / folder).rglob("*.py")]
    files = ["espo_gym", "benchmarks", *(str(path.relative_to(TREE)) for path in single)]
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
    planted = seams()
    for path, error in planted.values():
        source = (TREE / path).read_text(encoding="utf-8")
        (TREE / path).unlink()  # a link to the source, or what was planted before
        (TREE / path).write_text(f"{source}\n{error}", encoding="utf-8")
    found = set(re.findall(r"^([\w/]+\.py):\d+: error: .*no_such_seam_(\w+)", mypy()[1], re.MULTILINE))
    lay_out()
    if missed := [f"{a} -> {b}" for (a, b), (path, _) in sorted(planted.items()) if (path, b) not in found]:
        sys.exit(f"mypy misses the error planted across {', '.join(missed)}: types are not checked across that seam")
    print(f"and an error planted across each of {len(planted)} seams is found")


if __name__ == "__main__":
    main()
