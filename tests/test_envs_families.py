"""Each family of problems against arithmetic done in another way."""

import itertools
import re
import time
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from espo_gym.envs import (
    Addition,
    ChainArithmetic,
    Countdown,
    LinearEquation,
    ModularArithmetic,
    Problem,
    TextEnv,
    make_task,
    scratchpad,
)
from espo_gym.envs.tasks.countdown_expression import parse_expression
from espo_gym.envs.tasks.linear_equation import equation_key

SPLITS = ("train", "validation", "test")
quick = settings(deadline=None, max_examples=200, derandomize=True)
seeds = st.integers(0, 2**63 - 1)


def fields(pattern: str, prompt: str) -> tuple[str, ...]:
    """The groups of ``pattern``, which is what the whole prompt looks like."""
    match = re.fullmatch(pattern, prompt)
    assert match is not None, prompt
    return match.groups()


def judge(task, completion, answer="0", data=None):
    [verdict] = task.verify([completion], [Problem("", answer, "", data)])
    return verdict


# --- Addition


@quick
@given(st.integers(1, 18), st.sampled_from(SPLITS), seeds)
def test_addition_problems(digits, split, seed):
    problem = Addition(digits=digits).problem(split, seed)
    a, b = map(int, fields(r"([0-9]+)\+([0-9]+)=", problem.prompt))
    assert len(str(a)) == len(str(b)) == digits
    assert int(problem.answer) == a + b and problem.key == "+".join(map(str, sorted([a, b])))


def test_addition_operands_are_uniform():
    task = Addition(digits=1)
    drawn = [(task.sample(task.generator(seed)).data or {})["a"] for seed in range(4000)]
    counts = np.bincount(drawn, minlength=10)
    assert counts[0] == 0 and ((counts[1:] > 360) & (counts[1:] < 530)).all()


@pytest.mark.parametrize(
    ("completion", "status", "answer"),
    [
        ("8+7=15,5+6+1=12,3+4+1=8,825", "correct", "825"),
        ("8+7=15,5+6=11,3+4+1=8,815", "incorrect", "815"),
        ("825", "correct", "825"),
        (" 0825\n", "correct", "0825"),
        ("358+467=825", "correct", "825"),
        ("8,825", "correct", "825"),
        ("8825", "incorrect", "8825"),
        ("8+7=15,5+6+1=12,3+4+1=8", "no_answer", None),
        ("8+7=15,5+6+1=12,3+4+1=8,", "no_answer", None),
        ("358+467", "no_answer", None),
        ("=", "no_answer", None),
        ("", "no_answer", None),
        ("9" * 10_000, "incorrect", "9" * 10_000),
        ("0" * 10_000 + "825", "correct", None),
    ],
)
def test_addition_reads_the_last_field_of_a_scratch_pad(completion, status, answer):
    verdict = judge(Addition(), completion, "825")
    assert verdict.status == status
    assert answer is None or verdict.answer == answer
    assert (verdict.normalized == "825") == (status == "correct")


@pytest.mark.parametrize(
    ("completion", "status"),
    [
        ("The answer is 825.", "correct"),
        ("So we get $\\boxed{825}$.", "correct"),
        ("\\boxed{358+467=825}", "correct"),
        ("\\boxed{358+467}", "incorrect"),
        ("\\boxed{800+25}", "incorrect"),
        ("\\boxed{3(275)}", "incorrect"),
        ("The answer is 8,825.", "incorrect"),
        ("I do not know.", "no_answer"),
    ],
)
def test_addition_in_prose(completion, status):
    assert judge(Addition(), completion, "825").status == status


@quick
@given(st.integers(0, 10**9), st.integers(0, 10**9))
def test_scratchpad_without_drops_is_right(a, b):
    *columns, answer = scratchpad(a, b).split(",")
    assert answer.lstrip("0") == str(a + b).lstrip("0")
    for column in columns:
        left, right = column.split("=")
        assert sum(map(int, left.split("+"))) == int(right)


def test_an_answer_that_is_not_worked_out_does_not_vote_for_the_right_one():
    verdict = judge(Addition(), "\\boxed{\\frac{1650}{2}}", "825")
    assert (verdict.status, verdict.normalized) == ("incorrect", verdict.answer)


