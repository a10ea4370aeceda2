"""What a checkpoint must hold for training to go on from it: everything, and nothing else."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, Union, get_args, get_origin, get_type_hints

import torch
from torch import Tensor

from espo_gym.choices import SAMPLERS

from .training_state import CLOCKS, COUNTERS, TrainingState

if TYPE_CHECKING:
    from espo_gym.policy import Policy

FLOATS = ("float32", "float64", "bfloat16", "float16")
MOMENTS = ("step", "exp_avg", "exp_avg_sq")
"""Of each parameter in AdamW."""


@contextmanager
def naming(path: str | Path) -> Iterator[None]:
    """Make what goes wrong within it a ValueError of one line that names the checkpoint ``path``.

    Other errors of the file system and of imports stay as they are: the file is not their cause.
    """
    try:
        yield
    except (OSError, ImportError):
        raise
    except Exception as error:
        message = " ".join(str(error).split()) or type(error).__name__
        if isinstance(error, ValueError) and str(path) in message:
            raise
        raise ValueError(f"{path} cannot be read: {message}") from error


def check_state(cls: type[TrainingState], state: dict[str, Any], overrides: Collection[str] = ()) -> dict[str, Any]:
    """The hyperparameters that ``state`` holds for ``cls``; ``overrides`` are names that are given elsewhere.

    Raises:
        ValueError: a hyperparameter, a counter or a diagnosis is missing, unknown, of another type or out of its range.
    """
    from espo_gym.callbacks import Diagnostics
    from espo_gym.checkpoint import check_fields

    values = {n: tuple(v) if isinstance(v, list) else v for n, v in state["hyperparameters"].items()}
    known = cls.hyperparameters().keys()
    if missing := known - values.keys() - set(overrides):
        raise ValueError(
            f"it lacks the hyperparameter {', '.join(sorted(missing))} of {cls.__name__}, and no default is taken "
            f"silently: read it with the version that wrote it, or give load(..., {min(missing)}=...)"
        )
    if unknown := values.keys() - known:
        raise ValueError(f"it has {', '.join(sorted(unknown))}, which is no hyperparameter of {cls.__name__}")
    hints = get_type_hints(cls)
    for name, value in values.items():
        if not fits(value, hints[name]):
            expected = hints[name].__name__ if isinstance(hints[name], type) else hints[name]
            raise ValueError(f"its hyperparameter {name} must be {expected}, not {value!r}")
    cls.formula(**values)  # checks ranges
    check_fields(state["counters"], dict.fromkeys(COUNTERS, int), "counters of state.json")
    for name, count in state["counters"].items():
        if count < 0:
            raise ValueError(f"its counter {name} must be at least 0, not {count}")
    check_fields(state["clocks"], dict.fromkeys(CLOCKS, float), "clocks of state.json")
    for name, seconds in state["clocks"].items():
        if not 0 <= seconds < math.inf:
            raise ValueError(f"its clock {name} must be at least 0 and finite, not {seconds}")
    _check_diagnostics(state["diagnostics"], Diagnostics().state())
    for name, choices in (("dtype", FLOATS), ("autocast", (None, *FLOATS)), ("sampler", SAMPLERS)):
        if state[name] not in choices:
            raise ValueError(f"its {name} must be one of {', '.join(map(str, choices))}, not {state[name]!r}")
    return values


def fits(value: Any, hint: Any) -> bool:
    """``value``, from JSON, may be of the type ``hint``; types that JSON has not are left to the algorithm."""
    if get_origin(hint) in (Union, UnionType):
        return any(fits(value, option) for option in get_args(hint))
    if get_origin(hint) is tuple:
        return isinstance(value, tuple) and all(fits(item, get_args(hint)[0]) for item in value)
    if isinstance(value, bool) or hint is bool:
        return isinstance(value, bool) and hint not in (int, float, str, NoneType)
    if hint is float:
        return isinstance(value, int | float) and not math.isnan(value)
    return isinstance(value, hint) if hint in (int, str, NoneType) else True


def _check_diagnostics(given: dict[str, Any], fresh: dict[str, Any]) -> None:
    """Raise ValueError unless ``given`` is a state of the diagnostics; ``fresh`` is one."""
    from espo_gym.checkpoint import check_fields

    for name, kind in (("streaks", int), ("history", list)):
        check_fields(given[name], dict.fromkeys(fresh[name], kind), f"{name} of state.json")
    if min(given["streaks"].values()) < 0 or len({len(values) for values in given["history"].values()}) > 1:
        raise ValueError("the streaks in state.json must be at least 0, and its histories of one length")
    numbers = [number for values in given["history"].values() for number in values]
    if not all(isinstance(number, int | float) and not isinstance(number, bool) for number in numbers):
        raise ValueError("the history in state.json holds something other than numbers")
    if unknown := [name for name in given["warned"] if name not in fresh["streaks"]]:
        raise ValueError(f"state.json has the warning {unknown[0]!r}, which this version does not know")


def freeze(policy: Policy, names: list[Any]) -> None:
    """Leave the parameters of these ``names`` as they are, as they were when the checkpoint was written.

    Raises ValueError: there is no parameter of such a name.
    """
    parameters = dict(policy.named_parameters())
    for name in names:
        if name not in parameters:
            raise ValueError(f"it freezes {name!r}, which its policy does not have")
        parameters[name].requires_grad_(False)


def check_moments(algorithm: TrainingState, moments: dict[int, dict[str, Tensor]]) -> None:
    """Raise ValueError unless ``moments`` are those of every parameter after as many steps as ``algorithm`` took."""
    names = {id(parameter): name for name, parameter in algorithm.policy.named_parameters()}
    parameters = [p for group in algorithm.optimizer.param_groups for p in group["params"]]
    taken = algorithm.n_updates
    possible = set(range(len(parameters))) if taken else set()
    wanted = {i for i in possible if parameters[i].requires_grad}  # a frozen one has some from before, or none
    if wrong := (wanted - moments.keys()) | (moments.keys() - possible):
        i = min(wrong)
        which = names.get(id(parameters[i]), str(i)) if i < len(parameters) else f"number {i}, which there is not"
        raise ValueError(
            f"optimizer.safetensors {'lacks' if i in wanted else 'has'} the moments of parameter {which}; after "
            f"{taken} updates there must be those of {len(wanted)} parameters, not of {len(moments)}. Take another "
            "checkpoint, or go on from the weights alone, with a new optimizer"
        )
    for i, named in moments.items():
        parameter = parameters[i]
        where = f"parameter {names.get(id(parameter), i)} in optimizer.safetensors"
        if named.keys() != set(MOMENTS):
            raise ValueError(f"the moments of {where} must be {', '.join(MOMENTS)}, not {', '.join(sorted(named))}")
        for name, value in named.items():
            shape, dtype = ((), torch.float32) if name == "step" else (tuple(parameter.shape), parameter.dtype)
            if tuple(value.shape) != shape or value.dtype != dtype:
                given = f"{tuple(value.shape)} {value.dtype}"
                raise ValueError(f"{name} of {where} must have shape and dtype {shape} {dtype}, not {given}")
            if not value.isfinite().all() or (name != "exp_avg" and (value < 0).any()):
                raise ValueError(f"{name} of {where} is not finite, or negative")
    if moments and (steps := max(float(named["step"]) for named in moments.values())) != taken:
        raise ValueError(f"its optimizer took {steps:g} steps, the run {taken}")
