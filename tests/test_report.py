"""The report: one file, no network, nothing that a completion could smuggle in, and a browser that draws it."""

import base64
import hashlib
import html
import json
import re
import shutil
import subprocess
import sys
import unicodedata
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from runs import sample, write_run
from test_health import WRONG, compared
from tiny import teaching_policy

from espo_gym import ESPO
from espo_gym.cli.main import main
from espo_gym.reports.curves import find_runs, group_runs
from espo_gym.reports.html import CHARACTERS, PROBLEMS, SAMPLES, embed, page, report_data
from espo_gym.reports.inspector import as_json, inspect_batch

HOSTILE = "</script><img src=x onerror=\"document.title='pwned'\"><!--<script>&lt;b&gt;\u2028\ud800"
HARMLESS = HOSTILE.replace("\ud800", "?")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
FLAGS += " --disable-component-update --disable-sync --virtual-time-budget=5000 --dump-dom"


def invoke(*args: object):
    return CliRunner().invoke(main, [str(a) for a in args])


def first_group(pattern: str, text: str) -> str:
    """The first group of the first match."""
    match = re.search(pattern, text, re.DOTALL)
    assert match is not None
    return match.group(1)


def page_data(text: str) -> dict[str, Any]:
    """The data that the page's script reads."""
    return dict(json.loads(first_group(r'<script type="application/json" id="data">(.*?)</script>', text)))


def evaluation(before: float, after: float) -> dict:
    def rows(value: float) -> dict:
        return {"greedy": {"value": value, "low": value - 0.1, "high": value + 0.1}, "env": "e", "n_problems": 8}

    return {"before": rows(before), "after": rows(after)}


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    """Two seeds of espo with an evaluation and completions, and one run of grpo without."""
    folder = tmp_path_factory.mktemp("runs")
    for seed in (0, 1):
        curves: dict[str, list[float | None]] = {
            "rollout/accuracy": [0.1 + 0.2 * seed, 0.3, 0.5],
            "rollout/entropy": [0.5 + 0.2 * seed, 0.4, 0.3],
            "train/clip_fraction_active": [0, 0.01, 0.02],
            "eval/greedy": [None, 0.5, None],
            "time/generate": [1.0, 2.0, 3.0],
            "time/update": [4.0, 4.0, 4.0],
        }
        run = write_run(folder / "espo" / str(seed), curves, seed=seed)
        (run / "evaluation.json").write_text(json.dumps(evaluation(0.2, 0.6 + 0.2 * seed)))
        lines = [
            sample("1+1=", HOSTILE, when=when, kind=kind, verdict=verdict)
            for when, verdict in (("before", "incorrect"), ("after", "correct"))
            for kind in ("greedy", *["sample"] * 4)
        ]
        (run / "samples.jsonl").write_text("".join(lines) + sample("long", "x" * 5000))
    write_run(folder / "grpo", {"rollout/accuracy": [0.2, 0.2, 0.2], "rollout/entropy": [1, 1, 1]}, algo="grpo")
    return folder


@pytest.fixture(scope="module")
def inspection() -> dict:
    algorithm = ESPO(teaching_policy(), "espo_gym/Addition-v0", rollout_size=64, learning_rate=1e-3, warmup_steps=0)
    shown = as_json(inspect_batch(algorithm), HOSTILE, show=4)
    shown["rows"][0]["tokens"][0] = HOSTILE
    return shown


@pytest.fixture(scope="module")
def whole(runs, inspection) -> str:
    return page("A report", groups=group_runs(find_runs([runs])), inspection=inspection)


