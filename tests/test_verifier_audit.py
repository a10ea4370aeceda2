"""The second opinion: independent, reproducible, and able to catch a wrong verdict."""

import random
from dataclasses import replace

import pytest
from verifier_cases import DIFFERENT, EQUAL

from espo_gym.envs import verify
from espo_gym.envs.verifier import audit

PAIRS = [pair for table in (EQUAL, DIFFERENT) for pairs in table.values() for pair in pairs]


def verdicts():
    return verify([rf"\boxed{{{a}}}" for a, _ in PAIRS], [b for _, b in PAIRS])


def test_the_audit_agrees_with_the_verdicts():
    result = audit(verdicts(), [b for _, b in PAIRS])
    assert [(d.answer, d.reference, d.verdict) for d in result.disagreements] == []
    assert result.rate == 0.0
    assert result.checked > len(PAIRS) // 4


def test_planted_errors_are_found():
    right = verdicts()
    wrong = [replace(v, status={"correct": "incorrect", "incorrect": "correct"}.get(v.status, v.status)) for v in right]
    result = audit(wrong, [b for _, b in PAIRS])
    assert len(result.disagreements) == result.checked == audit(right, [b for _, b in PAIRS]).checked
    assert result.rate == 1.0
    first = result.disagreements[0]
    assert (first.answer, first.reference) == PAIRS[first.at]
    assert first.verdict != first.audit


def test_share_and_seed():
    both, state = verdicts(), random.getstate()
    references = [b for _, b in PAIRS]
    wrong = [replace(v, status="incorrect") for v in both]
    assert audit(wrong, references, share=0.3, seed=1) == audit(wrong, references, share=0.3, seed=1)
    assert audit(wrong, references, share=0.3, seed=1) != audit(wrong, references, share=0.3, seed=2)
    assert 0 < audit(wrong, references, share=0.3).checked < audit(wrong, references).checked
    assert audit(both, references, share=0.0).checked == 0
    assert random.getstate() == state


def test_failures_are_left_alone():
    failed = [replace(v, status="no_verdict") for v in verdicts()]
    assert audit(failed, [b for _, b in PAIRS]).checked == 0
    assert audit(verify([""], ["1"]), ["1"]).checked == 0


@pytest.mark.parametrize(
    "answer", ["9^{9^{9}}", "(" * 500 + "1" + ")" * 500, "1+" * 1000 + "1", r"\frac{1}{0}", "x^{10^{9}}"]
)
def test_the_audit_is_bounded(answer):
    assert audit(verify([rf"\boxed{{{answer}}}"], ["71"]), ["71"]).rate == 0.0


def test_wrong_arguments_raise():
    with pytest.raises(ValueError, match="1 verdicts but 0 references"):
        audit(verify(["1"], ["1"]), [])
    with pytest.raises(ValueError, match="between 0 and 1"):
        audit([], [], share=1.5)
