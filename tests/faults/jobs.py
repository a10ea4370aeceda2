"""What is disturbed. Each function is a job that server.py runs in a forked process; this module imports no torch."""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

SMALL = ["--rollout-size", "16", "--n-minibatches", "2", "--eval-problems", "4", "--eval-k", "1", "--no-progress"]
RUN = ["--timesteps", "64", "--save-every", "32", "--eval-every", "3", *SMALL]
"""Four rollouts with checkpoints after the second and the fourth, and an evaluation between them."""
TINY = ["--timesteps", "32", "--save-every", "16", "--eval-every", "0", *SMALL]


def command_line(*arguments: str) -> None:
    """``espo-gym`` with these arguments, without the picture of the curves, which takes as long as all the rest."""
    from espo_gym.cli.main import main
    from espo_gym.reports import plot

    def no_picture(run: Path, *_: Any, **__: Any) -> Path:
        return run / "curves.png"

    plot.plot_run = no_picture
    main(list(arguments))


HYPERPARAMETERS: dict[str, Any] = {"rollout_size": 16, "n_minibatches": 2}
SETTINGS: dict[str, Any] = {"hyperparameters": HYPERPARAMETERS, "timesteps": 32, "save_every": 16}


def comparison(out: str, jobs: int, method: str = "fork") -> None:
    """Two entries with two seeds each. Worker processes are forked instead of spawned, to save their imports."""
    from espo_gym.experiments.compare import compare

    context = multiprocessing.get_context
    multiprocessing.get_context = lambda _=None: context(method)  # type: ignore[assignment]
    with _errors_in_words():
        compare(["espo", "gspo"], out=out, seeds=2, jobs=jobs, eval_problems=4, eval_k=1, **SETTINGS)


def tuned_comparison(out: str) -> None:
    """One entry with two seeds, after a search among one cell."""
    from espo_gym.experiments.compare import compare
    from espo_gym.experiments.tuning import tune

    with _errors_in_words():
        entries = tune(["espo"], out=out, seeds=1, learning_rates=[1e-4], widths=[1.0], jobs=1, **SETTINGS)
        compare(entries, out=out, seeds=2, jobs=1, eval_problems=4, eval_k=1, **SETTINGS)


@contextmanager
def _errors_in_words() -> Iterator[None]:
    """What the command line makes of an error."""
    from espo_gym.cli.errors import USER_ERRORS

    try:
        yield
    except USER_ERRORS as error:
        print(f"Error: {error}", file=sys.stderr)
        sys.exit(1)


def script(out: str) -> None:
    """What a user writes: load if there is something to load, learn, save, and so on."""
    from espo_gym.algorithms import ESPO
    from espo_gym.policy import Policy

    path = Path(out) / "espo.zip"
    with _errors_in_words():
        if path.is_file():
            algorithm = ESPO.load(path)
        else:
            policy = Policy.from_pretrained("espo_gym/teaching")
            algorithm = ESPO(policy, "espo_gym/Addition-v0", preset="teaching", **HYPERPARAMETERS)
        while algorithm.num_timesteps < 64:
            algorithm.learn(16)
            algorithm.save(path)


def warm_up(out: str, modules: str) -> None:
    """Do what jobs do, and write down which modules that takes."""
    for arguments in (["train", *TINY, "--out", out], ["eval", out, "--problems", "2", "--k", "0"]):
        try:
            command_line(*arguments)
        except SystemExit as end:
            if end.code:
                raise
    import espo_gym.experiments.compare  # noqa: F401

    Path(modules).write_text("\n".join(name for name in sorted(sys.modules) if not name.startswith("__")))


# -- faults of the library, planted to see whether they are found ------------------------------------------------------


def write_json_in_place() -> None:
    """JSON files are written over the old ones."""
    from espo_gym import files
    from espo_gym.experiments import config, run

    def write(path: Path, value: Any) -> None:
        with path.open("w") as file:
            for part in json.JSONEncoder(indent=2).iterencode(value):
                file.write(part)
            file.flush()

    for module in (files, run, config):
        module.write_json = write  # type: ignore[attr-defined]


def archive_in_place() -> None:
    """A checkpoint is copied to its place instead of renamed."""
    import shutil

    rename = os.replace

    def replace(source: Any, target: Any, **_: Any) -> None:
        if os.path.isdir(source):
            return rename(source, target)
        shutil.copyfile(source, target)
        os.unlink(source)

    os.replace = replace  # type: ignore[assignment]


def forget_the_moments() -> None:
    """A resumed run begins without the moments of the optimizer."""
    from espo_gym import checkpoint

    checkpoint._unflatten = lambda tensors: {}
