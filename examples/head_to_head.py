"""Lesson 6: is a difference real? Every entry gets the same seeds, every pair an interval and a sentence.

Two of the entries are the same algorithm under two names, and one is ESPO without its adaptive clip. Kill the script
halfway and run it again: it continues with the runs that are missing.

Expect "the same on each" seed for the twins, and no resolved difference for the others unless you use more seeds.

    python examples/head_to_head.py       # a minute or two on two cores
    espo-gym compare --algos espo,grpo --seeds 10       # the same on the command line
"""

from pathlib import Path

import click

from espo_gym import Entry, compare, comparison_report


@click.command()
@click.option("--timesteps", default=2560, show_default=True, help="Completions per run.")
@click.option("--seeds", default=5, show_default=True, help="Runs per entry.")
@click.option("--jobs", default=2, show_default=True, help="Processes at a time.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("runs/head_to_head"), show_default=True)
def main(timesteps: int, seeds: int, jobs: int, out: Path) -> None:
    entries = [
        Entry("espo", "espo"),
        Entry("twin", "espo"),
        Entry("fixed_clip", "espo", {"clip_low": 0.1, "clip_high": 0.1}),
    ]
    comparison = compare(entries, seeds=seeds, timesteps=timesteps, jobs=jobs, out=out, log=click.echo)
    print(comparison_report(comparison))


if __name__ == "__main__":  # each process that compare starts imports this file
    main()