def test_scratchpad_of_the_manual():
    assert scratchpad(358, 467) == "8+7=15,5+6+1=12,3+4+1=8,825"
    assert scratchpad(999, 999) == "9+9=18,9+9+1=19,9+9+1=19,1998"
    assert scratchpad(12, 5) == "2+5=7,1+0=1,17"
    rng = np.random.default_rng(0)
    assert scratchpad(358, 467, drop_carry=1, rng=rng) == "8+7=15,5+6=11,3+4=7,715"
    assert scratchpad(999, 999, drop_carry=1, rng=rng) == "9+9=18,9+9=18,9+9=18,888"


@quick
@given(st.integers(0, 10**6), st.integers(0, 10**6), st.integers(0, 1000))
def test_scratchpad_carries_a_dropped_carry_through(a, b, seed):
    """The last field is what the columns say: their last digits, and a 1 in front if the last carry was kept."""
    *columns, answer = scratchpad(a, b, drop_carry=0.6, rng=np.random.default_rng(seed)).split(",")
    length = len(columns)
    carry = 0
    for position, column in enumerate(columns):
        left, right = column.split("=")
        terms = list(map(int, left.split("+")))
        assert terms[:2] == [a // 10**position % 10, b // 10**position % 10]
        assert terms[2:] in ([], [1]) and sum(terms) == int(right)
        assert not terms[2:] or carry, "a carry from nothing"
        assert int(answer[::-1][position]) == int(right) % 10
        carry = int(right) // 10
    assert len(answer) - length in (0, 1)
    if len(answer) > length:
        assert carry and answer[0] == "1"


def test_scratchpad_drops_carries_as_often_as_told():
    rng = np.random.default_rng(1)
    kept = [scratchpad(358, 467, drop_carry=0.6, rng=rng).count("+1=") for _ in range(2000)]
    assert 0.37 < np.mean([n > 0 for n in kept]) < 0.65 and max(kept) == 2
    first = [scratchpad(5, 7, drop_carry=0.6, rng=rng) for _ in range(2000)]
    assert 0.37 < np.mean([pad == "5+7=12,12" for pad in first]) < 0.43
    assert set(first) == {"5+7=12,12", "5+7=12,2"}


def test_scratchpad_refuses_nonsense():
    with pytest.raises(ValueError, match="must not be negative"):
        scratchpad(-1, 2)
    with pytest.raises(ValueError, match=r"must be a probability, not 1\.5"):
        scratchpad(1, 2, drop_carry=1.5, rng=np.random.default_rng(0))
    with pytest.raises(ValueError, match="pass rng"):
        scratchpad(1, 2, drop_carry=0.5)


# --- ChainArithmetic and ModularArithmetic


def evaluate(expression):
    """Products first, then from left to right: by regular expressions, unlike the library."""
    while "*" in expression:
        expression = re.sub(r"(\d+)\*(\d+)", lambda m: str(int(m[1]) * int(m[2])), expression, count=1)
    return sum(map(int, re.findall(r"[+-]?\d+", expression)))


@quick
@given(st.integers(2, 20), st.integers(1, 9), st.sampled_from(["+-*", "+", "-", "*", "*-"]), seeds)
def test_chain_problems(terms, digits, operators, seed):
    problem = ChainArithmetic(terms=terms, digits=digits, operators=operators).sample(np.random.default_rng(seed))
    expression = problem.prompt.removesuffix("=")
    numbers, used = re.findall(r"\d+", expression), re.findall(r"\D", expression)
    assert len(numbers) == terms and set(map(len, numbers)) == {digits} and set(used) <= set(operators)
    assert int(problem.answer) == evaluate(expression) == parse_expression(expression).value == evaluate(problem.key)


def test_chain_key_ignores_the_order_of_terms_and_factors():
    task = ChainArithmetic(terms=3, operators="+*")
    keys: dict[str, set[str]] = {}
    for seed in range(2000):
        problem = task.sample(task.generator(seed))
        keys.setdefault(parse_expression(problem.prompt[:-1]).canonical, set()).add(problem.key)
    assert all(len(found) == 1 for found in keys.values())
    assert len(keys) == len(set.union(*keys.values()))


@pytest.mark.parametrize(
    ("completion", "answer", "status"),
    [
        ("08*8=64,64-9=55,55-7=48,48-8=40", "40", "correct"),
        ("08*8=64,64-9=55,55-7=48,48-8=41", "40", "incorrect"),
        ("2-9=-7", "-7", "correct"),
        ("-7", "-7", "correct"),
        ("7", "-7", "incorrect"),
        ("-0", "0", "correct"),
        ("08*8=64,64-9=", "40", "no_answer"),
        ("08*8=64,64-9", "55", "no_answer"),
        ("8*8-9-7-8", "40", "no_answer"),
        ("", "40", "no_answer"),
        ("The answer is 40.", "40", "correct"),
        ("The result is \\boxed{-40}", "-40", "correct"),
        ("\\boxed{8*8-9-7-8}", "40", "incorrect"),
    ],
)
def test_chain_answers(completion, answer, status):
    assert judge(ChainArithmetic(), completion, answer).status == status


@quick
@given(st.integers(2, 10), st.integers(1, 3), st.integers(2, 1000), seeds)
def test_modular_problems(terms, digits, max_modulus, seed):
    task = ModularArithmetic(terms=terms, digits=digits, max_modulus=max_modulus)
    problem = task.sample(np.random.default_rng(seed))
    expression, written = fields(r"What is \(([-+*\d]+)\) mod (\d+)\?", problem.prompt)
    answer, modulus = int(problem.answer), int(written)
    assert 0 <= answer < modulus <= max_modulus and (evaluate(expression) - answer) % modulus == 0


@pytest.mark.parametrize(
    ("completion", "status"),
    [
        ("5", "correct"),
        ("17*23 is 391, so the answer is 5.", "correct"),
        ("\\boxed{5}", "correct"),
        ("\\boxed{5 \\pmod{12}}", "correct"),
        ("\\boxed{341 \\equiv 5 \\pmod{12}}", "correct"),
        ("x \u2261 5 mod 12", "correct"),
        ("(17*23-50) mod 12 = 5", "correct"),
        ("The answer is 5 (mod 12).", "correct"),
        ("17 mod 12", "incorrect"),
        ("\\boxed{17 \\bmod 12}", "incorrect"),
        ("(17*23-50) mod 12", "incorrect"),
        ("\\boxed{2+3}", "incorrect"),
        ("\\boxed{17}", "incorrect"),
        ("17", "incorrect"),
        ("-7", "incorrect"),
        ("I do not know.", "no_answer"),
    ],
)
def test_modular_answers(completion, status):
    assert judge(ModularArithmetic(), completion, "5").status == status


# --- LinearEquation


@quick
@given(st.integers(1, 1000), st.sampled_from(SPLITS), seeds)
def test_equations_hold_for_their_solutions_only(m, split, seed):
    problem = LinearEquation(max_coefficient=max(m, 3)).problem(split, seed)
    left, right = problem.prompt.removeprefix("Solve for x: ").split(" = ")

    def value(side, x):
        text = re.sub(r"(?<![0-9])x", "1x", side).replace(" ", "").replace("--", "+")
        return sum(Fraction(int(n or "1")) * (x if has_x else 1) for n, has_x in re.findall(r"([+-]?\d+)(x?)", text))

    solution = Fraction(problem.answer)
    assert value(left, solution) == value(right, solution) and "x" in left
    assert value(left, solution + 1) != value(right, solution + 1)


nonzero = st.integers(-50, 50).filter(bool)


@quick
@given(st.tuples(*[st.integers(-50, 50)] * 4).filter(any), nonzero)
def test_equation_key_is_that_of_its_multiples_and_mirror(coefficients, factor):
    a, b, c, d = coefficients
    key = equation_key(a, b, c, d)
    assert key == equation_key(c, d, a, b) == equation_key(*(factor * one for one in coefficients))
    assert key != equation_key(a, b + 1, c, d - 1) or (b + 1, d - 1) == (d, b)


@pytest.mark.parametrize(
    ("completion", "status"),
    [
        ("-12/7", "correct"),
        ("The solution is $\\boxed{-\\frac{12}{7}}$.", "correct"),
        ("Thus \\boxed{x = -12/7}.", "correct"),
        ("\\boxed{-1.714}", "incorrect"),
        ("\\boxed{12/7}", "incorrect"),
        ("I don't know.", "no_answer"),
    ],
)
def test_equation_answers(completion, status):
    assert judge(LinearEquation(), completion, "-12/7").status == status


# --- Countdown


def reachable(numbers):
    """All values that use every number once: by joining sets of values of complementary subsets, unlike the library."""
    values = {frozenset([i]): {Fraction(n)} for i, n in enumerate(numbers)}
    for size in range(2, len(numbers) + 1):
        for subset in map(frozenset, itertools.combinations(range(len(numbers)), size)):
            found = values[subset] = set()
            for part in (frozenset(p) for k in range(1, size) for p in itertools.combinations(subset, k)):
                for a, b in itertools.product(values[part], values[subset - part]):
                    found |= {a + b, a - b, a * b, *([a / b] if b else [])}
    return values[frozenset(range(len(numbers)))]


@settings(quick, max_examples=60)
@given(st.integers(2, 4), st.integers(1, 12), st.integers(5, 200), st.sampled_from(SPLITS), seeds)
def test_countdown_problems_can_be_solved(n, max_number, max_target, split, seed):
    task = Countdown(n_numbers=n, max_number=max_number + 3, max_target=max_target)
    problem = task.problem(split, seed)
    written, target = fields(r"([\d,]+)>(\d\d+):", problem.prompt)
    numbers = list(map(int, written.split(",")))
    assert len(numbers) == n and all(1 <= number <= max_number + 3 for number in numbers)
    assert 1 <= int(target) <= max_target and int(target) in reachable(numbers)
    assert judge(task, problem.answer, data=problem.data).status == "correct"
    assert problem.key == f"{','.join(map(str, sorted(numbers)))}>{int(target)}"


trees = st.recursive(
    st.integers(0, 99).map(str),
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(["+", "-", "*", "/", " - ", " / "]), inner).map("".join),
        inner.map("({})".format),
        inner.map("-({})".format),
        inner.map("( +({}) )".format),
    ),
    max_leaves=12,
)


