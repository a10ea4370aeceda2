"""Countdown and the general verifier read tags, boxes, turns and reasoning of a completion in the same way."""

import re

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from espo_gym.envs import Countdown, Problem, verify
from espo_gym.envs.verifier.extract import extract
from espo_gym.envs.verifier.worker import POOL


@pytest.fixture(autouse=True)
def _no_worker(monkeypatch):
    monkeypatch.setattr(POOL, "ask", lambda pairs, **_: [("timeout", 0.0)] * len(pairs))


FRAMES = [
    *(r"\boxed{%s}", r"\boxed{ %s }", r"\fbox{%s}", r"\boxed %s ", r"\boxed {%s}", r"\boxed{%s" + "\n", r"\boxed{%s"),
    *("<answer>%s</answer>", "<answer>%s", r"<answer>\boxed{%s}</answer>", "<answer>$%s$</answer>"),
    *("<think>%s</think>", r"<think>\boxed{%s}</think>", r"<|im_start|>assistant \boxed{%s}<|im_end|>"),
    *(r"\boxed{%s\}", r"\boxed{\{%s\}}", r"\text{\boxed{%s}}", "%s"),
]
GAPS = [", ", " and ", " or ", " then ", ". No: ", "\n", "", r"\quad ", "$", "}", r"\boxed{}", "<think>", "</answer>"]
completions = st.lists(st.tuples(st.sampled_from(FRAMES), st.sampled_from(GAPS)), min_size=1, max_size=4)


def written(pieces):
    """The completion, and the expressions in it, each with its own numbers and value."""
    expressions = [f"{10 * i + 1}+{10 * i + 2}" for i in range(len(pieces))]
    text = "".join(frame % expression + gap for (frame, gap), expression in zip(pieces, expressions, strict=True))
    return text, expressions


def countdown(text, expression):
    numbers = [int(number) for number in expression.split("+")]
    [verdict] = Countdown().verify([text], [Problem("", "", "", {"numbers": numbers, "target": sum(numbers)})])
    return verdict


@settings(max_examples=400, deadline=None, derandomize=True, database=None)
@given(completions)
@example([(r"\boxed{%s}", ", "), (r"\boxed{%s}", "")])  # two boxes that are one list
@example([(r"\boxed{%s}", " then "), (r"\fbox{%s}", "")])
@example([(r"\boxed{%s}", " then "), (r"\boxed %s ", "")])
@example([(r"\boxed{%s}", r"\boxed{}")])
@example([("<answer>%s</answer>", ""), (r"\boxed{%s}", "")])
@example([(r"\boxed{%s}", "<think>")])
@example([(r"\boxed{%s" + "\n", " then "), ("%s", "")])
def test_the_expression_in_a_marked_answer_is_the_one_that_the_verifier_reads(pieces):
    text, expressions = written(pieces)
    found = extract(text)
    assume(found.rule in ("answer tag", "box", "empty box", "unfinished reasoning"))
    for expression in expressions:
        [general] = verify([text], [expression])
        verdict = countdown(text, expression)
        assert re.findall(r"\d+", verdict.answer or "") == re.findall(r"\d+", general.answer or "")
        assert general.correct or not verdict.correct
        assert general.status != "no_answer" or verdict.status == "no_answer"


@pytest.mark.parametrize(
    ("completion", "right"),
    [
        (r"\boxed{1+2}", True),
        (r"\fbox{1+2}", True),
        (r"\boxed {1+2}", True),
        (r"\boxed 1+2", True),
        ("\\boxed{1+2\nas 3 is asked for", True),
        (r"\boxed{4+5} then \boxed{1+2}", True),
        (r"\boxed{4+5}, \boxed{1+2}", False),  # two answers are none of them
        (r"\boxed{1+2} and \boxed{4+5}", False),
        (r"1+2, or \boxed{}", False),
        (r"<answer>1+2</answer> \boxed{4+5}", True),
        (r"<think>1+2</think>\boxed{4+5}", False),
        (r"<think>\boxed{1+2}", False),
    ],
)
def test_which_expression_is_the_answer(completion, right):
    assert countdown(completion, "1+2").correct == right
    assert verify([completion], ["1+2"])[0].correct == right
