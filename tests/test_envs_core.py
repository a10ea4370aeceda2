"""The contract of every environment: Gymnasium's own checker, seeds, groups, turns, rendering, errors."""

import gymnasium
import pytest
from gymnasium.utils.env_checker import check_env

import espo_gym  # noqa: F401

IDS = ["espo_gym/Addition-v0", "espo_gym/Countdown-v0"]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("id", IDS)
def test_gymnasium_has_nothing_to_say(id):
    check_env(gymnasium.make(id, render_mode="ansi").unwrapped)


@pytest.mark.parametrize("id", IDS)
def test_reference_answer_is_right(id):
    env = gymnasium.make_vec(id, num_envs=20)
    _, infos = env.reset(seed=0)
    _, rewards, terminated, truncated, _ = env.step([problem.answer for problem in infos["problem"]])
    assert rewards.tolist() == [1.0] * 20 and terminated.all() and not truncated.any()