@settings(quick, max_examples=500)
@given(trees)
def test_parser_agrees_with_fractions(text):
    """Python's own parser on fractions; eval is for these tests' own strings only."""
    try:
        expected = eval(re.sub(r"(\d+)", r"Fraction(\1)", text))
    except ZeroDivisionError:
        expected = None
    expression = parse_expression(text)
    assert expression.numbers == list(map(int, re.findall(r"\d+", text)))
    if expected is None:
        with pytest.raises(ZeroDivisionError):
            _ = expression.value
    else:
        assert expression.value == expected
        assert parse_expression(expression.canonical).value == expected
        assert parse_expression(expression.canonical).canonical == expression.canonical


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", "+", "1+", "(1", "1)", "()", "1 2", "1**2", "1//2", "x", "1.5", "2^3", "1e5", "1;2", "-----"),
        *("(" * 60 + "1" + ")" * 60, "1+" * 600 + "1", "__import__('os')", "\u0661+1", "1+\u00b2"),
    ],
)
def test_parser_refuses_what_is_no_expression(text):
    with pytest.raises(ValueError):
        parse_expression(text)


@pytest.mark.parametrize(
    ("one", "other"),
    [("1+2+3", "3+(2+1)"), ("6-(4-8)", "8+6-4"), ("2*(3+4)", "(4+3)*2"), ("8/(4/2)", "8*2/4"), ("(1)", "1")],
)
def test_canonical_form_of_equal_expressions(one, other):
    assert parse_expression(one).canonical == parse_expression(other).canonical


