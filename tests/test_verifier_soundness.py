"""No answer is accepted that is not equal: pairs that are unequal by construction, near and far, of every kind."""

import random
import time

import pytest
from pairs_of_numbers import complex_numbers, equal_pair, rationals, surds, unequal_pair

from espo_gym.envs.verifier.agree import Point
from espo_gym.envs.verifier.decide import decide
from espo_gym.envs.verifier.evaluate import Evaluator, NotNumeric, allow
from espo_gym.envs.verifier.exact import Ball, Imprecise, Undefined, context, lift, magnitude
from espo_gym.envs.verifier.parse import TooLarge, Unreadable, parse
from espo_gym.envs.verifier.tidy import tidy

PAIRS = 1_000_000
"""Number of unequal pairs in the slow search."""
BATCH = 10_000


def statuses(pair, seed, count):
    """The verdicts on ``count`` pairs, with the pair, both ways round in turn."""
    rng = random.Random(seed)
    for _ in range(count):
        one, other = pair(rng)
        yield decide(one, other).status, one, other


def accepted(seed, count):
    return [(one, other) for status, one, other in statuses(unequal_pair, seed, count) if status == "correct"]


def share_of_equal(seed, count):
    return sum(status == "correct" for status, _, _ in statuses(equal_pair, seed, count)) / count


def test_what_is_unequal_by_construction_is_never_accepted():
    assert accepted(0, 1200) == []


def test_what_is_equal_by_construction_is_accepted():
    """Before values carried their error, 0.95 of them were."""
    refused = [(one, other) for status, one, other in statuses(equal_pair, 0, 600) if status != "correct"]
    assert refused == []


