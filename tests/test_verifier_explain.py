"""What users read of a verdict: ``Verdict.explain`` and ``espo-gym verify``."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from espo_gym.cli.main import main
from espo_gym.envs import Verdict, verify
from espo_gym.envs.verifier import in_form
from espo_gym.envs.verifier.explain import printable, reading

ROOT = Path(__file__).parents[1]


def explained(completion: str, reference: str, **options) -> dict[str, list[str]]:
    """The lines by their names."""
    lines: dict[str, list[str]] = {}
    for line in verify([completion], [reference], **options)[0].explain().splitlines():
        lines.setdefault(line[:11].strip(), []).append(line[11:])
    return lines


def test_what_was_found_how_it_was_read_and_why():
    assert explained(r"so $\boxed{\frac{10}{14}}$.", "5/7") == {
        "verdict": ["correct"],
        "answer": [r"\frac{10}{14}   (rule: box)"],
        "read as": ["the number 5/7", "the number 5/7"],
        "reference": ["5/7"],
        "because": ["tier rational: both are exact numbers, and equal (a unit that only one names is understood)"],
    }


@pytest.mark.parametrize(
    ("completion", "reference", "words"),
    [
        (r"\boxed{B}", "C", "tier choice: the letters of the choices are different"),
        (r"\boxed{x+1}", "1+x", "tier numeric: evaluated at fixed points or compared part by part, they are equal"),
        (r"\boxed{even}", "odd", "tier words: compared as words, they are different"),
        ("I do not know.", "12", "no answer was found: refusal"),
        (r"\boxed{7}", "", "the reference could not be read"),
        (r"\boxed{1}", "7" * 30_000, "larger than the verifier handles"),
    ],
)
def test_why(completion, reference, words):
    assert words in explained(completion, reference)["because"][0]


def test_why_where_a_convention_or_a_form_decided():
    assert (
        "equal under tolerance, though not strictly"
        in explained(r"\boxed{3.1416}", r"\pi", conventions="lenient")["because"][0]
    )
    text = in_form(verify([r"\boxed{12}"], [r"2^2 \cdot 3"]), "prime factorization")[0].explain()
    assert "the value is right, but it is not in the form asked for, prime factorization" in text


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ("1/2bc", "the formula mul(div(1, 2), mul(b, c))"),  # a/bc is (a/b)c
        (r"2\frac{1}{3}", "the number 7/3"),
        (r"x \in [1, 2)", "the formula x in [1, 2)"),
        (r"\sin(x), \{1, 2\}", "the formula list(sin(x), set(1, 2))"),
        ("5 cm", "the number 5 with the unit cm"),
        ("(B)", "the choice B"),
        (r"\text{It is Even!}", "the words 'it is even'"),
        (r"\foo(", "no formula"),
        ("(" * 60 + "x" + ")" * 60, "nothing: it is too large"),
    ],
)
def test_readings(answer, words):
    assert reading(answer) == words


def test_verdicts_of_other_verifiers_explain_what_they_know():
    assert Verdict("correct").explain().splitlines() == ["verdict    correct", "because    equal"]
    text = Verdict("no_verdict", reason="crash", detail="KeyError: 'x'").explain()
    assert "the verifier failed (KeyError: 'x')" in text
    assert "no_such_tier" in Verdict("incorrect", "7", tier="no_such_tier", reason="because").explain()


HOSTILE = "\x1b[31m5\x07\u202e\r\n\ud800\u2028"


def test_text_is_never_printed_raw():
    assert printable(HOSTILE) == r"\x1b[31m5\x07\u202e\r\n\ud800\u2028"
    assert printable("é ≤ 数") == "é ≤ 数"
    assert printable("x" * 1000, 10) == "x" * 10 + "..."
    for completion in (f"\\boxed{{{HOSTILE}}}", f"<answer>{HOSTILE}</answer>", HOSTILE):
        for reference in (HOSTILE, "5"):
            text = verify([completion], [reference])[0].explain()
            assert all(line.isprintable() for line in text.splitlines())


# ---- the command


def invoke(*args: object) -> Result:
    return CliRunner().invoke(main, ["verify", *map(str, args)])


@pytest.fixture
def graded(tmp_path) -> Path:
    """Three right answers, one of them graded otherwise, two wrong ones, no answer, and a reference nobody can read."""
    rows = [
        {"output": r"\boxed{7}", "gold": "7", "grade": True, "set": "[i]a"},
        {"output": r"\boxed{7.0}", "gold": 7, "grade": 1, "set": "[i]a"},
        {"output": r"\boxed{8}", "gold": "7", "grade": False, "set": "[i]a"},
        {"output": r"\boxed{\frac{14}{2}}", "gold": "7", "grade": False, "set": "b"},
        {"output": "\\boxed{[bold]\x1b[31m}", "gold": "7", "grade": None, "set": "b"},
        {"output": r"\boxed{7}", "gold": "", "grade": True, "set": "b"},
        {"output": "I do not know.", "gold": "7", "grade": 0.0, "set": "b"},
    ]
    path = tmp_path / "outputs.jsonl"
    path.write_text("\n\n".join(map(json.dumps, rows)))
    return path


FIELDS = ["--completion-field", "output", "--reference-field", "gold"]


def test_one_completion():
    result = invoke(r"\boxed{\frac{10}{14}}", "5/7")
    assert result.exit_code == 0
    assert result.output == verify([r"\boxed{\frac{10}{14}}"], ["5/7"])[0].explain() + "\n"
    assert "verdict    incorrect" in invoke(r"\boxed{3.1416}", r"\pi").output
    assert "verdict    correct" in invoke(r"\boxed{3.1416}", r"\pi", "--conventions", "lenient").output


def test_a_file(graded):
    result = invoke("--jsonl", graded, *FIELDS, "--grade-field", "grade", "--source-field", "set")
    assert result.exit_code == 0, result.output
    lines = [" ".join(line.split()) for line in result.output.splitlines()]
    accuracies = lines[lines.index("Accuracy") + 2 :]
    assert [line.split(" [")[0] for line in accuracies[:3]] == ["[i]a 2 3 0.667", "b 1 3 0.333", "all 3 6 0.500"]
    assert {"correct 3", "incorrect 2", "no_answer refusal 1"} <= set(lines)
    at = lines.index("Disagreements with the recorded grade: 1 of 5")
    assert lines[at + 2].startswith("7 correct rational") and lines[at + 2].endswith(r"\frac{14}{2} 7")
    assert "Slowest" in lines
    assert "\x1b" not in result.output and r"[bold]\x1b[31m" in result.output


def test_disagreements_are_bounded(tmp_path):
    path = tmp_path / "outputs.jsonl"
    path.write_text('{"completion": "7", "reference": "7", "grade": false}\n' * 100)
    output = invoke("--jsonl", path, "--grade-field", "grade").output
    assert "100 of 100, of which the first 20" in output and output.count(" correct ") < 30


def test_conventions_reach_a_file(tmp_path):
    path = tmp_path / "outputs.jsonl"
    path.write_text(json.dumps({"completion": r"\boxed{3.1416}", "reference": r"\pi"}))
    assert "convention: tolerance" in invoke("--jsonl", path, "--conventions", "lenient").output
    assert "convention: tolerance" not in invoke("--jsonl", path).output


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"completion": "7", "reference": "7"}\n{"completion": "7"}', "line 2 has no field 'reference'"),
        ('{"completion": "7"}', "Name the right one with --reference-field"),
        ('{"completion": ["7"], "reference": "7"}', "'completion' must be a text, not list"),
        ('{"completion": "7", "reference": true}', "'reference' must be a text, not bool"),
        ('{"completion": "7", "reference": "7", "grade": "good"}', "must be true, false, 1, 0 or null, not 'good'"),
        ("[]", "line 1 must be an object"),
        ("{", "line 1 is not JSON"),
        ("", "is empty"),
        ("\n", "is empty"),
    ],
)
def test_a_file_that_cannot_be_graded(tmp_path, text, words):
    path = tmp_path / "outputs.jsonl"
    path.write_text(text)
    result = invoke("--jsonl", path, *(["--grade-field", "grade"] if "grade" in text else []))
    assert result.exit_code == 1 and isinstance(result.exception, SystemExit)
    assert words in result.output


@pytest.mark.parametrize("args", [[], ["7"], ["7", "7", "--jsonl", __file__]])
def test_neither_or_both(args):
    result = invoke(*args)
    assert result.exit_code == 2 and "--jsonl" in result.output


def test_unknown_conventions():
    result = invoke("7", "7", "--conventions", "loose")
    assert result.exit_code == 1 and "known: strict, lenient" in result.output


def test_the_command_loads_no_torch():
    code = """
import sys
from click.testing import CliRunner
from espo_gym.cli.main import main
result = CliRunner().invoke(main, ["verify", "7", "7"])
assert result.exit_code == 0 and "correct" in result.output, result.output
loaded = sorted({"torch", "transformers", "stable_baselines3", "matplotlib", "sympy"} & set(sys.modules))
assert not loaded, loaded
"""
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=120)
