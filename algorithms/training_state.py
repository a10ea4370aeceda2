"""What an algorithm trains with: policy, environment, hyperparameters of training, optimizer, counters.

:mod:`.collector` and :mod:`.learner` read it and return values; :class:`~.base.PolicyOptimizer` puts them together.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from gymnasium.vector import VectorEnv
from torch import Tensor

from espo_gym.environment import Environment, as_vector_env
from espo_gym.rollout import Rollout
from espo_gym.sampling import Sampling

from .hyperparameters import Argument
from .loss import LossBatch, Objective

# A loss inside another trainer's worker needs torch alone, so whatever loads transformers is imported where it is used.
if TYPE_CHECKING:
    from espo_gym.policy import Policy, TokenScores

COUNTERS = ("num_timesteps", "n_rollouts", "n_updates", "n_predictions")
CLOCKS = ("cpu_seconds", "wall_seconds")


class PolicyArgument(Argument["Policy | str | Path", "Policy"]):
    """A policy, or the name of one; held as a :class:`Policy`."""


class EnvArgument(Argument[Environment, "VectorEnv[Any, Any, Any]"]):
    """Anything that :func:`as_vector_env` takes; held as a vector environment."""


@dataclass(kw_only=True, eq=False)
class TrainingState(Objective):
    """An objective with everything that training it needs."""

    policy: PolicyArgument = field(default=PolicyArgument(), kw_only=False, repr=False)
    """A :class:`Policy` once constructed; may be given as a name that :meth:`Policy.from_pretrained` takes."""
    env: EnvArgument = field(default=EnvArgument(), kw_only=False, repr=False)
    """The vector environment that episodes are played in; may be given as an id or a single environment."""

    group_size: int = 8
    """Completions per problem."""
    rollout_size: int = 1024
    """Completions per rollout, a multiple of the group size."""
    n_epochs: int = 1
    """Passes over each rollout."""
    n_minibatches: int = 4
    """Optimizer steps per pass. With one step in all, every ratio is 1 and no clip ever acts."""
    micro_batch_tokens: int | None = None
    """Completion tokens, padding included, per forward and backward pass (none: 512 on a CPU, 16,384 on a GPU). A
    longer completion gets a separate pass. Changes memory and speed, not the gradient."""
    activation_checkpointing: bool = False
    """Compute activations again in the backward pass instead of keeping them: less memory, a third more work."""
    learning_rate: float = 1e-6
    """Step size of AdamW after the warm-up."""
    warmup_steps: int = 10
    """Optimizer steps over which the learning rate rises to its value."""
    adam_beta1: float = 0.9
    """Decay of AdamW's mean of gradients."""
    adam_beta2: float = 0.999
    """Decay of AdamW's mean of squared gradients."""
    adam_eps: float = 1e-8
    """AdamW's epsilon. Far larger values are known to destroy runs."""
    weight_decay: float = 0.0
    """AdamW's weight decay."""
    max_grad_norm: float = 1.0
    """The gradient is scaled down to this L2 norm."""
    temperature: float = 1.0
    """Temperature of sampling, and of every log-prob."""
    top_p: float = 1.0
    """Sample among the fewest tokens whose probabilities add up to this much (1 = all)."""
    top_k: int = 0
    """Sample among this many most likely tokens (0 = all)."""
    max_completion_tokens: int = 16_384
    """Tokens per completion; the model's context may allow fewer."""
    truncated_reward: float | None = None
    """What a completion that was cut off earns (none: what the environment pays for an empty answer)."""
    stop: tuple[str, ...] = ()
    """Strings that end a completion."""
    old_logps: str = "auto"
    """Where pi_old's log-probs come from: "sampled" (the sampler), "recomputed" (the training forward pass), "auto"
    (sampled in float32; recomputed with vLLM and below float32, where the two differ by more than clips are wide)."""
    dynamic_sampling: bool = False
    """Replace groups whose rewards are all equal by fresh ones, in up to max_resamples further rollouts."""
    max_resamples: int = 4
    """Further rollouts that dynamic sampling may draw before it settles for the groups it has."""
    target_kl: float | None = None
    """End the steps on a rollout once KL(old || new) of a minibatch (k3, nats a token) is above 1.5 times this."""
    kl_target: float | None = None
    """Adapt kl_coef after each rollout so that the divergence from the reference (k3, nats a token) comes to this."""
    kl_horizon: int = 10_000
    """Completions over which kl_coef may change by a fifth, when it is adapted (arXiv:1909.08593, Section 2.2)."""
    reference_kl: bool = False
    """Keep a frozen copy of the policy as it starts and measure the divergence from it (kl_coef > 0 does so too)."""
    max_no_verdict: float = 0.5
    """Training stops with an error when the verifier fails on more than this share of a rollout."""
    seed: int = 0
    """Of problems, sampling and shuffling."""
    verbose: int = 0
    """1: print the metrics of each rollout."""

    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "paper": {},
        "teaching": {
            "learning_rate": 1e-4,
            "rollout_size": 256,
            "n_minibatches": 8,
            "adam_beta2": 0.95,
            "max_completion_tokens": 48,
        },
    }
    needs_values: ClassVar[bool] = False
    """The algorithm wants the predictions of a value head."""

    def __post_init__(self) -> None:
        from espo_gym.policy import Policy

        policy: Policy | str | Path = vars(self)["policy"]
        env: Environment = vars(self)["env"]
        if isinstance(env, VectorEnv):
            if "rollout_size" in self._explicit and self.rollout_size != env.num_envs:
                raise ValueError(
                    f"rollout_size={self.rollout_size} conflicts with num_envs={env.num_envs}: omit rollout_size, "
                    "it is taken from the vector environment"
                )
            self.rollout_size, self._explicit = env.num_envs, self._explicit | {"rollout_size"}
        self.policy = policy if isinstance(policy, Policy) else Policy.from_pretrained(policy)
        self.apply_preset(self.policy.recommended_preset)
        if self.old_logps == "sampled" and not self.policy.captures.entropies:
            raise ValueError(
                f"old_logps='sampled' cannot be used with sampler={self.policy.sampler!r}, which returns no entropies "
                "and whose log-probs are not those of the training forward pass. Leave old_logps at 'auto', which "
                "recomputes both"
            )
        self.prepare_policy()
        self.set_env(env)
        self.reference = self.policy.frozen_copy() if self.reference_kl or self.kl_coef else None
        """The frozen policy that the divergence is measured from, if there is one."""
        self.optimizer = torch.optim.AdamW(
            self.parameter_groups(),
            betas=(self.adam_beta1, self.adam_beta2),
            eps=self.adam_eps,
            weight_decay=self.weight_decay,
            fused=self.policy.shortcuts,
        )
        for group in self.optimizer.param_groups:
            group["initial_lr"] = group["lr"]  # where the warm-up ends
        self.num_timesteps = 0
        """Completions trained on."""
        self.n_rollouts = 0
        """Rollouts trained on."""
        self.n_updates = 0
        """Optimizer steps taken."""
        self.n_predictions = 0
        """Calls of ``predict`` that drew random numbers."""
        self.cpu_seconds = 0.0
        """CPU time of this process for training alone so far, without evaluations, checkpoints and other callbacks."""
        self.wall_seconds = 0.0
        """The same in wall-clock time."""
        self.max_timesteps: int | None = None
        """Dynamic sampling draws no further rollout that would take ``num_timesteps`` above this; None: no limit."""

    def validate(self) -> None:
        super().validate()
        counts = ("group_size", "rollout_size", "n_epochs", "n_minibatches", "max_completion_tokens")
        self.check(counts, lambda x: isinstance(x, int) and x >= 1, "an integer of at least 1")
        self.check(
            ("micro_batch_tokens",), lambda x: x is None or (isinstance(x, int) and x >= 1), "at least 1 or None"
        )
        self.check(("seed", "warmup_steps"), lambda x: isinstance(x, int) and x >= 0, "an integer of at least 0")
        self.check(("learning_rate", "temperature"), lambda x: 0 < x < inf, "> 0 and finite")
        self.check(("max_grad_norm",), lambda x: x > 0, "> 0 (inf: the gradient is left alone)")
        self.check(("weight_decay", "adam_eps"), lambda x: 0 <= x < inf, ">= 0 and finite")
        self.check(("adam_beta1", "adam_beta2"), lambda x: 0 <= x < 1, "in [0, 1)")
        self.check(("max_resamples",), lambda x: isinstance(x, int) and x >= 0, "an integer of at least 0")
        self.check(("target_kl", "kl_target"), lambda x: x is None or 0 < x < inf, "> 0, or None")
        self.check(("kl_horizon",), lambda x: isinstance(x, int) and x >= 1, "an integer of at least 1")
        if self.sampler_correction is not None and self.old_logps == "sampled":
            raise ValueError(
                "sampler_correction has no effect with old_logps='sampled', where pi_old already is the sampler"
            )
        self.check(("truncated_reward",), lambda x: x is None or -inf < x < inf, "finite, or None")
        self.check(("max_no_verdict",), lambda x: 0 <= x <= 1, "in [0, 1]")
        choices = ("auto", "sampled", "recomputed")
        self.check(("old_logps",), lambda x: x in choices, "'auto', 'sampled' or 'recomputed'")
        if self.rollout_size % self.group_size:
            raise ValueError(
                f"a rollout of {self.rollout_size} completions cannot be split into groups of {self.group_size}: "
                "make rollout_size (or num_envs of the vector environment) a multiple of group_size"
            )
        if self.n_minibatches > self.rollout_size:
            raise ValueError(f"{self.n_minibatches} minibatches of a rollout of {self.rollout_size} completions")
        _ = self.sampling

    def prepare_policy(self) -> None:
        """Give the policy what this algorithm needs beyond its log-probs, a value head for example."""

    def parameter_groups(self) -> list[dict[str, Any]]:
        """What is optimized, in groups for AdamW: ``params`` and ``lr``. Gradients are clipped group by group."""
        return [{"params": list(self.policy.parameters()), "lr": self.learning_rate}]

    def set_env(self, env: Environment) -> None:
        """Continue in another environment.

        Raises:
            ValueError: a vector environment whose number of rows is not the rollout size.
        """
        vector = as_vector_env(env, self.rollout_size)
        if vector.num_envs != self.rollout_size:
            raise ValueError(
                f"the vector environment has {vector.num_envs} rows, the rollout size is {self.rollout_size}"
            )
        self.env = vector

    def loss_batch(self, rollout: Rollout, advantages: Tensor, scores: TokenScores | None = None) -> LossBatch:
        """``rollout`` as a loss sees it; without ``scores`` the new policy is the old one."""
        return LossBatch(
            logps=rollout.old_logps if scores is None else scores.logps,
            old_logps=rollout.old_logps,
            mask=rollout.mask,
            advantages=advantages,
            entropies=rollout.entropies,
            vocab_size=self.policy.vocab_size,
            token_groups=rollout.token_groups,
            ref_logps=rollout.ref_logps,
            has_verdict=rollout.has_verdict,
            new_entropies=None if scores is None else scores.entropies,
            sampler_logps=rollout.sampler_logps,
            values=None if scores is None else scores.values,
            old_values=rollout.values,
            returns=rollout.returns,
        )

    @property
    def sampling(self) -> Sampling:
        """How completions are drawn in training."""
        stop = self.stop if isinstance(self.stop, str) else tuple(self.stop)  # Sampling refuses a bare string
        return Sampling(self.temperature, self.top_p, self.top_k, self.max_completion_tokens, stop)

    @property
    def warmup(self) -> float:
        """What the learning rate is multiplied by at the next optimizer step."""
        return min(1.0, (self.n_updates + 1) / max(1, self.warmup_steps))

    @property
    def current_learning_rate(self) -> float:
        """The learning rate of the next optimizer step."""
        return self.learning_rate * self.warmup
