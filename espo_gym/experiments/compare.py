"""A head-to-head comparison: several entries, the same seeds, and one folder of plain files to resume it from.

comparison.json             what is compared
runs/ENTRY/seed_0000/       the folder of a run (see run_folder.py), with pairing.json and outcome.json
report.md                   the report; results.csv and results.json have its numbers
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch

from espo_gym.files import partial_file, write_json, write_text
from espo_gym.terminal import say

from .budget import BudgetCallback
from .comparison import COMPARISON, TUNING, Comparison, seed_folder
from .comparison_report import comparison_report, comparison_results
from .config import RunConfig
from .folder_lock import FolderLock
from .processes import cores, in_processes, one_thread
from .run import train
from .run_folder import CHECKPOINT, CONFIG, OUTCOME, read_evaluation
from .setting import Entry, Setting, entry_list, merge, seed_list
from .stopping import StopSignals

OWN = ("tuning", TUNING)
"""What may be in a folder before there is a comparison in it, besides hidden files."""


def compare(
    entries: Sequence[str | Entry],
    env: str = RunConfig.env,
    *,
    policy: str | Path | Sequence[str | Path] = RunConfig.policy,
    env_args: dict[str, Any] | None = None,
    seeds: int | Sequence[int] = 10,
    timesteps: int | None = None,
    seconds: float | None = None,
    preset: str | None = None,
    hyperparameters: dict[str, Any] | None = None,
    dtype: str = RunConfig.dtype,
    eval_problems: int = 256,
    eval_k: int = 8,
    eval_every: int = 0,
    save_every: int = RunConfig.save_every,
    out: str | Path,
    jobs: int | None = None,
    allow_import: Collection[str] = (),
    trust_remote_code: bool = False,
    log: Callable[[str], Any] = say,
) -> Comparison:
    """Run every entry with every seed in the folder ``out``, and read the results.

    At a seed all entries have the same initial weights, problems and sampling streams. Finished runs in the folder are
    kept: a comparison that was killed continues with what is missing, and one that is given more seeds or more entries
    adds them.

    Args:
        entries: names of algorithms (``module:Class`` for your own), or :class:`Entry`.
        policy: what they start from. With several, seed s takes number s modulo their number.
        seeds: how many (0, 1, ...), or which.
        timesteps: completions of each run (default 7,680 unless ``seconds`` is set).
        seconds: budget in seconds of training instead: CPU time or, on a GPU, wall-clock time; see
            :class:`BudgetCallback`.
        preset, hyperparameters: of all entries; an entry's own take precedence.
        eval_problems, eval_k: held-out problems after training, and completions of each.
        eval_every: rollouts between greedy evaluations during training (0: none).
        save_every: completions between checkpoints.
        jobs: processes at a time, each on one thread (default: as many as there are cores). 1 runs in this process.
            With more, a script must do its work under ``if __name__ == "__main__":``, since Python starts a new process
            by importing the script.
        allow_import: modules that may be imported because the comparison in ``out`` names them; not needed for those
            that ``entries`` and ``env`` name.
        trust_remote_code: run the Python files that a policy brings beside its weights.
        log: called with progress messages.

    Raises:
        ValueError: an invalid setting, or ``out`` already holds a different comparison or names a module that may not
            be imported.
        RuntimeError: another process is working in ``out``.
        Stopped: a signal asked for an end (:mod:`.stopping`); the same call goes on.
    """
    contestants, wanted = entry_list(entries), seed_list(seeds)
    paths = [policy] if isinstance(policy, str | Path) else list(policy)
    setting = Setting(
        env=env,
        env_args=env_args or {},
        policies=tuple(map(str, paths)),
        timesteps=7_680 if timesteps is None and seconds is None else timesteps,
        seconds=seconds,
        dtype=dtype,
        eval_problems=eval_problems,
        eval_k=eval_k,
        eval_every=eval_every,
        save_every=save_every,
        hyperparameters=(hyperparameters or {}) | ({} if preset is None else {"preset": preset}),
    )
    out = Path(out)
    with StopSignals(), locked(out):
        contestants, wanted = merge(out, setting, contestants, wanted, allow_import)
        runs = [(entry, seed, seed_folder(out, entry.name, seed)) for seed in wanted for entry in contestants]
        missing = [run for run in runs if not (run[2] / OUTCOME).is_file()]
        if len(missing) < len(runs):
            log(f"{len(runs) - len(missing)} of {len(runs)} runs are there already")
        in_processes(
            [
                (
                    f"{entry.name}, seed {seed}",
                    partial(carry_out, setting.config(entry, seed), folder, seconds, trust_remote_code),
                )
                for entry, seed, folder in missing
            ],
            _jobs(jobs, seconds),
            log,
        )
        comparison = Comparison.read(out)
        _write_results(out, comparison)
    return comparison


def _write_results(out: Path, comparison: Comparison) -> None:
    """Write report.md, results.csv and results.json."""
    write_json(out / "results.json", comparison_results(comparison))
    metrics = comparison.metrics()
    budget, clock = comparison.budget
    with partial_file(out / "results.csv") as part, part.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["entry", "seed", *metrics, "timesteps", "updates", "cpu_seconds", "wall_seconds", "failure"])
        for (entry, seed), run in comparison.runs.items():
            scores = [run.score(metric, budget, clock=clock) for metric in metrics]
            usage = [run.timesteps, run.updates, run.cpu_seconds, run.wall_seconds]
            writer.writerow([entry, seed, *scores, *usage, run.failure or ""])
    write_text(out / "report.md", comparison_report(comparison))


@contextmanager
def locked(out: Path) -> Iterator[None]:
    """Reserve ``out`` for this process.

    Raises:
        ValueError: ``out`` holds something other than a comparison.
        NotADirectoryError, RuntimeError: like :class:`FolderLock`.
    """
    with FolderLock(out):
        others = [path for path in out.iterdir() if path.name not in OWN and not path.name.startswith(".")]
        if others and not (out / COMPARISON).is_file():
            raise ValueError(f"{out} is not empty and is not the folder of a comparison: choose another folder")
        yield


def _jobs(jobs: int | None, seconds: float | None) -> int:
    if seconds is not None and torch.cuda.is_available():
        if jobs not in (None, 1):
            raise ValueError("on a GPU a budget in seconds needs jobs=1: concurrent runs slow each other down")
        return 1
    return cores() if jobs is None else jobs


@one_thread()
def carry_out(config: RunConfig, folder: Path, seconds: float | None, trust_remote_code: bool = False) -> str:
    """One run from its start or checkpoint to the end; returns its outcome in words.

    A loss or gradient that is not finite is an outcome. Every other error is raised.
    """
    config.trust_remote_code = trust_remote_code
    outcome: dict[str, Any] = {"status": "finished", "reason": None}
    try:
        if "after" not in read_evaluation(folder):
            begun = all((folder / name).is_file() for name in (CONFIG, CHECKPOINT))
            train(
                config,
                folder,
                # A run on a budget of seconds starts over, so that no second was measured under other conditions.
                resume=begun and seconds is None,
                overwrite=True,
                progress_bar=False,
                log=lambda _: None,
                callbacks=[BudgetCallback(folder, config.timesteps, seconds)],
                minimal=True,
            )
    except FloatingPointError as error:
        outcome = {"status": "failed", "reason": str(error)}
    with FolderLock(folder):
        (folder / CHECKPOINT).unlink(missing_ok=True)
        write_json(folder / OUTCOME, outcome)
    return str(outcome["status"]) + (f" ({outcome['reason']})" if outcome["reason"] else "")
