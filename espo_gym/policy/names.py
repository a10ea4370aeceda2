"""What a user gives as a policy: told apart from other things before anything is downloaded."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Collection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

import gymnasium as gym

from espo_gym.envs.checks import did_you_mean

HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")
"""How a model of the Hugging Face Hub is named: ``owner/model`` or, for a few old ones, ``model``."""
EXPLICIT = re.compile(r"([.~]|/|[A-Za-z]:\\).*")
"""How a name begins that can only be a path."""


def check_policy_name(name: Any, bundled: Collection[str]) -> None:
    """Check that ``name`` may be a bundled policy, a folder with a model, or a model of the Hub; nothing is loaded.

    Raises:
        TypeError: it is no name.
        OSError: it is a name of something else, or of nothing.
    """
    if not isinstance(name, str | os.PathLike):
        swapped = isinstance(name, gym.Env | gym.vector.VectorEnv)
        hint = (
            "the policy comes first, then the environment" if swapped else "of a model, make Policy(model, tokenizer)"
        )
        raise TypeError(f"the policy must be a Policy, a name or a folder, not a {type(name).__name__}: {hint}")
    text, known = str(name), ", ".join(bundled)
    if text in bundled:
        return
    if Path(name).is_file():
        raise OSError(f"{text!r} is a file, and a policy is a folder with a model and a tokenizer")
    if Path(name).is_dir():
        inside = Path(name) / "policy"
        if not (Path(name) / "config.json").is_file() or (inside / "config.json").is_file():
            hint = f"; did you mean {str(inside)!r}?" if inside.is_dir() else ""
            raise OSError(f"the folder {text!r} is no policy: it has no model with a config.json and a tokenizer{hint}")
        return
    if not isinstance(name, str) or EXPLICIT.fullmatch(text) or not HUB_NAME.fullmatch(text):
        raise OSError(f"there is no folder {text!r}. A policy is a bundled name ({known}), a folder, or a Hub model")
    if text in gym.registry:
        raise OSError(
            f"{text!r} is an environment, not a policy: the policy comes first, then the environment (--policy and "
            f"--env on the command line). Bundled policies: {known}"
        )
    if text.endswith("Policy") and "/" not in text:
        raise OSError(
            f"{text!r} is a policy of Stable-Baselines3; here a policy is a language model: a bundled one ({known}), a "
            "folder, or a Hub model such as 'Qwen/Qwen2.5-0.5B-Instruct'"
        )
    if text.startswith("espo_gym/"):
        raise OSError(f"no policy {text!r} is bundled.{did_you_mean(text, bundled)} Bundled: {known}")


def hub_options(source: str | Path) -> dict[str, Any]:
    """Keywords for transformers' ``from_pretrained``: what was downloaded before, if the Hub cannot be reached.

    Transformers would come to the same after a minute of retries.
    """
    host = urlsplit(os.environ.get("HF_ENDPOINT") or "https://huggingface.co").hostname
    if Path(source).is_dir() or getproxies():  # behind a proxy names need not resolve here
        return {}
    try:
        socket.getaddrinfo(host, None)
    except OSError:
        return {"local_files_only": True}
    return {}