DATA = {"numbers": [8, 6, 4], "target": 2}


@pytest.mark.parametrize(
    ("completion", "status"),
    [
        ("6+4-8", "correct"),
        (" 4 + 6 - 8\n", "correct"),
        ("6+4-8=2", "correct"),
        ("6+4-8 = 10-8 = 2", "correct"),
        ("8/(6-4)-2", "incorrect"),  # 2 is not given
        ("8-6", "incorrect"),  # 4 is not used
        ("6+4-8+8-8", "incorrect"),  # 8 is used more than once
        ("8+6-4", "incorrect"),
        ("6+4-8=3", "incorrect"),
        ("64-8", "incorrect"),
        ("8/(6-6)+4", "incorrect"),
        ("(6+4-8", "correct"),
        ("6+4-", "incorrect"),
        ("So I get \\boxed{6 + 4 - 8}.", "correct"),
        ("So I get \\boxed{6 + 4 - 8 = 2}.", "correct"),
        ("\\boxed{8+6-4}, no: \\boxed{6+4-8}", "correct"),
        ("\\boxed{\\left(6 + 4\\right) - 8}", "correct"),
        ("\\boxed{6+4-8", "correct"),
        ("\\boxed{2}", "incorrect"),
        ("\\boxed{none}", "no_answer"),
        ("\\boxed{}", "no_answer"),
        ("<think>6*4-8</think><answer>6+4-8</answer>", "correct"),
        ("<answer> (6+4)-8 = 2 </answer>", "correct"),
        ("<answer>none</answer>", "no_answer"),
        ("I put it in <answer>: <answer>6+4-8</answer>", "correct"),
        ("(so it is 6+4-8))", "correct"),
        ("8-6 is 2, but 4 is left. The answer is 6+4-8.", "correct"),
        ("The final answer: **6+4-8**", "correct"),
        ("My answer uses all three: 6+4-8 = 2, done.", "correct"),
        ("The answer is $6+4-8$", "correct"),
        ("The answer is 2.", "no_answer"),
        ("Try 8-6-4: no. So 6 + 4 - 8 = 2.", "correct"),
        ("6 \u2212 8 + 4", "correct"),
        ("I give up.", "no_answer"),
        ("", "no_answer"),
    ],
)
def test_countdown_answers(completion, status):
    assert judge(Countdown(), completion, data=DATA).status == status


