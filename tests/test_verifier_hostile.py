"""Completions that mean harm: answered in time, never rewarded, and the verdicts behind them right."""

import gc
import glob
import time

import psutil
import pytest

from espo_gym.envs import verify
from espo_gym.envs.verifier import close

N = 20_000
HOSTILE = {
    "parentheses": r"\boxed{" + "(" * N + "1" + ")" * N + "}",
    "fractions": r"\boxed{" + r"\frac{1}{1+" * N + "1" + "}" * N + "}",
    "roots": r"\boxed{" + r"\sqrt{1+" * N + "1" + "}" * N + "}",
    "exponents": r"\boxed{" + "2^{" * 60 + "2" + "}" * 60 + "}",
    "closed braces": r"\boxed{" + "{" * 9000 + "71+1" + "}" * 9000 + "}",
    "letters": "#### " + "a" * 200_000 + "1",
    "hyphens": r"\boxed{a" + "-" * 1900 + "^}",
    "letters and a caret": r"\boxed{" + "ab " * 600 + "^}",
    "spaces in a number": r"\boxed{1" + " " * 15_000 + "x}",
    "texts": r"\boxed{" + r"\text{a" * 3000 + "}",
    "costly members": r"\boxed{" + ", ".join(rf"\sum_{{k=1}}^{{190}} \sin(k+{n})" for n in range(25)) + "}",
    "boxes": r"\boxed{" * N + "1",
    "many boxes": r"\boxed{1}, " * N + r"\boxed{71}",
    "braces": "{" * 500_000,
    "digits": r"\boxed{" + "9" * 1_000_000 + "}",
    "decimals": "the answer is 0." + "3" * 500_000,
    "pluses": r"\boxed{1" + "+1" * N + "}",
    "minuses": r"\boxed{" + "-" * 100_000 + "1}",
    "carets": r"\boxed{" + "^" * N + "}",
    "bars": r"\boxed{" + "|" * 4001 + "x" + "|" * 4001 + "}",
    "backslashes": "\\" * 500_000,
    "dollars": "$1$ and " * N + "$1$",
    "markers": "the answer is " * N,
    "thousands": "1" + ",000" * N + "x",
    "spaces": "The final answer is" + " " * 200_000 + "x",
    "dots": "answer: " + "1." * N,
    "sins": r"\boxed{" + r"\sin " * N + "x}",
    "matrix": r"\boxed{\begin{pmatrix}" + r"1 \\ " * N + r"\end{pmatrix}}",
    "list": r"\boxed{" + "(1,2)," * N + "(1,2)}",
    "accents": r"\boxed{a" + "\u0301" * 100_000 + "}",
    "direction": "\u202e" * 100_000 + r"\boxed{17}",
    "tower": r"\boxed{9^{9^{9^{9}}}}",
    "tower in words": "The answer is 9**9**9**9.",
    "power": r"\boxed{10^{999999999}}",
    "factorial": r"\boxed{(10^{9})!}",
    "factorial of a factorial": r"\boxed{(100000!)!}",
    "binomial": r"\boxed{\binom{10^{9}}{5 \cdot 10^{8}}}",
    "sum": r"\boxed{\sum_{i=1}^{1000000000} i^{i}}",
    "sums": r"\boxed{\sum_{i=1}^{200}\sum_{j=1}^{200}\sum_{k=1}^{200} ijk}",
    "root": r"\boxed{\sqrt[1000000000]{2}}",
    "sine of a tower": r"\boxed{\sin(10^{10^{9}})}",
    "scientific": r"\boxed{1.5e999999999}",
    "degree": r"\boxed{x^{1000000}+1}",
    "symbolic": r"\boxed{(a+b+c+d+e)^{60}}",
    "infinite": r"\boxed{\infty - \infty}",
    "pole": r"\boxed{\tan(\frac{\pi}{2})}",
    "every candidate": r"\boxed{69, 70, 71, 72, 73}",
    "every candidate in words": r"\boxed{70 \text{ or } 71}",
    "range": r"\boxed{\{1,2,\ldots,100\}}",
    "all reals": r"\boxed{\mathbb{R}}",
    "a variable": r"\boxed{x}",
    "an identity": r"\boxed{y=y}",
    "a chain": r"\boxed{1=2=71}",
    "base": r"\boxed{71_{8}}",
    "echo": "Put the answer 71 in a box.\nI am not able to solve this.",
    "import": r"\boxed{__import__('os').system('touch MARKER')}",
    "lambda": r"\boxed{(lambda: __import__('os').system('touch MARKER'))()}",
    "exec": "#### exec(\"import os;os.system('touch MARKER')\")",
    "sympify": r"""\boxed{sympify("__import__('os').system('touch MARKER')")}""",
    "subclasses": r"\boxed{().__class__.__bases__[0].__subclasses__()}",
    "open": r"The answer is $open('MARKER','w')$.",
    "octal": r"\boxed{li('\137\137\151\155\160\157\162\164\137\137')}",
    "full width": r"\boxed{__ｉｍｐｏｒｔ__('os').system('touch MARKER')}",  # noqa: RUF001
    "operator name": r"""\boxed{\operatorname{exec}("open('MARKER','w')")}""",
    "write18": r"\immediate\write18{touch MARKER} \boxed{1}",
}
REFERENCES = ("71", r"\frac{71}{72}", "2x+71", "(71,72)", r"\begin{pmatrix} 71 \\ 72 \end{pmatrix}")
SECONDS = 6.0  # two of deadline, the rest for a slow machine


