"""Named warnings about runs that continue and learn nothing, each with what to do about it.

Such runs raise no error: the clip never acts, every group has equal rewards, the verifier returns the
same verdict for everything.
:class:`~espo_gym.callbacks.Diagnostics` looks at each rollout once it has been trained on, warns once per name, and
records ``diagnostics/NAME`` = 1 for as long as the condition holds. ``learn`` has it on. This module loads no torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import combinations
from math import log
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .rollout import Rollout


class DiagnosticWarning(UserWarning):
    """A run that looks as if it learns nothing, or not what it should. The message begins with the diagnosis's name."""


ACTIVE = ("train/gradient_token_share", "train/clip_fraction_low", "train/clip_fraction_high")
"""Metrics that add up to the share of tokens with a non-zero advantage."""
CUT_OFF = 0.9
"""Of a rollout's completions, the share that is almost all."""


@dataclass
class State:
    """What a diagnosis is made from."""

    metrics: dict[str, float]
    """Everything recorded of the latest rollout, keys as in the logs."""
    rollout: Rollout
    algorithm: Any
    history: dict[str, list[float]] = field(default_factory=lambda: {"accuracy": [], "entropy": []})
    """Accuracy and entropy of all rollouts so far, the latest last."""

    def get(self, name: str) -> float:
        """The metric ``name`` of the latest rollout; NaN if it was not recorded."""
        return self.metrics.get(name, math.nan)

    @property
    def active(self) -> float:
        """Share of tokens with a non-zero advantage."""
        return sum(map(self.get, ACTIVE))

    @property
    def clip_width(self) -> float:
        """Narrowest width of the algorithm's clip; infinite where it has none."""
        fixed = [getattr(self.algorithm, name, None) for name in ("clip_low", "clip_high")]
        widths = [float(width) for width in fixed if width is not None]
        if not widths and hasattr(self.algorithm, "alpha"):
            widths = [self.algorithm.alpha * self.get("rollout/entropy") / log(self.algorithm.policy.vocab_size)]
        return min(widths, default=math.inf)


def ratio_one(s: State) -> bool:
    """Every importance ratio is 1 up to rounding, though some tokens are active."""
    noise = 2 * s.get("train/logp_gap_token") + 1e-6  # what sampler and trainer differ by before any step
    return s.active > 0 and s.get("train/ratio_max") - 1 <= noise and 1 - s.get("train/ratio_min") <= noise


def no_advantage(s: State) -> bool:
    """Every advantage is 0."""
    return s.active == 0


def clip_inert(s: State) -> bool:
    """There is a clip and the policy moves, but no token was clipped."""
    return s.clip_width < math.inf and s.active > 0 and not ratio_one(s) and s.get("train/clip_fraction_active") == 0


def clip_excessive(s: State) -> bool:
    """More than half of the active tokens were clipped."""
    return s.get("train/clip_fraction_active") > 0.5


def verifier_constant(s: State) -> bool:
    """Every completion got the same verdict, though the answers differ."""
    rows = zip(s.rollout.verdicts, s.rollout.texts, s.rollout.truncated.tolist(), strict=True)
    judged = [(v, text) for v, text, truncated in rows if v.has_verdict and not truncated]
    return len({v.status for v, _ in judged}) == 1 and len({v.normalized or v.answer or text for v, text in judged}) > 1


def reward_inconsistent(s: State) -> bool:
    """Of two equal answers to one problem, more than a tenth of the pairs earned different rewards."""
    rewards, groups = s.rollout.rewards.tolist(), s.rollout.groups.tolist()
    answers: dict[tuple[int, str], list[float]] = {}
    for i, verdict in enumerate(s.rollout.verdicts):
        answer = verdict.normalized or verdict.answer
        if verdict.has_verdict and answer is not None:
            answers.setdefault((groups[i], answer), []).append(rewards[i])
    pairs = [a != b for same in answers.values() for a, b in combinations(same, 2)]
    return len(pairs) > 0 and sum(pairs) / len(pairs) > 0.1


def all_truncated(s: State) -> bool:
    """More than 90 % of the completions were cut off."""
    return s.get("rollout/truncated") > CUT_OFF


def truncation_pays(s: State) -> bool:
    """A completion that was cut off earned more than another to the same problem that came to its end."""
    cut, judged, groups = s.rollout.truncated, s.rollout.has_verdict, s.rollout.groups
    more = s.rollout.rewards[:, None] > s.rollout.rewards  # (N, N)
    pairs = (cut & judged)[:, None] & (~cut & judged) & (groups[:, None] == groups)
    return bool((more & pairs).any())


