"""Conventions: each accepts what it says, nothing wrong, and nothing at all unless it is chosen."""

import sys
from dataclasses import fields
from typing import Any

import gymnasium as gym
import pytest
from verifier_cases import DIFFERENT, EQUAL

from espo_gym.envs import verify
from espo_gym.envs.verifier import Conventions, audit
from espo_gym.envs.verifier.conventions import PRESETS, STRICT, only_value

ACCEPTED = {
    "tolerance": [
        ("3.1416", r"\pi"),
        ("0.33333", r"\frac{1}{3}"),
        (r"\frac{1}{3}", "0.33333"),
        ("12346", "12345.6"),
        ("33.333\\%", "1/3"),
        ("(1.41421, 2)", r"(\sqrt{2}, 2)"),
        ("1.73205, 1.41421", r"\sqrt{2}, \sqrt{3}"),
        ("[0, 3.1416]", r"[0, \pi]"),
        ("x = 1.41421", r"\sqrt{2}"),
        (r"3.1416\text{ cm}", r"\pi\text{ cm}"),
        (r"\begin{pmatrix} 1 \\ 1.41421 \end{pmatrix}", r"\begin{pmatrix} 1 \\ \sqrt{2} \end{pmatrix}"),
    ],
    "sentence_in_tag": [
        ("<answer>The perimeter is 42 inches.</answer>", "42"),
        (r"<answer>So it costs \$1,234 in the end.</answer>", "1234"),
        (r"<answer>It is $\frac{1}{2}$ of the cake.</answer>", "1/2"),
    ],
    "base_missing": [("1201", "1201_8"), ("1A", "1A_{16}"), ("100100_b", "100100"), ("100100", "100100_{b}")],
    "parentheses": [("(1, 2, 3)", "1, 2, 3"), ("1, 2, 3", "(1, 2, 3)"), ("(1, 2)", "1, 2")],
    "equation_value": [("a + b = 7", "7"), ("4x^2 + 9y^2 = 64", "64"), ("xy = 6", "6")],
    "constant_renamed": [
        ("e^t + Ce^{-2t}", "e^t + ce^{-2t}"),
        ("x^2 + c", "x^2 + C"),
        (r"C\cos x", r"c\cos x"),
    ],
    "constant_missing": [("x^2", "x^2 + C"), ("y = x^2", "y = x^2 + C")],
    "percent_sign_missing": [("0.625", "62.5"), ("62.5", "0.625")],
}
REJECTED = {
    "tolerance": [
        ("3.14", r"\pi"),
        (r"\frac{355}{113}", r"\pi"),  # no rounding
        ("10001", "10000"),
        ("10000.5", "10000"),  # an integer is not rounded
        ("-3.1416", r"\pi"),
        ("1.41421i", r"\sqrt{2}"),
        ("(2, 1.41421)", r"(\sqrt{2}, 2)"),
        ("1.41421, 1.41422", r"\sqrt{2}"),  # two roundings of one number
        ("(0, 3.1416]", r"[0, \pi]"),
        ("y = 1.41421", r"x = \sqrt{2}"),
        (r"3.1416\text{ km}", r"\pi\text{ cm}"),
        ("0.33333x", r"\frac{x}{3}"),  # a coefficient
    ],
    "sentence_in_tag": [
        ("<answer>The perimeter is 42 inches.</answer>", "43"),
        ("<answer>There are 5 cars and 3 trucks.</answer>", "3"),
        ("<answer>It is at least 42 in all.</answer>", "42"),
        ("<answer>It is not 42 for sure.</answer>", "42"),
        ("<answer>It is seven and 42 in all.</answer>", "42"),
        ("<answer>The result is x^2 here.</answer>", "2"),
        ("<answer>The result is 5x here.</answer>", "5"),
        ("<answer>The result is 5 x here.</answer>", "5"),
        ("<answer>There are 42 million of them.</answer>", "42"),
        ("<answer>至少 42 个苹果</answer>", "42"),  # at least
        ("The perimeter is 42 inches, \\boxed{the perimeter is 42 inches}", "42"),  # no tag
    ],
    "base_missing": [("1201", "1202_8"), ("1201_8", "1201"), ("1201_7", "1201_8"), ("B", "B_1"), ("641", "1202_8")],
    "parentheses": [
        ("(2, 1, 3)", "1, 2, 3"),
        ("1, 2", "(1, 2)"),  # may be an interval
        ("[1, 2]", "1, 2"),
        ("(1, 2)", "1 or 2"),
        ("(1, 2, 3)", r"\{1, 2, 3\}"),
    ],
    "equation_value": [
        ("a + b = 8", "7"),
        ("x + 3 = 7", "7"),
        ("x + y + 3 = 7", "7"),
        ("2x = 7", "7"),
        ("a + b = c", "c"),
        ("a + b < 7", "7"),
        ("2x - y = 0", "0"),  # a line, not a value
        ("a + b = 7", "c + d = 7"),
    ],
    "constant_renamed": [
        ("c", "C"),  # a name of its own
        ("x + C", "x - c"),
        ("C_1 x + C_2", "c_1 x + c_3"),
        ("Cx + c", "cx + C"),
        ("x + K", "x + C"),
    ],
    "constant_missing": [
        ("x^3", "x^2 + C"),
        ("ax^2 + bx", "ax^2 + bx + c"),
        ("Ax + By", "Ax + By + C"),
        ("x^2 + C", "x^2"),
    ],
    "percent_sign_missing": [("0.6", "62.5"), ("6.25", "62.5"), (r"0.625\text{ m}", "62.5")],
}


