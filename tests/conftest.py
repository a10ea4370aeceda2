"""Fixtures that several test files need; tests/tiny.py makes what they are made of."""

import pytest
import torch
from tiny import teaching_policy, tiny_policy

from espo_gym.algorithms import ALGORITHMS, PolicyOptimizer
from espo_gym.policy import Policy

torch.set_num_threads(1)  # the models are so small that a second thread only waits


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
