"""What a run of a comparison is held to and leaves behind for the audit: its budget, its clock, its fingerprints."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.callbacks import BaseCallback

from .comparison import read_rows
from .run import write_json


class Ledger(BaseCallback):
    """Ends the run when its budget is used up, and writes pairing.json into its folder.

    Records ``time/cpu_seconds`` and ``time/wall_seconds``: what training alone has taken so far, evaluation and
    checkpoints left out. With one thread a process the first does not depend on what else the machine does.

    Args:
        folder: of the run. A run that is resumed goes on with the seconds that its metrics tell.
        timesteps: never draw more completions than this, whole rollouts aside. Only dynamic sampling would: it is left
            with as many resamples as the budget still has.
        seconds: no rollout begins after so many: CPU seconds of the process or, on a GPU, seconds of the clock.
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
                "initial_weights": weights_print(algorithm.policy.model),
            }
            return
        rows = read_rows(self.folder)
        here = rows["time/timesteps"].tolist().index(algorithm.num_timesteps)
        self.used = np.array([rows[name][here] for name in ("time/cpu_seconds", "time/wall_seconds")])

    def _on_rollout_start(self) -> None:
        self.began = clocks()

    def _on_rollout_end(self) -> None:
        """Fingerprints of what all algorithms must have in common at the same seed: the first pass of sampling."""
        algorithm: Any = self.model
        if algorithm.n_rollouts == 0:
            first = slice(algorithm.rollout_size)
            self.fingerprints["problems"] = text_print(algorithm.played.prompts[first])
            self.fingerprints["completions"] = text_print(algorithm.played.texts[first])
            write_json(self.folder / "pairing.json", self.fingerprints)

    def _on_step(self) -> bool:
        self.used += clocks() - self.began
        cpu, wall = self.used.tolist()
        self.logger.record("time/cpu_seconds", cpu)
        self.logger.record("time/wall_seconds", wall)
        algorithm: Any = self.model
        return self.seconds is None or (cpu if algorithm.policy.device.type == "cpu" else wall) < self.seconds


def clocks() -> np.ndarray:
    """Seconds of the process's CPU and of the clock on the wall."""
    return np.array([time.process_time(), time.perf_counter()])


def text_print(texts: list[str]) -> str:
    """A fingerprint of texts and their order."""
    digest = hashlib.blake2b(digest_size=16)
    for text in texts:
        raw = text.encode("utf-8", "surrogatepass")
        digest.update(len(raw).to_bytes(8, "little") + raw)
    return digest.hexdigest()


def weights_print(model: torch.nn.Module) -> str:
    """A fingerprint of every parameter and buffer, bit for bit."""
    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
