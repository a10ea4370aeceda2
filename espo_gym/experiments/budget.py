"""The budget of a run in a comparison, and the fingerprints that it records for the audit."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch
from stable_baselines3.common.callbacks import BaseCallback

from espo_gym.files import write_json

from .run_folder import PAIRING


class BudgetCallback(BaseCallback):
    """Ends the run when its budget is used up, and writes pairing.json into its folder.

    Args:
        folder: of the run.
        timesteps: never draw more completions than this, rounded up to whole rollouts. Only dynamic sampling would: its
            resamples are limited to what is left of the budget.
        seconds: no rollout begins after this many seconds of training: ``cpu_seconds`` of the algorithm or, on a GPU,
            ``wall_seconds``. With one thread per process, CPU time does not depend on what else the machine does.
    """

    def __init__(self, folder: Path, timesteps: int, seconds: float | None = None) -> None:
        super().__init__()
        self.folder, self.timesteps, self.seconds = folder, timesteps, seconds

    def _on_training_start(self) -> None:
        algorithm: Any = self.model
        algorithm.max_timesteps = self.timesteps
        if algorithm.n_rollouts == 0:
            self.fingerprints = {
                "device": algorithm.policy.device.type,
                "initial_weights": weights_fingerprint(algorithm.policy.model),
            }

    def _on_rollout_end(self) -> None:
        """Write fingerprints of what all algorithms must have in common at the same seed: the first sampling pass."""
        algorithm: Any = self.model
        if algorithm.n_rollouts == 0:
            first = slice(algorithm.rollout_size)
            self.fingerprints["problems"] = text_fingerprint(algorithm.played.prompts[first])
            self.fingerprints["completions"] = text_fingerprint(algorithm.played.texts[first])
            write_json(self.folder / PAIRING, self.fingerprints)

    def _on_step(self) -> bool:
        algorithm: Any = self.model
        on_cpu = algorithm.policy.device.type == "cpu"
        used = algorithm.cpu_seconds if on_cpu else algorithm.wall_seconds
        return self.seconds is None or used < self.seconds


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
