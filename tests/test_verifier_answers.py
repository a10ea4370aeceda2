"""Which answers are equal, where an answer stands, and what a verdict says."""

# ruff: noqa: RUF001 (answers in look-alike characters)

import random
import subprocess
import sys

import pytest
from verifier_cases import DIFFERENT, EQUAL, EXTRACTED

from espo_gym.envs import Verdict, verify
from espo_gym.envs.verifier import close, extract_answer
from espo_gym.envs.verifier.worker import POOL


def boxed(answer: str) -> str:
    return rf"It follows that $\boxed{{{answer}}}$."


def one(answer: str, reference: str) -> Verdict:
    return verify([boxed(answer)], [reference])[0]


@pytest.mark.parametrize("kind", EQUAL)
def test_equal_answers_are_correct_both_ways(kind: str) -> None:
    for answer, reference in EQUAL[kind]:
        assert one(answer, reference).status == "correct", (answer, reference)
        assert one(reference, answer).status == "correct", (reference, answer)


@pytest.mark.parametrize("kind", DIFFERENT)
def test_different_answers_are_incorrect_both_ways(kind: str) -> None:
    for answer, reference in DIFFERENT[kind]:
        assert one(answer, reference).status == "incorrect", (answer, reference)
        assert one(reference, answer).status == "incorrect", (reference, answer)


@pytest.mark.parametrize("answer", ["٧١", "7¹", "七十一", "\u202e17", "71\x00", "\ud800"])
def test_look_alikes_are_not_the_number(answer: str) -> None:
    assert one(answer, "71").status == "incorrect"


def test_tables_need_no_worker() -> None:
    close()
    for table in (EQUAL, DIFFERENT):
        for pairs in table.values():
            verify([boxed(a) for a, _ in pairs], [b for _, b in pairs])
    assert POOL.pid is None


def test_the_noise_of_an_untrained_policy_needs_no_worker() -> None:
    """Digits and operators in any order, against sums: as they come from a policy that has not learned to add."""
    close()
    rng = random.Random(0)
    completions = ["".join(rng.choices("0123456789+-=*/() .,xE#", k=rng.randint(1, 8))) for _ in range(3000)]
    verdicts = verify(completions, [str(rng.randint(0, 198)) for _ in range(3000)])
    assert all(v.has_verdict for v in verdicts)
    assert POOL.pid is None


@pytest.mark.parametrize(("text", "answer"), EXTRACTED)
def test_extraction(text: str, answer: str | None) -> None:
    assert extract_answer(text) == answer
    verdict = verify([text], ["12345"])[0]
    assert verdict.status == ("no_answer" if answer is None else "incorrect")
    assert verdict.answer == answer
    assert answer is not None or verdict.reason


def test_only_the_final_answer_counts() -> None:
    assert not verify([r"<think>\boxed{71}</think> \boxed{70}"], ["71"])[0].correct
    assert not verify([r"It was 71. \boxed{70}"], ["71"])[0].correct
    assert not verify(["Compute 70 + 1 and put the answer in a box."], ["71"])[0].correct


def test_references_are_read_as_data_sets_write_them() -> None:
    assert verify(["71"], ["She has 70 + 1 = 71.\n#### 71"])[0].correct
    assert verify(["71"], [r"Adding, we get $\boxed{71}$."])[0].correct
    assert verify(["71"], ["$71$"])[0].correct
    assert verify(["71, 72"], ["$71$, $72$"])[0].correct


def test_verdict_says_what_and_how() -> None:
    verdict = one(r"\frac{10}{14}", "5/7")
    assert (verdict.answer, verdict.normalized, verdict.tier) == (r"\frac{10}{14}", "5/7", "rational")
    assert verdict.correct and verdict.has_verdict and verdict.reward == 1.0
    assert verdict.seconds > 0 and verdict.reason is None


def test_normalized_answers_can_be_counted() -> None:
    answers = ["0.5", r"\frac{1}{2}", "1/2", r"\dfrac12", "½", ".50"]
    assert {one(a, "1").normalized for a in answers} == {"1/2"}
    assert one("x_1 + x_2", "1").normalized == one("x_{1}+x_{2}", "1").normalized
    assert one(r"\text{(B)}", "C").normalized == "B"
    assert one("(1,2)", "1").normalized != one("[1,2]", "1").normalized


def test_batches_keep_their_order_and_repeat_from_the_cache() -> None:
    completions = [boxed(str(n % 7)) for n in range(100)]
    verdicts = verify(completions, ["3"] * 100)
    assert [v.correct for v in verdicts] == [n % 7 == 3 for n in range(100)]
    assert verify([], []) == []


def test_wrong_arguments_raise() -> None:
    with pytest.raises(ValueError, match="2 completions but 1 references"):
        verify(["1", "2"], ["1"])
    with pytest.raises(TypeError, match=r"references\[0\] is a int"):
        verify(["1"], [1])  # type: ignore[list-item]
    with pytest.raises(TypeError, match="one string"):
        verify("1", ["1"])
    with pytest.raises(ValueError, match="positive"):
        verify(["1"], ["1"], deadline=0)


def test_an_unreadable_reference_is_no_verdict() -> None:
    for reference in ("", "$$", r"\int_0^1", r"\foo{x}+"):
        verdict = one("71", reference)
        assert (verdict.status, verdict.reason) == ("no_verdict", "unreadable_reference"), reference
        assert not verdict.has_verdict


def test_a_reference_that_is_too_long_is_no_verdict() -> None:
    assert one("1+" * 5000 + "1", "71").status == "incorrect"
    assert one("71", "1+" * 5000 + "1").reason == "too_long"
    assert one("9" * 50_000, "9" * 50_000).correct  # the same text is the same answer


def test_importing_and_the_first_tiers_load_neither_sympy_nor_torch() -> None:
    code = (
        "import sys; from espo_gym.envs import verify;"
        r"assert verify([r'\boxed{1/2}', r'\boxed{\sqrt{8}}'], ['0.5', r'2\sqrt{2}'])[1].correct;"
        "assert not {'sympy', 'torch', 'math_verify'} & set(sys.modules), 'loaded'"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
