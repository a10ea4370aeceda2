r"""Verdicts per second, latency, the share each tier decides and accuracy per kind, beside math-verify asked directly.

    python -m benchmarks.verifier [--cases FILE] [--no-math-verify] [--limit N] [--seconds S]

FILE holds one JSON object a line with ``completion``, ``gold``, ``label`` (is it right?) and ``kind``. Without it the
cases are generated: numbers, formulas and collections in realistic completions, right and nearly right. math-verify is
asked as its documentation shows it, ``verify(parse(gold), parse(completion))``, in this process, with its time-outs.
"""

from __future__ import annotations

import argparse
import collections
import json
import random
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from espo_gym.envs import Verdict, verify
from espo_gym.envs.verifier import audit, close

Case = dict[str, Any]

FRAMES = (
    r"We compute step by step and obtain \(\boxed{%s}\).",
    "Adding everything up gives the total.\n#### %s",
    "The answer is $%s$. I hope it is correct.",
    "<think>First guess: 12. Let me check that again.</think>\n\nTherefore, the answer is $\\boxed{%s}$.",
)


def generated(count: int, seed: int = 0) -> list[Case]:
    """``count`` cases, half of them right, from an own random state."""
    rng = random.Random(seed)
    cases = []
    for number in range(count):
        kind, make = rng.choice(MAKERS)
        gold, right, wrong = make(rng)
        label = number % 2 == 0
        completion = rng.choice(FRAMES) % (right if label else wrong)
        cases.append({"completion": completion, "gold": gold, "label": label, "kind": kind})
    return cases


def _integer(rng: random.Random) -> tuple[str, str, str]:
    n = rng.randint(2, 99_999)
    right = rng.choice((f"{n}", f"{n:,}", f"{n}.0", f"x = {n}", rf"{n}\text{{ apples}}", rf"\text{{{n}}}"))
    return str(n), right, rng.choice((f"{n + 1}", f"-{n}", f"{n}x", f"{n}, {n + 3}", f"{n}^2", f"{10 * n}"))


def _fraction(rng: random.Random) -> tuple[str, str, str]:
    a, b, k = rng.randint(1, 40), rng.choice((41, 43, 47, 53, 59, 61, 67, 71, 73, 79, 83, 89, 97)), rng.randint(2, 9)
    right = rng.choice((rf"\dfrac{{{a}}}{{{b}}}", f"{a}/{b}", rf"\frac{{{k * a}}}{{{k * b}}}"))
    return rf"\frac{{{a}}}{{{b}}}", right, rng.choice((rf"\frac{{{b}}}{{{a}}}", f"{a + 1}/{b}", f"{a / b:.2f}"))


def _radical(rng: random.Random) -> tuple[str, str, str]:
    a, b = rng.choice((4, 8, 9)), rng.choice((2, 3, 5, 6, 7, 10))
    right = rng.choice((rf"\sqrt{{{a * a * b}}}", rf"{a}\cdot\sqrt{{{b}}}", rf"\sqrt{{{b}}} \cdot {a}"))
    return rf"{a}\sqrt{{{b}}}", right, rng.choice((rf"{b}\sqrt{{{a}}}", rf"-{a}\sqrt{{{b}}}", rf"{a}({b})"))


def _polynomial(rng: random.Random) -> tuple[str, str, str]:
    a, b, c = rng.randint(2, 9), rng.randint(1, 9), rng.randint(1, 9)
    right = rng.choice((f"{c} + {b}x + {a}x^{{2}}", f"x({a}x+{b})+{c}"))
    return f"{a} x^{{2}}+{b} x+{c}", right, rng.choice((f"{a}x^2-{b}x+{c}", f"{a}x^3+{b}x+{c}", f"{a}x^2+{b}x"))


def _pair(rng: random.Random) -> tuple[str, str, str]:
    a, b = rng.randint(-9, 0), rng.randint(1, 9)
    right = rng.choice((rf"\left({a}, {b}\right)", f"x={a}, y={b}", f"({a}.0,{b})"))
    return f"({a},{b})", right, rng.choice((f"({b},{a})", f"({a},{b + 1})", rf"\{{{a},{b}\}}", f"[{a},{b}]"))


def _solutions(rng: random.Random) -> tuple[str, str, str]:
    a, b = rng.sample(range(-30, 30), 2)
    right = rng.choice((f"{b},{a}", rf"{a} \text{{ and }} {b}", rf"\{{{b}, {a}\}}"))
    return f"{a}, {b}", right, rng.choice((f"{a}", f"{a}, {b + 1}", f"{a}, {b}, 77"))


def _interval(rng: random.Random) -> tuple[str, str, str]:
    a = rng.randint(-20, 20)
    right = rng.choice((f"x > {a}", rf"\left({a},+\infty\right)", rf"x \in ({a},\infty)"))
    return rf"({a},\infty)", right, rng.choice((rf"x \ge {a}", f"x < {a}", rf"[{a},\infty)"))


def _choice(rng: random.Random) -> tuple[str, str, str]:
    right, wrong = rng.sample("ABCDE", 2)
    return (
        right,
        rng.choice((rf"\text{{({right})}}", f"{right}.")),
        rng.choice((wrong, rf"\text{{{right} or {wrong}}}")),
    )


MAKERS = (
    ("integer", _integer),
    ("integer", _integer),
    ("fraction", _fraction),
    ("radical", _radical),
    ("polynomial", _polynomial),
    ("pair", _pair),
    ("solutions", _solutions),
    ("interval", _interval),
    ("choice", _choice),
)


