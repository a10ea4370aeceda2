"""The budget of a run in a comparison, and what the run records for the audit: its clocks and its fingerprints."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from stable_baselines3.common.callbacks import BaseCallback

from .run_folder import PAIRING, read_progress, write_json


class BudgetCallback(BaseCallback):
    """Ends the run when its budget is used up, and writes pairing.json into its folder.

    Records ``time/cpu_seconds`` and ``time/wall_seconds``: the time that training alone has taken so far, without
    evaluations and checkpoints. With one thread per process, CPU time does not depend on what else the machine does.

    Args:
        folder: of the run. A resumed run continues with the seconds in its metrics.
        timesteps: never draw more completions than this, rounded up to whole rollouts. Only dynamic sampling would: its
            resamples are limited to what is left of the budget.
        seconds: no rollout begins after this many: CPU seconds of the process or, on a GPU, wall-clock seconds.
    """

    def __init__(self, folder: Path, timesteps: int, seconds: float | None = None) -> None:
        super().__init__()
        self.folder, self.timesteps, self.seconds = folder, timesteps, seconds
        self.used = np.zeros(2)  # CPU, wall

    def _on_training_start(self) -> None:
        algorithm: Any = self.model
        algorithm.max_timesteps = self.timesteps
        if algorithm.n_rollouts == 0:
            self.fingerprints = {
                "device": algorithm.policy.device.type,
                "initial_weights": weights_fingerprint(algorithm.policy.model),
            }
            return
        rows = read_progress(self.folder)
        here = rows["time/timesteps"].tolist().index(algorithm.num_timesteps)
        self.used = np.array([rows[name][here] for name in ("time/cpu_seconds", "time/wall_seconds")])

    def _on_rollout_start(self) -> None:
        self.began = clocks()

    def _on_rollout_end(self) -> None:
        """Write fingerprints of what all algorithms must have in common at the same seed: the first sampling pass."""
        algorithm: Any = self.model
        if algorithm.n_rollouts == 0:
            first = slice(algorithm.rollout_size)
            self.fingerprints["problems"] = text_fingerprint(algorithm.played.prompts[first])
            self.fingerprints["completions"] = text_fingerprint(algorithm.played.texts[first])
            write_json(self.folder / PAIRING, self.fingerprints)

    def _on_step(self) -> bool:
        self.used += clocks() - self.began
        cpu, wall = self.used.tolist()
        self.logger.record("time/cpu_seconds", cpu)
        self.logger.record("time/wall_seconds", wall)
        algorithm: Any = self.model
        return self.seconds is None or (cpu if algorithm.policy.device.type == "cpu" else wall) < self.seconds


def clocks() -> NDArray[np.float64]:
    """(2,) seconds: CPU time of the process, and wall-clock time."""
    return np.array([time.process_time(), time.perf_counter()])


def text_fingerprint(texts: list[str]) -> str:
    """A fingerprint of ``texts`` and their order."""
    digest = hashlib.blake2b(digest_size=16)
    for text in texts:
        raw = text.encode("utf-8", "surrogatepass")
        digest.update(len(raw).to_bytes(8, "little") + raw)
    return digest.hexdigest()


def weights_fingerprint(model: torch.nn.Module) -> str:
    """A fingerprint of every parameter and buffer of ``model``, bit for bit."""
    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
