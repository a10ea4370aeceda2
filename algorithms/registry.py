"""From the name of an algorithm to its class, and back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from espo_gym.envs.checks import did_you_mean
from espo_gym.envs.registration import import_named
from espo_gym.plugins import installed_algorithms, package_of

if TYPE_CHECKING:
    from espo_gym.algorithms import PolicyOptimizer


def resolve(name: str) -> type[PolicyOptimizer]:
    """The algorithm that ``name`` means: a key of ``ALGORITHMS``, the name that an installed package offers it by, or
    ``module:Class``. The module is imported; check a name from a file with ``plugins.check_import`` first.

    Raises ValueError: there is no such algorithm, or it cannot be imported.
    """
    # Here, since PolicyOptimizer.load uses this module and ALGORITHMS is made of its subclasses.
    from espo_gym.algorithms import ALGORITHMS, PolicyOptimizer

    if name in ALGORITHMS:
        return ALGORITHMS[name]
    point = installed_algorithms().get(name)
    reference, origin = (name, "") if point is None else (point.value, f" of {package_of(point)}")
    module, colon, attribute = reference.rpartition(":")
    if not colon:
        known = [*ALGORITHMS, *installed_algorithms()]
        raise ValueError(
            f"no algorithm {name!r}.{did_you_mean(name, known)} Known: {', '.join(known)}; your own as module:Class"
        )
    try:
        found = import_named(module, f"no algorithm {name!r}{origin}")
    except ImportError as error:
        raise ValueError(str(error)) from error
    cls = getattr(found, attribute, None)
    if not (isinstance(cls, type) and issubclass(cls, PolicyOptimizer)):
        there = [n for n, c in vars(found).items() if isinstance(c, type) and issubclass(c, PolicyOptimizer)]
        problem = f"{module} has no attribute {attribute!r}" if cls is None else f"{attribute!r} is no policy optimizer"
        raise ValueError(f"no algorithm {name!r}{origin}: {problem}.{did_you_mean(attribute, there)}")
    return cls


def name_of(algorithm: type[PolicyOptimizer]) -> str:
    """The name that :func:`resolve` finds ``algorithm`` by: its key in ``ALGORITHMS``, else ``module:Class``."""
    from espo_gym.algorithms import ALGORITHMS

    keys = (key for key, cls in ALGORITHMS.items() if cls is algorithm)
    return next(keys, f"{algorithm.__module__}:{algorithm.__qualname__}")
