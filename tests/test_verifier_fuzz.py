"""Mutated and nested answers: no function of the verifier raises, whatever ``verify`` would make of it, and equality is
symmetric.
"""

import random
from collections.abc import Iterator

import pytest
from verifier_cases import DIFFERENT, EQUAL

from espo_gym.envs import verify
from espo_gym.envs.verifier.decide import decide, normalized, read_reference, screened, second_tier
from espo_gym.envs.verifier.extract import extract
from espo_gym.envs.verifier.second_opinion import second_opinion
from espo_gym.envs.verifier.tidy import tidy
from espo_gym.envs.verifier.worker import POOL

CORPUS = sorted({text for kinds in (EQUAL, DIFFERENT) for pairs in kinds.values() for pair in pairs for text in pair})
FORMS = r"""
\frac{@}{@};\sqrt{@};\sqrt[@]{@};@^{@};@_{@};@_@;@_;\sum_{k=@}^{@}@;\prod_{i=@}^{@}{@};\binom{@}{@};\log_{@}@
\sin^{@} @;|@|;@!
(@, @);[@, @);\{@, @\};@, @;@ = @;@ < @ < @;@ \le @;x \in @;@ \cup @;\begin{pmatrix}@ & @\\ @ & @\end{pmatrix}
@ \pm @;-@
\begin{vmatrix}@ & @\\ @ & @\end{vmatrix};@ + @;@ @;@ / @;@ : @;@\%;@^\circ;@\text{ cm};f(@);f_@(@)
\lfloor @ \rfloor;\Gamma(@)
\cot @;@ \text{ or } @;@ \approx @;x = @;f(@) = @, f(@) = @;x=@, y=@;\{x \mid @\};@';@_8;\mathbb{@};\langle @, @\rangle
"""
LEAVES = r"x y k i e n 0 1 2 -1 0.5 7.25 1e5000 10^{40} \pi \infty og his_ \theta 1,234 \emptyset 200 1000000 i^2 no m"


def nested(rng: random.Random, depth: int) -> str:
    """A formula of ``FORMS`` within one another."""
    if depth == 0 or rng.random() < 0.2:
        return rng.choice(LEAVES.split())
    form = rng.choice(FORMS.strip().replace("\n", ";").split(";"))
    while "@" in form:
        form = form.replace("@", nested(rng, depth - 1), 1)
    return form


def mutated(rng: random.Random, text: str) -> str:
    """``text`` with a few pieces cut out, put in, or taken from elsewhere."""
    for _ in range(rng.randint(1, 4)):
        start = rng.randint(0, len(text))
        end = start + rng.randint(0, 5)
        other = rng.choice(CORPUS)
        cut = rng.randint(0, len(other))
        sign, anything = rng.choice(list(r"\_^{}()|,;=+!")), chr(rng.randint(1, 0x2FFF))
        piece = rng.choice((rng.choice(LEAVES.split()), sign, other[cut : cut + 9], "", anything))
        text = text[:start] + piece + text[end:]
    return text


def pairs(seed: int, count: int) -> Iterator[tuple[str, str]]:
    """Answers and references, among them pairs that differ little."""
    rng = random.Random(seed)
    for _ in range(count):
        answer = nested(rng, rng.randint(1, 3)) if rng.random() < 0.5 else mutated(rng, rng.choice(CORPUS))
        near = rng.random() < 0.4
        yield answer, mutated(rng, answer) if near else rng.choice((rng.choice(CORPUS), nested(rng, 2)))


def check(answer: str, reference: str) -> None:
    """Every tier, called itself: an exception names its place."""
    extract(answer)
    one, other = decide(answer, reference), decide(reference, answer)
    assert {one.status, other.status} != {"correct", "incorrect"}, (answer, reference)
    for text in (answer, reference):
        normalized(text)
        screened(tidy(text))
        read_reference(text)
    if tidy(reference):
        second_tier(tidy(answer), tidy(reference))
    second_opinion(answer, reference, random.Random(0))


FOUND = [
    ("og_", "5"),  # names: the position must not pass the end
    ("his_", "5"),
    (r"The maximum value is ___.", "11"),
    (r"\sum_{k=1\gamma}^{n}42", "42n"),  # sums without terms
    (r"\sum_{k=110}^{4} k^2", "6"),
    (r"(\sum_{k=k}^{4} k, 90]", "[1, 90)"),  # a bound that names the variable: another one, from outside
    (r"\sum_{k=i}^{4} k^2", "6"),  # complex bounds, degrees and binomials
    (r"\binom{2.5}{-i^2}", "2.5"),
    (r"-1 \pm \sqrt[i^2]{-8}", "3"),
    ("1e5000_8", "m"),  # numbers that Python does not write out
    ("f(1e5000) = 1, f(2) = 2", "1, 2"),
    (r"\sqrt[11^{10^{18}}]{\theta}", "1"),  # a degree that fits into no memory
    ("1e500", "(2+i)(2-i)"),  # numbers that are no floats
]


@pytest.mark.parametrize(("answer", "reference"), FOUND)
def test_what_once_raised(answer, reference):
    check(answer, reference)
    check(reference, answer)
    for completion, wanted in ((answer, reference), (reference, answer)):
        assert decide(completion, wanted).reason in (None, "unreadable_reference", "too_long")


@pytest.mark.parametrize("seed", range(4))
def test_nothing_raises_and_equality_is_symmetric(seed):
    for answer, reference in pairs(seed, 700):
        try:
            check(answer, reference)
        except Exception as error:
            raise AssertionError(f"decide({answer!r}, {reference!r})") from error


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10, 20))
def test_nothing_raises_in_a_longer_search(seed):
    for answer, reference in pairs(seed, 20_000):
        check(answer, reference)


def test_an_empty_sum_is_no_way_to_be_right():
    """A sum from above its end is 0 or minus the terms between, by convention; one term below its start it is 0."""
    assert decide(r"\sum_{k=5}^{4} k", "0").status == "correct"
    assert decide(r"\prod_{k=5}^{4} k", "1").status == "correct"
    for wrong in ("0", "-4", "9"):
        assert decide(r"\sum_{k=5}^{3} k", wrong).status == "incorrect"
    assert decide(r"\sum_{k=n+9}^{n} k", "0").status != "correct"


@pytest.mark.parametrize(("one", "other"), [("7.25", "7.25_8"), ("4", "2+0 2+0"), ("5", "2 2 1"), ("71", "7 1")])
def test_plain_text_that_cannot_be_read_is_no_reference(one, other, monkeypatch):
    """Even if math-verify, which reads it in its own way, would call the two equal."""
    monkeypatch.setattr(POOL, "ask", lambda pairs, **_: [("equal", 0.0)] * len(pairs))
    forth, back = (verify([rf"\boxed{{{a}}}"], [b])[0] for a, b in ((one, other), (other, one)))
    assert (forth.status, back.status) == ("incorrect", "incorrect")
