"""Runs gathered into curves with intervals, against numbers made by hand; and the figure of them."""

import json
import math
import os
import re
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from runs import read_points, write_run
from scipy.optimize import brentq

from espo_gym.experiments.run_folder import Run
from espo_gym.reports import plot
from espo_gym.reports.curves import find_runs, group_runs, interval

ACCURACY, REWARD, ENTROPY = "rollout/accuracy", "rollout/reward_mean", "rollout/entropy"


def groups(*paths):
    return group_runs(find_runs(paths))


def accuracy_band(a: float, b: float) -> float:
    """The lower end over two seeds: the mu at which (mean - mu)^2 is t^2 times its variance, that of mu (1 - mu)."""
    mean, t = (a + b) / 2, 12.706204736174694
    factor = (a - b) ** 2 / 2 / (mean * (1 - mean))
    return float(brentq(lambda mu: (mean - mu) ** 2 - t**2 * factor * mu * (1 - mu) / 2, 0, mean))


class TestReading:
    def test_a_row_that_is_being_written_and_numbers_that_are_none_are_left_out(self, tmp_path):
        (tmp_path / "progress.csv").write_text("a,time/timesteps,b\nnan,10,1\n2,20,inf\n3,30,4\n0.5")
        assert read_points(tmp_path) == {
            "a": [(20, 2), (30, 3)],
            "time/timesteps": [(10, 10), (20, 20), (30, 30)],
            "b": [(10, 1), (30, 4)],
        }

    def test_runs_are_found_at_any_depth_and_each_once(self, tmp_path):
        one = write_run(tmp_path / "a" / "deep" / "0", {ACCURACY: [0.1]})
        two = write_run(tmp_path / "b", {ACCURACY: [0.2]}, seed=1)
        (one / "policy").mkdir()
        (one / "policy" / "config.json").write_text("{}")  # of the model, not of a run
        assert [run.folder for run in find_runs([tmp_path, two, tmp_path / "a"])] == [one, two]

    def test_what_is_no_run_is_said(self, tmp_path):
        with pytest.raises(FileNotFoundError, match="there is no folder"):
            find_runs([tmp_path / "none"])
        with pytest.raises(FileNotFoundError, match="no run in"):
            find_runs([tmp_path])
        run = write_run(tmp_path / "a", {ACCURACY: [0.1]})
        (run / "config.json").write_text("[1]")
        with pytest.raises(ValueError, match=r"config\.json is not the config of a run"):
            find_runs([run])

    def test_samples_that_were_cut_are_named(self, tmp_path):
        """They are written at once, so a line that is not complete is damage."""
        run = write_run(tmp_path / "a", {ACCURACY: [0.1]})
        (run / "samples.jsonl").write_text('{"prompt": "1"}\n{"prom')
        with pytest.raises(ValueError, match=r"samples\.jsonl, line 2 is not JSON"):
            Run.read(run).samples()

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ('{"a": 1, "time/timesteps": 10}\n{"a": 1', r"progress\.json in .* has metrics of 10 of 30 timesteps"),
            ("", r"progress\.json in .* has metrics of 0 of 30 timesteps"),
            ("\0" * 90, r"progress\.json in .* has metrics of 0 of 30 timesteps"),
            ('{"a": 1, "time\n{"a": 1, "time/timesteps": 30}\n', r"progress\.json, line 1 is not JSON"),
            ('{"a": 1}\n', r"does not hold the metrics of a run"),
            ('{"a": "x", "time/timesteps": 30}\n', r"does not hold the metrics of a run"),
            ("[30]\n", r"does not hold the metrics of a run"),
        ],
    )
    def test_damaged_metrics_are_named_not_drawn(self, text, message, tmp_path):
        run = write_run(tmp_path / "a", {ACCURACY: [0.1, 0.2, 0.3]})
        (run / "evaluation.json").write_text('{"after": {"timesteps": 30}}')
        assert len(Run.read(run).rows[ACCURACY]) == 3
        (run / "progress.json").write_text(text)
        with pytest.raises(ValueError, match=message):
            Run.read(run)

    def test_runs_are_read_and_drawn_without_torch(self, tmp_path):
        run = write_run(tmp_path / "a", {ACCURACY: [0.1, 0.2]})
        code = """if True:
            import sys
            from pathlib import Path
            from espo_gym.reports import html, plot
            from espo_gym.reports.curves import find_runs, group_runs
            run = Path(sys.argv[1])
            html.write(run / "report.html", html.page("Report", groups=group_runs(find_runs([run]))))
            plot.plot_run(run)
            loaded = sorted({"torch", "transformers", "stable_baselines3"} & set(sys.modules))
            assert not loaded, loaded
        """
        command = [sys.executable, "-c", code, str(run)]
        root = Path(__file__).parents[1]
        done = subprocess.run(command, env=os.environ | {"PYTHONPATH": str(root)}, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert (run / "report.html").is_file() and (run / "curves.png").is_file()


class TestInterval:
    def test_students_t_by_hand(self):
        # mean 2, s = 1, t(0.975, 2) = 4.302653
        mean, low, high = interval(np.array([[1.0, 5.0], [2.0, 5.0], [3.0, 5.0]]), share=False)
        half = 4.302652729911275 / math.sqrt(3)
        np.testing.assert_allclose(mean, [2, 5])
        assert low is not None and high is not None
        np.testing.assert_allclose(np.stack([low, high]), np.array([[2 - half, 5], [2 + half, 5]]), rtol=1e-9)

    def test_two_seeds_and_one(self):
        _, low, high = interval(np.array([0.4, 0.6]), share=False)
        # s = 0.1 sqrt 2, so the half width is t(0.975, 1) * 0.1
        assert low is not None and high is not None
        np.testing.assert_allclose(np.stack([low, high]), [0.5 - 1.2706204736, 0.5 + 1.2706204736], rtol=1e-9)
        assert interval(np.array([[0.4, 0.6]]), share=False)[1:] == (None, None)

    def test_curve_over_seeds(self, tmp_path):
        for seed, values in enumerate(([0.1, 0.2], [0.3, 0.2], [0.5, 0.2])):
            write_run(tmp_path / str(seed), {ENTROPY: values}, seed=seed)
        (group,) = groups(tmp_path)
        curve = group.curve(ENTROPY)
        half = 4.302652729911275 * 0.2 / math.sqrt(3)
        np.testing.assert_allclose(curve.mean, [0.3, 0.2])
        np.testing.assert_allclose(curve.low, [0.3 - half, 0.2])
        np.testing.assert_allclose(curve.high, [0.3 + half, 0.2])
        assert curve.n == 3 and group.curve("train/none") is None

    def test_the_band_of_a_share_stays_between_0_and_1(self, tmp_path):
        """Rewards are one where they equal the accuracy in every rollout, which shaped ones do not."""
        values = ([0.9, 0.0, 1.0], [1.0, 0.0, 0.0], [1.0, 0.01, 1.0])
        for seed, row in enumerate(values):
            shaped = {ACCURACY: row, REWARD: [value - 0.25 for value in row], ENTROPY: row}
            write_run(tmp_path / "shaped" / str(seed), shaped, seed=seed)
            write_run(tmp_path / "plain" / str(seed), {ACCURACY: row, REWARD: row}, seed=seed, policy="other")
        shaped, plain = sorted(groups(tmp_path), key=lambda group: group.runs[0].config["policy"], reverse=True)
        for curve in (shaped.curve(ACCURACY), plain.curve(ACCURACY), plain.curve(REWARD)):
            assert curve.low.min() >= 0 and curve.high.max() <= 1
            assert (curve.low < curve.mean).all() and (curve.mean < curve.high).all()
        for curve in (shaped.curve(ENTROPY), shaped.curve(REWARD)):
            assert curve.high.max() > 1 or curve.low.min() < -0.25, "of these nothing is known"

    def test_seeds_recorded_at_different_timesteps_are_interpolated_where_all_have_come(self, tmp_path):
        write_run(tmp_path / "0", {"time/timesteps": [10, 20, 30], ACCURACY: [0.0, 0.2, 0.4]})
        write_run(tmp_path / "1", {"time/timesteps": [15, 25], ACCURACY: [0.5, 0.7]}, seed=1)
        curve = groups(tmp_path)[0].curve(ACCURACY)
        assert curve.x.tolist() == [15, 20, 25]
        np.testing.assert_allclose(curve.mean, [(0.1 + 0.5) / 2, (0.2 + 0.6) / 2, (0.3 + 0.7) / 2])


class TestGroups:
    def test_seeds_are_one_curve_and_settings_are_not(self, tmp_path):
        for name, seed, settings in (("a", 0, 0.1), ("b", 1, 0.1), ("c", 0, 0.2)):
            hyperparameters = {"alpha": settings, "group_size": 8}
            write_run(tmp_path / name, {ACCURACY: [0.1]}, seed=seed, hyperparameters=hyperparameters)
        write_run(tmp_path / "d", {ACCURACY: [0.1]}, algo="grpo", hyperparameters={"clip_low": 0.2})
        grouped = groups(tmp_path)
        assert [group.label for group in grouped] == ["espo alpha=0.1", "espo alpha=0.2", "grpo"]
        assert [[run.seed for run in group.runs] for group in grouped] == [[0, 1], [0], [0]]

    def test_another_environment_is_named_everywhere(self, tmp_path):
        write_run(tmp_path / "a", {ACCURACY: [0.1]}, env="espo_gym/Addition-v0")
        write_run(tmp_path / "b", {ACCURACY: [0.1]}, algo="grpo", env="espo_gym/Chain-v0")
        assert [group.label for group in groups(tmp_path)] == ["espo env=Addition-v0", "grpo env=Chain-v0"]

    def test_an_entry_is_called_by_its_name(self, tmp_path):
        write_run(tmp_path / "a", {ACCURACY: [0.1]}, name="wide clip", hyperparameters={"alpha": 0.1})
        write_run(tmp_path / "b", {ACCURACY: [0.1]}, name="narrow clip", hyperparameters={"alpha": 0.2})
        assert [group.label for group in groups(tmp_path)] == ["wide clip", "narrow clip"]

    def test_the_same_run_twice_is_no_second_seed(self, tmp_path):
        for folder in ("new", "old"):
            for seed in (0, 1):
                write_run(tmp_path / folder / str(seed), {ACCURACY: [0.1]}, seed=seed)
        grouped = groups(tmp_path)
        assert [[run.seed for run in group.runs] for group in grouped] == [[0, 1], [0, 1]]
        assert [group.label for group in grouped] == [f"espo ({tmp_path / name})" for name in ("new", "old")]


class TestFigure:
    @pytest.fixture
    def runs(self, tmp_path):
        for seed, values in enumerate(([0.1, 0.2, 0.3], [0.3, 0.4, 0.5])):
            write_run(tmp_path / "a" / str(seed), {ACCURACY: values, "rollout/entropy": values}, seed=seed)
        write_run(tmp_path / "b", {ACCURACY: [0.2, 0.2, 0.9]}, algo="grpo")
        return groups(tmp_path)

    def test_lines_and_bands(self, runs):
        figure = plot.draw(runs, [ACCURACY, "rollout/entropy"])
        accuracy, entropy = figure.axes
        drawn = np.array([line.get_ydata() for line in accuracy.lines])
        np.testing.assert_allclose(drawn, np.array([[0.2, 0.3, 0.4], [0.2, 0.2, 0.9]]))
        assert len(accuracy.collections) == 1, "one band: the second curve has one seed"
        low = np.asarray(accuracy.collections[0].get_paths()[0].vertices)[:, 1].min()
        assert low == pytest.approx(accuracy_band(0.1, 0.3), rel=1e-6)
        assert len(entropy.lines) == 1
        assert [text.get_text() for text in figure.legends[0].texts] == ["espo", "grpo"]
        assert accuracy.lines[0].get_color() != accuracy.lines[1].get_color()
        assert accuracy.lines[0].get_linestyle() != accuracy.lines[1].get_linestyle()

    @pytest.mark.parametrize("metrics", [[ACCURACY], [ACCURACY] * 3], ids=["column", "page"])
    def test_long_names_stay_on_the_page(self, metrics, tmp_path):
        for i in range(5):
            name = f"entry {i} alpha=0.{i} learning_rate=0.0001"
            write_run(tmp_path / str(i), {ACCURACY: [0.1, 0.2]}, name=name)
        figure = plot.draw(groups(tmp_path), metrics)
        figure.canvas.draw()
        box = figure.legends[0].get_window_extent()
        assert box.x0 >= 0 and box.x1 <= figure.bbox.x1
        assert box.y0 >= max(axes.get_window_extent().y1 for axes in figure.axes)

    def test_files(self, runs, tmp_path):
        figure = plot.draw(runs, [ACCURACY])
        png, pdf = plot.save(figure, tmp_path / "out" / "figure")
        assert png.read_bytes().startswith(b"\x89PNG") and (png.name, pdf.name) == ("figure.png", "figure.pdf")
        assert plot.save(figure, tmp_path / "only.pdf") == [tmp_path / "only.pdf"]
        assert (tmp_path / "only.pdf").read_bytes() == pdf.read_bytes(), "no date in it"
        assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["figure.pdf", "figure.png"]
        with pytest.raises(ValueError, match=r"written as \.png or \.pdf"):
            plot.save(figure, tmp_path / "figure.jpg")

    def test_the_pdf_has_its_fonts_in_it_and_none_of_type_3(self, runs, tmp_path):
        (pdf,) = plot.save(plot.draw(runs, [ACCURACY]), tmp_path / "a.pdf")
        written = pdf.read_bytes()
        for stream in re.findall(rb"stream\r?\n(.*?)\r?\nendstream", written, re.DOTALL):
            try:
                written += zlib.decompress(stream)
            except zlib.error:
                continue
        assert b"/FontFile2" in written and b"/Type3" not in written

    def test_a_metric_that_nobody_recorded(self, runs):
        with pytest.raises(ValueError, match=r"'train/none'; there are rollout/accuracy, rollout/entropy, time/times"):
            plot.draw(runs, ["train/none"])

    def test_a_run_without_a_row_yet(self, tmp_path):
        run = write_run(tmp_path / "new", {ACCURACY: []})
        assert json.loads((run / "config.json").read_text())["algo"] == "espo"
        assert plot.plot_run(run).read_bytes().startswith(b"\x89PNG")
