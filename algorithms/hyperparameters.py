"""Hyperparameters as dataclass fields: declared once, with presets, ranges, and a docstring that becomes the help text.

A class that derives from :class:`Hyperparameters` lists what can be set by keyword. ``presets`` gives sets of defaults
by name, and a subclass adds to them; a value given by keyword wins over every preset, even where it equals a default.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field, fields
from inspect import signature
from typing import Any, ClassVar, Generic, TypeVar, cast

from typing_extensions import Self

from espo_gym.choices import meant

SWITCHES = {
    "kl_estimator": "kl_coef",
    "kl_in": "kl_coef",
    "kl_target": "kl_coef",
    "kl_horizon": "kl_target",
    "sampler_cap": "sampler_correction",
    "max_resamples": "dynamic_sampling",
}
"""Options that refine another one, and the option that has to be on for each of them."""


@dataclass(kw_only=True, eq=False)
class Hyperparameters:
    """What can be set by keyword, where the defaults come from, and which values are allowed."""

    preset: str | None = None
    """Set of defaults: "paper" is for large models at learning rates near 1e-6, "teaching" for the bundled policy,
    whose configuration recommends it. None takes what the policy recommends, else "paper"."""

    inapplicable: ClassVar[dict[str, str]] = {}
    """Options that have no effect for this algorithm, and why."""
    presets: ClassVar[dict[str, dict[str, Any]]] = {"paper": {}, "teaching": {}}
    _explicit: frozenset[str] = field(default=frozenset(), init=False, repr=False)  # what a preset must leave alone

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        # ``__init__`` is the dataclass's and cannot tell a default from the same value given by keyword; this can. Nor
        # does its message for an unknown keyword name another one.
        taken = signature(cls.__init__).parameters
        if not any(p.kind is p.VAR_KEYWORD for p in taken.values()):
            cls._check_names(kwargs, taken, f"{cls.__name__}() got an unexpected keyword argument")
        self = super().__new__(cls)
        self._explicit = frozenset(kwargs)
        return self

    @classmethod
    def formula(cls, **hyperparameters: Any) -> Self:
        """The algorithm without policy and environment: its hyperparameters and its loss.

        It goes around ``__init__``, which would ask for a policy and an environment.

        Raises:
            TypeError: there is no such hyperparameter.
            ValueError: a value is out of its range.
        """
        cls._check_names(hyperparameters, cls.hyperparameters(), f"{cls.__name__} has no hyperparameter")
        self = cls.__new__(cls, **hyperparameters)
        vars(self).update({name: hyperparameters.get(name, value) for name, value in cls.hyperparameters().items()})
        self.apply_preset("paper")
        return self

    @classmethod
    def _check_names(cls, given: Iterable[str], known: Collection[str], problem: str) -> None:
        """Raise TypeError if one of the names ``given`` is not ``known``: the ``problem`` and what it may mean."""
        for name in given:
            if name not in known:
                named = " and ".join(repr(other) for other in meant(name, known))
                hint = f"Did you mean {named}?" if named else f"It has {', '.join(sorted(cls.hyperparameters()))}"
                raise TypeError(f"{problem} {name!r}. {hint}")

    @classmethod
    def hyperparameters(cls, preset: str = "paper") -> dict[str, Any]:
        """Everything that can be set by keyword, with the value that ``preset`` gives it."""
        levels = [vars(c).get("presets", {}) for c in reversed(cls.__mro__)]  # parents first
        known = sorted({name for level in levels for name in level})
        if preset not in known:
            raise ValueError(f"preset must be one of {', '.join(known)}, not {preset!r}")
        values = {f.name: f.default for f in fields(cls) if f.kw_only and f.init} | {"preset": preset}
        for level in levels:
            values |= level.get(preset, {})
        return values

    def apply_preset(self, recommended: str) -> None:
        """Take the preset's value for everything that was not given by keyword, then check all values."""
        self.preset = self.preset or recommended
        chosen = self.hyperparameters(self.preset)
        vars(self).update({name: value for name, value in chosen.items() if name not in self._explicit})
        self.validate()

    def validate(self) -> None:
        """Raise ValueError if a hyperparameter is out of its range, or has no effect where it is set."""
        defaults = {f.name: f.default for f in fields(self)}
        for name, switch in SWITCHES.items():
            if name in defaults and getattr(self, name) != defaults[name] and not getattr(self, switch):
                raise ValueError(
                    f"{name}={getattr(self, name)!r} has no effect without {switch}: set {switch}, or remove {name}"
                )
        for name, reason in self.inapplicable.items():
            if getattr(self, name) != defaults[name]:
                raise ValueError(f"{name} has no effect for {type(self).__name__}: {reason}")

    def check(self, names: Sequence[str], holds: Callable[[Any], bool], expected: str) -> None:
        """Raise ValueError unless every one of these hyperparameters that exists ``holds``; NaN never does."""
        for name in names:
            try:
                fine = not hasattr(self, name) or holds(getattr(self, name))
            except TypeError:  # text where a number belongs
                fine = False
            if not fine:
                raise ValueError(f"{name} must be {expected}, not {getattr(self, name)!r}")


Given = TypeVar("Given")
Held = TypeVar("Held")


class Argument(Generic[Given, Held]):
    """A required field that is given as one type and held as another, so that ``algo.policy.`` completes in an editor.

    Type checkers read the types off ``__set__`` and ``__get__``; the conversion itself is the owner's.
    """

    name: str

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, instance: object, owner: type | None = None) -> Held:
        if instance is None:
            raise AttributeError(self.name)
        return cast(Held, vars(instance)[self.name])

    def __set__(self, instance: object, value: Given) -> None:
        if isinstance(value, Argument):  # the default
            raise TypeError(f"{type(instance).__name__}(policy, env, ...): {self.name} is missing")
        vars(instance)[self.name] = value
