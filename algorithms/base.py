"""What every policy optimizer shares: collect a rollout, take a few steps on it, and the interface around them.

The interface is Stable-Baselines3's (``learn``, ``predict``, ``save``, ``load``, ``get_env``, ``set_logger``, ...), so
its logger and its callbacks work unchanged. One timestep is one completion.
"""

from __future__ import annotations

import inspect
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from math import inf
from pathlib import Path
from time import perf_counter
from typing import Any, ClassVar, cast

import numpy as np
import torch
from gymnasium.vector import VectorEnv
from stable_baselines3.common.callbacks import BaseCallback, CallbackList, ConvertCallback, ProgressBarCallback
from stable_baselines3.common.logger import HumanOutputFormat, Logger
from torch import Tensor
from typing_extensions import Self

from espo_gym import checkpoint
from espo_gym.collect import collect
from espo_gym.diagnostics import Diagnostics
from espo_gym.environment import Environment, as_vector_env, environment_spec, make_from_spec, task_of
from espo_gym.evaluation import Evaluation, evaluate
from espo_gym.live_table import LiveTable
from espo_gym.metrics import explained_variance, informative, logp_gap, rollout_metrics
from espo_gym.policy import Policy, TokenScores
from espo_gym.policy.sampling import Sampling
from espo_gym.rollout import Rollout

from .loss import LossBatch, LossOutput, Objective, update_metrics

# Random streams. Each is a pure function of (seed, stream, counters): nothing to save but the counters, and the same
# numbers whatever else has been drawn in between.
PROBLEMS, SAMPLES, SHUFFLE, PREDICT = range(4)

COUNTERS = ("num_timesteps", "n_rollouts", "n_updates", "n_predictions")

MaybeCallback = BaseCallback | Sequence[BaseCallback] | Callable[..., bool] | None


