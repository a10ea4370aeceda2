"""What environments return and must not: mixed groups, rewards that are none, observations that are no text."""

import math
import re
from functools import partial
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv, VectorWrapper
from tiny import SMALL, same_state, state, teaching_policy, tiny_policy

from espo_gym import collect as module
from espo_gym.algorithms import ESPO, GRPO
from espo_gym.algorithms.training_state import COUNTERS
from espo_gym.collect import collect
from espo_gym.envs import Addition, MathVectorEnv, Problem, TextEnv, UnicodeText
from espo_gym.sampling import Sampling

SHORT = Sampling(max_completion_tokens=4)
SETTINGS = {name: value for name, value in SMALL.items() if name != "rollout_size"}


# -- groups ----------------------------------------------------------------------------------------------------------


def mixed(*digits: int) -> SyncVectorEnv:
    return SyncVectorEnv([partial(TextEnv, "espo_gym/Addition-v0", digits=d) for d in digits])


def test_training_on_a_group_of_two_problems_is_refused():
    algo = GRPO(tiny_policy(), mixed(*[1, 2] * 8), **SETTINGS)
    before = state(algo.policy)
    with pytest.raises(ValueError, match=r"episodes 0 and 1 .* are one group.*'\d\+\d=' in one and '\d\d\+\d\d='"):
        algo.learn(16)
    assert same_state(state(algo.policy), before) and not any(getattr(algo, name) for name in COUNTERS)


@pytest.mark.parametrize(
    ("digits", "first", "other"),
    [((1, 2), 0, 1), ((1, 1, 2), 0, 2), ((1, 1, 1, 1, 2), 4, 5), ((1, 1, 1, 1, 1, 2, 1, 1), 4, 5)],
)
def test_a_group_is_checked_whatever_the_number_of_rows(digits, first, other):
    """With 5 rows the two episodes begin in different resets."""
    with pytest.raises(ValueError, match=rf"episodes {first} and {other} of the rollout.*group_size=1"):
        collect(mixed(*digits), tiny_policy(), [0] * 4 + [7] * 4, range(8), SHORT)


class Drifting(Addition):
    """Asks another problem every time, whatever the seed."""

    asked = 0

    def problem(self, split, seed):
        self.asked += 1
        return Problem(prompt=f"{self.asked}=", answer="", key=str(self.asked))

    def problems(self, split, seeds):
        return [self.problem(split, seed) for seed in seeds]


def test_a_group_that_spans_two_resets_is_checked():
    env = MathVectorEnv(Drifting(), num_envs=4)
    assert module._overlaps(env)
    with pytest.raises(ValueError, match=r"episodes 0 and 4 .*reset\(seed=3\) asked '1=' in one and '2=' in the other"):
        collect(env, tiny_policy(), [3] * 8, range(8), SHORT)


def test_rows_of_several_environments_make_groups_where_each_has_one():
    blocks = GRPO(tiny_policy(), mixed(*[1] * 4, *[2] * 4), **SETTINGS)
    alone = GRPO(tiny_policy(), mixed(*[1, 2] * 4), **(SETTINGS | {"group_size": 1}))
    for algo in (blocks, alone):
        assert sorted(map(len, algo.collect_rollout().prompts)) == [4] * 4 + [6] * 4


# -- rewards ---------------------------------------------------------------------------------------------------------


class Paying(VectorWrapper):
    """Pays ``reward`` in one row and 0 in the others."""

    def __init__(self, env: VectorEnv, reward: Any, row: int = 5) -> None:
        super().__init__(env)
        self.reward, self.row = reward, row

    def step(self, actions):
        observations, rewards, *rest = self.env.step(actions)
        paid: list[Any] = [0.0] * len(rewards)
        paid[self.row] = self.reward
        return observations, paid, *rest


def paying(reward: Any, cls: Any = GRPO, **settings: Any) -> Any:
    env = Paying(MathVectorEnv("espo_gym/Addition-v0", num_envs=8), reward)
    return cls(teaching_policy(), env, **(SETTINGS | {"max_completion_tokens": 60} | settings))