class TestContent:
    def test_curves(self, runs):
        data = report_data(group_runs(find_runs([runs])))
        charts = {chart["metric"]: chart for part in data["sections"] for chart in part["charts"]}
        assert charts.keys() == {"rollout/accuracy", "rollout/entropy", "train/clip_fraction_active", "eval/greedy"}
        espo, grpo = charts["rollout/accuracy"]["series"]
        assert espo["x"] == [10, 20, 30] and espo["y"] == [0.2, 0.3, 0.5]
        assert 0 < espo["low"][0] < 0.1 and 0.3 < espo["high"][0] < 1 and "high" not in grpo
        assert charts["rollout/entropy"]["series"][0]["high"][0] == pytest.approx(0.6 + 1.2706204736, abs=1e-5)
        assert charts["eval/greedy"]["series"] == [
            {"group": 0, "x": [20], "y": [0.5], "n": 2, "low": [0.5], "high": [0.5]}
        ]
        assert data["phases"] == [{"group": 0, "generate": 2.0, "update": 4.0}]
        figures = data["groups"][0]["figures"]["greedy"]
        assert figures["after"]["value"] == pytest.approx(0.7)
        assert figures["after"]["seeds"] == [0.6, 0.8] and 0.7 < figures["after"]["high"] < 1
        assert figures["before"] == {"value": 0.2, "low": None, "high": None, "seeds": [0.2, 0.2]}, "equal on both"
        assert data["groups"][0]["seeds"] == [0, 1] and data["groups"][1]["figures"] == {}
        assert [json.loads(c["text"])["algo"] for c in data["configs"]] == ["espo", "espo", "grpo"]

    def test_one_seed_has_the_interval_of_its_own_evaluation(self, runs):
        data = report_data(group_runs(find_runs([runs / "espo" / "0"])))
        after = data["groups"][0]["figures"]["greedy"]["after"]
        assert after == pytest.approx({"value": 0.6, "low": 0.5, "high": 0.7})

    def test_completions(self, runs):
        (shown,) = report_data(group_runs(find_runs([runs])))["samples"]
        first, long = shown["problems"]
        assert [row["kind"] for row in first["before"]] == ["greedy"] + ["sample"] * SAMPLES
        assert {row["verdict"] for row in first["after"]} == {"correct"}
        assert first["after"][0]["completion"] == HOSTILE
        assert long["after"][0]["completion"].startswith("x" * CHARACTERS + " ... (3000 char")

    def test_forty_long_runs_are_a_few_megabytes(self, tmp_path):
        names = [row[0] for part in report_data.__globals__["SECTIONS"].values() for row in part]
        curves = {name: [i * 0.123456789 for i in range(400)] for name in names}
        for i in range(8):
            for seed in range(5):
                run = write_run(tmp_path / f"{i}-{seed}", curves, seed=seed, hyperparameters={"alpha": float(i)})
            (run / "samples.jsonl").write_text(
                "".join(sample(str(p), "y" * 400, kind="sample") for p in range(2 * PROBLEMS) for _ in range(8))
            )
        text = page("Large", groups=group_runs(find_runs([tmp_path])))
        assert len(text) < 6e6
        (series, *_) = page_data(text)["report"]["sections"][0]["charts"][0]["series"]
        assert len(series["x"]) == 300 and 3900 < series["x"][-1] <= 4000


class TestFindings:
    def test_diagnoses_that_held_and_what_became_of_the_runs(self, tmp_path):
        none = ("train/gradient_token_share", "train/clip_fraction_low", "train/clip_fraction_high")
        zero: list[float | None] = [0, 0, 0]
        for seed in (0, 1):
            curves = dict.fromkeys((*none, "rollout/accuracy", "rollout/reward_mean"), zero)
            curves |= {"diagnostics/no_advantage": [None, 1, 1]}
            curves |= {"diagnostics/verifier_constant": [None, None, seed or None]}
            write_run(tmp_path / str(seed), curves, seed=seed)
        trouble, advantage, constant = page_data(page("A", groups=group_runs(find_runs([tmp_path]))))["report"][
            "warnings"
        ]
        assert trouble.startswith("2 of 2 runs of espo had nothing to learn from in most rollouts, because all answers")
        assert advantage.startswith("no_advantage: every advantage is 0")
        assert advantage.endswith("It was so in 4 of 6 rollouts of espo.") and "1 of 6 rollouts" in constant

    def test_runs_without_trouble_have_no_warnings(self, runs):
        assert report_data(group_runs(find_runs([runs])))["warnings"] == []

    def test_a_comparison_has_its_sentences_scores_and_audit(self, tmp_path):
        compared(tmp_path / "c", a=[WRONG] * 2, b=[WRONG] * 2)
        result = invoke("report", tmp_path / "c", "--out", tmp_path / "r.html")
        assert result.exit_code == 0, result.output
        (found,) = page_data((tmp_path / "r.html").read_text())["report"]["comparisons"]
        assert found["headline"] == "0 of 4 runs learned anything: this compares nothing."
        assert found["sentences"] == ["a and b: no run of either learned anything: nothing can be said."]
        assert len(found["rows"]) == 2 and len(found["head"]) == len(found["rows"][0])
        assert any(check["ok"] is False and "training: 0 of 4" in check["found"] for check in found["audit"])

    @pytest.mark.parametrize(
        "text", ["[]", '{"entries": 1}', "{", "null", '{"entries": [{}], "seeds": [], "setting": {}}']
    )
    def test_a_broken_comparison_is_one_line(self, text, runs, tmp_path):
        shutil.copytree(runs, tmp_path / "c")
        (tmp_path / "c" / "comparison.json").write_text(text)
        result = invoke("report", tmp_path / "c", "--out", tmp_path / "r.html")
        assert result.exit_code == 1 and "comparison.json" in result.output and "Traceback" not in result.output


