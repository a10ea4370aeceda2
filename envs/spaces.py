"""The observation and action space of text environments: any Unicode string up to a maximum length."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import deepcopy
from multiprocessing.sharedctypes import SynchronizedArray
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
from gymnasium.spaces import Text, Tuple
from gymnasium.vector.utils import batch_space
from gymnasium.vector.utils import shared_memory as shm

PRINTABLE = "".join(map(chr, range(32, 127)))
SAMPLE_LENGTH = 32


class UnicodeText(Text):
    """Every ``str`` of at most ``max_length`` characters (code points), including the empty string.

    ``gymnasium.spaces.Text`` lists the allowed characters and looks each one up. A model may produce any Unicode
    character, and checking only the length is a thousand times faster. ``sample()`` returns at most 32 printable ASCII
    characters.
    """

    def __init__(self, max_length: int, *, seed: int | np.random.Generator | None = None) -> None:
        super().__init__(max_length, min_length=0, charset=PRINTABLE, seed=seed)

    def contains(self, x: Any) -> bool:
        """Whether ``x`` is a ``str`` that is not too long."""
        return isinstance(x, str) and len(x) <= self.max_length

    def sample(self, mask: Any = None, probability: Any = None) -> str:
        """A random string of printable ASCII characters; the arguments are those of ``gymnasium.spaces.Text``."""
        if mask is None and probability is None:
            mask = (int(self.np_random.integers(min(SAMPLE_LENGTH, self.max_length) + 1)), None)
        return super().sample(mask, probability)

    @property
    def is_np_flattenable(self) -> bool:
        """False: the set of characters is not listed."""
        return False

    def __eq__(self, other: object) -> bool:
        return isinstance(other, UnicodeText) and self.max_length == other.max_length

    __hash__ = None  # type: ignore[assignment]  # as every Gymnasium space: equal, but with a random state that changes

    def __repr__(self) -> str:
        return f"UnicodeText({self.max_length})"


@batch_space.register(UnicodeText)
def _batch(space: UnicodeText, n: int = 1) -> Tuple[str]:
    """The same space n times. Gymnasium makes n copies, which takes longer than a thousand episodes."""
    return Tuple((deepcopy(space),) * n)


OBSERVATION_SPACE = UnicodeText(2**17)
ACTION_SPACE = UnicodeText(2**20)


# AsyncVectorEnv reads a Text space from its shared memory once, before anything is written there, and returns that
# tuple of empty strings forever after. The three functions below store each string as its length and its code points,
# and what AsyncVectorEnv keeps is a view, which is read when AsyncVectorEnv copies it.


class _SharedTexts(Sequence[str]):
    """A view of the strings now in the shared memory; a deep copy of it is a tuple of ``str``."""

    def __init__(self, table: npt.NDArray[np.uint32]) -> None:
        self._table = table  # (n, 1 + max_length) uint32: length of the string, then its code points

    def __len__(self) -> int:
        return len(self._table)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return tuple(self)[index]
        row = self._table[index]
        return row[1 : 1 + row[0]].astype("<u4").tobytes().decode("utf-32-le", "surrogatepass")

    def __iter__(self) -> Iterator[str]:
        return (self[i] for i in range(len(self)))

    def __deepcopy__(self, memo: dict[int, Any]) -> tuple[str, ...]:
        return tuple(self)


def _table(memory: Any, space: UnicodeText) -> npt.NDArray[np.uint32]:
    return np.frombuffer(memory.get_obj(), dtype=np.uint32).reshape(-1, 1 + space.max_length)


@shm.create_shared_memory.register(UnicodeText)
def _create(space: UnicodeText, n: int = 1, ctx: ModuleType | Any = None) -> SynchronizedArray[Any]:
    array: SynchronizedArray[Any] = (ctx or shm.mp).Array(np.dtype(np.uint32).char, n * (1 + space.max_length))
    return array


@shm.read_from_shared_memory.register(UnicodeText)
def _read(space: UnicodeText, shared_memory: Any, n: int = 1) -> _SharedTexts:
    return _SharedTexts(_table(shared_memory, space))


@shm.write_to_shared_memory.register(UnicodeText)
def _write(space: UnicodeText, index: int, value: str, shared_memory: Any) -> None:
    if len(value) > space.max_length:
        raise ValueError(f"an observation of {len(value)} characters does not fit into {space}")
    codes = np.frombuffer(value.encode("utf-32-le", "surrogatepass"), dtype="<u4")
    row = _table(shared_memory, space)[index]
    row[0] = len(codes)
    row[1 : 1 + len(codes)] = codes