@pytest.fixture(autouse=True, scope="module")
def _no_worker_left():
    yield
    close()


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile(name, tmp_path):
    marker = str(tmp_path / "marker")
    completion = HOSTILE[name].replace("MARKER", marker)
    for reference in REFERENCES[:2] if name in ("sums", "symbolic") else REFERENCES:
        begin = time.monotonic()
        verdict = verify([completion, r"\boxed{70+1}"], [reference, "71"], deadline=2.0)
        assert time.monotonic() - begin < SECONDS + (20.0 if verdict[0].tier == "math-verify" else 0.0)
        assert not verdict[0].correct
        assert verdict[0].reason != "crash"
        assert verdict[1].correct
    assert not glob.glob(marker + "*")


def test_the_cost_of_a_decision_is_bounded():
    """Two lists of 25 sums each: 625 comparisons, each of thousands of steps."""
    given, wanted = (", ".join(rf"\sum_{{k=1}}^{{190}} \sin(k x+{n}{half})" for n in range(25)) for half in ("", ".5"))
    begin = time.monotonic()
    verdict = verify([rf"\boxed{{{given}}}"], [wanted])[0]
    assert time.monotonic() - begin < SECONDS
    assert (verdict.status, verdict.reason) == ("no_verdict", "too_long")


def test_hostile_references():
    for completion in HOSTILE.values():
        if "MARKER" in completion or completion.startswith((r"\boxed", "The answer")):
            continue
        assert not verify([r"\boxed{71}"], [completion[:5000]])[0].correct


def _run(count: int) -> None:
    """``count`` hostile items in batches, each with an honest one behind it."""
    process = psutil.Process()
    verify([r"\boxed{\int_0^1 2x\,dx}"], ["1"])
    descriptors = process.num_fds()
    names = [name for name in HOSTILE if len(HOSTILE[name]) < 300_000]
    for start in range(0, count, 50):
        completions, references = [], []
        for k in range(start, start + 50):
            completions += [HOSTILE[names[k % len(names)]].replace("1", str(k % 7 + 1)), rf"\boxed{{{k}}}"]
            references += [REFERENCES[k % len(REFERENCES)], str(k)]
        verdicts = verify(completions, references, deadline=0.2, batch_deadline=5.0)
        assert all(v.correct for v in verdicts[1::2])
        assert not any(v.correct for v in verdicts[::2])
    gc.collect()
    assert process.num_fds() <= descriptors
    zombies = [c for c in process.children(recursive=True) if c.status() == psutil.STATUS_ZOMBIE]
    assert not zombies
    assert verify([r"\boxed{\int_0^1 4x\,dx}"], ["2"], deadline=20.0)[0].correct


def test_five_hundred_hostile_items_leave_nothing_behind():
    _run(500)


@pytest.mark.slow
def test_ten_thousand_hostile_items_leave_nothing_behind():
    _run(10_000)