class TestForeignFiles:
    ROWS = ("{}", "[]", "1", "null", '"text"', '{"prompt": 1}', sample("p", "c").replace('"after"', '"later"'))

    @pytest.mark.parametrize("row", [*ROWS, sample("p", "c").replace('"reason": null', '"reason": [1]')])
    def test_a_row_that_is_no_sample_is_left_out_and_counted(self, row, tmp_path):
        run = write_run(tmp_path / "a", {"rollout/accuracy": [0.1]})
        (run / "samples.jsonl").write_text(f"{row.strip()}\n" + sample("1+1=", "2"))
        result = invoke("report", run, "--out", tmp_path / "r.html")
        assert result.exit_code == 0, result.output
        (shown,) = page_data((tmp_path / "r.html").read_text())["report"]["samples"]
        assert shown["unreadable"] == 1 and [problem["prompt"] for problem in shown["problems"]] == ["1+1="]

    def test_a_line_that_is_not_json_is_named(self, tmp_path):
        run = write_run(tmp_path / "a", {"rollout/accuracy": [0.1]})
        for text in ("\0\0\n" + sample("p", "c"), '{"prompt": "1'):
            (run / "samples.jsonl").write_text(sample("p", "c") + text)
            result = invoke("report", run, "--out", tmp_path / "r.html")
            assert result.exit_code == 1 and "samples.jsonl, line 2 is not JSON" in result.output

    @pytest.mark.parametrize("text", ["", "\n"])
    def test_empty_samples_cost_nothing(self, text, tmp_path):
        run = write_run(tmp_path / "a", {"rollout/accuracy": [0.1]})
        (run / "samples.jsonl").write_text(text)
        assert invoke("report", run, "--out", tmp_path / "r.html").exit_code == 0

    @pytest.mark.parametrize(
        "text",
        [
            '{"after": {"greedy": {}}}',
            '{"after": {"greedy": {"value": "x"}}}',
            '{"after": {"greedy": {"value": NaN, "low": 0, "high": 1}}}',
            '{"after": {"greedy": {"value": null}}, "before": {}}',
        ],
    )
    def test_figures_that_are_no_numbers_are_left_out(self, text, tmp_path):
        run = write_run(tmp_path / "a", {"rollout/accuracy": [0.1]})
        (run / "evaluation.json").write_text(text)
        result = invoke("report", run, "--out", tmp_path / "r.html")
        assert result.exit_code == 0, result.output
        (group,) = page_data((tmp_path / "r.html").read_text())["report"]["groups"]
        assert group["figures"] == {}

    def test_a_figure_without_its_interval_is_shown_without(self, tmp_path):
        run = write_run(tmp_path / "a", {"rollout/accuracy": [0.1]})
        (run / "evaluation.json").write_text('{"after": {"greedy": {"value": 0.5, "low": null}}}')
        (group,) = report_data(group_runs(find_runs([run])))["groups"]
        assert group["figures"]["greedy"] == {"after": {"value": 0.5, "low": None, "high": None}}


