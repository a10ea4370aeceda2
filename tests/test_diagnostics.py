"""Each diagnosis on a run made to have it, and silence on a healthy one."""

import copy
import warnings
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.wrappers import TransformReward
from stable_baselines3.common.callbacks import BaseCallback
from tiny import random_rollout, tiny_policy

from espo_gym.algorithms import ESPO, GRPO, GSPO
from espo_gym.diagnostics import DIAGNOSES, DiagnosticWarning, State, truncation_pays
from espo_gym.envs import MathVectorEnv, ProceduralTask, TextEnv, Verdict
from espo_gym.envs.task import Problem


def head(algo: Any) -> torch.nn.Module:
    return algo.policy.model.get_output_embeddings()


SMALL = {"group_size": 4, "n_minibatches": 2, "max_completion_tokens": 8, "learning_rate": 1e-3, "seed": 1}


class Judge(ProceduralTask):
    """A task whose verifier is a function of completion and position in the batch."""

    template = "{a}+"

    def __init__(self, rule) -> None:
        super().__init__()
        self.rule = rule

    def sample(self, rng: np.random.Generator) -> Problem:
        a = int(rng.integers(10, 99))
        return Problem(prompt=f"{a}+", answer="1", key=str(a))

    def verify(self, completions, problems):
        return [
            Verdict("correct" if self.rule(text, i) else "incorrect", answer=text, normalized=text)
            for i, text in enumerate(completions)
        ]


def diagnosed(algorithm, rollouts, *callbacks) -> set[str]:
    """Names of the diagnoses that ``rollouts`` rollouts of training warn of."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        algorithm.learn(rollouts * algorithm.rollout_size, list(callbacks))
    names = [str(w.message).split(":")[0] for w in caught if issubclass(w.category, DiagnosticWarning)]
    assert len(names) == len(set(names)), "a diagnosis warned twice"
    return set(names)


def make(cls=GRPO, rule=lambda text, i: len(text) % 2 == 0, policy=None, **hyperparameters):
    env = MathVectorEnv(Judge(rule), num_envs=16)
    return cls(policy or tiny_policy(), env, **(SMALL | hyperparameters))


def test_one_step_per_rollout_leaves_every_ratio_at_one():
    assert "ratio_one" in diagnosed(make(n_minibatches=1), 2)
    assert "ratio_one" not in diagnosed(make(n_minibatches=2), 2)


def test_equal_rewards_leave_no_advantage_and_a_constant_verifier():
    assert {"no_advantage", "verifier_constant"} <= diagnosed(make(rule=lambda text, i: False), 3)
    assert "verifier_constant" in diagnosed(make(rule=lambda text, i: True), 3)


def test_a_clip_too_wide_never_acts_and_one_too_narrow_always():
    assert "clip_inert" in diagnosed(make(clip_low=0.99, clip_high=50.0, learning_rate=1e-5), 10)
    assert "clip_excessive" in diagnosed(make(GSPO, clip_low=0.0, clip_high=0.0, n_epochs=4, learning_rate=1e-2), 3)


def test_a_reward_drawn_by_lot_is_inconsistent():
    rng, policy = np.random.default_rng(0), tiny_policy()
    few = torch.full((policy.vocab_size,), -20.0).index_fill(0, torch.tensor([policy.tokenizer.eos_token_id, 5]), 0.0)
    policy.model.get_output_embeddings().register_forward_hook(lambda module, args, out: out + few)
    assert "reward_inconsistent" in diagnosed(make(rule=lambda text, i: rng.random() < 0.5, policy=policy), 3)


def test_completions_that_never_end_are_truncated_and_have_no_end_token():
    policy = tiny_policy()
    forbid_end(policy)
    assert {"all_truncated", "no_end_token"} <= diagnosed(make(policy=policy), 2)


class Charged(gymnasium.Wrapper):
    """Takes something from every completion that came to its end, as a penalty on the length of the answer does."""

    def step(self, action):
        observation, reward, *rest = self.env.step(action)
        return observation, float(reward) - 0.5 * bool(action), *rest


def test_a_penalty_on_finished_completions_alone_pays_for_never_ending():
    policy = tiny_policy()
    head = policy.model.get_output_embeddings()
    end = torch.zeros(policy.vocab_size).index_fill(0, torch.tensor([policy.tokenizer.eos_token_id]), 2.0)
    head.register_forward_hook(lambda module, args, out: out + end)

    def names(wrap, **hyperparameters):
        env = wrap(TextEnv(Judge(lambda text, i: len(text) > 3)))
        algo = GRPO(copy.deepcopy(policy), env, **(SMALL | {"rollout_size": 32} | hyperparameters))
        return diagnosed(algo, 2)

    assert "truncation_pays" in names(Charged)
    assert "truncation_pays" not in names(Charged, truncated_reward=-0.5)
    for plain in (lambda env: env, lambda env: TransformReward(env, lambda r: 2 * float(r) - 1)):
        assert "truncation_pays" not in names(plain)
        assert "truncation_pays" in names(plain, truncated_reward=0.5)


@pytest.mark.parametrize(("rewards", "pays"), [([0, 0, 0, -1], False), ([0, -1, 0, 0], True), ([-1, 0, 0, 0], False)])
def test_only_completions_of_one_problem_are_compared(rewards, pays):
    rollout = random_rollout(tiny_policy(), lengths=[2] * 4, group_size=2)
    rollout.rewards, rollout.truncated = torch.tensor(rewards), torch.tensor([True, False, False, False])
    assert truncation_pays(State({}, rollout, None)) == pays


def forbid_end(policy) -> None:
    """The end token's logit falls to the floor."""
    head = policy.model.get_output_embeddings()
    end = policy.tokenizer.eos_token_id
    head.register_forward_hook(lambda module, args, out: out.index_fill(-1, torch.tensor([end]), -1e4))


