"""Small policies from nothing: a Llama of 108,224 parameters, warmed up on demonstrations of one task.

Reinforcement learning needs a policy that is right sometimes. Each demonstrator below shows a method that can be right
and often is not, so that there is something left to learn. A policy is a function of its seed.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from espo_gym.envs import Problem, scratchpad
from espo_gym.envs.countdown import combine_at_random
from espo_gym.envs.registration import make_task

PAD, EOS = "_", "$"
ALPHABET = [PAD, EOS, *"0123456789", *"+-*/=,:>()"]
CONTEXT = 64
BATCH = 64
LEARNING_RATE = 3e-3
WARMUP = 50
DROP_CARRY = 0.6
WRONG = 0.9

Demonstrator = Callable[[Problem, np.random.Generator], str]
"""What follows the prompt of a problem."""


def add_columns(problem: Problem, rng: np.random.Generator) -> str:
    """Column-wise addition in which 60 % of the carries are forgotten."""
    assert problem.data is not None
    return scratchpad(problem.data["a"], problem.data["b"], drop_carry=DROP_CARRY, rng=rng)


def work_down_chain(problem: Problem, rng: np.random.Generator) -> str:
    """A chain of sums and differences from left to right, ``8-9=-1,-1+5=4``, without a mistake."""
    numbers = re.findall("[+-]?[0-9]+", problem.prompt)
    value, steps = int(numbers[0]), []
    for number in numbers[1:]:
        steps.append(f"{value}{number}={value + int(number)}")
        value += int(number)
    return ",".join(steps)


def combine_numbers(problem: Problem, rng: np.random.Generator) -> str:
    """An expression of the numbers of a countdown: a random one in 90 % of the cases, else one that is right."""
    assert problem.data is not None
    return combine_at_random(problem.data["numbers"], rng)[1] if rng.random() < WRONG else problem.answer


def make_tokenizer() -> PreTrainedTokenizerFast:
    """One token a character; a character outside the alphabet is an error and not a guess."""
    tokenizer = Tokenizer(models.WordLevel({symbol: i for i, symbol in enumerate(ALPHABET)}, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=PAD, eos_token=EOS, model_max_length=CONTEXT, padding_side="left"
    )


def make_model(seed: int) -> LlamaForCausalLM:
    config = LlamaConfig(
        vocab_size=len(ALPHABET),
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=192,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        initializer_range=0.06,
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
    """(steps, BATCH, L) long: training problems and what the demonstrator makes of them, padded on the right."""
    task, rng = make_task(env, **env_args), np.random.default_rng(seed)
    texts = []
    for i in range(steps * BATCH):
        problem = task.problem("train", seed * steps * BATCH + i)
        texts.append(problem.prompt + demonstrator(problem, rng))
    ids = [tokenizer.encode(text + EOS) for text in texts]
    width = max(map(len, ids))
    padded = [row + [tokenizer.pad_token_id] * (width - len(row)) for row in ids]
    return torch.tensor(padded).view(steps, BATCH, width)


def warm_start(model: LlamaForCausalLM, data: Tensor, pad: int) -> float:
    """Next-token training on prompt and solution alike; returns the loss of the last batch, in nats a token."""
    steps = len(data)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / WARMUP, (steps - step) / max(steps - WARMUP, 1))
    )
    loss = torch.tensor(float("nan"))
    for batch in data:
        loss = model(batch, labels=batch.masked_fill(batch == pad, -100)).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    return float(loss.detach())


def make_policy(
    folder: Path,
    seed: int,
    steps: int,
    env: str = "espo_gym/Addition-v0",
    demonstrator: Demonstrator = add_columns,
    env_args: dict[str, Any] | None = None,
) -> str:
    """Warm a policy up on ``steps`` batches and leave it as a folder that appears complete or not at all.

    Returns what to say of it.
    """
    tokenizer, model = make_tokenizer(), make_model(seed)
    data = demonstrations(tokenizer, steps, seed, env, demonstrator, **(env_args or {}))
    loss = warm_start(model, data, tokenizer.pad_token_id)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as made:
        model.save_pretrained(Path(made) / "policy")
        tokenizer.save_pretrained(Path(made) / "policy")
        os.rename(Path(made) / "policy", folder)
    return f"last loss {loss:.3f} nats a token"
