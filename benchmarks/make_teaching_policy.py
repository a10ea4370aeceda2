"""Make the bundled teaching policy from nothing: ``python -m benchmarks.make_teaching_policy``.

A Llama of 108,224 parameters learns, from demonstrations of column-wise addition in which 60 % of the carries are
forgotten, a method that can be right and mostly is not. Reinforcement learning then finds out about the carry. The
result is a function of the seed; it takes about a minute on one core.

The parts (tokenizer, model, encoding, warm start) also make the larger policy of ``python -m benchmarks.paper``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import click
import numpy as np
import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

import espo_gym
from espo_gym.envs import Addition, scratchpad

PAD, EOS = "_", "$"
ALPHABET = [PAD, EOS, *"0123456789", *"+-*/=,:>()"]
CONTEXT = 64
BATCH = 64
LEARNING_RATE = 3e-3
WARMUP = 50
DROP_CARRY = 0.6


def make_tokenizer(context: int = CONTEXT) -> PreTrainedTokenizerFast:
    """One token a character; a character outside the alphabet is an error and not a guess."""
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
    """A Llama with random weights for the alphabet; the sizes are those of the bundled policy."""
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
        espo_gym_preset="teaching",
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return LlamaForCausalLM(config)


def encode(tokenizer: PreTrainedTokenizerFast, texts: Sequence[str]) -> Tensor:
    """(n, L) long: the texts, each with an end token, padded on the right."""
    ids = [tokenizer.encode(text + EOS) for text in texts]
    width = max(map(len, ids))
    return torch.tensor([row + [tokenizer.pad_token_id] * (width - len(row)) for row in ids])


def demonstrations(tokenizer: PreTrainedTokenizerFast, steps: int, seed: int) -> Tensor:
    """(steps, BATCH, L) long: training problems and their worked solutions, padded on the right."""
    task, rng = Addition(), np.random.default_rng(seed)
    texts = []
    for i in range(steps * BATCH):
        problem = task.problem("train", seed * steps * BATCH + i)
        assert problem.data is not None
        texts.append(problem.prompt + scratchpad(problem.data["a"], problem.data["b"], drop_carry=DROP_CARRY, rng=rng))
    return encode(tokenizer, texts).view(steps, BATCH, -1)


def warm_start(
    model: LlamaForCausalLM,
    batches: Iterable[Tensor],
    steps: int,
    pad: int,
    *,
    learning_rate: float = LEARNING_RATE,
    autocast: torch.dtype | None = None,
) -> float:
    """Next-token training on prompt and solution alike; returns the loss of the last batch, in nats a token.

    ``batches`` are ``steps`` tensors (B, L) long. They go to where the model is; ``autocast`` computes in that dtype on
    weights that stay as they are.
    """
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / WARMUP, (steps - step) / max(1, steps - WARMUP))
    )
    loss = torch.tensor(float("nan"))
    for batch in batches:
        ids = batch.to(model.device)
        with torch.autocast(model.device.type, dtype=autocast, enabled=autocast is not None):
            loss = model(ids, labels=ids.masked_fill(ids == pad, -100)).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    return float(loss.detach())


@click.command()
@click.option("--out", type=click.Path(path_type=Path), default=Path(espo_gym.__file__).with_name("teaching"))
@click.option("--seed", default=0, show_default=True, help="Of the initial weights and the demonstrations.")
@click.option("--steps", default=900, show_default=True, help="Batches of 64 demonstrations.")
def main(out: Path, seed: int, steps: int) -> None:
    """Make the teaching policy and write it to a folder."""
    torch.set_num_threads(1)  # sums split over threads would depend on the machine
    tokenizer, model = make_tokenizer(), make_model(seed)
    loss = warm_start(model, demonstrations(tokenizer, steps, seed), steps, tokenizer.pad_token_id)
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    size = (out / "model.safetensors").stat().st_size
    click.echo(f"{model.num_parameters():,} parameters, last loss {loss:.3f} nats a token, {size:,} bytes in {out}")


if __name__ == "__main__":
    main()
