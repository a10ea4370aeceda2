"""Tables of results as the commands print them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from rich.table import Table


def make_table(*columns: str, header: bool = True) -> Table:
    """A table without lines, to fill with ``add_row``."""
    from rich.table import Table  # here, since --help prints none

    return Table(*columns, show_header=header, box=None, pad_edge=False, padding=(0, 2, 0, 0))


def print_table(table: Table, title: str) -> None:
    """Print ``table`` under ``title``, which is not wrapped."""
    from rich.console import Console

    console = Console(highlight=False)
    console.print(title, soft_wrap=True)
    console.print(table)


def interval(value: float, low: float, high: float) -> str:
    """``0.500 [0.400, 0.600]``, with rich's markup escaped."""
    from rich.markup import escape

    return escape(f"{value:.3f} [{low:.3f}, {high:.3f}]")


def problems(split: str | None, n: int) -> str:
    """``256 problems of the split test``."""
    return f"{n} problems" + (f" of the split {split}" if split else "")


def report_failures(no_verdict: int) -> None:
    """Print how many completions the verifier failed on, if any."""
    if no_verdict:
        click.echo(f"The verifier failed on {no_verdict} completions; they are left out.")
