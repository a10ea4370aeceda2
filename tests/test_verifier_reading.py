"""How answers are read, kind by kind: what says the same, and its near misses. See ``docs/verifier.md``."""

# ruff: noqa: RUF001 (answers in look-alike characters)

import random
from itertools import chain

import pytest
import verifier_cases

from espo_gym.envs import Verdict, verify
from espo_gym.envs.verifier.decide import readable
from espo_gym.envs.verifier.tidy import tidy
from espo_gym.envs.verifier.words import choice
from espo_gym.envs.verifier.worker import POOL

EQUAL: dict[str, list[tuple[str, str]]] = {
    "times": [
        (r"7\!:\!45", "7:45"),
        ("07:05", "7:05"),
        ("7:45", r"7:45\text{ PM}"),
        ("19:45", "7:45 p.m."),
        ("12:20 AM", "0:20"),
        ("t = 4:05", "4:05"),
        ("9:30, 7:00", "7:00, 9:30"),
        ("8 pm", "8:00 PM"),
        ("12:00 noon", "12:00"),
        ("12 noon", "12:00 p.m."),
        (r"\text{3:00 p.m. Tuesday}", r"3:00 \text{ PM Tuesday}"),
        (r"7:00 \text{ o'clock}", "7:00"),
    ],
    "ratios": [
        ("2:6", "1:3"),
        ("21:35", "3:5"),
        ("3:7", r"\frac{3}{7}"),
        (r"S_1:S_2=13:27", "13:27"),
        ("a:b:c = 1:2:4", "3:6:12"),
    ],
    "things": [
        ("9 boys and 9 girls", "9 boys, 9 girls"),
        (r"9\text{ or }9.0", "9"),
    ],
    "several choices": [
        ("A, C, D", "ACD"),
        (r"\text{B、C}", "BC"),
        (r"\text{B and C}", "BC"),
        ("(C), (A)", "A, C"),
    ],
    "choices": [
        ("(D) 70 and 55 seconds", "D"),
        ("(A) Both I and II", "A"),
        ("E: A polygenic risk score", "E"),
        ("E - a risk score", "E"),
        ("C: 3 or 4", "C"),
        ("option B", "B"),
        ("故选：C", "C"),
        ("B because it is even", "B"),
        ("B (5)", "B"),
        (r"B \text{（6）}", "B"),
        (r"\text{B }(a=1)", "B"),
        (r"D\left(\frac{\sqrt{65}}{2}\right)", "D"),
    ],
    "separators": [
        (r"\theta=\frac{3\pi}{2}\qquad f(1)=1", r"\frac{3\pi}{2}, 1"),
        (r"x=1 \text{或} x=2", "1,2"),
        ("x=1 且 y=2", "(1,2)"),
        ("3 和 8", "3, 8"),
        (r"3 \quad 8", "3, 8"),
    ],
    "without spaces": [
        (r"\frac{\cosx}{\sin^{2}x}", r"\csc x\cot x"),
        (r"2\lambdakT", r"2\lambda k T"),
        (r"\pir^2", r"\pi r^2"),
        ("nosolution", r"\text{No solution}"),
        ("nosolution", r"\emptyset"),
    ],
    "money": [
        ("€12.50", "12.5"),
        ("-£1,200", "-1200"),
        ("¥30", "30元"),
        ("25¢", "25 cents"),
        ("€12", "12 euros"),
    ],
    "units": [
        *((f"18.9 {letter}", "18.9") for letter in "mgshNJLWVA"),
        ("18.9", "18.9 m"),
        (r"18.9\,m", r"18.9\text{ m}"),
        ("9.8 m/s^2", "9.8"),
        (r"5 \textbf{meters}", "5 m"),
        (r"\frac{7}{2}-\frac{3}{2} \mathrm{x}", r"\frac{7-3x}{2}"),
        (r"\frac{7}{2}-\frac{3}{2} \mathrm{m}", r"\frac{7-3m}{2}"),
        (r"\frac{3}{2} \mathrm{x}", r"\frac{3x}{2}"),
        ("5m + 2m", "7m"),
        ("12 厘米", r"12\text{ cm}"),
        (r"12\text{个}", "12"),
    ],
    "large numbers": [
        ("2.5 million", "2500000"),
        (r"3 \text{ thousand dollars}", r"\$3,000"),
        ("3万元", "30000"),
    ],
    "angles": [
        (r"12^{\circ}30'", "12.5"),
        (r"\angle B = 76^\circ", r"76^\circ"),
        (r"\angle ABC = 30^\circ", "30"),
        (r"12^{\circ}30'36''", r"12.51^\circ"),
    ],
    "repeating decimals": [
        (r"0.\dot{3}", r"\frac13"),
        (r"0.1\dot6", r"\frac16"),
        (r"0.\dot{1}2\dot{3}", r"\frac{41}{333}"),
        (r"0.\bar{27}", r"\frac{3}{11}"),
    ],
    "congruences": [
        (r"x\equiv7\pmod{11}", "7"),
        ("7 (mod 11)", r"x \equiv 7 \pmod{11}"),
    ],
    "sets": [
        (r"\text{all real numbers}", r"(-\infty,\infty)"),
        (r"\text{All real numbers.}", r"\mathbb{R}"),
        (r"x \lt 3", "x < 3"),
        (r"x \gt 3", r"(3,\infty)"),
        ("x != 3", r"x \neq 3"),
    ],
    "matrices and cases": [
        ("[[1,2],[3,4]]", r"\begin{pmatrix}1&2\\3&4\end{pmatrix}"),
        ("[[1,2,3]]", r"\begin{pmatrix}1&2&3\end{pmatrix}"),
        (
            r"\begin{cases} x, & \text{if } x>0 \\ -x, & \text{otherwise}\end{cases}",
            r"\begin{cases} x & x>0 \\ -x & \text{otherwise}\end{cases}",
        ),
    ],
    "ends": [
        (r"13.5\\", "13.5"),
        ("=13.5", "13.5"),
        (r"=\frac{\ln 2}{0.1}=10\ln 2", r"10\ln 2"),
    ],
}

