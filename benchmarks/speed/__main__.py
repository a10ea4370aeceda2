"""``python -m benchmarks.speed [--goal G1 ...] [--repeats N] [--gpu] [--plain-products] [--out FOLDER]``."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import click
import torch
from transformers.utils import logging as transformers_logging

from espo_gym.policy import matmul as products

from . import environment, gpu, head, learner, sampling, steps
from .goals import GOALS, Row, table
from .measure import ROOT, gemm_flops

MEASURES: dict[str, Callable[[int], list[Row]]] = {
    "G1": steps.measure_g1,
    "G1b": steps.measure_g1b,
    "G2": steps.measure_g2,
    "G3": steps.measure_g3,
    "G4": sampling.measure_g4,
    "G5": sampling.measure_g5,
    "G6": head.measure_g6,
    "G7": head.measure_g7,
    "G8": learner.measure_g8,
    "G9": sampling.measure_g9,
    "G10": environment.measure_g10,
}
NEEDS_TRL = ("G1", "G1b", "G2", "G3", "G6")


@click.command()
@click.option("--goal", "chosen", multiple=True, type=click.Choice(list(MEASURES)), help="Only these; again for more.")
@click.option("--repeats", default=5, show_default=True, type=click.IntRange(min=1), help="Rounds of each comparison.")
@click.option(
    "--gpu", "on_gpu", is_flag=True, help="G11 and a full training step on the GPU, and nothing else unless asked for."
)
@click.option(
    "--plain-products",
    is_flag=True,
    help="Leave matrix products to PyTorch, as on processors where oneDNN is no faster.",
)
@click.option("--out", type=click.Path(path_type=Path), help="A folder for speed.json and speed.md.")
def main(chosen: tuple[str, ...], repeats: int, on_gpu: bool, plain_products: bool, out: Path | None) -> None:
    """Measure the goals of docs/performance.md beside their peers, in turn, in CPU seconds of one thread."""
    if on_gpu and not torch.cuda.is_available():
        sys.exit("--gpu: torch sees no GPU here, so G11 was not measured")
    names = list(chosen) or ([] if on_gpu else list(MEASURES))
    if importlib.util.find_spec("trl") is None and (missing := [name for name in names if name in NEEDS_TRL]):
        sys.exit(
            f"{', '.join(missing)} are measured beside TRL, which is not installed: pip install '.[benchmark]', or "
            "choose others with --goal"
        )
    torch.set_num_threads(1)
    transformers_logging.set_verbosity_error()
    if plain_products:
        products.prefers_onednn = lambda: False  # type: ignore[assignment]
    made_of = conditions(repeats)  # before: the commit is that of the code that runs
    rows: list[Row] = []
    speeds = (gemm_flops(multiply) / 1e9 for multiply in (torch.mm, products.product))
    notes = ["A product of 1024 x 1024 runs at {:.0f} GFLOP/s by torch.mm, at {:.0f} as here.".format(*speeds)]
    for name in names:
        begin = time.perf_counter()
        rows += MEASURES[name](repeats)
        click.echo(f"{name} took {time.perf_counter() - begin:.0f} s", err=True)
        write(out, rows, [made_of])  # of what is measured nothing is lost
    if on_gpu:
        notes.append(f"GPU: {gpu.describe_device()}.")
        rows += gpu.measure_g11(repeats)
        notes.append(gpu.training_step() + ".")
    click.echo(write(out, rows, [made_of, *notes]))


def write(out: Path | None, rows: list[Row], notes: list[str]) -> str:
    """The table and the notes under it as text, and as ``speed.md`` and ``speed.json`` in the folder ``out``."""
    text = "\n".join([table(rows), "", *notes])
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        (out / "speed.md").write_text(text + "\n")
        measured = [{**asdict(row), "verdict": GOALS[row.goal].verdict(row.value.value)} for row in rows]
        (out / "speed.json").write_text(json.dumps({"rows": measured, "notes": notes}, indent=1))
    return text


def conditions(repeats: int) -> str:
    """Versions, processor and commit, in a sentence."""
    versions = []
    for package in ("torch", "transformers", "trl", "numpy", "gymnasium"):
        try:
            versions.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            versions.append(f"no {package}")
    return (
        f"{repeats} rounds; one thread of {_processor()}, Python {platform.python_version()}, {', '.join(versions)}; "
        f"commit {_commit()}."
    )


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _commit() -> str:
    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True).stdout.strip()

    return (git("rev-parse", "--short", "HEAD") or "unknown") + (
        " with changes" if git("status", "--porcelain") else ""
    )


if __name__ == "__main__":
    main()