class Sharpen(BaseCallback):
    """Multiplies the logits by 100 after a few rollouts."""

    def _on_step(self) -> bool:
        if self.n_calls == 4:
            head(self.model).register_forward_hook(lambda module, args, out: out * 100)
        return True


def test_a_policy_that_stops_exploring_has_collapsed():
    wrong = make(rule=lambda text, i: i == 0, max_completion_tokens=8)
    assert "entropy_collapse" in diagnosed(wrong, 8, Sharpen())


def test_a_sampler_as_far_from_the_trainer_as_the_clip_is_wide():
    def off(module, args, out):  # the sampler asks for the logits of one position, the trainer for those of all
        return out * 1.05 if out.shape[1] == 1 else out

    for old_logps in ("sampled", "recomputed"):
        policy = tiny_policy()
        policy.model.get_output_embeddings().register_forward_hook(off)
        names = diagnosed(make(GSPO, policy=policy, old_logps=old_logps), 2)
        assert ("sampler_gap" in names) == (old_logps == "sampled")


class Ruin(BaseCallback):
    """What a far too large step does: the weights are noise from then on."""

    def _on_step(self) -> bool:
        if self.n_calls == 2:
            head(self.model).register_forward_hook(lambda module, args, out: out * 0)
        return True


def test_a_reward_that_falls_to_nothing_is_the_learning_rate_cliff():
    run = ESPO("espo_gym/teaching", "espo_gym/Addition-v0", rollout_size=64, learning_rate=1e-6)
    assert "learning_rate_cliff" in diagnosed(run, 5, Ruin())


def test_a_healthy_run_is_silent():
    for cls in (ESPO, GRPO):
        run = cls("espo_gym/teaching", "espo_gym/Addition-v0", rollout_size=64)
        assert diagnosed(run, 6) == set()


@pytest.mark.parametrize("diagnosis", DIAGNOSES, ids=lambda d: d.name)
def test_each_says_what_to_do(diagnosis):
    assert diagnosis.message.count(". ") + diagnosis.message.count("; ") >= 1 and len(diagnosis.message) > 60
