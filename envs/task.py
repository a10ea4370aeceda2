"""``Task``: problems and how completions are verified. Derive from it to make your own environment."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from string import Formatter
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from .checks import check_choice, check_template
from .rng_streams import seeded
from .verdict import Verdict

if TYPE_CHECKING:
    from .verifier import Conventions

BOXED = "Please reason step by step, and put your final answer within \\boxed{}."
MAX_DRAWS = 10_000


@dataclass(frozen=True)
class Problem:
    """One problem: what the model reads, and what its answer is compared with.

    ``data`` is not part of the hash, so that it may hold lists.
    """

    prompt: str
    """The text that the model completes; the observation."""
    answer: str
    """The reference answer."""
    key: str
    """Identifies the problem independently of its wording: equal keys always belong to the same split."""
    data: Mapping[str, Any] | None = field(default=None, hash=False)
    """What a verifier needs besides the answer."""


Verify = TypeVar("Verify", bound=Callable[..., Any])


def any_thread(verify: Verify) -> Verify:
    """Marks a ``Task.verify`` that may run outside the main thread, while the policy is generating.

    Code that uses signals must not be marked (math-verify's own timeouts do). The mark belongs to the function: an
    override in a subclass does not inherit it. Returns the function itself.
    """
    verify.any_thread = True  # type: ignore[attr-defined]
    return verify


class Task(ABC):
    """A family of problems with their verifier. Give it to ``TextEnv`` or ``MathVectorEnv`` to make an environment.

    A task has no mutable state: the same arguments give the same problems forever, in any process.

    The constructor raises ValueError for an unknown ``verifier``, an ``audit_share`` out of range, or an audit of a
    task that cannot be audited.
    """

    name: str = ""
    """Names the family; random streams and splits depend on it. Default: the name of the class."""
    splits: Sequence[str] = ("train", "validation", "test")
    """The environments use the first one by default."""
    system_prompt: str | None = None
    """Instructions for chat models, used if the tokenizer has a chat template. The keyword overrides it; "" removes
    it."""
    max_turns: int = 1
    """Maximum number of completions in an episode."""
    open_arguments: bool = False
    """The constructor passes keyword arguments that it does not name on to another task."""

    auditable: bool = True
    """An answer is right if and only if it equals the reference, so that the two can be compared a second time."""
    verifier: str = "standard"
    """"audit" re-checks a share of the verdicts with an independent method, see ``verifier/audit.py``."""
    audit_share: float = 0.1
    """The share of verdicts that are re-checked, above 0 and at most 1."""
    conventions: str | Conventions = "strict"
    """What the verifier accepts besides an equal answer, see ``verifier/conventions.py``."""
    form: str | Callable[[str, str], bool] | None = None
    """The form in which a right answer must be written, see ``verifier/forms.py``: its name, or a function of answer
    and reference. None: any."""

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
                f"verifier='audit' cannot be used with {self.name!r}: a right answer need not equal its reference"
            )

    @abstractmethod
    def problem(self, split: str, seed: int) -> Problem:
        """The problem for this split and seed (>= 0): a pure function of the two."""

    def problems(self, split: str, seeds: Sequence[int]) -> list[Problem]:
        """The problem for each seed. Override it if many problems can be made faster than one at a time."""
        return [self.problem(split, seed) for seed in seeds]

    @any_thread
    def verify(self, completions: Sequence[str], problems: Sequence[Problem]) -> list[Verdict]:
        """One verdict per completion, for the problem with the same index."""
        from .verifier import in_form, verify  # loaded on first use: importing the environments stays cheap

        verdicts = verify(completions, [problem.answer for problem in problems], conventions=self.conventions)
        return verdicts if self.form is None else in_form(verdicts, self.form)

    def feedback(self, problem: Problem, completion: str, verdict: Verdict, turn: int) -> str:
        """What the model reads after a wrong completion if another turn is left; ``turn`` counts from 1."""
        return "That is not correct. Try again."

    def size(self, split: str) -> int | None:
        """Number of problems in the split, ``None`` if it is endless. Seeds 0 .. n-1 visit each of n problems once."""
        return None

    def generator(self, *seeds: int) -> np.random.Generator:
        """A separate random generator for this family and these seeds (adding seeds up would let streams overlap)."""
        return np.random.default_rng(np.random.SeedSequence((stable_hash(self.name), *seeds)))


class ProceduralTask(Task):
    """An endless supply of random problems. A subclass defines ``sample``, ``template`` and its keyword arguments.

    Splits are disjoint for all seeds and difficulties: a stable hash of its key assigns each problem permanently to
    train (80%), validation (10%) or test (10%), and problems are drawn until one belongs to the requested split.

    The constructor raises ValueError or TypeError for a ``template`` with other fields than the default one.
    """

    template: str
    """The prompt with its fields in braces. The keyword ``template`` overrides it and must use the same fields."""

    def __init__(self, *, template: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if template is not None:
            fields = dict.fromkeys(name for _, name, _, _ in Formatter().parse(self.template) if name is not None)
            self.template = check_template("template", template, fields)

    @abstractmethod
    def sample(self, rng: np.random.Generator) -> Problem:
        """A random problem; ``rng`` must be the only source of randomness."""

    def problem(self, split: str, seed: int) -> Problem:
        """The first problem of the seed's random stream that belongs to the split.

        Raises ValueError if 10,000 draws found none: there are so few problems at this difficulty that the split seems
        to be empty.
        """
        return self._first(split, self.generator(seed))

    def problems(self, split: str, seeds: Sequence[int]) -> list[Problem]:
        if not self._default_seeding:
            return super().problems(split, seeds)
        streams = map(np.random.Generator, seeded(stable_hash(self.name), seeds))
        return [self._first(split, rng) for rng in streams]

    @property
    def _default_seeding(self) -> bool:
        """No subclass overrides how a seed becomes a problem."""
        return (type(self).problem, type(self).generator) == (ProceduralTask.problem, Task.generator)

    def _first(self, split: str, rng: np.random.Generator) -> Problem:
        for _ in range(MAX_DRAWS):
            problem = self.sample(rng)
            if split_of(self.name, problem.key) == split:
                return problem
        raise ValueError(
            f"none of {MAX_DRAWS} problems of {self.name!r} belongs to the split {split!r}:"
            " there are too few different problems at this difficulty; raise it"
        )


def split_of(family: str, key: str) -> str:
    """The split to which a problem permanently belongs: train for 80% of the keys, validation 10%, test 10%."""
    bucket = stable_hash(f"{family}\0{key}") % 10
    return "train" if bucket < 8 else "validation" if bucket == 8 else "test"


def stable_hash(text: str) -> int:
    """A 64-bit hash that is the same in every process and Python version (``hash`` is salted)."""
    return int.from_bytes(blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")
