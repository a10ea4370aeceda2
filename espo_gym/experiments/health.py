"""What became of each run: whether there was anything to learn from, and whether training came to a good end.

A report says it before it says anything about differences: two entries that learned nothing are equal too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from espo_gym.diagnostics import ACTIVE, CUT_OFF


@dataclass(frozen=True)
class Trouble:
    """What can go wrong with a run as a whole."""

    name: str
    """That of the diagnosis of single rollouts where there is one, see :mod:`espo_gym.diagnostics`."""
    words: str
    """What such runs did: a clause whose subject is the runs."""
    advice: str


FAILED = Trouble("failed", "failed: the loss or gradient was not finite", "Lower the learning rate")
TRUNCATED = Trouble(
    "all_truncated",
    f"had more than {CUT_OFF:.0%} of the completions cut off in most rollouts".replace("%", " %"),
    "Raise max_completion_tokens, or give stop strings",
)
COLLAPSED = Trouble(
    "collapsed",
    "collapsed: they ended below half of their best rollout",
    "Lower the learning rate, or narrow the clip",
)
ALL_WRONG = Trouble(
    "no_advantage",
    "had nothing to learn from in most rollouts, because all answers were wrong",
    "Take an easier environment, or a policy that solves some of its problems",
)
ALL_RIGHT = Trouble(
    "no_advantage",
    "had nothing to learn from, because all answers were right from the start",
    "Take a harder environment, or a weaker policy",
)
ALL_ALIKE = Trouble(
    "no_advantage",
    "had nothing to learn from in most rollouts, because answers to the same problem earned the same",
    "Raise group_size or temperature",
)

MOST, ALMOST_ALL = 0.5, 0.9
"""Shares of a run's rollouts. A run may well end with rollouts that are all right, so it takes almost all of those, but
most of any others, until it counts as having had nothing to learn from."""
FEW = 0.05
"""An accuracy this close to 0 or 1 is that of answers that are all wrong or all right."""


class Health(NamedTuple):
    """What became of a run."""

    trouble: Trouble | None
    """What went wrong, None if nothing did; the first of several that explains the others."""
    learned: bool
    """Whether there was anything to learn from, in enough rollouts for its scores to say something."""

    @property
    def name(self) -> str:
        """That of the trouble, or ``ok``."""
        return self.trouble.name if self.trouble else "ok"


def health(rows: Mapping[str, NDArray[np.float64]], rollout_size: int, failure: str | None = None) -> Health:
    """What became of a run, from its metrics; what they do not have is not held against it.

    Args:
        rows: metric -> (U,), one value for each update.
        rollout_size: completions in a rollout.
        failure: why training could not continue, None if it did.
    """
    n = len(rows.get("time/timesteps", ()))
    unknown = np.full(n, np.nan)
    # No token has an advantage; or all rewards are equal, from which a value head cannot learn either.
    idle = np.sum([rows.get(name, unknown) for name in ACTIVE], axis=0) == 0
    idle |= rows.get("rollout/reward_std", unknown) == 0
    judged = rows.get("rollout/accuracy", unknown)[idle]
    accuracy = float(np.nanmean(judged)) if np.isfinite(judged).any() else np.nan
    stuck = n == 0 or bool(idle.mean() > (ALMOST_ALL if accuracy > 1 - FEW else MOST))

    trouble = None
    if failure is not None:
        trouble = FAILED
    elif collapsed(rows, rollout_size) and not _stuck_until_best(rows, idle):
        trouble = COLLAPSED
    elif n and (rows.get("rollout/truncated", unknown) > CUT_OFF).mean() > MOST:
        trouble = TRUNCATED
    elif n and stuck:
        trouble = ALL_RIGHT if accuracy > 1 - FEW else ALL_WRONG if accuracy < FEW else ALL_ALIKE
    return Health(trouble, not stuck or trouble is COLLAPSED)


def _stuck_until_best(rows: Mapping[str, NDArray[np.float64]], idle: NDArray[np.bool_]) -> bool:
    """Whether most rollouts up to the best were ``idle`` (U,): luck made it the best, and not learning."""
    return bool(idle[: int(rows["rollout/reward_mean"].argmax()) + 1].mean() > MOST)


def per_rollout(rows: Mapping[str, NDArray[np.float64]], metric: str, rollout_size: int) -> NDArray[np.float64]:
    """(R,) the metric for every ``rollout_size`` completions drawn; several drawn for one update share its value."""
    ends = (rows.get("time/timesteps", np.zeros(0)) // rollout_size).astype(int)
    return np.repeat(rows.get(metric, np.full(len(ends), np.nan)), np.diff(ends, prepend=0))


def ending(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The last fifth of ``values`` (R,), at least one if there is any."""
    return values[-max(len(values) // 5, 1) :]


def collapsed(rows: Mapping[str, NDArray[np.float64]], rollout_size: int) -> bool:
    """Whether the mean reward over the last fifth of the rollouts is below half of the best rollout's.

    The best must be 0.1 at least, and further above the end than three standard errors of sampling: of few
    completions, one rollout is much better than another by chance.
    """
    rewards = per_rollout(rows, "rollout/reward_mean", rollout_size)
    if not len(rewards) or not rewards.max() >= 0.1 or not ending(rewards).mean() < rewards.max() / 2:
        return False
    deviations = np.nan_to_num(per_rollout(rows, "rollout/reward_std", rollout_size))
    last = ending(deviations)
    error = np.sqrt((deviations[rewards.argmax()] ** 2 + (last**2).mean() / len(last)) / rollout_size)
    return bool(rewards.max() - ending(rewards).mean() > 3 * error)


# -- in words ----------------------------------------------------------------------------------------------------------


def warnings(runs: Mapping[str, Sequence[Health]]) -> list[str]:
    """A sentence for each trouble, with how many runs of each entry have it, and what to do.

    Args:
        runs: entry -> what became of its runs.
    """
    troubles = dict.fromkeys(h.trouble for members in runs.values() for h in members if h.trouble)
    sentences = []
    for trouble in troubles:
        counts = {entry: sum(h.trouble == trouble for h in members) for entry, members in runs.items()}
        whose = [f"{n} of {_runs(len(runs[entry]))} of {entry}" for entry, n in counts.items() if n]
        name = "" if trouble.words.startswith(trouble.name) else f" ({trouble.name})"
        sentences.append(f"{' and '.join(whose)} {trouble.words}{name}. {trouble.advice}.")
    return sentences


def headline(runs: Mapping[str, Sequence[Health]]) -> str | None:
    """What a comparison of ``runs`` is worth, None if all of them trained as they should."""
    everything = [h for members in runs.values() for h in members]
    n, well = len(everything), sum(h.trouble is None for h in everything)
    if n and not any(h.learned for h in everything):
        return f"0 of {_runs(n)} learned anything: this compares nothing."
    rest = f"{n - well} of {_runs(n)} did not train as they should: a difference may show no more than that."
    return None if well == n else rest


def _runs(n: int) -> str:
    return f"{n} run" if n == 1 else f"{n} runs"