DIFFERENT: dict[str, list[tuple[str, str]]] = {
    "times": [
        ("1:00", "12:00"),
        (r"\text{10:30 PM}", r"\text{1:03 PM}"),
        ("4:30", "2:15"),
        ("2:00", r"3:00 \text{ PM}"),
        ("7:45 AM", "7:45 PM"),
        ("7:45", "19:45"),
        ("15:00", "3:00 AM"),
        ("7:00, 8:30", "9:00, 10:30"),
        ("8 pm", "8 am"),
        ("12:00 noon", "12:00 midnight"),
        (r"8\text{ p.m.}", r"8\text{ a.m.}"),
        ("4:05.3", "8:10.6"),
        ("1:05", r"\frac{1}{5}"),
        ("100:00", "50:00"),
        (r"\text{3:00 p.m. Tuesday}", r"\text{3:00 p.m. Monday}"),
        (r"\text{10:30 on Tuesday}", r"\text{10:30 on Monday}"),
        (r"\text{3:00 p.m. Tuesday}", "3:00 PM"),
    ],
    "ratios": [("V_1:V_2=11:21", "21:11"), ("a:b = 2:3", "b:a = 2:3"), ("2:6", "3:1")],
    "things": [
        ("12 positive and 12 negative integers", "12"),
        ("12 boys and 12 girls", "12"),
        ("3 red or 3 blue", "3"),
        ("12 boys and 12 girls", "12 boys"),
    ],
    "several choices": [
        ("A, C", "ACD"),
        ("A or C", "AC"),
        ("A, B", "A"),
        ("AC", "AD"),
        (r"\text{A and C}", "CD"),
    ],
    "choices": [
        ("(A) or (B)", "A"),
        ("(A) is wrong", "A"),
        ("(A) is wrong, B is right", "A"),
        ("A. and C", "A"),
        ("A because B is wrong", "A"),
        ("not option B", "B"),
        ("A - B", "A"),
        ("B - 5", "B"),
        ("B + 5", "B"),
        ("F(x)", "F"),
        ("C: 3 or 4", "D"),
        ("A point", "A"),
        ("(B) 12", "12"),
    ],
    "separators": [(r"3 \quad 8", "38"), ("3 或 8", "3"), (r"5 \quad -3", "2")],
    "without spaces": [(r"\cosx", r"\sin x"), (r"\sinh x", r"\sin hx"), ("nosolution", "one solution")],
    "money": [("€12", "£12"), ("€12", "12 dollars"), ("€12", "€13"), ("¥30", "30 euros")],
    "units": [
        ("18.9 m", "18.9 km"),
        ("18.9 m", r"18.9\text{ s}"),
        ("18.9 m", "18.9 s"),
        ("18.9 x", "18.9"),
        ("18.9m", "18.9"),
        ("18.9 e", "18.9"),
        ("18.9 i", "18.9"),
        ("18.9 M", "18.9"),
        (r"18.9\mathrm{x}", "18.9"),
        ("9.8 m/s^2", r"9.8\text{ m/s}"),
        ("12 米", "12 km"),
        ("7 m", "7 + m"),
    ],
    "large numbers": [
        ("3 million", "3"),
        (r"3\text{ million}", "3"),
        (r"3\text{万}", "3"),
        ("3 tenths", "3"),
        (r"3\text{ squared}", "3"),
    ],
    "angles": [(r"12^{\circ}30'", r"12^\circ"), (r"12^{\circ}30'", "12.3"), (r"\angle A=7", r"\angle B=7")],
    "repeating decimals": [(r"0.\dot{3}", "0.3"), (r"0.\dot{1}\dot{3}", r"\frac{1}{3}"), (r"\dot{x}", "x")],
    "congruences": [
        (r"x\equiv7\pmod{11}", "8"),
        (r"x\equiv7\pmod{11}", r"x\equiv7\pmod{13}"),
        (r"x\equiv7\pmod{11}", "11"),
    ],
    "sets": [
        (r"\text{all real numbers}", r"(0,\infty)"),
        (r"\text{all real numbers except } 2", r"\mathbb{R}"),
        (r"\text{real}", r"\mathbb{R}"),
    ],
    "matrices and cases": [
        ("[[1,2],[3,4]]", r"\begin{pmatrix}1&3\\2&4\end{pmatrix}"),
        ("[1,2]", r"\begin{pmatrix}1&2\end{pmatrix}"),
        (
            r"\begin{cases} x & \text{if } x>0 \\ -x & \text{otherwise}\end{cases}",
            r"\begin{cases} x & x<0 \\ -x & \text{otherwise}\end{cases}",
        ),
    ],
    "ends": [(r"13.5\\", "13"), ("=13.5", "-13.5"), ("=>5", "5"), ("<=5", "5")],
}


