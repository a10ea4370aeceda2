"""Checks of how an algorithm declares its hyperparameters."""

from __future__ import annotations

import ast
import inspect
import itertools
import math
import textwrap
from functools import cache
from typing import Any

from espo_gym.algorithms import PolicyOptimizer

from .failure import Fault

OUT_OF_RANGE: dict[str, tuple[Any, ...]] = {
    "group_size": (0,),
    "rollout_size": (0,),
    "n_epochs": (0,),
    "n_minibatches": (0,),
    "micro_batch_tokens": (0,),
    "learning_rate": (0.0, -1.0),
    "warmup_steps": (-1,),
    "adam_beta1": (1.0, -0.1),
    "adam_beta2": (1.0, -0.1),
    "adam_eps": (-1.0,),
    "weight_decay": (-1.0,),
    "max_grad_norm": (0.0,),
    "temperature": (0.0, math.inf),
    "top_p": (0.0, 1.1),
    "top_k": (-1,),
    "max_completion_tokens": (0,),
    "truncated_reward": (math.nan, math.inf),
    "stop": ("a", ("",)),
    "old_logps": ("guessed",),
    "kl_coef": (-1.0,),
    "kl_estimator": ("k4",),
    "kl_in": ("nowhere",),
    "entropy_coef": (-1.0,),
    "dual_clip": (1.0,),
    "sampler_correction": ("word",),
    "sampler_cap": (0.0,),
    "max_no_verdict": (-0.1, 1.1),
    "max_resamples": (-1,),
    "target_kl": (0.0,),
    "kl_target": (0.0,),
    "kl_horizon": (0,),
    "seed": (-1,),
    "preset": ("no such",),
}
"""For each hyperparameter that all algorithms have and that has a range: values outside of it."""


def documented(cls: type[PolicyOptimizer], chosen: dict[str, Any]) -> None:
    """Every hyperparameter has a docstring under its line; the command line turns it into help text.

    Classes whose source cannot be found, typed into an interpreter for example, are not looked at.
    """
    known = set()
    for parent in cls.__mro__:
        try:
            known |= documented_fields(parent)
        except (OSError, TypeError):
            known |= set(inspect.get_annotations(parent))
    if missing := sorted(set(cls.hyperparameters()) - known):
        raise Fault(f"none under {', '.join(missing)}", f"the class body of {cls.__name__}")


@cache
def documented_fields(cls: type) -> set[str]:
    """The annotated names in the body of ``cls`` that a string follows. Raises OSError or TypeError without source."""
    body = ast.parse(textwrap.dedent(inspect.getsource(cls))).body[0]
    assert isinstance(body, ast.ClassDef)
    return {
        statement.target.id
        for statement, after in itertools.pairwise(body.body)
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name)
        if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant) and isinstance(after.value.value, str)
    }


def out_of_range(cls: type[PolicyOptimizer], chosen: dict[str, Any]) -> None:
    """A hyperparameter out of range raises a ValueError (or a TypeError) when the algorithm is constructed.

    Those of all algorithms are tried with the values of :data:`OUT_OF_RANGE`, those whose default is a float with NaN.
    """
    defaults = cls.hyperparameters()
    tried = [(name, value) for name, values in OUT_OF_RANGE.items() if name in defaults for value in values]
    tried += [(name, math.nan) for name, default in defaults.items() if isinstance(default, float)]
    for name, value in tried:
        try:
            cls.formula(**{name: value})
        except (ValueError, TypeError):
            continue
        raise Fault(f"{name}={value!r} is accepted", "validate: self.check(...), and call super().validate() first")