@dataclass(kw_only=True, eq=False)
class PolicyOptimizer(Objective):
    """Improves a policy on an environment of text.

    Args:
        policy: a :class:`Policy`, or a name that :meth:`Policy.from_pretrained` takes.
        env: the id of an environment, a Gymnasium environment, or a vector environment (whose number of rows is then
            the rollout size).

    Everything else is a keyword. ``preset`` chooses the defaults; what is given by keyword wins over it.
    """

    policy: Any = field(kw_only=False, repr=False)
    """A :class:`Policy` once constructed, whatever it was made from."""
    env: Any = field(kw_only=False, repr=False)
    """The vector environment that episodes are played in, whatever it was made from."""

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
    longer completion is a pass of its own. Changes memory and speed, not the gradient."""
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
    """Tokens per completion; the model's context may allow fewer. A completion cut off earns 0."""
    stop: tuple[str, ...] = ()
    """Strings that end a completion."""
    old_logps: str = "auto"
    """Where pi_old's log-probs come from: "sampled" (the sampler), "recomputed" (the training forward pass), "auto"
    (sampled in float32; recomputed with vLLM and below float32, where the two differ by more than clips are wide)."""
    dynamic_sampling: bool = False
    """Replace groups whose rewards are all equal by fresh ones, in up to max_resamples further rollouts."""
    max_resamples: int = 4
    """Further rollouts that dynamic sampling may draw before it makes do with the groups it has."""
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
        if isinstance(self.env, VectorEnv):
            if "rollout_size" in self._explicit and self.rollout_size != self.env.num_envs:
                raise ValueError(
                    f"rollout_size is {self.rollout_size} but the vector environment has {self.env.num_envs} rows; "
                    "one of them is enough, and the rows are then the rollout size"
                )
            self.rollout_size, self._explicit = self.env.num_envs, self._explicit | {"rollout_size"}
        if not isinstance(self.policy, Policy):
            self.policy = Policy.from_pretrained(self.policy)
        self.apply_preset(self.policy.recommended_preset)
        if self.policy.sampler == "vllm" and self.old_logps == "sampled":
            raise ValueError(
                "old_logps='sampled' does not go with sampler='vllm': the engine says no entropies, and its log-probs "
                "are not those of the training forward pass. Leave old_logps at 'auto', which recomputes both"
            )
        self.prepare_policy()
        self.set_env(self.env)
        self.reference = self.policy.frozen_copy() if self.reference_kl or self.kl_coef else None
        self.optimizer = torch.optim.AdamW(
            self.parameter_groups(),
            betas=(self.adam_beta1, self.adam_beta2),
            eps=self.adam_eps,
            weight_decay=self.weight_decay,
            fused=not self.policy.reference,
        )
        for group in self.optimizer.param_groups:
            group["initial_lr"] = group["lr"]  # where the warm-up ends
        self.diagnostics = Diagnostics()
        self.num_timesteps = 0  # completions trained on
        self.n_rollouts = 0  # rollouts trained on
        self.n_updates = 0  # optimizer steps taken
        self.n_predictions = 0  # calls of predict
        self.set_logger(Logger(None, [HumanOutputFormat(sys.stdout)] if self.verbose else []))

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
            raise ValueError("sampler_correction means nothing with old_logps='sampled': pi_old is then the sampler")
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

    # -- learning ----------------------------------------------------------------------------------------------------

    def learn(
        self,
        total_timesteps: int,
        callback: MaybeCallback = None,
        log_interval: int = 1,
        progress_bar: bool = False,
    ) -> Self:
        """Train on ``total_timesteps`` more completions, in whole rollouts.

        Args:
            callback: one or several of Stable-Baselines3's. ``on_step`` comes after each rollout has been trained on,
                so that a checkpoint taken there resumes exactly; returning False ends training.
            log_interval: write the metrics every so many rollouts.
            progress_bar: show Stable-Baselines3's.

        Raises:
            FloatingPointError: the loss or the gradient is not finite. The policy is as it was before that step.
            RuntimeError: the verifier failed on more than ``max_no_verdict`` of a rollout.
        """
        callback = CallbackList([self.diagnostics, _as_callback(callback, progress_bar)])
        callback.init_callback(cast(Any, self))  # duck-typed: not a BaseAlgorithm, but all that callbacks ask of one
        total_timesteps += self.num_timesteps
        try:
            callback.on_training_start(locals(), globals())
            while self.num_timesteps < total_timesteps:
                callback.on_rollout_start()
                rollout = self.collect_rollout()
                dones = np.ones(len(rollout), dtype=bool)  # for callbacks, which look into locals()
                callback.update_locals(locals())
                callback.on_rollout_end()
                self.train(rollout)
                self.num_timesteps += rollout.n_generated
                self.n_rollouts += 1
                going = callback.on_step()
                if self.n_rollouts % log_interval == 0:
                    self.dump_logs()
                if not going:
                    break
        except BaseException:
            _give_back_terminal(callback)
            raise
        callback.on_training_end()
        return self

    def collect_rollout(self) -> Rollout:
        """The next rollout. Its problems and its random numbers depend on the seed and the counters alone."""
        rollout = played = self._play(self.num_timesteps)
        if self.dynamic_sampling:
            kept = informative(played)
            while len(kept) < self.rollout_size and len(played) <= self.max_resamples * self.rollout_size:
                more = self._play(self.num_timesteps + len(played))
                played, kept = Rollout.concat([played, more]), Rollout.concat([kept, informative(more)])
            # Where no group is left, the groups as they are: their advantages are 0, and so is the gradient.
            rollout = kept if len(kept) else played
            rollout = rollout.rows(torch.arange(min(len(rollout), self.rollout_size), device=self.policy.device))
        rollout.n_generated = len(played)
        self._score(rollout)
        metrics = rollout_metrics(played)
        if rollout is not played and self.policy.sampler == "vllm":  # which captures none: of what is trained on, then
            metrics["entropy"] = rollout_metrics(rollout)["entropy"]
        self._record("rollout", metrics)
        self._record(
            "time",
            played.seconds
            | rollout.seconds
            | {"tokens_per_second": int(played.mask.sum()) / played.seconds["generate"]},
        )
        failed = 1 - float(played.has_verdict.float().mean())
        if failed > self.max_no_verdict:
            reasons = Counter(v.reason for v in played.verdicts if not v.has_verdict)
            raise RuntimeError(
                f"the verifier failed on {failed:.0%} of a rollout ({dict(reasons)}), more than max_no_verdict = "
                f"{self.max_no_verdict:.0%}: what is left would be learnt from a biased sample. Look at the references "
                "and at the deadline of the environment's verifier"
            )
        return rollout

    def _play(self, timestep: int) -> Rollout:
        """``rollout_size`` episodes, as they are drawn when ``timestep`` completions have been before."""
        first = int(self._stream(PROBLEMS).generate_state(1)[0]) + timestep // self.group_size
        problems = [first + i // self.group_size for i in range(self.rollout_size)]
        samples = self._stream(SAMPLES, timestep).generate_state(self.rollout_size, np.uint64).tolist()
        return collect(self.env, self.policy, problems, samples, self.sampling)

    @torch.no_grad()
    def _score(self, rollout: Rollout) -> None:
        """Fill in what the training forward pass says of ``rollout``, where the algorithm needs it."""
        began = perf_counter()
        differs = self.policy.compute_dtype != torch.float32 or self.policy.sampler == "vllm"
        differs = differs or self.sampler_correction is not None
        recompute = self.old_logps == "recomputed" or (self.old_logps == "auto" and differs)
        if self.needs_values and self.n_updates == 0 and rollout.has_verdict.any():
            # From 0 the critic would spend its first steps finding the mean reward.
            self.policy.value_head.bias.fill_(float(rollout.rewards[rollout.has_verdict].mean()))
        if recompute or self.needs_values:
            scores = self._scores(self.policy, rollout, entropies=recompute)
            rollout.values = scores.values if self.needs_values else None
            if recompute:
                self._record("train", logp_gap(rollout.old_logps, scores.logps, rollout.mask))
                rollout.sampler_logps = rollout.old_logps
                rollout.old_logps, rollout.entropies = scores.logps, cast(Tensor, scores.entropies)
        if self.reference is not None:
            rollout.ref_logps = self._scores(self.reference, rollout).logps
        rollout.seconds["score"] = perf_counter() - began

    def _scores(self, policy: Policy, rollout: Rollout, *, entropies: bool = False) -> TokenScores:
        """Of the whole of ``rollout``, a micro-batch at a time."""
        pieces = policy.micro_batches(
            rollout, tokens=self.micro_batch_tokens, temperature=self.temperature, entropies=entropies
        )
        return TokenScores.concat(list(pieces))

    def train(self, rollout: Rollout) -> None:
        """``n_epochs * n_minibatches`` optimizer steps on ``rollout``."""
        began = perf_counter()
        advantages = self.advantages(rollout)
        outputs: list[LossOutput] = []
        for rows in self._minibatches(len(rollout)):
            step = self._minibatch(rollout, advantages, rows)
            if step and not outputs and rollout.sampler_logps is None:  # the weights are still the sampler's
                seen = [out.batch for out in step]
                names = ("old_logps", "logps", "mask", "advantages")
                old, new, mask, credit = (torch.cat([getattr(b, name) for b in seen]) for name in names)
                self._record("train", logp_gap(old, new, mask & (credit != 0)))
            outputs += step
            if self.target_kl is not None and update_metrics(step).get("kl_k3", 0.0) > 1.5 * self.target_kl:
                break
        metrics = update_metrics(outputs)
        self._record("train", metrics)
        if self.kl_target is not None and "ref_kl_k3" in metrics:
            error = min(max(metrics["ref_kl_k3"] / self.kl_target - 1, -0.2), 0.2)
            self.kl_coef *= 1 + error * len(rollout) / self.kl_horizon
            self._record("train", {"kl_coef": self.kl_coef})
        if self.needs_values:
            mask = rollout.mask & rollout.has_verdict[:, None]
            values, returns = cast(Tensor, rollout.values), cast(Tensor, rollout.returns)
            self._record("train", {"explained_variance": explained_variance(values[mask], returns[mask])})
        self._record("train", {"learning_rate": self.current_learning_rate, "n_updates": self.n_updates})
        self._record("time", {"update": perf_counter() - began})

    def _minibatches(self, n: int) -> Iterator[Tensor]:
        """The rows of each minibatch, (B,) long, shuffled anew in each epoch."""
        for epoch in range(self.n_epochs):
            order = np.random.default_rng(self._stream(SHUFFLE, self.n_rollouts, epoch)).permutation(n)
            for rows in np.array_split(order, self.n_minibatches):
                yield torch.from_numpy(rows).to(self.policy.device)

    def _minibatch(self, rollout: Rollout, advantages: Tensor, rows: Tensor) -> list[LossOutput]:
        """One optimizer step. The gradients of the micro-batches add up to that of the minibatch."""
        minibatch, advantages = rollout.rows(rows), advantages[rows]
        weights = self.token_weights(self.loss_batch(minibatch, advantages))  # (B, T)
        if not weights.any():
            return []  # not one response with a verdict: nothing is known, so nothing is learnt
        live, idle = self._live(minibatch, advantages, weights)
        outputs = [] if idle is None else [idle]
        self._zero_grad()
        pieces = self.policy.micro_batches(
            minibatch.rows(live),
            tokens=self.micro_batch_tokens,
            temperature=self.temperature,
            entropies=self.entropy_coef > 0,
            checkpointing=self.activation_checkpointing,
        )
        for part, scores in pieces if len(live) else ():
            micro = live[part]
            out = self.loss(self.loss_batch(minibatch.rows(micro), advantages[micro], scores), weights[micro])
            self._check_finite("loss", out.loss)
            out.loss.backward()
            outputs.append(out.detach())
        groups = self.optimizer.param_groups
        norm, *others = (torch.nn.utils.clip_grad_norm_(group["params"], self.max_grad_norm) for group in groups)
        for value in (norm, *others):
            self._check_finite("gradient", value)
        for group in groups:
            group["lr"] = group["initial_lr"] * self.warmup
        self.optimizer.step()
        self.n_updates += 1
        self.logger.record_mean("train/grad_norm", float(norm))
        self.logger.record_mean("train/loss", sum(float(out.loss) for out in outputs))
        for name in outputs[0].terms:
            self.logger.record_mean(f"train/{name}", sum(out.terms[name] for out in outputs))
        return outputs

    def _live(self, minibatch: Rollout, advantages: Tensor, weights: Tensor) -> tuple[Tensor, LossOutput | None]:
        """The rows (B',) long of a minibatch that have a gradient, and the loss of those that count and have none.

        A response without a verdict weighs nothing. One with advantage 0 has no gradient either, unless something else
        is in the loss than a multiple of the advantage: then the loss itself, asked at other log-probs than the old
        ones, says so.
        """
        everything = torch.arange(len(minibatch), device=weights.device)
        if self.policy.reference:
            return everything, None
        counts = weights.any(1)  # (B,)
        flat = counts & (advantages.view(len(counts), -1) == 0).all(1)
        if not flat.any() or self.needs_values or self.entropy_coef or self.reference is not None:
            return everything[counts], None
        idle = self.loss_batch(minibatch.rows(everything[flat]), advantages[flat])
        with torch.enable_grad():
            idle.logps = (idle.logps - 0.01 * idle.mask).requires_grad_()
            out = self.loss(idle, weights[flat])
            slope = torch.autograd.grad(out.loss, idle.logps, allow_unused=True)[0] if out.loss.requires_grad else None
        if slope is not None and slope.any():
            return everything[counts], None
        return everything[counts & ~flat], out.detach()

    def _zero_grad(self) -> None:
        """Gradients of 0, not None: where no row of a minibatch has one, AdamW goes on by its momentum all the same."""
        for group in self.optimizer.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter.grad.zero_()
                elif parameter.requires_grad:
                    parameter.grad = torch.zeros_like(parameter)

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
        stop = self.stop if isinstance(self.stop, str) else tuple(self.stop)  # Sampling refuses a bare string
        return Sampling(self.temperature, self.top_p, self.top_k, self.max_completion_tokens, stop)

    @property
    def warmup(self) -> float:
        """What the learning rate is multiplied by at the next optimizer step."""
        return min(1.0, (self.n_updates + 1) / max(1, self.warmup_steps))

    @property
    def current_learning_rate(self) -> float:
        """Of the next optimizer step."""
        return self.learning_rate * self.warmup

    def prepare_policy(self) -> None:
        """Give the policy what this algorithm needs of it beyond its log-probs, a value head for example."""

    def parameter_groups(self) -> list[dict[str, Any]]:
        """What is optimized, in groups for AdamW: ``params`` and ``lr``. Gradients are clipped group by group."""
        return [{"params": list(self.policy.parameters()), "lr": self.learning_rate}]

    def _stream(self, *key: int) -> np.random.SeedSequence:
        return np.random.SeedSequence([self.seed, *key])

    def _check_finite(self, what: str, value: Tensor) -> None:
        if not torch.isfinite(value):
            self.optimizer.zero_grad()
            raise FloatingPointError(
                f"the {what} is {float(value.detach())} at update {self.n_updates} (timestep {self.num_timesteps}); "
                "no step was taken. Look at train/grad_norm, train/ratio_max and train/logp_gap_token of the rollouts "
                f"before: a learning rate too large (now {self.current_learning_rate:g}) or a dtype too narrow "
                f"(now {self.policy.compute_dtype}) are the usual causes. Earlier checkpoints are untouched"
            )

    # -- Stable-Baselines3's interface ---------------------------------------------------------------------------------

    def predict(
        self,
        observation: str | Sequence[str],
        state: Any = None,
        episode_start: Any = None,
        deterministic: bool = False,
    ) -> tuple[Any, Any]:
        """Completions of observations: ``(text, state)`` for one, ``(object array of texts, state)`` for several.

        ``deterministic`` takes the most likely tokens. ``state`` and ``episode_start`` are there for
        Stable-Baselines3's callers; there is no state.
        """
        observations = [observation] if isinstance(observation, str) else list(observation)
        sampling = replace(self.sampling, temperature=0.0) if deterministic else self.sampling
        seeds = self._stream(PREDICT, self.n_predictions).generate_state(len(observations), np.uint64).tolist()
        self.n_predictions += not deterministic
        system_prompt = getattr(task_of(self.env), "system_prompt", None)
        prompts = [self.policy.encode_prompt(text, system_prompt) for text in observations]
        texts = self.policy.generate(prompts, seeds, sampling).texts
        return (texts[0] if isinstance(observation, str) else np.array(texts, dtype=object)), state

    def evaluate(
        self,
        split: str | None = "test",
        *,
        k: int = 8,
        n_problems: int = 256,
        env: Environment | None = None,
        seed: int = 0,
        details: bool = False,
    ) -> Evaluation:
        """Greedy accuracy, avg@k, pass@k and maj@k on held-out problems; see :func:`espo_gym.evaluation.evaluate`.

        ``env`` is another environment to evaluate on. Training is not affected in any way.
        """
        where = self.env if env is None else as_vector_env(env, self.rollout_size)
        return evaluate(
            self.policy,
            where,
            split=split,
            n_problems=n_problems,
            k=k,
            sampling=self.sampling,
            seed=seed,
            details=details,
        )

    def get_env(self) -> VectorEnv:
        return self.env

    def set_env(self, env: Environment) -> None:
        """Go on in another environment.

        Raises:
            ValueError: a vector environment whose number of rows is not the rollout size.
        """
        env = as_vector_env(env, self.rollout_size)
        if env.num_envs != self.rollout_size:
            raise ValueError(f"the vector environment has {env.num_envs} rows, the rollout size is {self.rollout_size}")
        self.env = env

    def get_vec_normalize_env(self) -> None:
        """Observations are text, so there is nothing to normalize."""

    @property
    def logger(self) -> Logger:
        return self._logger

    def set_logger(self, logger: Logger) -> None:
        self._logger = logger

    def dump_logs(self) -> None:
        """Write what has been recorded since the last time."""
        self._record("time", {"timesteps": self.num_timesteps, "rollouts": self.n_rollouts})
        self.logger.dump(self.num_timesteps)

    def _record(self, section: str, metrics: dict[str, float]) -> None:
        for name, value in metrics.items():
            self.logger.record(f"{section}/{name}", value)

    # -- checkpoints -------------------------------------------------------------------------------------------------

    def save(self, path: str | Path) -> Path:
        """Write everything that training goes on from to one zip file, atomically; see :mod:`espo_gym.checkpoint`."""
        state = {
            "class": type(self).__name__,
            "hyperparameters": {name: getattr(self, name) for name in self.hyperparameters()},
            "env": environment_spec(self.env),
            "dtype": _name(self.policy.dtype),
            "autocast": _name(self.policy.autocast) if self.policy.autocast else None,
            "sampler": self.policy.sampler,
            "counters": {name: getattr(self, name) for name in COUNTERS},
            "diagnostics": self.diagnostics.state(),
        }
        policies = {"policy": self.policy} | ({"reference": self.reference} if self.reference else {})
        return checkpoint.write(path, state, self.optimizer, policies)

    @classmethod
    def load(
        cls, path: str | Path, env: Environment | None = None, *, device: str | None = None, **overrides: Any
    ) -> Self:
        """Read a checkpoint; ``learn`` then goes on as if it had never stopped.

        Args:
            env: needed where the environment was not made from an id.
            overrides: hyper-parameters to change.

        Raises:
            FileNotFoundError: no such file.
            ValueError: not a checkpoint, or another algorithm's, or ``env`` is needed.
        """
        with checkpoint.opened(path) as (state, moments, folder):
            if state["class"] != cls.__name__:
                raise ValueError(f"{path} is a checkpoint of {state['class']}; read it with {state['class']}.load")
            if env is None and state["env"] is None:
                raise ValueError(f"{path} was trained in an environment that has no id: give load(..., env=...)")
            hyperparameters = {n: tuple(v) if isinstance(v, list) else v for n, v in state["hyperparameters"].items()}
            where = env if env is not None else make_from_spec(state["env"], state["hyperparameters"]["rollout_size"])
            made: dict[str, Any] = {"dtype": getattr(torch, state["dtype"]), "device": device}
            made["autocast"] = getattr(torch, state["autocast"]) if state["autocast"] else None
            policy = Policy.from_pretrained(folder / "policy", sampler=state.get("sampler", "auto"), **made)
            algorithm = cls(policy, where, **(hyperparameters | overrides))
            if algorithm.reference is not None and (folder / "reference").is_dir():
                frozen = Policy.from_pretrained(folder / "reference", **made)
                algorithm.reference.load_state_dict(frozen.state_dict())
            settings = algorithm.optimizer.state_dict()["param_groups"]
            algorithm.optimizer.load_state_dict({"state": moments, "param_groups": settings})
        vars(algorithm).update(state["counters"])
        algorithm.diagnostics.restore(state["diagnostics"])
        return algorithm


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _as_callback(callback: MaybeCallback, progress_bar: bool) -> BaseCallback:
    if callback is None:
        callbacks: list[BaseCallback] = []
    elif isinstance(callback, BaseCallback):
        callbacks = [callback]
    elif callable(callback):
        callbacks = [ConvertCallback(callback)]
    else:
        callbacks = list(callback)
    return CallbackList([*callbacks, *([ProgressBarCallback()] if progress_bar else [])])


def _give_back_terminal(callback: BaseCallback) -> None:
    """Close the bar or the live table among ``callback``, or the message of an error would be drawn into it."""
    if isinstance(callback, CallbackList):
        for each in callback.callbacks:
            _give_back_terminal(each)
    elif isinstance(callback, LiveTable) or (isinstance(callback, ProgressBarCallback) and hasattr(callback, "pbar")):
        callback.on_training_end()


def loss_function(algorithm: type[PolicyOptimizer]) -> Callable[..., LossOutput]:
    """The loss of ``algorithm`` as a pure function of tensors: ``f(batch, **hyperparameters) -> LossOutput``.

    It is the class's own code without policy and environment: for another trainer, and for tests of parity.
    """
    levels = [c for c in algorithm.__mro__ if issubclass(c, Objective) and c is not PolicyOptimizer]
    names = {name for level in levels for name in inspect.get_annotations(level)}
    own = [f for f in fields(algorithm) if f.name in names and f.init]

    def loss(batch: LossBatch, **hyperparameters: Any) -> LossOutput:
        return algorithm.formula(**hyperparameters).loss(batch)

    keyword = inspect.Parameter.KEYWORD_ONLY
    loss.__name__ = loss.__qualname__ = f"{algorithm.__module__.rpartition('.')[2]}_loss"
    loss.__module__ = algorithm.__module__
    loss.__doc__ = (
        f"The loss of :class:`{algorithm.__name__}` on ``batch``.\n\n{sys.modules[algorithm.__module__].__doc__}"
    )
    vars(loss)["__signature__"] = inspect.Signature(
        [
            inspect.Parameter("batch", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=LossBatch),
            *(inspect.Parameter(f.name, keyword, default=f.default, annotation=f.type) for f in own),
        ],
        return_annotation=LossOutput,
    )
    return loss