ON: dict[str, Any] = {f.name: 1e-4 if f.name == "tolerance" else True for f in fields(Conventions)}


def only(name: str) -> Conventions:
    """The conventions with one field on."""
    return Conventions(**{name: ON[name]})


def all_but(name: str) -> Conventions:
    """The conventions with every field on but one."""
    return Conventions(**{other: on for other, on in ON.items() if other != name})


def judged(answer: str, reference: str, conventions: Conventions | str):
    completion = answer if answer.startswith("<") or "boxed" in answer else f"\\boxed{{{answer}}}"
    return verify([completion], [reference], conventions=conventions)[0]


def rows(table):
    return [(name, *pair) for name, pairs in table.items() for pair in pairs]


def test_every_field_has_cases():
    names = [field.name for field in fields(Conventions)]
    assert list(ACCEPTED) == list(REJECTED) == names


@pytest.mark.parametrize(("name", "answer", "reference"), rows(ACCEPTED))
def test_what_a_convention_accepts_and_nothing_else_does(name, answer, reference):
    assert judged(answer, reference, "strict").status == "incorrect"
    verdict = judged(answer, reference, only(name))
    assert (verdict.status, verdict.reason) == ("correct", f"convention: {name}")
    assert judged(answer, reference, all_but(name)).status == "incorrect"
    assert judged(answer, reference, "strict").status == "incorrect", "decisions under conventions are cached apart"


@pytest.mark.parametrize(("name", "answer", "reference"), rows(REJECTED))
def test_what_it_does_not_accept(name, answer, reference):
    assert judged(answer, reference, only(name)).status == "incorrect"


@pytest.mark.parametrize("name", PRESETS)
def test_no_preset_accepts_what_every_field_rejects(name):
    for _, answer, reference in rows(REJECTED):
        assert judged(answer, reference, name).status == "incorrect", (answer, reference)


@pytest.mark.parametrize("name", PRESETS)
def test_what_presets_accept_of_the_answers_that_are_different(name):
    accepted = {
        (answer, reference)
        for pairs in DIFFERENT.values()
        for pair in pairs
        for answer, reference in (pair, pair[::-1])
        if judged(answer, reference, name).correct
    }
    assert accepted <= {("71", "71.0001"), ("71", "71_8")}


def test_conventions_combine():
    tag = "<answer>The length is 3.1416 cm.</answer>"
    both = Conventions(tolerance=1e-4, sentence_in_tag=True)
    assert judged(tag, r"\pi", both).reason == "convention: sentence_in_tag, tolerance"
    assert judged("a + b = 3.1416", r"\pi", "lenient").reason == "convention: equation_value, tolerance"
    assert (
        judged(tag, r"\pi", only("tolerance")).status
        == judged(tag, r"\pi", only("sentence_in_tag")).status
        == "incorrect"
    )


def test_a_vote_counts_the_value_that_a_convention_reads():
    assert judged("<answer>The perimeter is 42 inches.</answer>", "42", "lenient").normalized == "42"


def test_tolerance_is_relative_and_has_an_edge():
    for digits, status in (
        ("3.14191", "incorrect"),
        ("3.14190", "correct"),
        ("3.14128", "correct"),
        ("3.14127", "incorrect"),
    ):
        assert judged(digits, r"\pi", Conventions(tolerance=1e-4)).status == status, digits
    assert judged("0.00031416", r"\frac{\pi}{10000}", Conventions(tolerance=1e-4)).correct
    assert not judged("0.0000002", r"\frac{\pi}{10^7}", "math-verify").correct, "not six decimals but six digits"


