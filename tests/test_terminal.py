"""Output that outlives its reader: training goes on when nobody reads what it prints any more."""

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from test_live_table import algorithm

from espo_gym import GRPO, LiveTable
from espo_gym.experiments.run_folder import read_evaluation
from espo_gym.terminal import Outlet, outlets, say

ROOT = Path(__file__).parents[1]


class Gone(io.StringIO):
    """A stream whose reader has gone."""

    def write(self, text: str) -> int:
        raise BrokenPipeError(32, "Broken pipe")

    def flush(self) -> None:
        self.write("")


def test_what_nobody_reads_is_dropped():
    outlet = Outlet(Gone())
    assert outlet.write("words") == 5
    outlet.flush()


def test_what_somebody_reads_is_not():
    outlet = Outlet(stream := io.StringIO())
    outlet.write("words")
    assert stream.getvalue() == "words" and not outlet.isatty()


def test_a_closed_stream():
    stream = io.StringIO()
    stream.close()
    Outlet(stream).write("words")


def test_an_error_that_is_not_the_readers_is_raised(tmp_path):
    with (tmp_path / "a").open("w", encoding="ascii") as stream, pytest.raises(UnicodeEncodeError):
        Outlet(stream).write("é")


def test_the_streams_come_back(monkeypatch):
    before = sys.stdout, sys.stderr
    with pytest.raises(ZeroDivisionError), outlets():
        assert isinstance(sys.stdout, Outlet) and isinstance(sys.stderr, Outlet)
        raise ZeroDivisionError
    assert (sys.stdout, sys.stderr) == before
    monkeypatch.setattr(sys, "stdout", None)  # a process without one
    with outlets():
        say("words")
        assert sys.stdout is None


@pytest.mark.parametrize("terminal", [False, True])
def test_a_live_table_that_nobody_watches(monkeypatch, terminal):
    monkeypatch.setattr(sys, "stderr", Gone())
    table = LiveTable()
    table.console._force_terminal = terminal
    assert algorithm().learn(24, table).num_timesteps == 24


def test_metrics_that_nobody_reads(monkeypatch):
    monkeypatch.setattr(sys, "stdout", Gone())
    algo = algorithm()
    loud = GRPO(algo.policy, "espo_gym/Addition-v0", verbose=1, rollout_size=8, max_completion_tokens=4)
    assert loud.learn(8).num_timesteps == 8


@pytest.mark.parametrize(
    "redirections",
    ["> /dev/full 2>&1", "| head -c 1", "2> >(head -c 1 >&2)", ">&- 2>&-"],
)
@pytest.mark.slow
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_the_command_line_trains_to_the_end(tmp_path, redirections):
    out = tmp_path / "run"
    options = "--timesteps 64 --rollout-size 16 --eval-problems 2 --eval-k 0 --eval-every 0"
    command = f"{sys.executable} -m espo_gym.cli.main train {options} --out {out} {redirections}"
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    subprocess.run(["bash", "-o", "pipefail", "-c", command], env=environment, check=True, capture_output=True)
    assert read_evaluation(out)["after"]["timesteps"] == 64 and (out / "curves.png").is_file()
