"""What to install where a package is missing that environments and verifier do without."""

from __future__ import annotations

TRAINING = ("torch", "transformers", "jinja2", "safetensors", "stable_baselines3", "scipy", "tqdm", "matplotlib")
"""The packages of the extra ``train`` by the names that they are imported by."""


def advice(error: BaseException) -> str | None:
    """The sentence for a missing package of the extra ``train``; None for any other error."""
    name = (error.name or "").partition(".")[0] if isinstance(error, ModuleNotFoundError) else ""
    if name not in TRAINING:
        return None
    return (
        f"{name} is not installed. Training, evaluation and reports need it, environments and the verifier do not: "
        "pip install 'espo-gym[train]'"
    )
