"""Policies made from scratch: a Llama, by default of 108,224 parameters, warm-started on demonstrations of a task.

Reinforcement learning needs a policy that is sometimes right. Each demonstrator below shows a method that can be right
and often is not, so that there is something left to learn. A policy is a function of its seed.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from espo_gym.envs import Problem, scratchpad
from espo_gym.envs.registration import make_task
from espo_gym.envs.tasks.countdown import combine_at_random
from espo_gym.policy import Policy

from .processes import one_thread

PAD, EOS = "_", "$"
ALPHABET = [PAD, EOS, *"0123456789", *"+-*/=,:>()"]
CONTEXT = 64
BATCH = 64
LEARNING_RATE = 3e-3
WARMUP = 50
DROP_CARRY = 0.6
WRONG = 0.9

Demonstrator = Callable[[Problem, np.random.Generator], str]
"""Writes the completion that follows the prompt of a problem."""


def add_columns(problem: Problem, rng: np.random.Generator) -> str:
    """Column-wise addition that drops 60 % of the carries."""
    assert problem.data is not None
    return scratchpad(problem.data["a"], problem.data["b"], drop_carry=DROP_CARRY, rng=rng)


def work_down_chain(problem: Problem, rng: np.random.Generator) -> str:
    """A chain of sums and differences from left to right, ``8-9=-1,-1+5=4``, without mistakes."""
    numbers = re.findall("[+-]?[0-9]+", problem.prompt)
    value, steps = int(numbers[0]), []
    for number in numbers[1:]:
        steps.append(f"{value}{number}={value + int(number)}")
        value += int(number)
    return ",".join(steps)


def combine_numbers(problem: Problem, rng: np.random.Generator) -> str:
    """An expression over the numbers of a Countdown problem: a random one in 90 % of cases, else a correct one."""
    assert problem.data is not None
    return combine_at_random(problem.data["numbers"], rng)[1] if rng.random() < WRONG else problem.answer


def make_tokenizer(context: int = CONTEXT) -> PreTrainedTokenizerFast:
    """One token per character; a character outside the alphabet is an error, not an unknown token."""
    tokenizer = Tokenizer(models.WordLevel({symbol: i for i, symbol in enumerate(ALPHABET)}, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=PAD, eos_token=EOS, model_max_length=context, padding_side="left"
    )


def make_model(
    seed: int,
    *,
    context: int = CONTEXT,
    hidden_size: int = 64,
    layers: int = 2,
    heads: int = 4,
    intermediate_size: int = 192,
    initializer_range: float = 0.06,
) -> LlamaForCausalLM:
    """A Llama with random weights, by default of the size of the bundled policy."""
    config = LlamaConfig(
        vocab_size=len(ALPHABET),
        hidden_size=hidden_size,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=intermediate_size,
        max_position_embeddings=context,
        tie_word_embeddings=True,
        initializer_range=initializer_range,
        bos_token_id=None,
        pad_token_id=ALPHABET.index(PAD),
        eos_token_id=ALPHABET.index(EOS),
        **cast(Any, {"espo_gym_preset": "teaching"}),
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return LlamaForCausalLM(config)


def demonstrations(
    tokenizer: PreTrainedTokenizerFast,
    steps: int,
    seed: int,
    env: str = "espo_gym/Addition-v0",
    demonstrator: Demonstrator = add_columns,
    **env_args: Any,
) -> Tensor:
    """(steps, BATCH, L) long: token ids of training problems with their demonstrations, padded on the right."""
    task, rng = make_task(env, **env_args), np.random.default_rng(seed)
    texts = []
    for i in range(steps * BATCH):
        problem = task.problem("train", seed * steps * BATCH + i)
        texts.append(problem.prompt + demonstrator(problem, rng))
    ids = [tokenizer.encode(text + EOS) for text in texts]
    width = max(map(len, ids))
    padded = [row + [tokenizer.pad_token_id] * (width - len(row)) for row in ids]
    return torch.tensor(padded).view(steps, BATCH, width)


def warm_start(
    model: LlamaForCausalLM,
    data: Iterable[Tensor],
    pad: int,
    *,
    steps: int | None = None,
    learning_rate: float = LEARNING_RATE,
    autocast: torch.dtype | None = None,
) -> float:
    """Next-token training on prompt and solution; returns the loss of the last batch, in nats per token.

    Args:
        data: batches (B, L) long, one per step, as a tensor or an iterator; they are moved to the model's device.
        pad: id of the padding token, which is left out of the loss.
        steps: how many batches there are (default: the length of ``data``).
        learning_rate: the highest, after WARMUP steps; it then falls linearly to 0.
        autocast: compute in this dtype; the weights keep theirs.
    """
    steps = len(cast(Tensor, data)) if steps is None else steps
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / WARMUP, (steps - step) / max(steps - WARMUP, 1))
    )
    loss = torch.tensor(float("nan"))
    for batch in data:
        ids = batch.to(model.device)
        with torch.autocast(ids.device.type, dtype=autocast, enabled=autocast is not None):
            loss = model(ids, labels=ids.masked_fill(ids == pad, -100)).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    return float(loss.detach())


@one_thread()
def make_policy(
    folder: Path,
    seed: int,
    steps: int,
    env: str = "espo_gym/Addition-v0",
    demonstrator: Demonstrator = add_columns,
    env_args: dict[str, Any] | None = None,
) -> str:
    """Warm-start a policy on ``steps`` batches and save it to ``folder`` atomically.

    Returns the last loss, in words.
    """
    tokenizer, model = make_tokenizer(), make_model(seed)
    data = demonstrations(tokenizer, steps, seed, env, demonstrator, **(env_args or {}))
    loss = warm_start(model, data, tokenizer.pad_token_id)
    save_policy(folder, model, tokenizer)
    return f"last loss {loss:.3f} nats per token"


def save_policy(folder: Path, model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast) -> None:
    """Write a folder for :meth:`Policy.from_pretrained`, atomically."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as part:
        Policy(model, tokenizer).save_pretrained(Path(part) / "policy")
        os.rename(Path(part) / "policy", folder)