@pytest.mark.parametrize(
    "completion",
    [
        "\\boxed{3 \\times 8 \\div 4}",
        "\\boxed{\\frac{3 \\cdot 8}{4}}",
        "$$\\dfrac{8}{4} \\times 3 = 6$$",
        "3 \u00d7 8 \u00f7 4",
        "3 x 8 / 4",
        "8/(4/3)",
    ],
)
def test_countdown_understands_latex_and_typography(completion):
    assert judge(Countdown(), completion, data={"numbers": [3, 4, 8], "target": 6}).status == "correct"


def test_countdown_is_exact_and_counts_votes():
    data = {"numbers": [3, 3, 8, 8], "target": 24}
    verdict = judge(Countdown(), "8/(3-8/3)", data=data)
    assert verdict.status == "correct" and verdict.answer == "8/(3-8/3)"
    assert judge(Countdown(), "8/(3 - 8/3) = 24", data=data).normalized == verdict.normalized
    assert judge(Countdown(), "8+8+3+3", data=data).normalized != verdict.normalized


@quick
@given(st.text())
def test_countdown_survives_any_text(text):
    judge(Countdown(), text, data=DATA)
    judge(Countdown(), f"\\boxed{{{text}}}", data=DATA)


def test_long_completions_take_no_time():
    n = 10**5
    for text in (
        *("(" * n, "1+" * n, "answer is " * n, "\\boxed{" * n, "<answer>" * n, "\\frac{" * n, "9" * n + "+1", "- " * n),
        *(
            "1+1" + ")" * n,
            "(" * n + "1+1",
            "1" + " " * n + "+1",
            "1-" + "(" * n,
            "answer is" + " " * n,
            "1x" * n,
            "=" * n,
        ),
    ):
        started = time.perf_counter()
        assert judge(Countdown(), text, data=DATA).status in ("incorrect", "no_answer")
        assert time.perf_counter() - started < 2


# --- difficulty


@pytest.mark.parametrize(
    ("id", "kwargs", "message"),
    [
        ("ChainArithmetic", {"terms": 1}, "terms must be an integer from 2 to 20, not 1"),
        ("ChainArithmetic", {"digits": 10}, "digits must be an integer from 1 to 9, not 10"),
        ("ChainArithmetic", {"operators": "+/"}, r"operators must be some of '\+-\*', each at most once, not '\+/'"),
        ("ChainArithmetic", {"operators": ""}, "operators must be some of"),
        ("ChainArithmetic", {"operators": "++"}, "operators must be some of"),
        ("Countdown", {"n_numbers": 1}, "n_numbers must be an integer from 2 to 8, not 1"),
        ("Countdown", {"max_number": 0}, "max_number must be an integer from 1 to 1000, not 0"),
        ("Countdown", {"max_target": True}, "max_target must be an integer from 1 to 10000, not True"),
        ("LinearEquation", {"max_coefficient": 0}, "max_coefficient must be an integer from 1 to"),
        ("ModularArithmetic", {"max_modulus": 1}, "max_modulus must be an integer from 2 to"),
    ],
)
def test_difficulty_out_of_range(id, kwargs, message):
    with pytest.raises(ValueError, match=message):
        make_task(f"espo_gym/{id}-v0", **kwargs)


def test_difficulty_without_problems_says_so():
    with pytest.raises(ValueError, match=r"none of 10000 problems|all missed 1 to 1: raise max_target"):
        for split in SPLITS:
            TextEnv(Countdown, n_numbers=2, max_number=1, max_target=1, split=split).reset(seed=0)