def one(answer: str, reference: str) -> Verdict:
    return verify([rf"Hence $\boxed{{{answer}}}$"], [reference])[0]


@pytest.fixture
def no_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """What tiers 1 and 2 leave undecided is a ``timeout``."""
    monkeypatch.setattr(POOL, "ask", lambda pairs, **_: [("timeout", 0.0)] * len(pairs))


@pytest.mark.usefixtures("no_worker")
@pytest.mark.parametrize("kind", EQUAL)
def test_the_same_answer_in_other_words(kind: str) -> None:
    for answer, reference in EQUAL[kind]:
        assert one(answer, reference).status == "correct", (answer, reference)
        assert one(reference, answer).status == "correct", (reference, answer)


@pytest.mark.usefixtures("no_worker")
@pytest.mark.parametrize("kind", DIFFERENT)
def test_near_misses(kind: str) -> None:
    for answer, reference in DIFFERENT[kind]:
        assert one(answer, reference).status == "incorrect", (answer, reference)
        assert one(reference, answer).status == "incorrect", (reference, answer)


def test_a_point_is_no_choice() -> None:
    assert choice("B(2,3)") is None
    assert choice("B (23)") == "B"


ANSWERS = sorted(
    {
        answer
        for table in (EQUAL, DIFFERENT, verifier_cases.EQUAL, verifier_cases.DIFFERENT)
        for pairs in table.values()
        for answer in chain.from_iterable(pairs)
        if readable(tidy(answer)) and not answer.endswith("\\")
    }
)
WRAPPINGS = (
    "$%s$",
    r"\(%s\)",
    " %s ",
    "%s.",
    r"\, %s\;",
    r"{%s}",
    r"\displaystyle %s",
    r"\boxed{%s}",
    r"\underline{%s}",
    "**%s**",
    "= %s",
    r"%s\\",
)