def no_end_token(s: State) -> bool:
    """No completion came to an end token, and there are no stop strings."""
    ends = s.rollout.completion_ids[s.rollout.mask]
    return not s.algorithm.stop and not any((ends == end).any() for end in s.algorithm.policy.eos_token_ids)


def entropy_collapse(s: State) -> bool:
    """Entropy is below a twentieth of what it was in the first rollouts, and the task is not solved."""
    entropies = s.history["entropy"]
    return len(entropies) > 3 and entropies[-1] < 0.05 * max(entropies[:3]) and s.history["accuracy"][-1] < 0.9


def sampler_gap(s: State) -> bool:
    """Sampler and trainer differ by as much as the clip is wide."""
    return s.rollout.sampler_logps is None and s.get("train/logp_gap_sequence") >= s.clip_width


def learning_rate_cliff(s: State) -> bool:
    """Reward fell to a tenth of its best, and almost no group has any variance left."""
    accuracy = s.history["accuracy"]
    return max(accuracy) >= 0.1 and accuracy[-1] <= 0.1 * max(accuracy) and s.get("rollout/zero_variance_groups") > 0.9


@dataclass(frozen=True)
class Diagnosis:
    """A condition, for how many rollouts in a row it must hold, and the warning."""

    name: str
    """Name of the warning, and of the metric ``diagnostics/NAME``."""
    holds: Callable[[State], bool]
    rollouts: int
    message: str


DIAGNOSES = (
    Diagnosis(
        "ratio_one",
        ratio_one,
        2,
        "every importance ratio is 1, so the clip is inert and most algorithms are the same. "
        "Take several steps per rollout: raise n_minibatches or n_epochs",
    ),
    Diagnosis(
        "no_advantage",
        no_advantage,
        3,
        "every advantage is 0, so nothing is learned. Either all answers to each problem are wrong (take an easier "
        "problem or a better starting policy) or all are right (take a harder one)",
    ),
    Diagnosis(
        "clip_inert",
        clip_inert,
        10,
        "the clip has cut no token for 10 rollouts, as if there were none. If it is meant to act, narrow it: between "
        "1 % and 20 % of the active tokens is usual",
    ),
    Diagnosis(
        "clip_excessive",
        clip_excessive,
        3,
        "the clip cuts more than half of the active tokens. Widen it or lower the learning rate; the widths of the "
        "papers belong to learning rates near 1e-6",
    ),
    Diagnosis(
        "verifier_constant",
        verifier_constant,
        3,
        "the verifier returned the same verdict for every completion though their answers differ. Unless the task is "
        "solved or far out of reach, look at the references and at the answers that were extracted (rollout.verdicts)",
    ),
    Diagnosis(
        "reward_inconsistent",
        reward_inconsistent,
        2,
        "equal answers to one problem earn different rewards, so the reward does not depend on the answer alone. Look "
        "at the environment's verifier",
    ),
    Diagnosis(
        "all_truncated",
        all_truncated,
        2,
        "more than 90 % of the completions were cut off, so they have no answer. Raise max_completion_tokens, or give "
        "stop strings",
    ),
    Diagnosis(
        "truncation_pays",
        truncation_pays,
        2,
        "completions that were cut off earn more than others to the same problem that came to their end, so the policy "
        "learns not to end. Set truncated_reward to the lowest reward that a finished completion can earn",
    ),
    Diagnosis(
        "no_end_token",
        no_end_token,
        2,
        "no completion came to an end token. Check tokenizer.eos_token against what the model was trained to end with, "
        "or give stop strings",
    ),
    Diagnosis(
        "entropy_collapse",
        entropy_collapse,
        2,
        "the policy's entropy is below a twentieth of what it was at the start and the task is not solved. Lower the "
        "learning rate, widen clip_high, or set entropy_coef",
    ),
    Diagnosis(
        "sampler_gap",
        sampler_gap,
        2,
        "the sampler's log-probs are as far from the trainer's as the clip is wide, so the clip acts on noise. Set "
        'old_logps="recomputed" or use a wider dtype',
    ),
    Diagnosis(
        "learning_rate_cliff",
        learning_rate_cliff,
        2,
        "the reward has fallen to almost 0 and hardly a group has any variance left: the policy will not come back. "
        "Go back to an earlier checkpoint and lower the learning rate",
    ),
)
