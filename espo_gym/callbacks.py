"""A callback that Stable-Baselines3 does not have: evaluation on a fixed list of held-out problems."""

from __future__ import annotations

from typing import Any

from stable_baselines3.common.callbacks import BaseCallback, EventCallback

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
