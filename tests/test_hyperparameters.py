"""Every hyperparameter of every algorithm changes what happens, or is refused: none is there for show."""

import contextlib
import functools
import io
from dataclasses import replace
from typing import Any

import pytest
import torch

from espo_gym.algorithms import ALGORITHMS
from espo_gym.envs import Problem, Task, TextEnv, Verdict
from espo_gym.testing import tiny_policy
from espo_gym.testing.training import learn

RUN: dict[str, Any] = {
    "preset": "paper",
    "rollout_size": 12,
    "group_size": 4,
    "n_minibatches": 2,
    "max_completion_tokens": 4,
    "learning_rate": 3e-2,
    "warmup_steps": 2,
    "seed": 3,
}
TWO_ROLLOUTS = ("kl_target", "kl_horizon", "stop", "clip_low", "quantiles_over", "value_clip")
"""What shows in the second rollout at the latest; all others show in the first."""
KL = {"kl_coef": 0.5}
PAIRS = {"group_size": 2}  # whose rewards are often equal

# What to compare with the default: a value, or settings without which the hyperparameter has no effect, and a value.
OTHER = {
    "preset": "teaching",
    "kl_coef": 0.5,
    "kl_estimator": (KL, "k1"),
    "kl_in": (KL, "reward"),
    "dual_clip": 1.01,
    "entropy_coef": 0.1,
    "sampler_correction": "sequence",
    "sampler_cap": ({"sampler_correction": "token"}, 1.05),
    "group_size": 6,
    "rollout_size": 16,
    "n_epochs": 2,
    "n_minibatches": 3,
    "micro_batch_tokens": 5,
    "activation_checkpointing": True,
    "learning_rate": 1e-2,
    "warmup_steps": 5,
    "adam_beta1": 0.5,
    "adam_beta2": 0.9,
    "adam_eps": 1e-3,
    "weight_decay": 0.5,
    "max_grad_norm": 1e-3,
    "temperature": 0.7,
    "top_p": 0.6,
    "top_k": 2,
    "max_completion_tokens": 2,
    "truncated_reward": ({"max_completion_tokens": 2}, -1.0),
    "stop": ("a",),
    "old_logps": "recomputed",
    "dynamic_sampling": (PAIRS, True),
    "max_resamples": (PAIRS | {"dynamic_sampling": True}, 0),
    "target_kl": 1e-6,
    "kl_target": (KL, 1e-4),
    "kl_horizon": (KL | {"kl_target": 1e-4}, 10),
    "reference_kl": True,
    "max_no_verdict": 0.0,
    "seed": 1,
    "verbose": 1,
    "clip_low": 0.01,
    "clip_high": 0.01,
    "alpha": 1.0,
    "alpha_high": 1.0,
    "eps_min": 0.3,
    "quantiles": (0.5,),
    "quantiles_over": "batch",
    "ratio": "group_token",
    "group_weighting": "tokens",
    "ratio_min": 0.99,
    "ratio_max": 1.01,
    "tau_pos": 5.0,
    "tau_neg": 5.0,
    "overlong_buffer": 3,
    "value_clip": 1e-4,
    "critic": "separate",
    "value_learning_rate": 1e-3,
    "vf_coef": 5.0,
    "gamma": 0.5,
    "lam": 0.5,
}
FIXED = {"clip_low": 0.2, "clip_high": 0.2}
OTHER_FOR = {
    ("espo", "clip_low"): (FIXED, 0.01),
    ("espo", "clip_high"): (FIXED, 0.01),
    ("gspo", "clip_low"): 0.5,
    ("gspo", "clip_high"): 0.5,
    ("dapo", "dynamic_sampling"): (PAIRS, False),
}
REFUSED = {
    *((name, "kl_in") for name in ALGORITHMS if name not in ("ppo", "rloo")),
    *((name, "dual_clip") for name in ("cispo", "gmpo", "sapo")),
    ("ppo", "dynamic_sampling"),
    ("ppo", "max_resamples"),
}
"""What has no effect for an algorithm, and is an error that says so."""


class Letters(Task):
    """A completion is right if it holds an a; where it ends with a question mark the verifier fails."""

    def problem(self, split, seed):
        prompt = ["?", "a?", "b?", "ab?"][seed % 4]
        return Problem(prompt=prompt, answer="a", key=prompt)

    def verify(self, completions, problems):
        return [
            Verdict("no_verdict", reason="crash")
            if said.endswith("?")
            else Verdict("correct" if "a" in said else "incorrect", said, said)
            for said in completions
        ]


