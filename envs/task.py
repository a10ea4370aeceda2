"""Where problems come from and how answers are judged: the class to derive from when making an environment."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from string import Formatter
from typing import Any, TypeVar

import numpy as np

from .checks import check_choice, check_template
from .rng_streams import seeded
from .verifier import Verdict, verify

BOXED = "Please reason step by step, and put your final answer within \\boxed{}."
MAX_DRAWS = 10_000


@dataclass(frozen=True)
class Problem:
    """One problem: what the model reads, and what its answer is compared with."""

    prompt: str
    """The text that the model completes; the observation."""
    answer: str
    """The reference answer."""
    key: str
    """What makes it this problem and no other, whatever its wording: equal keys always fall into the same split."""
    data: Mapping[str, Any] | None = field(default=None, hash=False)
    """What a verifier needs beyond the answer."""


Verify = TypeVar("Verify", bound=Callable[..., Any])


def any_thread(verify: Verify) -> Verify:
    """Marks a ``Task.verify`` that may run in another thread than the main one, while the policy is generating.

    What uses signals must not (math-verify's own timeouts do). The mark is the function's: one that overrides it has
    none.
    """
    verify.any_thread = True  # type: ignore[attr-defined]
    return verify


class Task(ABC):
    """A family of problems with their verifier. Give it to ``TextEnv`` or ``MathVectorEnv`` to make an environment.

    A task has no state that changes: the same arguments give the same problem for ever, in any process.
    """

    name: str = ""
    """Names the family; the random streams and the splits depend on it. Default: the name of the class."""
    splits: Sequence[str] = ("train", "validation", "test")
    """The first one is the default of the environments."""
    system_prompt: str | None = None
    """Instructions for chat models, for tokenizers with a chat template. The keyword overrides it, "" drops it."""
    max_turns: int = 1
    """How many completions an episode may have."""
    open_arguments: bool = False
    """The constructor takes keyword arguments that it does not name, to pass them on to another task."""

    auditable: bool = True
    """An answer is right if and only if it equals the reference, so that a second decision can be made on the two."""
    verifier: str = "standard"
    """The keyword "audit" has a share of the verdicts decided again by other means, see ``verifier/audit.py``."""
    audit_share: float = 0.1
    """That share."""

    def __init__(
        self, *, system_prompt: str | None = None, verifier: str = "standard", audit_share: float = 0.1
    ) -> None:
        self.name = self.name or type(self).__name__
        if system_prompt is not None:
            self.system_prompt = system_prompt or None
        self.verifier = check_choice("verifier", verifier, ("standard", "audit"))
        if not 0 < audit_share <= 1:
            raise ValueError(f"audit_share must be above 0 and at most 1, not {audit_share!r}")
        self.audit_share = audit_share
        if verifier == "audit" and not self.auditable:
            raise ValueError(
                f"verifier='audit' means nothing for {self.name!r}: a right answer need not equal its reference"
            )

    @abstractmethod
    def problem(self, split: str, seed: int) -> Problem:
        """The problem of this split and seed (>= 0): a pure function of the two."""

    def problems(self, split: str, seeds: Sequence[int]) -> list[Problem]:
        """The problem of each seed: ``problem``, for a task that can make many of them faster than one at a time."""
        return [self.problem(split, seed) for seed in seeds]

    @any_thread
    def verify(self, completions: Sequence[str], problems: Sequence[Problem]) -> list[Verdict]:
        """A verdict on each completion, against the problem of the same index."""
        return verify(completions, [problem.answer for problem in problems])

    def feedback(self, problem: Problem, completion: str, verdict: Verdict, turn: int) -> str:
        """What the model reads after its ``turn``-th completion (from 1) was wrong and another turn is left."""
        return "That is not correct. Try again."

    def size(self, split: str) -> int | None:
        """How many problems the split has, ``None`` if it is endless. Seeds 0 .. n-1 visit each of n problems once."""
        return None

    def generator(self, *seeds: int) -> np.random.Generator:
        """A random generator of its own for this family and these seeds; a sum of seeds would let streams overlap."""
        return np.random.default_rng(np.random.SeedSequence((stable_hash(self.name), *seeds)))


class ProceduralTask(Task):
    """Problems made at random, without end. A subclass defines ``sample``, ``template`` and its keyword arguments.

    Splits are disjoint whatever the seeds and the difficulty: a stable hash of its key assigns each problem for ever to
    train (80 %), validation (10 %) or test (10 %), and problems are drawn until one belongs to the split asked for.
    """

    template: str
    """The prompt, with its fields in braces. The keyword ``template`` overrides it and must use the same fields."""

    def __init__(self, *, template: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if template is not None:
            fields = dict.fromkeys(name for _, name, _, _ in Formatter().parse(self.template) if name is not None)
            self.template = check_template("template", template, fields)

    @abstractmethod
    def sample(self, rng: np.random.Generator) -> Problem:
        """A problem drawn with ``rng``, which is its only source of randomness."""

    def problem(self, split: str, seed: int) -> Problem:
        """The first problem of the seed's random stream that belongs to the split.

        Raises ValueError if there seems to be none: so few problems at this difficulty that the split is empty.
        """
        return self._first(split, self.generator(seed))

    def problems(self, split: str, seeds: Sequence[int]) -> list[Problem]:
        if not self._seeds_alone:
            return super().problems(split, seeds)
        streams = map(np.random.Generator, seeded(stable_hash(self.name), seeds))
        return [self._first(split, rng) for rng in streams]

    @property
    def _seeds_alone(self) -> bool:
        """No subclass has another way from a seed to its problem."""
        return (type(self).problem, type(self).generator) == (ProceduralTask.problem, Task.generator)

    def _first(self, split: str, rng: np.random.Generator) -> Problem:
        for _ in range(MAX_DRAWS):
            problem = self.sample(rng)
            if split_of(self.name, problem.key) == split:
                return problem
        raise ValueError(
            f"none of {MAX_DRAWS} problems of {self.name!r} belongs to the split {split!r}:"
            " there are too few different ones at this difficulty; raise it"
        )


def split_of(family: str, key: str) -> str:
    """The split to which a problem belongs for ever: train for 80 % of the keys, validation 10 %, test 10 %."""
    bucket = stable_hash(f"{family}\0{key}") % 10
    return "train" if bucket < 8 else "validation" if bucket == 8 else "test"


def stable_hash(text: str) -> int:
    """64 bits, the same in every process and version of Python (``hash`` is salted)."""
    return int.from_bytes(blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")
