"""The claims of the ESPO paper (arXiv:2512.00499v2), figure by figure: ``python -m benchmarks.paper all``.

Every claim gets a verdict, *reproduced*, *not reproduced* or *not resolved*, from intervals over paired seeds, and
stands next to its controls: GSPO with ESPO's token weights, random groups, and clip ranges matched by clip fraction.
``--scale small`` takes the bundled policy and two like it; ``all`` is 632 runs, about two hours of one core. ``--scale
gpu`` makes a policy of 14 to 49 million parameters that solves long sums in some hundred tokens, and is for a machine
with a GPU: begin with ``fig3 --scale gpu --regime stress --jobs 4``. ``--smallest`` proves either path in minutes.
Finished runs are kept in ``--out``: figures share runs, and a command that was killed continues where it stopped.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

import click

from benchmarks.espo_paper.calibration import SEEDS, Calibration, calibrate
from benchmarks.espo_paper.claims import FIGURES, claims_of, entries_of, judge_claim
from benchmarks.espo_paper.figures import draw
from benchmarks.espo_paper.plan import SCALES, Regime, Scale, entry, smallest, to_match
from benchmarks.espo_paper.quantities import ACCURACY, Curves
from benchmarks.espo_paper.report import Header, Outcome, as_json, page
from benchmarks.espo_paper.warm_start import SIZES, ensure_policy
from espo_gym.experiments import warm_start
from espo_gym.experiments.compare import compare
from espo_gym.experiments.processes import one_thread
from espo_gym.experiments.setting import Entry
from espo_gym.files import write_json

STEPS = 900
"""Batches of a warm start like that of the bundled policy."""


def starts(scale: Scale, out: Path) -> list[str]:
    """The policies that the seeds start from; those that do not exist yet are made."""
    if scale.warm_start is not None:
        return [str(ensure_policy(scale.warm_start, out / f"policy-{scale.warm_start.size}", click.echo))]
    policies = ["espo_gym/teaching"]
    for seed in range(1, scale.siblings):
        folder = out / f"policy-{seed}"
        if not folder.is_dir():
            with one_thread():
                click.echo(f"warm start {seed}: {warm_start.make_policy(folder, seed, STEPS)}")
        policies.append(str(folder))
    return policies


def run(
    scale: Scale,
    regime: Regime,
    policies: Sequence[str],
    jobs: int | None,
    entries: Sequence[Entry],
    out: Path,
    seeds: Sequence[int],
    rollouts: int,
) -> Curves:
    """The curves of ``entries``, trained in the folder ``out`` or read from it."""
    comparison = compare(
        entries,
        scale.env,
        policy=policies,
        env_args=scale.env_args,
        seeds=seeds,
        timesteps=scale.timesteps(rollouts),
        preset="teaching",
        hyperparameters={"rollout_size": scale.rollout_size} | scale.hyperparameters | regime.hyperparameters,
        eval_k=0,
        out=out,
        jobs=jobs,
        log=click.echo,
    )
    return cache(comparison.curves)


def run_regime(
    scale: Scale,
    regime: Regime,
    figures: tuple[str, ...],
    policies: Sequence[str],
    seeds: Sequence[int],
    out: Path,
    jobs: int | None,
) -> Outcome:
    """Calibrate, train and judge."""
    train = partial(run, scale, regime, policies, jobs)
    names = entries_of(figures)
    matched = to_match(names)
    calibration = Calibration(ranges=dict(scale.ranges))
    if matched or not scale.ranges:
        tune = partial(train, out=out / "tuning", seeds=SEEDS, rollouts=scale.tuning_rollouts)
        calibration = calibrate(scale, matched, tune)
        write_json(out / "calibration.json", calibration.as_json())
    entries = [entry(name, calibration.ranges) for name in names]
    curves = train(entries, out=out / "results", seeds=seeds, rollouts=regime.rollouts)
    judged = tuple(judge_claim(claim, curves) for claim in claims_of(figures))
    return Outcome(judged, tuple(entries), curves, calibration)


@click.command()
@click.argument("figure", type=click.Choice([*FIGURES, "all"]))
@click.option("--scale", "scale_name", type=click.Choice(list(SCALES)), default="small", show_default=True)
@click.option("--regime", "regimes", type=click.Choice(["calm", "stress"]), multiple=True, help="Only this one.")
@click.option("--seeds", type=click.IntRange(2), help="Runs of each entry.  [default: 10; 2 with --smallest]")
@click.option(
    "--smallest", "proof", is_flag=True, help="Almost no training: proves that everything runs, on any machine."
)
@click.option("--model", type=click.Choice(list(SIZES)[1:]), help="Parameters of the policy, with --scale gpu.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder.  [default: runs/paper-SCALE]")
@click.option("--jobs", type=click.IntRange(1), help="Runs at a time.  [default: one per core]")
@click.option(
    "--page", "page_path", type=click.Path(path_type=Path), help="Also write the page here, with its images in images/."
)
def main(
    figure: str,
    scale_name: str,
    regimes: tuple[str, ...],
    seeds: int | None,
    proof: bool,
    model: str | None,
    out: Path | None,
    jobs: int | None,
    page_path: Path | None,
) -> None:
    """Test the claims of FIGURE, or of all figures and tables."""
    scale = SCALES[scale_name]
    if model is not None:
        if scale.warm_start is None:
            raise click.UsageError("--model goes with --scale gpu; the small scale has the bundled policy")
        scale = replace(scale, warm_start=replace(scale.warm_start, size=model))
    scale = smallest(scale) if proof else scale
    n_seeds = seeds or (2 if proof else 10)
    figures = FIGURES if figure == "all" else (figure,)
    out = out or Path("runs") / f"paper-{scale_name}{'-smallest' if proof else ''}"
    out.mkdir(parents=True, exist_ok=True)

    policies = starts(scale, out)
    outcomes = {}
    for name in regimes or tuple(scale.regimes):
        click.echo(f"\n{name}")
        outcomes[name] = run_regime(scale, scale.regimes[name], figures, policies, range(n_seeds), out / name, jobs)

    pictures = {}
    for name, outcome in outcomes.items():
        for f in figures:
            judged = [j for j in outcome.judged if j.claim.figure == f]
            pictures[f"{f}-{name}"] = draw(f, name, judged, outcome.curves, out / f"{f}-{name}.png")
    options = [f"--scale {scale_name}", *(f"--regime {name}" for name in regimes), f"--seeds {n_seeds}"]
    options += ["--smallest"] * proof + ([f"--model {model}"] if model else [])
    # A folder may hold more seeds than were asked for; all of them are read.
    n_seeds = min(len(curve) for outcome in outcomes.values() for curve in outcome.curves(ACCURACY).values())
    header = Header(f"python -m benchmarks.paper {figure} {' '.join(options)}", scale_name, n_seeds, proof)
    write_json(out / "results.json", as_json(header, scale, outcomes))
    text = page(header, scale, outcomes, {key: path.name for key, path in pictures.items()})
    (out / "results.md").write_text(text)
    if page_path is not None:
        images = page_path.parent / "images"
        images.mkdir(parents=True, exist_ok=True)
        addresses = {key: f"images/paper-{path.name}" for key, path in pictures.items()}
        for key, path in pictures.items():
            shutil.copyfile(path, page_path.parent / addresses[key])
        page_path.write_text(page(header, scale, outcomes, addresses))
    click.echo(f"\n{out / 'results.md'}")


if __name__ == "__main__":
    main()
