"""A live table in the terminal while training: the latest rollouts, and the time left."""

from __future__ import annotations

import math
import sys
from collections import deque
from time import perf_counter

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text
from stable_baselines3.common.callbacks import BaseCallback

from .terminal import outlet

COLUMNS = {
    "completions": "time/timesteps",
    "reward": "rollout/reward_mean",
    "accuracy": "rollout/accuracy",
    "greedy": "eval/greedy",
    "entropy": "rollout/entropy",
    "clip": "train/clip_fraction_active",
    "length": "rollout/completion_length",
    "tokens/s": "time/tokens_per_second",
}
"""Headings and metrics; ``greedy`` is there once an :class:`EvaluateCallback` before this one has recorded it."""


class LiveTable(BaseCallback):
    """Shows the latest rollouts as they come, the share of training done, and the time left.

    If the output is not a terminal, it prints about ``lines`` plain lines instead. Pass it after the callbacks whose
    metrics it should show: ``learn(20_000, callback=[EvaluateCallback(), LiveTable()])``.

    Args:
        rows: rollouts shown.
        lines: about how many plain lines to print without a terminal; 0 for none.
        console: where to show it; None is standard error.
    """

    def __init__(self, rows: int = 10, *, lines: int = 20, console: Console | None = None) -> None:
        super().__init__()
        self.console = console or Console(file=outlet(sys.stderr), stderr=True, highlight=False)
        self.rows: deque[dict[str, float]] = deque(maxlen=max(1, rows))
        self.lines = lines
        self._live: Live | None = None
        self._start = self._goal = self._done = self._said = 0  # completions
        self._began = 0.0

    def _on_training_start(self) -> None:
        self._start = self._done = self._said = self.num_timesteps
        self._goal, self._began = self.locals["total_timesteps"], perf_counter()
        self.rows.clear()
        if self.console.is_terminal:
            # Redraws every second; anything printed meanwhile (e.g. warnings) appears above it.
            self._live = Live(get_renderable=self._render, console=self.console, refresh_per_second=1)
            self._live.start()

    def _on_step(self) -> bool:
        metrics = dict(self.logger.name_to_value) | {"time/timesteps": self.num_timesteps}
        self.rows.append({name: float(metrics.get(metric, math.nan)) for name, metric in COLUMNS.items()})
        self._done = self.num_timesteps
        over = self._done >= self._goal
        if self._live is not None:
            self._live.refresh()
        elif self.lines and (over or self._done - self._said >= (self._goal - self._start) / self.lines):
            self._said = self._done
            shown = (f"{name} {_text(name, value)}" for name, value in self.rows[-1].items() if not math.isnan(value))
            # Not wrapped to the console's width: a line of a log should stay one line.
            self.console.print(f"{', '.join(shown)}, {self._when()}", soft_wrap=True, markup=False)
        return True

    def _on_training_end(self) -> None:
        """Leave the table as it stands and give the terminal back; ``learn`` does this on an exception too."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _when(self) -> str:
        """How long it has taken, and how long the rest will take at the speed so far."""
        passed, share = perf_counter() - self._began, self._share
        if share >= 1:
            return f"done in {_clock(passed)}"
        return f"{_clock(passed)} passed, {_clock(passed / share - passed) if share else '?'} left"

    @property
    def _share(self) -> float:
        return min(1.0, (self._done - self._start) / max(1, self._goal - self._start))

    def _render(self) -> Group:
        rows = list(self.rows)[-max(1, self.console.height - 6) :]
        names = [n for n in COLUMNS if n != "greedy" or any(not math.isnan(row[n]) for row in rows)]
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
        for name in names:
            table.add_column(name, justify="right", no_wrap=True)
        for row in rows:
            style = None if row is rows[-1] else "dim"
            table.add_row(*("" if math.isnan(row[n]) else _text(n, row[n]) for n in names), style=style)
        line = Table.grid(padding=(0, 1))
        line.add_row(
            ProgressBar(total=1.0, completed=self._share, width=24),
            Text(f"{self._done - self._start} of {self._goal - self._start} completions, {self._when()}"),
        )
        return Group(table, line)


def _text(name: str, value: float) -> str:
    return f"{value:.3f}" if name in ("reward", "accuracy", "greedy", "entropy", "clip") else f"{value:.0f}"


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