@pytest.mark.parametrize("cls", [GRPO, ESPO])
@pytest.mark.parametrize(
    ("reward", "error", "words"),
    [
        (math.nan, ValueError, r"the reward nan for .*\(Gymnasium makes nan of None, too\); it must be finite"),
        (np.float64("inf"), ValueError, r"the reward inf for .*must be finite"),
        (-math.inf, ValueError, r"the reward -inf for"),
        (1e300, ValueError, r"the reward 1e\+300 for .*at most 1e\+16"),
        (-3e38, ValueError, r"the reward -3e\+38 for"),  # finite in float32, unlike its square
        (None, TypeError, "the reward None for .*must be one number"),
        ("1", TypeError, "the reward '1' for"),
        (np.array([1.0, 2.0]), TypeError, r"the reward array\(\[1., 2.\]\) for"),
        (1j, TypeError, "the reward 1j for"),
    ],
    ids=repr,
)
def test_a_reward_that_is_none_stops_before_any_loss(cls, reward, error, words):
    algo = paying(reward, cls).learn(0)
    before = state(algo.policy)
    with pytest.raises(error, match=rf"the environment returned {words}") as caught:
        algo.learn(8)
    assert re.search(r"for '\d+\+\d+=' \(row 5\)", str(caught.value)) and "step method" in str(caught.value)
    assert same_state(state(algo.policy), before) and not algo.optimizer.state
    assert not any(getattr(algo, name) for name in COUNTERS)


@pytest.mark.parametrize("reward", [2, np.float32(2), np.int64(2), np.array(2.0), torch.tensor(2.0)], ids=repr)
def test_every_kind_of_number_is_a_reward(reward):
    assert paying(reward).learn(8).rollout.rewards.tolist() == [0] * 5 + [2] + [0] * 2


@pytest.mark.parametrize("size", [1e15, 1e16])
def test_the_largest_rewards_can_still_be_learned_from(size):
    for cls in (GRPO, ESPO):
        algo = paying(size, cls).learn(8)
        assert all(p.isfinite().all() for p in algo.policy.parameters()) and algo.n_updates == 2


def test_what_gymnasiums_vector_environments_make_of_none_is_caught_too():
    class NoReward(Scripted):
        reward: Any = None

    with pytest.raises(ValueError, match=r"the reward nan for 'ask' \(row 0\) \(Gymnasium makes nan of None, too\)"):
        GRPO(never_cut_off(), NoReward(), **SMALL).learn(8)


# -- observations ----------------------------------------------------------------------------------------------------


class Scripted(gymnasium.Env):
    """An episode of two turns, with observations as given."""

    observation_space, action_space = UnicodeText(100), UnicodeText(1000)
    reward = 1.0

    def __init__(self, first: Any = "ask", second: Any = "again", last: Any = "") -> None:
        self.first, self.second, self.last = first, second, last

    def reset(self, *, seed=None, options=None):
        self.turn = 0
        return self.first, {}

    def step(self, action):
        self.turn += 1
        return (self.second, self.last)[self.turn - 1], self.reward, self.turn == 2, False, {}


@pytest.mark.parametrize("mode", list(AutoresetMode))
@pytest.mark.parametrize("which", ["first", "second", "last"])
@pytest.mark.parametrize("observation", [7, None])
def test_an_observation_that_is_no_text_is_named(mode, which, observation):
    env = SyncVectorEnv([lambda: Scripted(**{which: observation})] * 4, autoreset_mode=mode)
    when = r"after reset\(seed=2\)" if which == "first" else "in the episode of 'ask'"
    with pytest.raises(TypeError, match=rf"returned the observation {observation!r} {when} \(row 0\).*must be a str"):
        collect(env, never_cut_off(), [2] * 4, range(4), Sampling(max_completion_tokens=60))


def never_cut_off() -> Any:
    """A policy that can read the words of ``Scripted`` and ends its turns at once."""
    policy: Any = tiny_policy("gpt2", tokenizer="byte", context=256)
    end = torch.tensor([policy.tokenizer.eos_token_id])
    head = policy.model.get_output_embeddings()
    head.register_forward_hook(lambda module, args, out: out.index_fill(-1, end, 1e4))
    return policy


# -- clocks ----------------------------------------------------------------------------------------------------------


def test_a_clock_that_stands_still_is_no_error(monkeypatch):
    monkeypatch.setattr(module, "perf_counter", lambda: 3.0)
    algo = GRPO(tiny_policy(), "espo_gym/Addition-v0", **SMALL)
    algo.collect_rollout()
    metrics = algo.logger.name_to_value
    assert metrics["time/generate"] == 0 and math.isnan(metrics["time/tokens_per_second"])
