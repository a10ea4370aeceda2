"""Signals that ask for an end: a checkpoint of every rollout so far, and the conventional exit code."""

import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from stable_baselines3.common.callbacks import ConvertCallback
from test_run import config, curves, run, same, weights

from espo_gym import ESPO
from espo_gym.cli.errors import stoppable
from espo_gym.experiments.run import train
from espo_gym.experiments.run_folder import read_progress
from espo_gym.experiments.stopping import SIGNALS, Stopped, StopSignals

ROOT = Path(__file__).parents[1]


def send(signum: int) -> None:
    os.kill(os.getpid(), signum)


@pytest.mark.parametrize("signum", SIGNALS)
class TestSignals:
    def test_at_once_where_there_is_nothing_to_save(self, signum):
        with pytest.raises(Stopped) as stopped, StopSignals():
            send(signum)
            raise AssertionError("not reached")
        assert stopped.value.code == 128 + signum and signal.Signals(signum).name in str(stopped.value)
        assert signal.getsignal(signum) is signal.SIG_DFL

    def test_kept_until_the_end_of_the_work(self, signum):
        done = []
        with pytest.raises(Stopped), StopSignals() as signals, signals.deferred():
            send(signum)
            done.append(signals.received)
        assert done == [signum]

    def test_an_error_on_the_way_is_the_error(self, signum):
        with pytest.raises(ZeroDivisionError), StopSignals() as signals, signals.deferred():
            send(signum)
            raise ZeroDivisionError

    def test_a_handler_of_ones_own_and_an_ignored_signal_stay(self, signum):
        got = []
        try:
            signal.signal(signum, lambda *_: got.append(signum))
            with StopSignals():
                send(signum)
            signal.signal(signum, signal.SIG_IGN)
            with StopSignals():
                send(signum)
        finally:
            signal.signal(signum, signal.SIG_DFL)
        assert got == [signum]

    def test_a_run_within_a_comparison_takes_it_over_and_gives_it_back(self, signum):
        with pytest.raises(Stopped), StopSignals() as outer:
            with pytest.raises(Stopped), StopSignals() as inner, inner.deferred():
                send(signum)
            assert (inner.received, outer.received) == (signum, None)
            send(signum)

    def test_a_second_one_ends_at_once(self, signum):
        code = (
            "import os, sys\nfrom espo_gym.experiments.stopping import StopSignals\n"
            "with StopSignals() as signals, signals.deferred():\n"
            "    for _ in range(2): os.kill(os.getpid(), int(sys.argv[1]))\n"
            "    print('not reached')"
        )
        command = [sys.executable, "-c", code, str(int(signum))]
        done = subprocess.run(command, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
        assert (done.returncode, done.stdout) == (-signum, "")


def test_a_command_says_how_to_continue_also_before_and_after_its_run(capsys):
    with pytest.raises(Stopped), stoppable(lambda: "Go on."):
        send(signal.SIGHUP)
    assert capsys.readouterr().err == "\nStopped by SIGHUP. Go on.\n"


def test_a_worker_gets_the_same_signal_twice():
    """From the batch system and from its parent; and a run within it goes by that."""
    with StopSignals(worker=True) as idle:
        for _ in range(2):
            send(signal.SIGTERM)
        assert idle.received == signal.SIGTERM
        with pytest.raises(Stopped), StopSignals() as signals, signals.deferred():
            for _ in range(2):
                send(signal.SIGTERM)
        with pytest.raises(Stopped), StopSignals():
            send(signal.SIGTERM)


def test_other_threads_get_no_signals():
    def enter():
        with StopSignals():
            entered.append(True)

    entered: list[bool] = []
    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert entered and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_it_comes_back_from_a_worker_process():
    assert pickle.loads(pickle.dumps(Stopped(signal.SIGTERM))).signum == signal.SIGTERM


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "whole"
    run(out, config(save_every=10_000))
    return out


def test_the_rollout_under_way_is_saved_and_the_run_goes_on_from_it(whole, tmp_path):
    """Far from the next checkpoint that is due."""
    out = tmp_path / "run"

    def asked(where, _) -> bool:
        if where["self"].num_timesteps == 64:
            send(signal.SIGTERM)
        return True

    with pytest.raises(Stopped):
        run(out, config(save_every=10_000), callbacks=[ConvertCallback(asked)])
    assert read_progress(out)["time/timesteps"].tolist() == [32, 64]
    messages: list[str] = []
    train(config(save_every=10_000), out, resume=True, progress_bar=False, log=messages.append)
    assert messages[0] == "resuming at 64 of 96 timesteps"
    assert curves(out) == curves(whole) and same(weights(out), weights(whole))


@pytest.mark.parametrize("signum", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_on_the_command_line(tmp_path, signum):
    out = tmp_path / "run"
    options = "--timesteps 100000 --rollout-size 16 --eval-problems 2 --eval-k 0 --eval-every 0 --save-every 1000000"
    command = [sys.executable, "-m", "espo_gym.cli.main", "train", *options.split(), "--out", str(out)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + 120
        while not ((out / "progress.json").is_file() and "\n" in (out / "progress.json").read_text()):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(signum)
        _, errors = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 128 + signum, errors
    last = errors.strip().splitlines()[-1]
    name = signal.Signals(signum).name
    assert last == f"Stopped by {name}. To continue from the last checkpoint: espo-gym train --resume --out {out}"
    assert "Traceback" not in errors and not [path for path in out.iterdir() if path.name.startswith(".")]
    if signum == signal.SIGTERM:
        assert ESPO.load(out).num_timesteps == read_progress(out)["time/timesteps"][-1]
