"""Fixtures that several test files need; tests/tiny.py makes what they are made of."""

import os

import pytest
import torch
from tiny import teaching_policy, tiny_policy

from espo_gym.algorithms import ALGORITHMS, PolicyOptimizer
from espo_gym.policy import Policy

# The models are so small that a second thread only waits; and a run of two threads is not that of one, bit for bit.
os.environ["OMP_NUM_THREADS"] = "1"  # for the processes that tests start
torch.set_num_threads(1)


@pytest.fixture
def policy() -> Policy:
    return tiny_policy()


@pytest.fixture
def teaching() -> Policy:
    return teaching_policy()


@pytest.fixture(params=["espo", "grpo", "gspo", "ppo"])
def algorithm(request) -> type[PolicyOptimizer]:
    """Each of the four fundamental algorithms in turn."""
    return ALGORITHMS[request.param]
