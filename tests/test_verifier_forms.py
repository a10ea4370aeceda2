"""Forms: a right value in another form is incorrect, with the form as the reason; in the form it stays correct."""

import gymnasium as gym
import pytest

from espo_gym.envs import Problem, Task, TextEnv, Verdict, verify
from espo_gym.envs.verifier import in_form
from espo_gym.envs.verifier.forms import FORMS, _prime, decimal_places, form_of

CASES = {
    # form: the reference, answers in the form, answers of the same value that are not
    "factored": [
        ("(x-1)(x+1)", ["(x+1)(x-1)", "-(1-x)(x+1)", "y = (x-1)(x+1)"], ["x^2-1", "1(x^2-1)", "(x^2-1)(1+0x)"]),
        ("2(x-1)(x+1)", ["2(x+1)(x-1)"], ["(2x+2)(x-1)", "2(x^2-1)", "2x^2-2"]),
        ("(x+1)^2", ["(x+1)(x+1)", "(1+x)^2"], ["x^2+2x+1", "x(x+2)+1"]),
        ("(x-1)(x+1)(x+2)", ["(x+2)(x-1)(x+1)"], ["(x^2-1)(x+2)"]),
        ("x(x+1)", ["(x+1)x"], ["x^2+x"]),
        ("(x-y)(x+y)", ["(x+y)(x-y)"], ["x^2-y^2"]),
        (r"\frac{(x-1)(x+1)}{2}", [r"\frac{1}{2}(x-1)(x+1)"], [r"\frac{x^2-1}{2}"]),
        ("x^2+1", ["x^2+1"], []),  # as far as it goes
    ],
    "expanded": [
        ("x^2-1", ["x^2-1", "-1+x^2"], ["(x+1)(x-1)", "x^2+3-4"]),
        ("x^2+2x", ["2x+x^2"], ["x(x+2)", "x^2+x+x", r"x \cdot x + 2x"]),
        ("6x", ["6x"], [r"2 \cdot 3x"]),
        ("1-x", ["-x+1"], ["-(x-1)"]),
        (r"\frac{x}{2}+\frac{1}{2}", [r"\frac{1}{2}x+\frac{1}{2}"], [r"\frac{x+1}{2}"]),
        ("x^2+2x+1", ["x^2+2x+1"], ["(x+1)^2"]),
    ],
    "lowest terms": [
        (
            r"\frac{1}{2}",
            [r"\frac{1}{2}", "1/2", r"x = \frac{1}{2}", r"\frac{1}{2}\text{ cm}"],
            ["2/4", r"\frac{2}{4}", "0.5"],
        ),
        (r"-\frac{1}{2}", [r"\frac{-1}{2}"], [r"-\frac{3}{6}"]),
        (r"\frac{7}{3}", [r"2\frac{1}{3}", "7/3"], [r"2\frac{2}{6}", r"\frac{14}{6}"]),
        ("3", ["3"], [r"\frac{3}{1}", r"\frac{6}{2}"]),
        (r"\frac{x+1}{2}", [r"\frac{x+1}{2}"], [r"\frac{2x+2}{4}"]),
        (r"\frac{\sqrt{3}}{2}", [r"\frac{\sqrt{3}}{2}"], [r"\frac{2\sqrt{3}}{4}"]),
        (r"\frac{1}{2}, \frac{1}{3}", [r"\frac{1}{3}, \frac{1}{2}"], [r"\frac{1}{2}, \frac{2}{6}"]),
    ],
    "simplified radical": [
        (
            r"2\sqrt{2}",
            [r"2\sqrt{2}"],
            [r"\sqrt{8}", r"\sqrt{2}+\sqrt{2}", "8^{1/2}", r"1 \cdot 2\sqrt{2}"],
        ),
        (
            r"\frac{\sqrt{2}}{2}",
            [r"\frac{1}{2}\sqrt{2}"],
            [r"\frac{1}{\sqrt{2}}", r"\sqrt{\frac{1}{2}}", r"\frac{2\sqrt{2}}{4}"],
        ),
        (r"\sqrt{6}", [r"\sqrt{6}"], [r"\sqrt{2}\sqrt{3}"]),
        (r"2\sqrt[3]{2}", [r"2\sqrt[3]{2}"], [r"\sqrt[3]{16}"]),
        (
            r"\frac{1+\sqrt{5}}{2}",
            [r"\frac{\sqrt{5}+1}{2}", r"\frac{1}{2}+\frac{\sqrt{5}}{2}"],
            [r"\frac{2+\sqrt{20}}{4}"],
        ),
        ("5", ["5"], [r"\sqrt{25}", r"\sqrt{25}\sqrt{1}"]),
        ("999983", ["999983"], [r"\sqrt{999966000289}"]),  # the square of a prime
        (r"\sqrt{999999866000004473}", [], [r"\sqrt{999999866000004473}"]),  # beyond the bound
    ],
    "prime factorization": [
        (
            r"2^2 \cdot 3",
            [r"2^2 \cdot 3", r"2 \cdot 2 \cdot 3", r"3 \times 2^2"],
            ["12", r"4 \cdot 3", r"1 \cdot 2^2 \cdot 3"],
        ),
        ("7", ["7", "7^1"], [r"7 \cdot 1", r"7 \cdot 2^0"]),
        ("8", ["2^3"], ["8"]),
        (r"1000003 \cdot 1000033", [r"1000033 \cdot 1000003"], ["1000036000099"]),
        ("561", [r"3 \cdot 11 \cdot 17"], ["561"]),  # a Carmichael number
    ],
    "2 decimal places": [
        ("3.14", ["3.14", "x = 3.14", r"3.14\text{ cm}", r"\$3.14"], ["3.140", r"\frac{157}{50}"]),
        ("3.1", ["3.10"], ["3.1"]),
        ("1234.5", ["1,234.50"], ["1234.5"]),
    ],
    "0 decimal places": [("3", ["3", "3 cm"], ["3.0", r"\frac{6}{2}"])],
}
PAIRS = [(form, reference, *rest) for form, cases in CASES.items() for reference, *rest in cases]