def other_precision(generate, texts):
    """A sampler whose log-probs are not the trainer's, as in bfloat16 and in every engine of its own."""

    def biased(*args):
        completions = generate(*args)
        texts.append(completions.texts)
        return replace(completions, logps=completions.logps * 1.1)

    return biased


@functools.cache
def behavior(name: str, settings: tuple, rollouts: int = 1) -> dict[str, object]:
    """What can be seen of a run of algorithm ``name``: text, metrics, weights, calls of the model, words, errors."""
    policy: Any = tiny_policy(seed=3)  # two of its methods are replaced
    seen: dict[str, Any] = {"texts": [], "calls": []}
    policy.generate = other_precision(policy.generate, seen["texts"])
    logps = policy.logps

    def counted(rollout, **kwargs):
        seen["calls"].append(len(rollout))
        return logps(rollout, **kwargs)

    policy.logps = counted
    algo = ALGORITHMS[name](policy, TextEnv(Letters()), **(RUN | dict(settings)))
    with contextlib.redirect_stdout(io.StringIO()) as words:
        if algo.verbose:
            algo.learn(1)
        try:
            rows = [row for _ in range(rollouts) for row in learn(algo, 1)]
        except RuntimeError as error:
            rows, seen["error"] = [], str(error)
    counts = ("time/timesteps", "time/rollouts")
    kept = [{k: repr(v) for k, v in row.items() if k in counts or not k.startswith("time/")} for row in rows]
    seen["metrics"] = kept
    seen["weights"] = torch.cat([p.detach().flatten() for p in algo.policy.model.parameters()]).tolist()
    seen["critic"] = [p.detach().tolist() for p in algo.policy.parameters()] if algo.needs_values else None
    seen["words"] = bool(words.getvalue())
    return seen


def walk() -> list[tuple[str, str]]:
    return [(name, h) for name, cls in ALGORITHMS.items() for h in cls.hyperparameters()]


def case(name: str, hyperparameter: str) -> tuple[dict, dict]:
    """Settings with the default of ``hyperparameter``, and the same with another value."""
    other = OTHER_FOR.get((name, hyperparameter), OTHER[hyperparameter])
    context, value = other if isinstance(other, tuple) and isinstance(other[0], dict) else ({}, other)
    return context, context | {hyperparameter: value}


@pytest.mark.parametrize(("name", "hyperparameter"), walk())
def test_every_hyperparameter_changes_behavior_or_is_refused(name, hyperparameter):
    assert hyperparameter in OTHER, f"say in OTHER what to compare the default of {hyperparameter} with"
    before, after = case(name, hyperparameter)
    rollouts = 2 if hyperparameter in TWO_ROLLOUTS else 1
    if (name, hyperparameter) in REFUSED:
        with pytest.raises(ValueError, match=f"has no effect for {ALGORITHMS[name].__name__}"):
            behavior(name, tuple(after.items()))
        return
    if hyperparameter == "activation_checkpointing":  # it must change nothing; tests/test_scoring.py sees what it does
        assert behavior(name, tuple(before.items())) == behavior(name, tuple(after.items()))
        return
    one, two = (behavior(name, tuple(settings.items()), rollouts) for settings in (before, after))
    differs = [key for key in one if one[key] != two[key]] + ["error"] * ("error" in two)
    assert differs, f"{hyperparameter}={after[hyperparameter]!r} changes nothing in {name}"
    unseen = ("micro_batch_tokens", "verbose", "reference_kl", "max_no_verdict")
    if hyperparameter not in unseen:
        assert set(differs) & {"weights", "critic", "texts"}, f"{hyperparameter} changes no more than {differs}"


def test_the_same_settings_are_the_same_run():
    for name in ("espo", "ppo"):
        assert behavior.__wrapped__(name, ()) == behavior.__wrapped__(name, ())


def test_the_table_has_no_entry_too_many():
    assert set(OTHER) == {h for _, h in walk()}
    assert set(OTHER_FOR) | REFUSED <= set(walk())


def test_the_compared_values_are_no_defaults():
    for name, hyperparameter in walk():
        before, after = case(name, hyperparameter)
        default = before.get(hyperparameter, (ALGORITHMS[name].hyperparameters() | RUN)[hyperparameter])
        assert after[hyperparameter] != default, (name, hyperparameter)
