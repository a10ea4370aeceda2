"""Fixtures that several test files need; tests/tiny.py makes what they are made of.

Nothing here imports torch by itself: the tests of environments and of the verifier run without it.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from espo_gym.algorithms import PolicyOptimizer
    from espo_gym.policy import Policy

# A shell starts its background jobs with SIGINT ignored, which is inherited: tests that send it would wait forever.
signal.signal(signal.SIGINT, signal.default_int_handler)

# The models are so small that a second thread only waits; and a run with two threads is not that of one, bit for bit.
os.environ["OMP_NUM_THREADS"] = "1"  # for torch, if a test file imports it, and for the processes that tests start


def pytest_collection_finish(session: pytest.Session) -> None:
    """What only the test files that import torch need, once all of them are imported and before the first test runs."""
    if "torch" in sys.modules:
        import torch

        torch.set_num_threads(1)
    if "espo_gym.diagnostics" in sys.modules:  # the filter in pyproject.toml would import torch
        session.config.addinivalue_line("filterwarnings", "ignore::espo_gym.diagnostics.DiagnosticWarning")


@pytest.fixture
def no_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    """``espo-gym train`` draws no curves, which would take as long as the training of a test."""
    from espo_gym.reports import plot

    monkeypatch.setattr(plot, "plot_run", lambda run: run / "curves.png")


@pytest.fixture
def policy() -> Policy:
    from tiny import tiny_policy

    return tiny_policy()


@pytest.fixture
def teaching() -> Policy:
    from tiny import teaching_policy

    return teaching_policy()


@pytest.fixture(params=["espo", "grpo", "gspo", "ppo"])
def algorithm(request: pytest.FixtureRequest) -> type[PolicyOptimizer]:
    """Each of the four fundamental algorithms in turn."""
    from espo_gym.algorithms import ALGORITHMS

    return ALGORITHMS[request.param]
