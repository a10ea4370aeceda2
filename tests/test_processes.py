"""Work in several processes: all is done, an error ends the rest, and nobody is left when the parent is killed."""

import os
import signal
import subprocess
import sys
import time
from functools import partial
from operator import truediv
from pathlib import Path

import psutil
import pytest

from espo_gym.experiments.processes import cores, in_processes

ROOT = Path(__file__).parents[1]
SLEEPERS = """
import sys, time
from functools import partial
from espo_gym.experiments.processes import in_processes
if __name__ == "__main__":
    in_processes([("sleep", partial(time.sleep, 600))] * 3, 2, print)
"""


def work(n: int):
    return [(f"{i} / 2", partial(truediv, i, 2)) for i in range(n)]


@pytest.mark.parametrize("jobs", [1, 2])
def test_everything_is_done_once(jobs):
    messages: list[str] = []
    in_processes(work(4), jobs, messages.append)
    counts, outcomes = zip(*(message.split("] ") for message in messages), strict=True)
    assert sorted(outcomes) == ["0 / 2: 0.0", "1 / 2: 0.5", "2 / 2: 1.0", "3 / 2: 1.5"]
    assert list(counts) == ["[1/4", "[2/4", "[3/4", "[4/4"]


def test_one_job_is_this_process():
    messages: list[str] = []
    in_processes([("pid", os.getpid)], 1, messages.append)
    assert messages == [f"[1/1] pid: {os.getpid()}"]


def test_nothing_to_do():
    in_processes([], 2, print)


def test_an_error_is_raised_and_ends_the_rest():
    messages: list[str] = []
    began = time.monotonic()
    with pytest.raises(ZeroDivisionError):
        in_processes([("one", partial(truediv, 1, 0)), ("other", partial(time.sleep, 600))], 2, messages.append)
    assert messages == ["[1/2] one: stopped"]
    assert time.monotonic() - began < 300


def test_at_least_one_core_and_one_job():
    assert cores() >= 1
    with pytest.raises(ValueError, match="at least 1"):
        in_processes(work(1), 0, print)


SAVERS = """
import sys, time
from functools import partial
from pathlib import Path
from espo_gym.experiments.processes import in_processes
from espo_gym.experiments.stopping import StopSignals

def work(name):
    folder = Path(sys.argv[1])
    with StopSignals() as signals, signals.deferred():
        (folder / f"{name} began").touch()
        while signals.received is None:
            time.sleep(0.01)
        time.sleep(0.5)
        (folder / f"{name} saved").touch()

if __name__ == "__main__":
    with StopSignals():
        in_processes([("idle", int), *((n, partial(work, n)) for n in "abc")], 3, lambda _: None)
"""


@pytest.mark.parametrize("to_all", [False, True])
def test_a_signal_lets_the_children_save(tmp_path, to_all):
    """``to_all``: a batch system sends it to every process, so children get it twice. Nothing new is begun."""
    script = tmp_path / "savers.py"
    script.write_text(SAVERS)
    parent = subprocess.Popen(
        [sys.executable, str(script), str(tmp_path)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    deadline = time.monotonic() + 120
    try:
        while len(list(tmp_path.glob("* began"))) < 3:
            assert parent.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
        (os.killpg if to_all else os.kill)(parent.pid, signal.SIGTERM)
        _, errors = parent.communicate(timeout=60)
    finally:
        parent.kill()
    assert parent.returncode == 128 + signal.SIGTERM, errors
    assert sorted(path.name for path in tmp_path.glob("* saved")) == ["a saved", "b saved", "c saved"]


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_the_children_end_with_their_parent(tmp_path, how):
    script = tmp_path / "sleepers.py"
    script.write_text(SLEEPERS)
    parent = subprocess.Popen(
        [sys.executable, str(script)], env=os.environ | {"PYTHONPATH": str(ROOT)}, stderr=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + 120
        children: list[psutil.Process] = []
        while len(children) < 3:  # two at work, and Python's own tracker of resources
            assert parent.poll() is None and time.monotonic() < deadline
            children = psutil.Process(parent.pid).children(recursive=True)
            time.sleep(0.05)
        time.sleep(1.5)  # for the two to have begun
        parent.send_signal(how)
        parent.wait(timeout=60)
    finally:
        parent.kill()
    _, alive = psutil.wait_procs(children, timeout=60)
    for child in alive:
        child.kill()
    assert not alive
