"""Callbacks that Stable-Baselines3 does not have: evaluation on a fixed list of held-out problems, and diagnoses."""

from __future__ import annotations

import warnings
from typing import Any

from stable_baselines3.common.callbacks import BaseCallback, EventCallback

from .diagnostics import DIAGNOSES, DiagnosticWarning, State
from .evaluation import Evaluation


class EvaluateCallback(EventCallback):
    """Evaluate every ``eval_freq`` rollouts and record ``eval/greedy``, ``eval/avg@k``, ... with the metrics.

    Stable-Baselines3's ``EvalCallback`` takes the next problems of its environment; this takes the same held-out ones
    each time. Its ``best_mean_reward`` is the best greedy accuracy so far, so ``StopTrainingOnRewardThreshold`` works
    as ``callback_on_new_best``.

    Args:
        eval_freq: rollouts between evaluations.
        split, k, n_problems: see :func:`espo_gym.evaluation.evaluate`. The default k = 0 is greedy decoding alone.
    """

    def __init__(
        self,
        eval_freq: int = 1,
        *,
        split: str | None = "validation",
        k: int = 0,
        n_problems: int = 128,
        callback_on_new_best: BaseCallback | None = None,
        verbose: int = 0,
    ) -> None:
        super().__init__(callback_on_new_best, verbose)
        if eval_freq < 1:
            raise ValueError(f"eval_freq must be at least 1, not {eval_freq}")
        self.eval_freq = eval_freq
        self.settings: dict[str, Any] = {"split": split, "k": k, "n_problems": n_problems}
        self.best_mean_reward = float("-inf")
        self.last: Evaluation | None = None
        """The latest evaluation."""

    def _on_step(self) -> bool:
        model: Any = self.model
        if model.n_rollouts % self.eval_freq:  # not n_calls, which begins anew when a run is resumed
            return True
        self.last = model.evaluate(**self.settings)
        for name, value in self.last.items():
            self.logger.record(f"eval/{name}", float(value))
        if self.verbose:
            print(f"{self.num_timesteps} timesteps: {self.last}")
        if self.last["greedy"] > self.best_mean_reward:
            self.best_mean_reward = float(self.last["greedy"])
            return self._on_event()
        return True


class Diagnostics(BaseCallback):
    """Warns of each of :data:`~espo_gym.diagnostics.DIAGNOSES` once, as a :class:`DiagnosticWarning`."""

    def __init__(self) -> None:
        super().__init__()
        self.streaks = {diagnosis.name: 0 for diagnosis in DIAGNOSES}
        self.warned: set[str] = set()
        self.history: dict[str, list[float]] = {"accuracy": [], "entropy": []}

    def state(self) -> dict[str, Any]:
        """What a resumed run needs to continue as if it had not stopped, for JSON."""
        return {"streaks": self.streaks, "warned": sorted(self.warned), "history": self.history}

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from :meth:`state`."""
        self.streaks, self.warned, self.history = state["streaks"], set(state["warned"]), state["history"]

    def _on_step(self) -> bool:
        algorithm: Any = self.model
        metrics = dict(self.logger.name_to_value)
        for name, values in self.history.items():
            values.append(metrics[f"rollout/{name}"])
        state = State(metrics, algorithm.rollout, algorithm, self.history)
        for diagnosis in DIAGNOSES:
            streak = self.streaks[diagnosis.name] + 1 if diagnosis.holds(state) else 0
            self.streaks[diagnosis.name] = streak
            if streak >= diagnosis.rollouts:
                self.logger.record(f"diagnostics/{diagnosis.name}", 1)
            if streak >= diagnosis.rollouts and diagnosis.name not in self.warned:
                self.warned.add(diagnosis.name)
                warnings.warn(DiagnosticWarning(f"{diagnosis.name}: {diagnosis.message}"), stacklevel=4)
        return True