class TestSafety:
    def test_no_text_is_shown_in_another_order_than_it_has(self, tmp_path):
        """Their escape sequences stand in place of the characters that turn the text around."""
        turning = [chr(c) for c in (0x61C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A))]
        formats = [c for c in map(chr, range(sys.maxunicode)) if unicodedata.category(c) == "Cf"]
        kinds = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
        marks = {"\u061c", "\u200e", "\u200f"}
        assert {c for c in formats if unicodedata.bidirectional(c) in kinds} | marks == set(turning), "all there are"
        run = write_run(tmp_path / "a", {"rollout/accuracy": [0.1]}, name="one\u202etwo")
        (run / "samples.jsonl").write_text(sample(f"1{''.join(turning)}2", "5\u202e321\u202c"))
        text = page("\u2066title", groups=group_runs(find_runs([run])))
        assert not set(turning) & set(text) and "<title>\\u2066title" in text
        data = page_data(text)["report"]
        (problem,) = data["samples"][0]["problems"]
        assert problem["after"][0]["completion"] == r"5\u202e321\u202c"
        assert data["groups"][0]["label"] == r"one\u202etwo"
        assert page_data(page("a", note="\u05d0\u05d1"))["note"] == "\u05d0\u05d1", "Hebrew itself stays"

    def test_nothing_from_a_run_can_begin_a_tag(self, whole):
        assert "<img" not in whole and whole.count("<!--") == 0
        assert whole.count("<script") == 2 and whole.count("</script>") == 2
        data = page_data(whole)
        assert data["report"]["samples"][0]["problems"][0]["after"][0]["completion"] == HARMLESS
        assert data["inspection"]["source"] == HARMLESS

    def test_embedded_json_has_no_tag(self):
        text = embed({"a": HOSTILE, "b": "1\u00d72"})
        assert not set("<>&") & set(text) and json.loads(text) == {"a": HARMLESS, "b": "1\u00d72"}

    def test_a_title_is_escaped(self):
        assert "<title>&lt;/title&gt;&lt;img&gt;</title>" in page("</title><img>")

    def test_no_network(self, whole):
        markup = re.sub(r'id="data">.*?</script>', "", whole, flags=re.DOTALL)  # the data are texts and no references
        reference = (
            r"https?:|//[a-z]|(?<!-)\bsrc\b|@import|url\((?!#)|<link|<iframe|import\(|fetch\(|XMLHttp|Socket|sendBeacon"
        )
        assert len(markup) > 10_000 and not re.search(f"(?i){reference}", markup)
        assert "innerHTML" not in markup and "eval(" not in markup

    def test_the_policy_lets_exactly_the_pages_own_script_and_style_through(self, whole):
        policy = html.unescape(first_group(r'http-equiv="Content-Security-Policy" content="([^"]*)"', whole))
        assert policy.startswith("default-src 'none'; ") and "unsafe" not in policy
        for directive, text in (
            ("script-src", first_group(r"<script>(.*?)</script>", whole)),
            ("style-src", first_group(r"<style>(.*?)</style>", whole)),
        ):
            digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
            assert f"{directive} 'sha256-{digest}'" in policy

    def test_the_assets_are_package_data(self):
        pyproject = (Path(__file__).parents[1] / "pyproject.toml").read_text()
        endings = first_group(r'"espo_gym.reports.html" = \[(.*?)\]', pyproject)
        for asset in files("espo_gym.reports.html").iterdir():
            if asset.is_file() and not asset.name.endswith((".py", ".pyc")):
                assert f'"*{Path(asset.name).suffix}"' in endings