@pytest.mark.usefixtures("no_worker")
@pytest.mark.parametrize("wrapping", WRAPPINGS)
def test_each_answer_equals_itself_in_each_wrapping(wrapping: str) -> None:
    for answer in ANSWERS:
        assert one(wrapping % answer, answer).status == "correct", (wrapping % answer, answer)
        assert one(answer, wrapping % answer).status == "correct", (answer, wrapping % answer)


@pytest.mark.usefixtures("no_worker")
def test_equality_is_symmetric() -> None:
    rng = random.Random(0)
    for _ in range(4000):
        a, b = rng.sample(ANSWERS, 2)
        statuses = {one(a, b).status, one(b, a).status}
        assert len(statuses) == 1 or "no_verdict" in statuses, (a, b)


# ---- no answer avoids a verdict

READABLE = ["39^\\circ", "2^{1009}", "71", r"\frac{x}{2}", r"\{1, \sqrt{2}\}", "(3,4)", "B", r"\text{odd}", "x > 3"]
UNREADABLE = [
    r"\sqrt{2}+(3,4)",
    r"\foo{x}",
    r"\frac{1}{",
    "9^{9^{9^{9}}}",
    "1+" * 5000 + "1",
    r"\text{①} \ldots",
    "(" * 60 + "1" + ")" * 60,
]


@pytest.mark.parametrize("reference", READABLE)
def test_an_unreadable_answer_to_a_readable_reference_is_wrong(reference: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails_with_the_answer(pairs: list[tuple[str, str]], **_: object) -> list[tuple[str, float]]:
        return [("equal" if answer == wanted else "timeout", 0.0) for answer, wanted in pairs]

    monkeypatch.setattr(POOL, "ask", fails_with_the_answer)
    for answer in UNREADABLE:
        assert one(answer, reference).status == "incorrect", answer[:80]


@pytest.mark.parametrize("reference", [r"\int_0^1", "1+" * 5000 + "1", r"9^{9^{9^{9}}}", r"3\ldots"])
def test_a_reference_that_fails_by_itself_is_to_blame(reference: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(POOL, "ask", lambda pairs, **_: [("unreadable_reference", 0.0)] * len(pairs))
    for answer in (r"\foo{x}", "71", r"\sqrt{2}+x"):
        assert one(answer, reference).status == "no_verdict", answer


@pytest.mark.parametrize("failure", ["timeout", "memory", "crash"])
def test_a_failure_of_the_worker_is_no_verdict_and_one_of_the_answer_is(
    failure: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer, reference = rf"\int_0^{len(failure)} \sin(e^{{x}}) dx", r"\frac{1}{2}"
    monkeypatch.setattr(POOL, "ask", lambda pairs, **_: [(failure, 0.1)] * len(pairs))
    monkeypatch.setattr(POOL, "problem", None)
    assert (one(answer, reference).status, one(answer, reference).reason) == ("no_verdict", failure)
    asked = []

    def fails_once(pairs: list[tuple[str, str]], **_: object) -> list[tuple[str, float]]:
        asked.extend(pairs)
        return [("equal", 0.0) if a == b else (failure, 0.1) for a, b in pairs]

    monkeypatch.setattr(POOL, "ask", fails_once)
    verdict = one(answer, reference)
    assert verdict.status == "incorrect"
    assert failure in (verdict.detail or "")
    assert asked == [(answer, reference), (reference, reference)]


def test_a_batch_without_time_left_asks_nothing_more(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def slow(pairs: list[tuple[str, str]], **_: object) -> list[tuple[str, float]]:
        calls.append(pairs)
        return [("timeout", 2.0)] * len(pairs)

    monkeypatch.setattr(POOL, "ask", slow)
    verdict = verify([r"\boxed{\int_0^1 \cos(e^{x}) dx}"], ["5"], batch_deadline=1.0)[0]
    assert (verdict.status, len(calls)) == ("no_verdict", 1)


@pytest.mark.parametrize(
    ("answer", "reference"),
    [
        (r"The corresponding midpoint is found by averaging \frac{x_1+x_2}{2}", r"\frac{x}{2}"),
        (r"\{\cos x, \int \cos x dx\}", r"\{\cos x, \sin x, x\cos x\}"),
    ],
)
def test_what_math_verify_cannot_make_equal_is_not_asked(
    answer: str, reference: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(POOL, "ask", lambda *_, **__: pytest.fail("asked"))
    assert one(answer, reference).status == "incorrect"