def judged(answer: str, reference: str, form) -> Verdict:
    verdicts = verify([f"\\boxed{{{answer}}}"], [reference])
    assert verdicts[0].correct, "a case about form has the right value"
    return in_form(verdicts, form)[0]


@pytest.mark.parametrize(("form", "reference", "good", "bad"), PAIRS)
def test_forms(form, reference, good, bad):
    for answer in good:
        assert judged(answer, reference, form).correct, answer
    for answer in bad:
        verdict = judged(answer, reference, form)
        assert (verdict.status, verdict.reason) == ("incorrect", f"form: {form}"), answer


def test_every_form_has_cases():
    assert set(FORMS) < set(CASES)


def test_a_form_changes_nothing_but_correct_verdicts():
    verdicts = verify([r"\boxed{13}", "I do not know.", r"\boxed{1}"], ["12", "12", ""])
    assert [v.status for v in verdicts] == ["incorrect", "no_answer", "no_verdict"]
    assert in_form(verdicts, lambda answer, reference: False) == verdicts


def test_what_cannot_be_read_is_in_no_form():
    verdict = Verdict("correct", r"\foo(\bar\sqrt", reference=r"\foo(\bar\sqrt")
    assert [in_form([verdict], name)[0].status for name in FORMS] == ["incorrect"] * len(FORMS)


LARGE = {
    "degree": "((x+1)^{60}+1)^{60}",
    "factors": "((((x+1)^{60})^{60})^{60})^{60}",
    "terms": "(a+b+c+d+e+f+g+h)^{60}" * 20,
    "products": "(x+y)" * 200,
    "numbers": r"\cdot".join(["9^{60}"] * 200),
    "index": r"\sqrt[999999999]{2}",
    "roots": "+".join([r"\sqrt{999999999989}"] * 60),
    "twos": str(2**1300 + 1),
    "digits": "1/" + "7" * 5000,
}


@pytest.mark.parametrize("answer", LARGE.values(), ids=LARGE)
def test_large_answers_take_no_time(answer):
    verdict = Verdict("correct", answer, reference="x")
    for name in FORMS:
        in_form([verdict], name)  # without its bound, one of them takes minutes or all memory


def test_primes():
    sieve = [n for n in range(2, 2000) if all(n % k for k in range(2, int(n**0.5) + 1))]
    assert [n for n in range(-5, 2000) if _prime(n)] == sieve
    assert _prime(2**61 - 1) and not _prime(3215031751)  # a strong pseudoprime to bases 2, 3, 5 and 7


class Twelve(Task):
    splits = ("test",)
    form = "prime factorization"

    def problem(self, split, seed):
        return Problem("The prime factorization of 12?", r"2^2 \cdot 3", "12")


def test_a_task_asks_for_a_form():
    env = TextEnv(Twelve)
    for answer, reward in (("12", 0.0), (r"2^2 \cdot 3", 1.0), (r"2 \cdot 3 \cdot 2", 1.0), (r"2 \cdot 3", 0.0)):
        env.reset(seed=0)
        _, got, _, _, info = env.step(f"\\boxed{{{answer}}}")
        assert got == reward and info["has_verdict"]


def test_a_data_set_asks_for_a_form(tmp_path):
    path = tmp_path / "problems.jsonl"
    path.write_text('{"question": "Factor x^2-1.", "answer": "(x-1)(x+1)"}')
    for form in ("factored", lambda answer, reference: "(" in answer):
        env = gym.make("espo_gym/JSONL-v0", path={"test": str(path)}, form=form)
        for answer, reward in (("x^2-1", 0.0), ("(x+1)(x-1)", 1.0)):
            env.reset(seed=0)
            assert env.step(f"\\boxed{{{answer}}}")[1] == reward
    with pytest.raises(ValueError, match="unknown form 'factor'; known: factored, expanded"):
        gym.make("espo_gym/JSONL-v0", path={"test": str(path)}, form="factor")


def test_a_function_is_a_form_and_its_errors_are_not_wrong_answers():
    assert judged("3.10", "3.1", decimal_places(2)).correct
    assert judged("3.1", "3.1", decimal_places(2)).reason == "form: 2 decimal places"

    def broken(answer, reference):
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        judged("3.1", "3.1", broken)
    with pytest.raises(ValueError, match="0 or more"):
        decimal_places(-1)
    assert form_of("1 decimal place")[1]("3.1", "3.1")
