"""What every policy optimizer does: collect a rollout, take a few steps on it, repeat.

The interface is Stable-Baselines3's (``learn``, ``predict``, ``save``, ``load``, ``get_env``, ``set_logger``, ...), so
its logger and its callbacks work unchanged. One timestep is one completion.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter, process_time
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from typing_extensions import Self

from espo_gym.environment import Environment, environment_spec, make_from_spec
from espo_gym.metrics import explained_variance, logp_gap
from espo_gym.plugins import check_import
from espo_gym.rollout import Rollout

from . import learner
from .loading import check_moments, check_state, freeze, naming
from .loss import LossOutput, loss_function, update_metrics
from .registry import name_of, resolve
from .sb3_model import SB3Model, as_callback, give_back_terminal
from .training_state import CLOCKS, COUNTERS

# Whatever loads transformers or Stable-Baselines3 is imported where it is used: a loss in another trainer needs torch.
if TYPE_CHECKING:
    from .sb3_model import MaybeCallback

__all__ = ["PolicyOptimizer", "loss_function"]


@dataclass(kw_only=True, eq=False)
class PolicyOptimizer(SB3Model):
    """Improves a policy on an environment of text.

    Args:
        policy: a :class:`Policy`, or a name that :meth:`Policy.from_pretrained` takes.
        env: the id of an environment, a Gymnasium environment, or a vector environment (whose number of rows is then
            the rollout size).

    Everything else is a keyword. ``preset`` chooses the defaults; what is given by keyword wins over it.

    A subclass makes the four choices of :class:`~.loss.Objective`. Callbacks find the rollout that is being trained on
    in ``rollout``, and all completions sampled for it in ``played``.
    """

    def __post_init__(self) -> None:
        from stable_baselines3.common.logger import HumanOutputFormat, Logger

        from espo_gym.callbacks import Diagnostics
        from espo_gym.terminal import outlet

        super().__post_init__()
        self.rollout: Rollout | None = None
        self.played: Rollout | None = None
        self.diagnostics = Diagnostics()
        self.set_logger(Logger(None, [HumanOutputFormat(outlet(sys.stdout))] if self.verbose and sys.stdout else []))

    # -- learning ----------------------------------------------------------------------------------------------------

    def learn(
        self,
        total_timesteps: int,
        callback: MaybeCallback = None,
        log_interval: int = 1,
        progress_bar: bool = False,
    ) -> Self:
        """Train on ``total_timesteps`` more completions, in whole rollouts.

        Args:
            callback: one or several of Stable-Baselines3's. ``on_step`` comes after each rollout has been trained on,
                so that a checkpoint taken there resumes exactly; returning False ends training.
            log_interval: write the metrics every this many rollouts.
            progress_bar: show Stable-Baselines3's.

        Raises:
            ValueError, TypeError: the environment returned a reward or an observation that cannot be learned from.
            FloatingPointError: the loss or the gradient is not finite. The policy is as it was before that step.
            RuntimeError: the verifier failed on more than ``max_no_verdict`` of a rollout.
        """
        from stable_baselines3.common.callbacks import CallbackList

        callbacks = CallbackList([self.diagnostics, as_callback(callback, progress_bar)])
        callbacks.init_callback(cast(Any, self))  # duck-typed: not a BaseAlgorithm, but all that callbacks ask of one
        total_timesteps += self.num_timesteps
        try:
            callbacks.on_training_start({"self": self, "total_timesteps": total_timesteps}, {})
            while self.num_timesteps < total_timesteps:
                callbacks.on_rollout_start()
                began = _clocks()
                rollout = self.rollout = self.collect_rollout()
                callbacks.update_locals({"dones": np.ones(len(rollout), dtype=bool)})
                callbacks.on_rollout_end()
                self.train(rollout)
                self.num_timesteps += rollout.n_generated
                self.n_rollouts += 1
                for name, seconds in zip(CLOCKS, _clocks() - began, strict=True):
                    setattr(self, name, getattr(self, name) + float(seconds))
                self.record({f"time/{name}": getattr(self, name) for name in CLOCKS})
                going = callbacks.on_step()
                if self.n_rollouts % log_interval == 0:
                    self.dump_logs()
                if not going:
                    break
        except BaseException:
            give_back_terminal(callbacks)
            raise
        callbacks.on_training_end()
        return self

    def collect_rollout(self) -> Rollout:
        """The next rollout. Its problems and its random numbers depend on the seed and the counters alone."""
        from .collector import collect_rollout

        collected = collect_rollout(self)
        self.played = collected.played
        self.record(collected.metrics)
        return collected.rollout

    def train(self, rollout: Rollout) -> None:
        """``n_epochs * n_minibatches`` optimizer steps on ``rollout``."""
        began = perf_counter()
        rollout = self.annotate(rollout)
        advantages = self.advantages(rollout)
        outputs: list[LossOutput] = []
        for rows in self.minibatches(len(rollout)):
            taken = self.step(rollout, advantages, rows)
            if taken and not outputs and rollout.sampler_logps is None:  # the weights are still the sampler's
                self._record_gap(taken)
            outputs += taken
            # 1.5 is Stable-Baselines3's and Spinning Up's factor: one step may overshoot a little.
            if self.target_kl is not None and update_metrics(taken).get("kl_k3", 0.0) > 1.5 * self.target_kl:
                break
        metrics = update_metrics(outputs)
        if self.kl_target is not None and "ref_kl_k3" in metrics:
            error = min(max(metrics["ref_kl_k3"] / self.kl_target - 1, -0.2), 0.2)
            self.kl_coef *= 1 + error * len(rollout) / self.kl_horizon
            metrics["kl_coef"] = self.kl_coef
        if self.needs_values:
            mask = rollout.mask & rollout.has_verdict[:, None]
            values, returns = cast(Tensor, rollout.values), cast(Tensor, rollout.returns)
            metrics["explained_variance"] = explained_variance(values[mask], returns[mask])
        metrics |= {"learning_rate": self.current_learning_rate, "n_updates": self.n_updates}
        self.record({f"train/{name}": value for name, value in metrics.items()})
        self.record({"time/update": perf_counter() - began})

    def minibatches(self, n: int) -> Iterator[Tensor]:
        """The rows of each minibatch of a rollout of ``n``, (B,) long, shuffled anew in each epoch."""
        return learner.minibatches(self, n)

    def step(self, rollout: Rollout, advantages: Tensor, rows: Tensor) -> list[LossOutput]:
        """One optimizer step on ``rows`` (B,) long of an annotated rollout; ``advantages`` (N,) or (N, T) are its own.

        Returns what the loss returned for each micro-batch; nothing where no completion has a verdict.

        Raises:
            FloatingPointError: the loss or the gradient is not finite; no step was taken.
        """
        outputs, metrics = learner.step(self, rollout, advantages, rows)
        self.n_updates += len(outputs) > 0
        for name, value in metrics.items():
            self.logger.record_mean(f"train/{name}", value)
        return outputs

    def _record_gap(self, outputs: list[LossOutput]) -> None:
        """How far the sampler's log-probs are from the training forward pass's, on what has been computed anyway."""
        seen = [out.batch for out in outputs]
        names = ("old_logps", "logps", "mask", "advantages")
        old, new, mask, credit = (torch.cat([getattr(batch, name) for batch in seen]) for name in names)
        gap = logp_gap(old, new, mask & (credit != 0))
        self.record({f"train/{name}": value for name, value in gap.items()})

    # -- checkpoints -------------------------------------------------------------------------------------------------

    def save(self, path: str | Path) -> Path:
        """Write everything that training goes on from to one zip file, atomically; see :mod:`espo_gym.checkpoint`."""
        from espo_gym import checkpoint

        state = {
            "algorithm": name_of(type(self)),
            "hyperparameters": {name: getattr(self, name) for name in self.hyperparameters()},
            "env": environment_spec(self.env),
            "dtype": _name(self.policy.dtype),
            "autocast": _name(self.policy.autocast) if self.policy.autocast else None,
            "sampler": self.policy.sampler,
            "frozen": [name for name, p in self.policy.named_parameters() if not p.requires_grad],
            "shortcuts": {"device": self.policy.device.type, "checked": self.policy.checked_shortcuts},
            "counters": {name: getattr(self, name) for name in COUNTERS},
            "clocks": {name: getattr(self, name) for name in CLOCKS},
            "diagnostics": self.diagnostics.state(),
        }
        policies = {"policy": self.policy} | ({"reference": self.reference} if self.reference else {})
        return checkpoint.write(path, state, self.optimizer, policies)

    @classmethod
    def load(
        cls,
        path: str | Path,
        env: Environment | None = None,
        *,
        device: str | None = None,
        env_args: Mapping[str, Any] | None = None,
        allow_import: Collection[str] = (),
        trust_remote_code: bool = False,
        **overrides: Any,
    ) -> Self:
        """Read a checkpoint; ``learn`` then continues as if it had never stopped.

        Called on an algorithm it reads that algorithm's checkpoints; ``PolicyOptimizer.load`` reads those of every
        algorithm and returns an instance of the right class.

        Args:
            path: the checkpoint, or the folder of a run that holds one.
            env: required where the environment was not made from an id.
            env_args: arguments of the checkpoint's own environment to change; not used with ``env``.
            allow_import: modules, submodules included, that may be imported because the checkpoint names them. Not
                needed for what is imported already, or installed with an entry point.
            trust_remote_code: run the Python files of the policy, if it is a model that brings some.
            overrides: hyperparameters to change.

        Raises:
            FileNotFoundError: no such file.
            ValueError: not a checkpoint, or one that lacks something, has something unknown or holds a weight that is
                not finite, or another algorithm's, or a module that may not be imported, or ``env`` is required.
        """
        from espo_gym import checkpoint
        from espo_gym.policy import Policy

        path = checkpoint.find(path) or path
        with checkpoint.opened(path) as (state, moments, folder):
            name, algorithm_class = state["algorithm"], cast(type[PolicyOptimizer], cls)
            with naming(path):
                if algorithm_class is PolicyOptimizer:
                    check_import(name, allow_import, path)
                    algorithm_class = resolve(name)
                elif name != name_of(cls):
                    other = name if ":" in name else resolve(name).__name__
                    raise ValueError(f"{path} is a checkpoint of {other}; read it with {other.rpartition(':')[2]}.load")
                hyperparameters = check_state(algorithm_class, state, overrides)
            if env is None and state["env"] is None:
                raise ValueError(f"{path} was trained in an environment that has no id: give load(..., env=...)")
            if env is None:
                spec, rows = state["env"], hyperparameters.get("rollout_size") or overrides["rollout_size"]
                with naming(path):
                    spec["kwargs"] |= env_args or {}
                    env = make_from_spec(spec, rows, allow_import=allow_import, source=path)
            made: dict[str, Any] = {"dtype": getattr(torch, state["dtype"]), "device": device, "strict": True}
            made |= {"autocast": state["autocast"] and getattr(torch, state["autocast"])}
            made |= {"trust_remote_code": trust_remote_code}
            frozen = None
            try:
                policy = Policy.from_pretrained(folder / "policy", sampler=state["sampler"], **made)
                if (folder / "reference").is_dir():
                    frozen = Policy.from_pretrained(folder / "reference", **made)
            except (OSError, ValueError) as error:
                raise ValueError(str(error).replace(str(folder), str(path))) from error
            with naming(path):
                freeze(policy, state["frozen"])
                if state["shortcuts"]["device"] == policy.device.type:
                    policy.keep_shortcuts(state["shortcuts"]["checked"])
            saved = policy.state_dict().keys()
            algorithm = algorithm_class(policy, env, **(hyperparameters | overrides))
            vars(algorithm).update(state["counters"] | state["clocks"])
            with naming(path):
                if made_up := algorithm.policy.state_dict().keys() - saved:
                    raise ValueError(f"its policy lacks {', '.join(sorted(made_up)[:3])}, which {name} trains")
                if frozen is None and (hyperparameters.get("kl_coef") or hyperparameters.get("reference_kl")):
                    raise ValueError("it lacks reference/, the policy that the divergence is measured from")
                if frozen is not None and algorithm.reference is not None:
                    algorithm.reference.load_state_dict(frozen.state_dict())
                check_moments(algorithm, moments)
            settings = algorithm.optimizer.state_dict()["param_groups"]
            algorithm.optimizer.load_state_dict({"state": moments, "param_groups": settings})
        algorithm.diagnostics.restore(state["diagnostics"])
        return cast(Self, algorithm)


def _clocks() -> NDArray[np.float64]:
    """(2,) seconds: CPU time of the process, and wall-clock time."""
    return np.array([process_time(), perf_counter()])


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
