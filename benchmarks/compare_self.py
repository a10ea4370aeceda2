"""An algorithm against itself under two names: ``python -m benchmarks.compare_self`` (about five minutes on one core).

Three questions about the sentence "no difference detected":

1. With equal seeds the two names are one run: is the difference exactly 0?
2. With other seeds for the second name: how often does a comparison of ten seeds find no difference? It should be at
   least 95 %. A pool of short runs is made once and cut into blocks of twenty; each block is dealt into ten pairs again
   and again. Blocks share no run, so the interval is Student's over blocks.
3. Of which interval is that true? Coverage of the true mean difference in simulation, for Student's interval, which
   espo_gym uses, and for the percentile and the BCa bootstrap.

The pool is kept in --out, and a second call reuses it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray
from rich import box
from rich.console import Console
from rich.table import Table
from scipy import stats

from espo_gym.experiments.compare import compare
from espo_gym.experiments.pairs import LEVEL, compare_pairs, resolved
from espo_gym.experiments.setting import Entry
from espo_gym.experiments.statistics import paired_difference

SETTINGS: dict[str, Any] = {"timesteps": 1024, "eval_problems": 1, "eval_k": 0, "preset": "teaching"}
PAIRS = 10


def identity(out: Path, algo: str) -> str:
    """The report's sentence about one algorithm under two names with equal seeds."""
    comparison = compare(
        [Entry("first", algo), Entry("second", algo)], out=out / "identity", seeds=3, jobs=1, log=_quiet, **SETTINGS
    )
    (pair,) = compare_pairs(comparison.scores("auc"))
    if pair.difference.mean != 0 or pair.difference.low != 0 or pair.difference.high != 0:
        raise AssertionError(f"equal seeds, and yet: {pair}")
    return str(pair)


def deal(scores: NDArray[np.float64], deals: int, rng: np.random.Generator) -> tuple[float, float]:
    """Deal ``scores`` (2 * PAIRS,) into pairs ``deals`` times.

    Returns the shares of deals in which no difference is detected, by espo_gym's rule and by Student's test alone.
    """
    detected = np.zeros(2)
    for _ in range(deals):
        a, b = rng.permutation(scores).reshape(2, PAIRS)
        difference = paired_difference(a, b)
        detected += resolved(difference, difference.p), difference.p < LEVEL  # one pair: Holm has nothing to add
    by_rule, by_student = 1 - detected / deals
    return by_rule, by_student


DIFFERENCES: dict[str, Callable[[np.random.Generator, tuple[int, ...]], NDArray[np.float64]]] = {
    "normal": lambda rng, size: rng.normal(0.01, 0.02, size),
    "uniform": lambda rng, size: rng.uniform(-0.03, 0.05, size),
    "both collapse in 20 % of runs": lambda rng, size: _run(rng, size, 0.2) - _run(rng, size, 0.2),
    "one collapses in 20 % of runs": lambda rng, size: _run(rng, size, 0.2) - _run(rng, size, 0.0),
    "one is skewed (exponential)": lambda rng, size: rng.exponential(0.05, size) - rng.normal(0.05, 0.01, size),
}
"""Paired differences of AUC, as simulated; the true mean comes from a million of them."""


def _run(rng: np.random.Generator, size: tuple[int, ...], collapse: float) -> NDArray[np.float64]:
    return np.where(rng.random(size) < collapse, 0.1, 0.8) + rng.normal(0, 0.02, size)


def coverage(n: int, replicates: int, rng: np.random.Generator) -> list[list[str]]:
    """Rows of the table: how often each interval contains the true mean, with n pairs."""
    rows = []
    for name, draw in DIFFERENCES.items():
        truth = draw(rng, (1_000_000,)).mean()
        sample = draw(rng, (replicates, n))
        intervals = [stats.ttest_1samp(sample, 0, axis=1).confidence_interval(0.95)]
        for method in ("percentile", "BCa"):
            result = stats.bootstrap(
                (sample,), np.mean, axis=1, vectorized=True, n_resamples=999, batch=50, method=method, rng=rng
            )
            intervals.append(result.confidence_interval)
        hits = [int(((i.low <= truth) & (truth <= i.high)).sum()) for i in intervals]
        rows.append([name, str(n), *(_share(hit, replicates) for hit in hits)])
    return rows


def _share(hits: int, n: int) -> str:
    interval = stats.binomtest(hits, n).proportion_ci(0.95, method="wilson")
    return f"{hits / n:.3f} [{interval.low:.3f}, {interval.high:.3f}]"


def _over_blocks(shares: NDArray[np.float64]) -> str:
    interval = stats.ttest_1samp(shares, 0).confidence_interval(0.95)
    return f"{shares.mean():.1%} [{interval.low:.1%}, {interval.high:.1%}]"


def _quiet(_: str) -> None: ...


@click.command()
@click.option("--out", type=click.Path(path_type=Path), default=Path("runs/compare_self"), show_default=True)
@click.option("--algo", default="espo", show_default=True)
@click.option("--runs", default=200, show_default=True, help="In the pool, a multiple of 20.")
@click.option("--deals", default=1000, show_default=True, help="Of each block of 20 runs into 10 pairs.")
@click.option("--replicates", default=4000, show_default=True, help="Of the simulation.")
@click.option("--jobs", default=1, show_default=True)
def main(out: Path, algo: str, runs: int, deals: int, replicates: int, jobs: int) -> None:
    """Compare an algorithm with itself."""
    if runs % (2 * PAIRS) or runs < 4 * PAIRS:
        raise click.UsageError(f"--runs must be a multiple of {2 * PAIRS}, at least twice that")
    click.echo(f"Equal seeds: {identity(out, algo)}\n")

    pool = compare([algo], out=out / "pool", seeds=runs, jobs=jobs, log=_quiet, **SETTINGS).scores("auc")[algo]
    rng = np.random.default_rng(0)
    blocks = rng.permutation(pool).reshape(-1, 2 * PAIRS)
    rule, student = np.array([deal(block, deals, rng) for block in blocks]).T  # (blocks,) each
    click.echo(
        f"Other seeds: {algo} against {algo}, {PAIRS} seeds: no difference detected in {_over_blocks(rule)} "
        f"of {deals * len(blocks):,} replicates ({runs} runs of {SETTINGS['timesteps']} completions in {len(blocks)} "
        f"blocks); by Student's test alone in {_over_blocks(student)}\n"
    )

    table = Table("paired differences", "seeds", "Student", "percentile bootstrap", "BCa bootstrap", box=box.MARKDOWN)
    for n in (5, 10, 20):
        for row in coverage(n, replicates, rng):
            table.add_row(*row)
    click.echo("Coverage of 95 % intervals in simulation, with Wilson's intervals:")
    Console(width=160).print(table)


if __name__ == "__main__":
    main()