@pytest.mark.slow
def test_nothing_unequal_is_accepted_in_a_million_pairs():
    for batch in range(PAIRS // BATCH):
        begin = time.process_time()
        assert accepted(1000 + batch, BATCH) == []
        assert share_of_equal(1000 + batch, BATCH // 20) > 0.99
        if time.process_time() - begin > 120:
            pytest.fail(f"batch {batch} took more than 120 s of CPU")


def _value(answer, bits) -> Ball:
    allow()
    value = Evaluator(context(bits), Point("positive", 0)).value(parse(tidy(answer)))
    assert not isinstance(value, float)
    return lift(value, context(bits))


def _values(answer):
    """An answer's value, as a ``Ball``, at 128 bits and at 2048."""
    return _value(answer, 128), _value(answer, 2048)


def test_errors_are_within_their_bounds():
    """The same value with sixteen times the digits says how large an error is."""
    rng, checked = random.Random(3), 0
    for _ in range(400):
        one, other = (unequal_pair if rng.random() < 0.5 else equal_pair)(rng)
        try:
            rough, fine = _values(rng.choice((one, other)))
        except (Unreadable, NotNumeric, Undefined, Imprecise, TooLarge):
            continue
        error = abs(context(2048).convert(rough.mid) - fine.mid)
        assert magnitude(error) <= max(rough.error, fine.error + 1) + 1, (one, other)
        checked += 1
    assert checked > 200


def test_algebraic_numbers_are_not_closer_to_zero_than_their_bound():
    rng, checked = random.Random(4), 0
    while checked < 400:
        one, other = rng.choice((surds, complex_numbers, rationals))(rng)
        changed = rng.choice(
            (f"10^{{-{rng.randint(1, 400)}}}", rf"\frac{{\sqrt{{3}}}}{{10^{{{rng.randint(1, 400)}}}}}")
        )
        value = _value(f"{one} - ({other}) + {changed}", 4096)
        if not value.loose:
            assert magnitude(value.mid) > -value.separation(), (one, other, changed)
            checked += 1


# What was accepted once, each a kind: exact integers, steps, unknown functions, ends of sets, tiny differences, ...
APART = [
    (r"2^{100}", "1267650600228229401496703205377"),
    (r"\lceil x \rceil", r"\lfloor x \rfloor"),
    (r"\lfloor\sqrt{n-1}\rfloor", r"\lfloor\sqrt{n-2}\rfloor"),
    (r"\lfloor 2x \rfloor", r"2\lfloor x \rfloor"),
    (r"x+\prod_{k=1}^{30}(x-k)", "x"),
    (r"1267650600228229401496703205376\pi", "3982440750641303168863879013504"),
    ("I(0)", "-I(0)"),
    ("f(2)", "g(2)"),
    ("f(x+3)-3f(x+2)+3f(x+1)-f(x)", "0"),
    ("|x-100|", "100-x"),
    (r"\sqrt{(x-100)^2}", "100-x"),
    (r"\sqrt{2}+10^{-100}", r"\sqrt{2}"),
    (r"\sqrt{x^2+10^{-50}}", "x"),
    ("x^{10}+10^{-30}", "x^{10}"),
    (r"\sin(10^{-300})", "10^{-300}"),
    (r"\log_2(2^{100}+1)", "100"),
    (r"\tanh 100", "1"),
    (r"(0, 10^{-40})", "(0, 1)"),
    (r"[0, 2^{100}]", "[0, 1267650600228229401496703205377]"),
    ("x > 5", "x > 5+10^{-40}"),
    ("x+y = 1", "x+y = 1+10^{-40}"),
    ("y = x+10^{-40}", "x - y = 0"),
    ("(1+i)^{10^9+1}", "(1-i)^{10^9+1}"),
    ("1:00", "12:00"),
    ("0:1:2", "0:5:7"),
    (r"\log_3(27) = 3", "x = 3"),
    ("2+2 = 4", "x = 4"),
    ("2+2 = 5", "5"),
    ("6x+5 = 18+6 = 23", "23"),
    ("(x+1)^2 = x^2+2x+2", "x^2+2x+2"),
    ("a+b = 7", "7"),
    ("|x| = 5", "5"),
    ("6x+5 = 18+5 = 23", "x = 23"),
    (r"\sin^2 x+\cos^2 x = 1", "1 = 1"),
    (r"1, 3, \ldots, 2n-1", "(1, 3, 2n-1)"),
    (r"\sin x = \cos x", r"\cos x"),
    (r"e = 2.71", "e"),
    (r"\frac{d}{t} = 5", "5"),
    ("71_8", "71"),
    ("555_{10} = 4211_5", "4211_5"),
    (r"1, 3, \ldots, 2n+1", r"1, 3, \ldots, 2n-1"),
    (r"1, 3, 5, \ldots, n", r"1, 2, 3, \ldots, n"),
    (r"2\begin{pmatrix}1\\2\end{pmatrix}", r"\begin{pmatrix}2\\5\end{pmatrix}"),
    ("C_1 x + c_1", "C_1 x + C_1"),
    ("C_1 x", "c_2 x"),
    ("12 boys and 12 girls", "12"),
]
ALIKE = [
    ("x = 2+1 = 3", "3"),
    (r"e = \frac{\sqrt{3}}{2}", r"\frac{\sqrt{3}}{2}"),
    ("i = 3", "3"),
    (r"\angle B = 76^\circ", r"76^\circ"),
    ("|AB| = 5", "5"),
    (r"\sin\theta = \frac{3}{5}", r"\frac{3}{5}"),
    (r"P(A \mid B) = \frac{1}{3}", r"\frac{1}{3}"),
    (r"\mathbb{E}[X] = 2", "2"),
    (r"\det A = 5", "5"),
    (r"\frac{dy}{dx} = 2x", "2x"),
    ("n! = 120", "120"),
    ("6x+5 = 18+5 = 23", "23"),
    (r"\frac{2\sin x}{\cos x} = 2\tan x", r"2\tan x"),
    ("(x+1)^2 = x^2+2x+1", "x^2+2x+1"),
    ("255_{10}", "255"),
    ("555_{10} = 4210_5", "4210_5"),
    (r"\theta = \frac{3\pi}{2}, f(1) = 1", r"\frac{3\pi}{2}, 1"),
    ("C_1 e^x + C_2", "c_1 e^x + c_2"),
    (r"\sqrt[3]{x^2-2}", "(x^2-2)^{1/3}"),
    (r"2\begin{pmatrix}1\\2\end{pmatrix}", r"\begin{pmatrix}2\\4\end{pmatrix}"),
    (r"\begin{pmatrix}1\\2\end{pmatrix}+t\begin{pmatrix}1\\0\end{pmatrix}", r"\begin{pmatrix}1+t\\2\end{pmatrix}"),
    (r"1, 2, \ldots, n", r"1, 2, 3, \ldots, n"),
    (r"1, 3, \ldots, 9", "1, 3, 5, 7, 9"),
    (r"\sqrt[3]{2+\sqrt{5}}+\sqrt[3]{2-\sqrt{5}}", "1"),
    (r"\lfloor (\sqrt{2})^2 \rfloor", "2"),
    (r"\lceil \frac{n}{2} \rceil", r"\lfloor \frac{n+1}{2} \rfloor"),
    ("(-8)^{1/3}", r"1+i\sqrt{3}"),
    ("f(x+1)+f(x)", "f(x)+f(1+x)"),
]


@pytest.mark.parametrize(("one", "other"), APART)
def test_kinds_that_are_told_apart(one, other):
    assert decide(one, other).status == decide(other, one).status == "incorrect"


@pytest.mark.parametrize(("one", "other"), ALIKE)
def test_kinds_that_are_alike(one, other):
    assert decide(one, other).status == decide(other, one).status == "correct"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("(1+i)^{10^9}", "(1-i)^{10^9}"),  # equal, but to say so takes half a billion bits
        ("5+10^{-10^9}", "5"),
        ("10000!+1", "10000!"),
    ],
)
def test_what_cannot_be_told_apart_is_not_accepted(one, other):
    assert decide(one, other).status != "correct"


@pytest.mark.parametrize("answer", [r"\sin(10^{10^{10}})", "10^{10^{30}}", "2^{10^{15}}"])
def test_an_answer_beyond_the_bounds_is_wrong_if_the_reference_is_not(answer):
    assert decide(answer, "5").status == "incorrect"
