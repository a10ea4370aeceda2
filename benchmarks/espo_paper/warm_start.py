"""A policy of 14 to 49 million parameters made from scratch, warm-started on long worked solutions.

The problems are long sums, ``espo_gym/ChainArithmetic-v0`` with ``operators="+"``. A worked solution adds one number
after another, column by column, and takes several hundred tokens. The demonstrations have three styles that do not
depend on the problem: careful ones are right; hasty and careless ones drop carries and sometimes leap to a sum without
its columns, which is then often wrong. So most tokens are certain, and a few, where a style shows or a carry is due,
are not. At the first carry, dropping it is the likelier choice; once it has been kept, the careful style is. So the
policy can be right but mostly is not, and the most likely solution is wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from espo_gym.envs import Problem, scratchpad
from espo_gym.experiments.warm_start import demonstrations, make_model, make_tokenizer, save_policy, warm_start

ENV = "espo_gym/ChainArithmetic-v0"
STYLES = ((0.2, 0.0, 0.0), (0.4, 0.5, 0.1), (0.4, 0.8, 0.3))
"""Share of the demonstrations, probability of dropping a carry, probability of skipping the columns."""
WRONG_LEAP = 0.4
"""Probability that a leap lands at a wrong sum."""

SIZES: dict[str, dict[str, int]] = {
    "0.1m": {"hidden_size": 64, "layers": 2, "heads": 4, "intermediate_size": 192},
    "14m": {"hidden_size": 384, "layers": 8, "heads": 6, "intermediate_size": 1024},
    "26m": {"hidden_size": 512, "layers": 8, "heads": 8, "intermediate_size": 1408},
    "49m": {"hidden_size": 640, "layers": 10, "heads": 10, "intermediate_size": 1728},
}
"""Models by their number of parameters, which hardly depends on the alphabet of 22 characters."""


@dataclass(frozen=True)
class WarmStart:
    """What a policy is made from."""

    env_args: dict[str, Any]
    """Arguments of ENV; the operators must be ``"+"``."""
    size: str
    """One of SIZES."""
    context: int
    """Maximum number of tokens in prompt and solution."""
    steps: int
    """Batches of 64 demonstrations."""
    learning_rate: float = 1e-3
    seed: int = 0


def worked_sum(numbers: Sequence[int], rng: np.random.Generator, *, drop_carry: float, leap: float) -> str:
    """The sum of ``numbers``, one after another: ``8+7=15,5+6+1=12,3+4+1=8,825,5+1=6,...`` for 358, 467, 291.

    Each step is :func:`espo_gym.envs.scratchpad` with ``drop_carry`` or, with probability ``leap``, the sum without its
    columns, ``825+291=1116``, which is wrong by a power of ten with probability WRONG_LEAP. The next step continues
    from the wrong sum.
    """
    total, steps = numbers[0], []
    for number in numbers[1:]:
        if rng.random() < leap:
            power = 10 ** int(rng.integers(len(str(number))))
            wrong = (rng.random() < WRONG_LEAP) * power * (1 if rng.random() < 0.5 else -1)
            steps.append(f"{total}+{number}={max(0, total + number + wrong)}")
            total = int(steps[-1].rpartition("=")[2])
        else:
            steps.append(scratchpad(total, number, drop_carry=drop_carry, rng=rng))
            total = int(steps[-1].rpartition(",")[2])
    return ",".join(steps)


def add_in_some_style(problem: Problem, rng: np.random.Generator) -> str:
    """A worked sum in a random style."""
    _, drop_carry, leap = STYLES[rng.choice(len(STYLES), p=[share for share, _, _ in STYLES])]
    numbers = [int(number) for number in problem.prompt.rstrip("=").split("+")]
    return worked_sum(numbers, rng, drop_carry=drop_carry, leap=leap)


def ensure_policy(plan: WarmStart, folder: Path, log: Callable[[str], Any] = print) -> Path:
    """Make the policy if ``folder`` does not exist yet, on a GPU in bf16 if there is one; returns ``folder``."""
    if folder.is_dir():
        return folder
    device = "cuda" if torch.cuda.is_available() else "cpu"
    tokenizer = make_tokenizer(plan.context)
    # 0.06 suits the small one; it is scaled by the inverse square root of the width.
    spread = 0.06 * (64 / SIZES[plan.size]["hidden_size"]) ** 0.5
    model = make_model(plan.seed, context=plan.context, initializer_range=spread, **SIZES[plan.size])
    model.to(device)  # type: ignore[arg-type]  # transformers annotates it with its own class
    log(f"warm start of {model.num_parameters():,} parameters, {plan.steps:,} batches of demonstrations, on {device}")

    def batches() -> Iterator[Tensor]:  # one at a time: all of them together would fill gigabytes
        for step in range(plan.steps):
            seed = plan.seed * plan.steps + step
            yield demonstrations(tokenizer, 1, seed, ENV, add_in_some_style, **plan.env_args)[0]

    loss = warm_start(
        model,
        batches(),
        tokenizer.pad_token_id,
        steps=plan.steps,
        learning_rate=plan.learning_rate,
        autocast=torch.bfloat16 if device == "cuda" else None,
    )
    log(f"its last loss is {loss:.3f} nats per token")
    save_policy(folder, model, tokenizer)
    return folder
