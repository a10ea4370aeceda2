"""The benchmark runs, on generated cases that are labelled rightly and on a file."""

import json
import random

from benchmarks.verifier import generated, main, percentile
from espo_gym.envs import verify


def test_generated_cases_are_labelled_rightly_and_reproducible():
    state = random.getstate()
    cases = generated(600)
    assert cases == generated(600) and cases != generated(600, seed=1) and random.getstate() == state
    verdicts = verify([c["completion"] for c in cases], [c["gold"] for c in cases])
    assert [c for c, v in zip(cases, verdicts, strict=True) if v.correct != c["label"]] == []
    assert sum(c["label"] for c in cases) == 300


def test_percentile():
    assert percentile([3.0, 1.0, 2.0], 0.5) == 2.0
    assert percentile([1.0], 0.99) == 1.0
    assert percentile([], 0.5) == 0.0


def test_it_runs(tmp_path, capsys):
    assert main(["--limit", "60", "--no-math-verify"]) == 0
    printed = capsys.readouterr().out
    assert "60 cases, 30 of them right" in printed and "accuracy 1.0000" in printed and "rational" in printed

    path = tmp_path / "cases.jsonl"
    path.write_text("".join(json.dumps(case) + "\n" for case in generated(20)))
    assert main(["--cases", str(path), "--limit", "0", "--seconds", "30"]) == 0
    printed = capsys.readouterr().out
    assert "20 cases, 10 of them right" in printed and "(the first " in printed