def read(path: Path) -> list[Case]:
    """The cases of a file."""
    with path.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def percentile(values: list[float], share: float) -> float:
    """The value that ``share`` of ``values`` do not exceed, 0 if there is none."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))] if values else 0.0


def latency(seconds: list[float]) -> str:
    """Percentiles in milliseconds."""
    points = ((0.5, "p50"), (0.9, "p90"), (0.99, "p99"), (1.0, "max"))
    return "  ".join(f"{name} {1e3 * percentile(seconds, share):8.3f}" for share, name in points)


def outcome(case: Case, status: str) -> str:
    """tp, fp, tn, fn, or "none" where there is no verdict."""
    if status == "no_verdict":
        return "none"
    return {(True, True): "tp", (True, False): "fp", (False, True): "fn", (False, False): "tn"}[
        (status == "correct", bool(case["label"]))
    ]


def scores(cases: list[Case], statuses: Sequence[str]) -> str:
    """Accuracy, precision and recall; no verdict counts as not right."""
    count = collections.Counter(outcome(case, status) for case, status in zip(cases, statuses, strict=True))
    right = sum(1 for case in cases if case["label"])
    given = count["tp"] + count["fp"]
    accuracy, precision = (count["tp"] + count["tn"]) / len(cases), count["tp"] / given if given else 0.0
    return (
        f"accuracy {accuracy:.4f}  precision {precision:.4f}  "
        f"recall {count['tp'] / right if right else 0:.4f}  false accepts {count['fp']}  false rejects {count['fn']}  "
        f"no verdict {count['none']}"
    )


def ours(cases: list[Case]) -> tuple[list[Verdict], float, float]:
    """Verdicts of one batch, the seconds it took and those of this process's CPU, the worker warm."""
    verify([r"\boxed{\int_0^1 x\,dx}"], ["1"], deadline=60.0)
    begin, cpu = time.perf_counter(), time.process_time()
    verdicts = verify([case["completion"] for case in cases], [case["gold"] for case in cases])
    return verdicts, time.perf_counter() - begin, time.process_time() - cpu


def math_verify(cases: list[Case], limit: float) -> tuple[list[str], list[float]]:
    """What math-verify says and its seconds, as many cases as fit into ``limit`` seconds."""
    import logging

    from math_verify import parse
    from math_verify import verify as compare

    logging.disable(logging.CRITICAL)
    parse("$1$")
    statuses, seconds, end = [], [], time.perf_counter() + limit
    for case in cases:
        begin = time.perf_counter()
        if begin > end:
            break
        gold = case["gold"] if "$" in case["gold"] or "\\boxed" in case["gold"] else f"${case['gold']}$"
        statuses.append("correct" if compare(parse(gold), parse(case["completion"])) else "incorrect")
        seconds.append(time.perf_counter() - begin)
    return statuses, seconds


def report(cases: list[Case], with_math_verify: bool, limit: float) -> None:
    """Print everything."""
    verdicts, total, cpu = ours(cases)
    mine = [verdict.status for verdict in verdicts]
    seconds = [verdict.seconds for verdict in verdicts]
    print(f"{len(cases)} cases, {sum(1 for c in cases if c['label'])} of them right")
    print(f"espo_gym     {len(cases) / total:9.0f} verdicts/s   ms: {latency(seconds)}")
    print(f"             {len(cases) / cpu:9.0f} verdicts per second of CPU")
    print(f"             {scores(cases, mine)}")
    second = audit(verdicts, [case["gold"] for case in cases])
    print(f"             audit: {len(second.disagreements)} disagreements in {second.checked} checked")

    theirs: list[str] = []
    if with_math_verify:
        theirs, their_seconds = math_verify(cases, limit)
        few = cases[: len(theirs)]
        rate, times = len(few) / sum(their_seconds), latency(their_seconds)
        print(f"math-verify  {rate:9.0f} verdicts/s   ms: {times}   (the first {len(few)} cases)")
        print(f"             {scores(few, theirs)}")

    print("\ntier            share   verdicts/s   ms")
    tiers = collections.defaultdict(list)
    for verdict in verdicts:
        tiers[verdict.tier or verdict.reason or "none"].append(verdict.seconds)
    for tier, spent in sorted(tiers.items(), key=lambda item: -len(item[1])):
        print(f"{tier:14} {len(spent) / len(cases):6.1%} {len(spent) / sum(spent):12.0f}   {latency(spent)}")

    print(f"\n{'kind':24} {'cases':>6} {'espo_gym':>9} {'fa':>4} {'fr':>4} {'none':>5} {'math-verify':>12}")
    groups = collections.defaultdict(list)
    for at, case in enumerate(cases):
        groups[".".join(str(case["kind"]).split(".")[:2])].append(at)
    for kind, places in sorted(groups.items()):
        count = collections.Counter(outcome(cases[at], mine[at]) for at in places)
        known = [at for at in places if at < len(theirs)]
        other = (
            sum(outcome(cases[at], theirs[at]) in ("tp", "tn") for at in known) / len(known) if known else float("nan")
        )
        share = (count["tp"] + count["tn"]) / len(places)
        print(f"{kind:24} {len(places):6} {share:9.3f} {count['fp']:4} {count['fn']:4} {count['none']:5} {other:12.3f}")


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.verifier", description=__doc__.split("\n")[0])
    parser.add_argument("--cases", type=Path, help="labelled cases, one JSON object a line; generated without it")
    parser.add_argument("--limit", type=int, default=4000, help="cases to generate, or to take of the file (0: all)")
    parser.add_argument("--no-math-verify", action="store_true", help="do not ask math-verify directly")
    parser.add_argument("--seconds", type=float, default=60.0, help="seconds for math-verify at most")
    options = parser.parse_args(arguments)
    cases = read(options.cases) if options.cases else generated(options.limit or 4000)
    report(cases[: options.limit or None], not options.no_math_verify, options.seconds)
    close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