def dom(path: Path, tmp_path: Path, fragment: str = "") -> str:
    """The document after its script has run."""
    assert CHROMIUM is not None
    command = [CHROMIUM, *FLAGS.split(), f"--user-data-dir={tmp_path / 'profile'}", f"{path.as_uri()}{fragment}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
class TestBrowser:
    def test_it_draws_the_report_and_runs_nothing_else(self, whole, inspection, tmp_path):
        path = tmp_path / "report.html"
        path.write_text(whole, encoding="utf-8")
        seen = dom(path, tmp_path)
        assert '<html lang="en" data-ready="yes">' in seen
        assert re.search(r'<p id="error" role="alert" hidden="">', seen), "a script error"
        assert "<title>A report</title>" in seen and "<img" not in seen
        # accuracy and entropy of two curves, clip fraction and greedy of one
        assert seen.count('class="line"') == 6 and seen.count("<figure data-metric=") == 4
        assert "espo ends at 0.5, grpo ends at 0.2" in seen
        assert "0.200 → 0.700" in seen
        assert seen.count("&lt;/script&gt;&lt;img src=x") > 6, "completions are there as text"
        assert seen.count('data-at="') == sum(len(row["tokens"]) for row in inspection["rows"])
        assert 'data-algorithm="espo"' in seen
        assert seen.count('class="chip"') == len(inspection["algorithms"])
        assert self.cut(seen) == self.expected(inspection, "espo") > 0

    @pytest.mark.parametrize("name", ["grpo", "gspo"])
    def test_the_algorithm_is_switched(self, inspection, tmp_path, name):
        path = tmp_path / "inspect.html"
        path.write_text(page("Tokens", inspection=inspection), encoding="utf-8")
        seen = dom(path, tmp_path, f"#tokens={name}")
        assert f'data-algorithm="{name}"' in seen and re.search(r'<p id="error" role="alert" hidden="">', seen)
        assert self.cut(seen) == self.expected(inspection, name)
        cuts = {a["name"]: [view["cut"] for view in a["rows"]] for a in inspection["algorithms"]}
        assert cuts["grpo"] != cuts["espo"]

    def test_hands_on(self, whole, inspection, tmp_path):
        """Click on an algorithm, go to the next token, read a chart with the keyboard, hide a curve."""
        actions = """<script>
            const press = (on, key) => on.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
            document.querySelector("input[value=gspo]").click();
            document.querySelector("[data-at='1,0']").focus();
            press(document.activeElement, "ArrowRight");
            document.querySelector(".legend input").click();
            const chart = document.querySelector("[data-metric='rollout/accuracy'] svg");
            press(chart, "ArrowRight");
            press(chart, "ArrowRight");
        </script></body>"""
        path = tmp_path / "report.html"
        path.write_text(whole.replace("</body>", actions), encoding="utf-8")
        assert 'data-algorithm="espo"' in dom(path, tmp_path), "the page's policy lets no other script run"
        opened = re.sub('<meta http-equiv="Content-Security-Policy"[^>]*>', "", whole)
        path.write_text(opened.replace("</body>", actions), encoding="utf-8")
        seen = dom(path, tmp_path)
        assert 'data-algorithm="gspo"' in seen and re.search(r'<p id="error" role="alert" hidden="">', seen)
        assert f", 2 of {len(inspection['rows'][1]['tokens'])}</strong>" in seen
        assert seen.count('class="line"') == 2, "of grpo alone"
        tip = first_group(r'<div class="tip" aria-live="polite"[^>]*>(.*?)</figure>', seen)
        assert "20 completions" in tip and "grpo: 0.2<" in tip

    @staticmethod
    def cut(seen: str) -> int:
        return sum("cut" in classes.split() for classes in re.findall(r'class="(token[^"]*)" role="button"', seen))

    @staticmethod
    def expected(inspection: dict, name: str) -> int:
        (algorithm,) = [a for a in inspection["algorithms"] if a["name"] == name]
        count = 0
        for row, view in zip(inspection["rows"], algorithm["rows"], strict=True):
            count += sum(view["cut"]) if isinstance(view["cut"], list) else len(row["tokens"]) * view["cut"]
        return count


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("trained") / "espo"
    small = ["--rollout-size", 32, "--timesteps", 64, "--eval-problems", 8, "--eval-k", 2, "--no-progress"]
    assert invoke("train", *small, "--out", folder).exit_code == 0
    return folder


class TestCommands:
    def test_report_with_tokens(self, trained, runs, tmp_path):
        out = tmp_path / "new" / "r.html"
        result = invoke("report", trained, runs, "--out", out, "--show", 2)
        assert result.exit_code == 0, result.output
        assert result.output.splitlines()[-1] == f"4 runs in {out}"
        data = page_data(out.read_text())
        assert len(data["report"]["groups"]) == 3 and len(data["inspection"]["rows"]) == 2
        assert data["inspection"]["source"] == str(trained)
        assert [p.name for p in out.parent.iterdir()] == ["r.html"]

    def test_report_without_tokens(self, trained, runs, tmp_path):
        out = tmp_path / "r.html"
        assert invoke("report", trained, "--no-inspector", "--out", out).exit_code == 0
        assert page_data(out.read_text())["inspection"] is None
        assert invoke("report", runs, "--out", out).exit_code == 0
        assert "No run has a checkpoint" in page_data(out.read_text())["note"]

    def test_a_checkpoint_that_cannot_be_read_does_not_cost_the_curves(self, trained, tmp_path):
        broken = shutil.copytree(trained, tmp_path / "broken")
        (broken / "checkpoint.zip").write_text("no zip")
        result = invoke("report", broken, "--out", tmp_path / "r.html")
        assert result.exit_code == 0 and "could not be inspected" in result.output
        data = page_data((tmp_path / "r.html").read_text())
        assert "is not a checkpoint" in data["note"] and data["report"]["groups"]

    def test_inspect(self, trained, tmp_path):
        for source in (trained, trained / "checkpoint.zip"):
            out = tmp_path / "i.html"
            result = invoke("inspect", source, "--out", out, "--steps", 3, "--completions", 16)
            assert result.exit_code == 0, result.output
            data = page_data(out.read_text())
            assert data["report"] is None and data["inspection"]["steps"] == 3
            assert data["inspection"]["own"] == data["inspection"]["algorithms"][0]["name"] == "espo"

    def test_plot(self, trained, tmp_path):
        result = invoke("plot", trained, "--out", tmp_path / "f", "--metric", "rollout/entropy")
        assert result.exit_code == 0, result.output
        assert sorted(p.name for p in tmp_path.iterdir()) == ["f.pdf", "f.png"]

    @pytest.mark.parametrize("command", ["report", "inspect", "plot"])
    def test_what_is_not_there(self, command, tmp_path):
        result = invoke(command, tmp_path / "none", "--out", tmp_path / "o")
        assert result.exit_code == 1 and "Traceback" not in result.output
        assert str(tmp_path / "none") in result.output and list(tmp_path.iterdir()) == []
