r"""Pairs of answers that are equal, or unequal, by construction: what they are is known before any verifier is asked.

``equal_pair`` writes one thing in two ways, by an identity that holds exactly. ``unequal_pair`` then changes one of the
two by something that is not zero: a number, a coefficient, an end, a bracket, an entry or a member.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import mpmath

Pair = tuple[str, str]


# ---- numbers: two ways to write one


def integers(rng: random.Random) -> Pair:
    n = rng.choice((rng.randint(2, 99), rng.randint(10**15, 10**16), rng.getrandbits(rng.randint(60, 600)) + 2))
    a, b = rng.randint(2, 12), rng.randint(2, 300)
    m, k = rng.randint(5, 150), rng.randint(2, 40)
    return rng.choice(
        (
            (str(n), f"{n - 1}+1"),
            (f"{a}^{{{b}}}", str(a**b)),
            (f"{m}!", str(math.factorial(m))),
            (rf"\binom{{{m}}}{{{k}}}", str(math.comb(m, k))),
            (rf"{n} \cdot {a}", str(n * a)),
            (rf"\prod_{{k=1}}^{{{k}}} k", rf"{k}!"),
            (rf"\sum_{{k=1}}^{{{m}}} k^3", str((m * (m + 1) // 2) ** 2)),
            (rf"\lfloor \sqrt{{{n * n + a}}} \rfloor", str(math.isqrt(n * n + a))),
            (rf"\lceil \frac{{{n}}}{{{a}}} \rceil", str(-(-n // a))),
            (rf"\begin{{vmatrix}} {n} & {a} \\ {b} & {m} \end{{vmatrix}}", str(n * m - a * b)),
        )
    )


def rationals(rng: random.Random) -> Pair:
    p, q, m = rng.randint(1, 10**6), rng.randint(2, 10**6), rng.randint(2, 999)
    big = rng.getrandbits(rng.randint(20, 300)) + 2
    n = rng.randint(2, 60)
    return rng.choice(
        (
            (rf"\frac{{{p}}}{{{q}}}", rf"\frac{{{p * m}}}{{{q * m}}}"),
            (rf"\frac{{{p}}}{{{q}}}+\frac{{1}}{{{big}}}", rf"\frac{{{p * big + q}}}{{{q * big}}}"),
            (rf"\sum_{{k=1}}^{{{n}}} \frac{{1}}{{k(k+1)}}", rf"\frac{{{n}}}{{{n + 1}}}"),
            (rf"1-2^{{-{n}}}", rf"\frac{{{2**n - 1}}}{{{2**n}}}"),
        )
    )


def surds(rng: random.Random) -> Pair:
    a, b, c = rng.randint(2, 40), rng.choice((2, 3, 5, 6, 7, 10, 11, 13)), rng.randint(1, 99)
    p, q = rng.randint(2, 60), rng.randint(61, 120)
    d = rng.choice((3, 4, 5))
    return rng.choice(
        (
            (rf"{a}\sqrt{{{b}}}+{c}", rf"\sqrt{{{a * a * b}}}+{c}"),
            (rf"\frac{{1}}{{{a}-\sqrt{{{a * a - 1}}}}}", rf"{a}+\sqrt{{{a * a - 1}}}"),
            (rf"\sqrt{{{p + q}+2\sqrt{{{p * q}}}}}", rf"\sqrt{{{p}}}+\sqrt{{{q}}}"),
            (rf"\sqrt[{d}]{{{a**d * b}}}", rf"{a}\sqrt[{d}]{{{b}}}"),
            (rf"{b}^{{1/{d}}}", rf"\sqrt[{d}]{{{b}}}"),
            (rf"(\sqrt{{{b}}}+{c})^2", rf"{b + c * c}+{2 * c}\sqrt{{{b}}}"),
            (rf"\sqrt{{\sqrt{{{b}}}+{c}}} \cdot \sqrt{{\sqrt{{{b}}}+{c}}}", rf"\sqrt{{{b}}}+{c}"),
            (rf"\sqrt[3]{{2+\sqrt{{5}}}}+\sqrt[3]{{2-\sqrt{{5}}}}+{c}", str(c + 1)),
            (rf"(\sqrt{{{b}}}+\sqrt{{{b - 1}}})^{{{d}}}(\sqrt{{{b}}}-\sqrt{{{b - 1}}})^{{{d}}}", "1"),
        )
    )


def trigonometric(rng: random.Random) -> Pair:
    q = rng.randint(3, 60)
    p = rng.randint(1, q - 1)
    pi = rf"\frac{{{p}\pi}}{{{q}}}"
    if 2 * p == q:
        return r"\cos\frac{2\pi}{5}", r"\frac{\sqrt{5}-1}{4}"
    return rng.choice(
        (
            (rf"\cos {pi}", rf"-\cos \frac{{{q - p}\pi}}{{{q}}}"),
            (rf"\sin {pi}", rf"\cos \left(\frac{{\pi}}{{2}}-{pi}\right)"),
            (rf"2\cos^2 {pi} - 1", rf"\cos \frac{{{2 * p}\pi}}{{{q}}}"),
            (rf"\tan {pi}", rf"\frac{{\sin {pi}}}{{\cos {pi}}}"),
            (rf"\sin^2 {pi}+\cos^2 {pi}", "1"),
            (r"\cos 36^\circ", r"\frac{1+\sqrt{5}}{4}"),
            (rf"4\arctan\frac{{1}}{{5}}-\arctan\frac{{1}}{{239}}+{p}", rf"\frac{{\pi}}{{4}}+{p}"),
        )
    )


def logarithms(rng: random.Random) -> Pair:
    a, k, c = rng.randint(2, 12), rng.randint(2, 200), rng.randint(2, 99)
    n = rng.getrandbits(rng.randint(5, 300)) + 3
    return rng.choice(
        (
            (rf"\log_{{{a}}} {a**k}", str(k)),
            (rf"\ln {n * c}", rf"\ln {n} + \ln {c}"),
            (rf"\log_{{{a}}} {c}", rf"\frac{{\ln {c}}}{{\ln {a}}}"),
            (rf"e^{{\ln {c} + 1}}", rf"{c}e"),
            (rf"e^{{-{k}}}", rf"\frac{{1}}{{e^{{{k}}}}}"),
            (rf"\sinh {a}+\cosh {a}", f"e^{{{a}}}"),
        )
    )


def complex_numbers(rng: random.Random) -> Pair:
    a, b, n = rng.randint(1, 9), rng.randint(1, 9), rng.randint(2, 60)
    x, y = 1, 0
    for _ in range(n):
        x, y = x * a - y * b, x * b + y * a
    q = rng.randint(2, 30)
    return rng.choice(
        (
            (f"({a}+{b}i)^{{{n}}}", f"{x}{y:+d}i"),
            (f"(1+i)^{{{4 * n}}}", f"(1-i)^{{{4 * n}}}"),
            (rf"\frac{{1}}{{{a}+{b}i}}", rf"\frac{{{a}-{b}i}}{{{a * a + b * b}}}"),
            (rf"e^{{i\pi/{q}}}", rf"\cos\frac{{\pi}}{{{q}}}+i\sin\frac{{\pi}}{{{q}}}"),
            (f"|{a}+{b}i|", rf"\sqrt{{{a * a + b * b}}}"),
        )
    )


# ---- formulas


def polynomials(rng: random.Random) -> Pair:
    names = rng.sample(["x", "y", "a", "t", r"\theta", "z"], 2)
    a, b, c, d = (rng.randint(1, 10 ** rng.choice((1, 3, 12))) for _ in range(4))
    x, y = names
    n = rng.randint(2, 9)
    expanded = "+".join(f"{math.comb(n, k) * a**k}{x}^{{{n - k}}}{y}^{{{k}}}" for k in range(n + 1))
    return rng.choice(
        (
            (f"({a}{x}+{b})({c}{x}+{d})", f"{a * c}{x}^2+{a * d + b * c}{x}+{b * d}"),
            (f"({x}+{a}{y})^{{{n}}}", expanded),
            (f"{a}{x}^2-{b}{y}+{c}", f"-{b}{y}+{c}+{a}{x}^2"),
            (rf"\frac{{{x}^2-{a * a}}}{{{x}-{a}}}", f"{x}+{a}"),
            (rf"\frac{{1}}{{{x}+{a}}}-\frac{{1}}{{{x}+{a + b}}}", rf"\frac{{{b}}}{{({x}+{a})({x}+{a + b})}}"),
        )
    )


def functions(rng: random.Random) -> Pair:
    x, a, b = rng.choice("xyt"), rng.randint(2, 9), rng.randint(2, 50)
    return rng.choice(
        (
            (rf"\sin({a}{x})", rf"\sin({a - 1}{x})\cos {x}+\cos({a - 1}{x})\sin {x}"),
            (rf"e^{{{a}{x}}}", rf"(e^{{{x}}})^{{{a}}}"),
            (rf"\ln({a}{x})", rf"\ln {a}+\ln {x}"),
            (rf"\sqrt{{{x}^2+{b}}}", rf"\frac{{{x}^2+{b}}}{{\sqrt{{{x}^2+{b}}}}}"),
            (rf"|{x}-{b}|", rf"\sqrt{{({x}-{b})^2}}"),
            (rf"\arctan {x}+\arctan\frac{{{b}}}{{{a}}}", rf"\arctan\frac{{{b}}}{{{a}}}+\arctan {x}"),
            (rf"\sqrt[3]{{{x}-{b}}}", rf"-\sqrt[3]{{{b}-{x}}}"),
            (rf"f({x}+{a})+{b}", rf"{b}+f({a}+{x})"),
            (rf"{a}^{{{x}+{b}}}", rf"{a**b} \cdot {a}^{{{x}}}"),
        )
    )


def of_integers(rng: random.Random) -> Pair:
    a, b = rng.randint(2, 9), rng.randint(1, 30)
    return rng.choice(
        (
            (r"\sum_{k=1}^{n} k", r"\frac{n(n+1)}{2}"),
            (rf"\sum_{{k=0}}^{{n}} {a}^k", rf"\frac{{{a}^{{n+1}}-1}}{{{a - 1}}}"),
            (r"\binom{2n}{n}", r"\frac{(2n)!}{(n!)^2}"),
            (rf"(-1)^{{n+{2 * a}}}+{b}", rf"{b}+(-1)^n"),
            (rf"\lfloor \frac{{n+{a}}}{{{a}}} \rfloor", rf"\lfloor \frac{{n}}{{{a}}} \rfloor+1"),
            (rf"\lceil \frac{{n}}{{{a}}} \rceil", rf"\lfloor \frac{{n+{a - 1}}}{{{a}}} \rfloor"),
            (rf"\lfloor x+{b} \rfloor", rf"\lfloor x \rfloor+{b}"),
            (r"-\lceil x \rceil", r"\lfloor -x \rfloor"),
        )
    )


NUMBERS = (integers, rationals, surds, trigonometric, logarithms, complex_numbers)
FORMULAS = (polynomials, functions, of_integers)
REAL = (integers, rationals, surds, trigonometric, logarithms)

# ---- what is added


def small(rng: random.Random) -> str:
    """A number that is not 0, mostly a small one."""
    k = rng.choice((rng.randint(1, 12), rng.randint(20, 60), rng.randint(60, 300)))
    return rng.choice(
        (
            *("1", f"10^{{-{k}}}", rf"\frac{{1}}{{10^{{{k}}}}}", rf"\frac{{\sqrt{{2}}}}{{10^{{{k}}}}}", f"2^{{-{k}}}"),
            *(f"0.{'0' * min(k, 90)}1", f"e^{{-{k}}}", rf"\frac{{\pi}}{{{k}}}"),
        )
    )


def changed(rng: random.Random, text: str, kind: Callable[[random.Random], Pair]) -> str:
    """A formula with something added that is nowhere 0, or times a number other than 1."""
    delta = small(rng)
    if kind is polynomials and rng.random() < 0.5:
        return rf"{text}+{delta} \cdot z^{{{rng.randint(1, 9)}}}"
    if kind is complex_numbers and rng.random() < 0.5:
        delta = rf"{delta} \cdot i"
    sign = rng.choice("+-")
    return f"{text}{sign}{delta}"


# ---- answers made of them


def _point(rng: random.Random) -> Pair:
    return rng.choice(REAL)(rng)


def collection(rng: random.Random, same: bool) -> Pair:
    """Tuples, sets, lists, matrices, equations, intervals: with one place in which they differ, or none."""
    members = [_point(rng) for _ in range(rng.randint(2, 4))]
    left, right = [a for a, _ in members], [b for _, b in members]
    at = rng.randrange(len(members))
    ends = sorted(rng.sample(range(-500, 500), 4))
    form = rng.randrange(10)
    if form < 5 and not same:
        right[at] = rf"{right[at]}+{rng.choice((10**6, 10**7))}" if form in (1, 2) else changed(rng, right[at], _point)
    if form == 0:
        return f"({', '.join(left)})", f"({', '.join(right)})"
    if form in (1, 2):
        rng.shuffle(right)
        one, other = (r"\{", r"\}") if form == 1 else ("", "")
        return one + ", ".join(left) + other, one + ", ".join(right) + other
    if form == 3:
        return (
            r"\begin{pmatrix}" + r" \\ ".join(left) + r"\end{pmatrix}",
            r"\begin{bmatrix}" + r" \\ ".join(right) + r"\end{bmatrix}",
        )
    if form == 4:
        name = rng.choice("xy")
        return f"{name} = {left[at]}", right[at] if rng.random() < 0.5 else f"{name} = {right[at]}"
    return _relation_or_set(rng, same, form, ends)


def _relation_or_set(rng: random.Random, same: bool, form: int, ends: list[int]) -> Pair:
    a, b, c, _ = ends
    e = "" if same else f"+{small(rng)}"
    if form == 5:
        opening, closing = rng.choice("(["), rng.choice(")]")
        if same:
            return rf"{opening}{a}, \sqrt{{8}}+{b + 501}{closing}", rf"{opening}{a}, 2\sqrt{{2}}+{b + 501}{closing}"
        other = rng.choice((f"{'(['[opening == '(']}{a}, {b}{closing}", f"{opening}{a}{e}, {b + 99}{closing}"))
        return (f"{opening}{a}, {b}{closing}", other)
    if form == 6:
        union = rf"(-\infty, {a}) \cup [{b}, {c}]"
        return (
            union,
            rf"[{b}, {c}] \cup (-\infty, {a}{e})" if same or rng.random() < 0.5 else rf"(-\infty, {a}] \cup [{b}, {c}]",
        )
    if form == 7:
        return (
            (f"x > {a}", rf"({a}, \infty)")
            if same
            else (f"x > {a}", rng.choice((rf"x \ge {a}", f"x > {a}{e}", f"y > {a}")))
        )
    if form == 8:
        k = rng.randint(2, 9)
        lead = abs(a) + 1
        return f"{lead}x + {abs(b) + 1}y = {c}", f"{k * lead}x + {k * (abs(b) + 1)}y = {k}({c}{e})"
    m, n = abs(a) + 1, abs(b) + 2
    if same:
        return f"{m}:{n}", f"{3 * m}:{3 * n}"
    names = rng.choice(
        (("f(2)", "f(3)"), ("g(x)", "f(x)"), ("I(0)", "-I(0)"), (f"{m}_8", f"{m + 1}_8"), ("f(2)", "-f(2)"))
    )
    return rng.choice((names, (f"{m}:{n}", f"{m}:{n + 1}"), (f"x={m}", f"y={m}"), (f"{m}+{n}={m + n}", f"x={m + n}")))


def equal_pair(rng: random.Random) -> Pair:
    """Two answers that are equal."""
    if rng.random() < 0.25:
        return collection(rng, True)
    return rng.choice((*NUMBERS, *FORMULAS))(rng)


def _convergent(rng: random.Random) -> Pair:
    """A multiple of an irrational number and the integer next to it, as near as integers come."""
    with mpmath.workdps(700):
        named = ((r"\pi", +mpmath.pi), (r"\sqrt{2}", mpmath.sqrt(2)), (r"\ln 2", mpmath.ln(2)), ("e", +mpmath.e))
        text, x = rng.choice(named)
        rest, p, p_before, q, q_before = x, 1, 0, 0, 1
        for _ in range(rng.randint(3, 250)):
            a = int(mpmath.floor(rest))
            p, p_before, q, q_before = a * p + p_before, p, a * q + q_before, q
            rest = 1 / (rest - a)
    return rng.choice(((rf"{q} \cdot {text}", str(p)), (text, rf"\frac{{{p}}}{{{q}}}")))


def _apart(rng: random.Random) -> Pair:
    """Different numbers that are near, or functions that differ at few places."""
    n, k = rng.getrandbits(rng.randint(20, 600)) + 2, rng.randint(2, 120)
    a, b = rng.sample(range(1, 12), 2)
    q = 10**k
    odd = 4 * rng.randint(1, 10 ** rng.choice((2, 8))) + rng.randint(1, 3)
    p, big = rng.randint(1, 99), rng.randint(100, 10**6)
    return rng.choice(
        (
            (str(n), str(n + 1)),
            (rf"\sqrt{{{n * n + 1}}}", str(n)),
            (rf"\ln {n}", rf"\ln {n + 1}"),
            (rf"\log_{{2}} {2**k + 1}", str(k)),
            (rf"\cos \frac{{\pi}}{{{q}}}", "1"),
            (rf"\cos \frac{{{p}\pi}}{{{big}}}", rf"\cos \frac{{{p + 1}\pi}}{{{big}}}"),
            (rf"\lfloor \sqrt{{{n * n - 1}}} \rfloor", str(n)),
            (rf"\lfloor \sqrt{{n-{a}}} \rfloor", rf"\lfloor \sqrt{{n-{b}}} \rfloor"),
            (rf"\lfloor \frac{{n}}{{{a + 1}}} \rfloor", rf"\lfloor \frac{{n+1}}{{{a + 1}}} \rfloor"),
            (rf"\lceil {a}x \rceil", rf"\lfloor {a}x \rfloor"),
            (rf"\lfloor x+\frac{{{a}}}{{12}} \rfloor", r"\lfloor x \rfloor"),
            (rf"|x-{p}|", rf"|x-{p + 1}|"),
            (rf"|x-{p}|", rng.choice((f"x-{p}", f"{p}-x"))),
            (rf"\sqrt{{(x-{p})^2}}", rng.choice((f"x-{p}", f"{p}-x"))),
            (f"(1+i)^{{{odd}}}", f"(1-i)^{{{odd}}}"),
            (rf"\tanh {k}", "1"),
            (rf"(\sqrt{{2}}-1)^{{{k}}}", "0"),
            (rf"\sqrt{{{big}}}+\sqrt{{{big + 3}}}", rf"\sqrt{{{big + 1}}}+\sqrt{{{big + 2}}}"),
            (rf"\sum_{{k=1}}^{{{k}}} \frac{{1}}{{k}}", rf"\sum_{{k=1}}^{{{k + 1}}} \frac{{1}}{{k}}"),
            (rf"\binom{{{k + 9}}}{{{a}}}", rf"\binom{{{k + 10}}}{{{a}}}"),
            (f"x^{{{a}}}", f"x^{{{b}}}"),
            (r"e^{\pi\sqrt{163}}", "262537412640768744"),
            _convergent(rng),
            (rf"x+\prod_{{k=1}}^{{{k}}}(x-k)", "x"),
        )
    )


def unequal_pair(rng: random.Random) -> Pair:
    """Two answers that are not equal."""
    chance = rng.random()
    if chance < 0.25:
        pair = collection(rng, False)
    elif chance < 0.5:
        pair = _apart(rng)
    else:
        kind = rng.choice((*NUMBERS, *FORMULAS))
        one, other = kind(rng)
        pair = (one, changed(rng, other, kind))
    return pair if rng.random() < 0.5 else (pair[1], pair[0])
