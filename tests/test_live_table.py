"""The live table: rows as they come, plain lines without a terminal, and a terminal that is left as it was."""

import io
import re
import warnings

import pytest
from rich.console import Console
from stable_baselines3.common.callbacks import ConvertCallback
from tiny import SMALL, tiny_policy

from espo_gym import GRPO, EvaluateCallback, LiveTable

HIDE, SHOW = "\x1b[?25l", "\x1b[?25h"


def terminal() -> Console:
    return Console(file=io.StringIO(), force_terminal=True, width=100, height=30, highlight=False)


def algorithm() -> GRPO:
    return GRPO(tiny_policy(), "espo_gym/Addition-v0", **SMALL)


def written(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def plain(console: Console) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", written(console))


def test_on_a_terminal_the_latest_rows_and_what_is_left():
    console = terminal()
    evaluate = EvaluateCallback(2, n_problems=4)
    algo = algorithm().learn(40, [evaluate, LiveTable(rows=3, console=console)])
    last = plain(console).rpartition("completions  ")[2].splitlines()
    assert last[0].split() == ["reward", "accuracy", "greedy", "entropy", "clip", "length", "tokens/s"]
    rows = [line.split() for line in last[1:4]]
    assert [row[0] for row in rows] == ["24", "32", "40"]
    assert [len(row) for row in rows] == [7, 8, 7], "greedy was evaluated in every second rollout"
    assert "40 of 40 completions, done in 0:0" in last[4]
    assert algo.num_timesteps == 40 and written(console).endswith(SHOW)


def test_without_a_terminal_a_line_for_each_part(capsys):
    algorithm().learn(80, LiveTable(lines=5))
    captured = capsys.readouterr()
    lines = captured.err.splitlines()
    assert [line.split()[1] for line in lines] == ["16,", "32,", "48,", "64,", "80,"] and captured.out == ""
    assert all(re.search(r"reward \d\.\d{3}, accuracy .*, tokens/s \d+, ", line) for line in lines)
    assert lines[0].endswith(" left") and "done in" in lines[-1]


def test_a_run_that_goes_on_counts_what_is_left_of_it():
    algo, console = algorithm().learn(16), terminal()
    algo.learn(16, LiveTable(console=console))
    assert "16 of 16 completions" in plain(console)


@pytest.mark.parametrize("error", [FloatingPointError("the loss is nan"), KeyboardInterrupt()], ids=["crash", "ctrl-c"])
def test_an_error_gives_the_terminal_back(error, capsys):
    import sys

    def fail(local, _):
        warnings.warn("a warning in between", stacklevel=1)
        if local["self"].n_rollouts == 2:
            raise error
        return True

    console = terminal()
    out, err = sys.stdout, sys.stderr
    with pytest.raises(type(error)), warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = lambda message, *_, **__: print(message, file=sys.stderr)
        algorithm().learn(80, [LiveTable(console=console), ConvertCallback(fail)])
    assert (sys.stdout, sys.stderr) == (out, err), "no longer redirected"
    text = written(console)
    assert text.rindex(SHOW) > text.rindex(HIDE), "the cursor is there again"
    assert text.count("a warning in between\n") == 2, "each on a line of its own"