def test_conventions_change_no_verdict_but_incorrect():
    everything = Conventions(**ON | {"tolerance": 0.01})
    pairs = [pair for table in (EQUAL, DIFFERENT) for pairs in table.values() for pair in pairs]
    completions = [f"\\boxed{{{a}}}" for a, _ in pairs] + ["I do not know.", r"\boxed{}", "<think>", r"\boxed{7}"]
    references = [b for _, b in pairs] + ["1", "1", "1", ""]
    strict = verify(completions, references)
    assert strict == verify(completions, references, conventions=STRICT)
    assert {v.status for v in strict} == {"correct", "incorrect", "no_answer", "no_verdict"}
    for before, after in zip(strict, verify(completions, references, conventions=everything), strict=True):
        assert after == before or (before.status, after.status) == ("incorrect", "correct")


def test_only_an_incorrect_is_looked_at_again(monkeypatch):
    monkeypatch.setattr(
        sys.modules["espo_gym.envs.verifier.verify"], "accepted_by", lambda *args: ("all", "7", "numeric")
    )
    completions = [r"\boxed{7}", r"\boxed{8}", "I do not know.", r"\boxed{7}"]
    verdicts = verify(completions, ["7", "7", "7", ""], conventions="lenient")
    assert [v.status for v in verdicts] == ["correct", "correct", "no_answer", "no_verdict"]
    assert [v.reason for v in verdicts][:2] == [None, "convention: all"]


def test_a_bug_in_a_convention_is_no_wrong_answer(monkeypatch):
    def broken(*args):
        raise KeyError("mine")

    monkeypatch.setattr(sys.modules["espo_gym.envs.verifier.verify"], "accepted_by", broken)
    verdict = judged("8", "7", "lenient")
    assert (verdict.status, verdict.reason, verdict.detail) == ("no_verdict", "crash", "KeyError: 'mine'")


def test_the_audit_has_no_opinion_where_a_convention_decided():
    verdict = judged("3.1416", r"\pi", "lenient")
    assert audit([verdict], [r"\pi"], share=1.0).checked == 0
    assert audit([judged("3.1416", r"\pi", "strict")], [r"\pi"], share=1.0).checked == 1


@pytest.mark.parametrize(
    ("sentence", "value"),
    [
        ("The total is 42.", "42"),
        ("It is 3.5 in the end.", "3.5"),
        ("That makes 50% of them", "50%"),
        (r"We get \(\frac{1}{2}\) here.", r"\frac{1}{2}"),
        ("no number", None),
        ("a 5-fold increase", None),
        ("the 5th one", None),
        ("it isn't 5", None),
        ("from 3 to 5", None),
    ],
)
def test_the_value_of_a_sentence(sentence, value):
    assert only_value(sentence) == value


@pytest.mark.parametrize(
    ("conventions", "error", "words"),
    [("loose", ValueError, "known: strict, lenient"), (None, TypeError, "a name"), (1, TypeError, "a name")],
)
def test_what_are_no_conventions(conventions, error, words):
    with pytest.raises(error, match=words):
        verify(["1"], ["1"], conventions=conventions)


@pytest.mark.parametrize("tolerance", [-1e-4, 0.1, float("nan")])
def test_a_tolerance_out_of_range(tolerance):
    with pytest.raises(ValueError, match=r"from 0 \(none\) to 0\.01"):
        Conventions(tolerance=tolerance)


def test_a_field_of_another_type():
    with pytest.raises(TypeError, match="True or False"):
        Conventions(**ON | {"parentheses": 1})
    with pytest.raises(TypeError, match="a number"):
        Conventions(**ON | {"tolerance": True})


def test_a_data_set_names_its_conventions(tmp_path):
    path = tmp_path / "problems.jsonl"
    path.write_text('{"question": "pi?", "answer": "\\\\pi"}')
    for conventions, reward in (("strict", 0.0), ("lenient", 1.0), (Conventions(tolerance=1e-3), 1.0)):
        env = gym.make("espo_gym/JSONL-v0", path={"test": str(path)}, conventions=conventions)
        env.reset(seed=0)
        assert env.step(r"\boxed{3.1416}")[1] == reward
    with pytest.raises(ValueError, match="unknown conventions"):
        gym.make("espo_gym/JSONL-v0", path={"test": str(path)}, conventions="loose")
