"""The config of a run, which config.json holds. Importing this module loads no torch."""

from __future__ import annotations

import json
import platform
from collections.abc import Collection
from dataclasses import asdict, dataclass, field, fields
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gymnasium as gym

from espo_gym import __version__
from espo_gym.choices import DTYPES, SAMPLERS
from espo_gym.environment import make_env
from espo_gym.files import write_json
from espo_gym.plugins import check_env_arguments, check_import

if TYPE_CHECKING:
    from espo_gym.algorithms import PolicyOptimizer


@dataclass
class RunConfig:
    """What to run: the contents of config.json."""

    algo: str = "espo"
    policy: str = "espo_gym/teaching"
    dtype: str = "float32"
    sampler: str = "auto"
    env: str = "espo_gym/Addition-v0"
    env_args: dict[str, Any] = field(default_factory=dict)
    timesteps: int = 20_000
    eval_problems: int = 256
    eval_k: int = 8
    eval_every: int = 3
    save_every: int = 2_560
    hyperparameters: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.trust_remote_code = False
        """Run the Python files that the policy brings beside its weights. Not a field: no file can turn it on."""

    @classmethod
    def read(cls, path: Path, allow_import: Collection[str] = ()) -> RunConfig:
        """The config that a run left behind.

        ``allow_import`` are modules that may be imported because the config names them.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it is not a config, or names a module that may not be imported.
        """
        if not path.is_file():
            raise FileNotFoundError(f"no config at {path}")
        try:
            try:
                values = json.loads(path.read_text())
            except ValueError as error:
                raise ValueError(f"it must be JSON, as the config.json of a run is; {error}") from error
            if not isinstance(values, dict):
                raise ValueError("a JSON object is needed")
            values.pop("versions", None)
            unknown = values.keys() - {f.name for f in fields(cls)}
            if unknown:
                raise ValueError(f"no such field: {', '.join(sorted(unknown))}")
            config = cls(**values)
            config.check_fields()
        except ValueError as error:  # JSONDecodeError is one
            raise ValueError(f"{path} is not the config of a run: {error}") from error
        for reference in (config.algo, config.env):
            check_import(reference, allow_import, path)
        check_env_arguments(config.env_args, allow_import, path)
        try:
            config.validate()
        except ValueError as error:
            raise ValueError(f"{path} is not the config of a run: {error}") from error
        return config

    def check_fields(self) -> None:
        """Raise ValueError where a field has the wrong type or is out of range; imports nothing."""
        for f in fields(self):
            value = getattr(self, f.name)
            kind = {"str": str, "int": int}.get(str(f.type), dict)
            if not isinstance(value, kind) or isinstance(value, bool):
                raise ValueError(f"{f.name} must be of type {kind.__name__}, not {value!r}")
        for name, least in (
            ("timesteps", 1),
            ("eval_problems", 1),
            ("eval_k", 0),
            ("eval_every", 0),
            ("save_every", 1),
        ):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, not {getattr(self, name)}")
        if self.dtype not in DTYPES:
            raise ValueError(f"dtype must be one of {', '.join(DTYPES)}, not {self.dtype!r}")
        if self.sampler not in SAMPLERS:
            raise ValueError(f"sampler must be one of {', '.join(SAMPLERS)}, not {self.sampler!r}")

    def validate(self) -> None:
        """Raise ValueError where a field is invalid, or the algorithm does not exist or lacks a hyperparameter."""
        from espo_gym.algorithms import ALGORITHMS, PolicyOptimizer
        from espo_gym.algorithms.registry import resolve

        self.check_fields()
        cls = resolve(self.algo)
        for name in self.hyperparameters:
            if name not in cls.hyperparameters():
                owners = [c.__name__ for c in ALGORITHMS.values() if name in c.hyperparameters()]
                own = cls.hyperparameters().keys() - PolicyOptimizer.hyperparameters().keys()
                raise ValueError(
                    f"{cls.__name__} has no hyperparameter {name!r}"
                    + (f", which belongs to {', '.join(owners)}" if owners else "")
                    + f"; its own are {', '.join(sorted(own))}"
                )

    def write(self, path: Path, algorithm: PolicyOptimizer) -> None:
        """Write the config with the value of every hyperparameter, so that later defaults do not change the run."""
        self.hyperparameters = {name: getattr(algorithm, name) for name in algorithm.hyperparameters()}
        packages = ("torch", "transformers", "gymnasium", "stable-baselines3", "numpy")
        versions = {"espo-gym": __version__, "python": platform.python_version()}
        versions |= {name: version(name) for name in packages}
        write_json(path, asdict(self) | {"versions": versions})

    def make_env(self) -> gym.Env[Any, Any]:
        """The environment."""
        return make_env(self.env, **self.env_args)

    def make(self) -> PolicyOptimizer:
        """The algorithm, ready to learn."""
        import torch

        from espo_gym.algorithms.registry import resolve
        from espo_gym.policy import Policy

        self.validate()
        env = self.make_env()  # first: a mistake here shows before a large policy has been loaded
        autocast = None if self.dtype == "float32" else getattr(torch, self.dtype)
        policy = Policy.from_pretrained(
            self.policy, autocast=autocast, sampler=self.sampler, trust_remote_code=self.trust_remote_code
        )
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in self.hyperparameters.items()}
        return resolve(self.algo)(policy, env, **values)
