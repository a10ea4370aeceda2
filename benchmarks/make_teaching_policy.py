"""Make the bundled teaching policy from nothing: ``python -m benchmarks.make_teaching_policy``.

A Llama of 108,224 parameters learns, from demonstrations of column-wise addition in which 60 % of the carries are
forgotten, a method that can be right and mostly is not. Reinforcement learning then finds out about the carry. The
result is a function of the seed; it takes about a minute on one core.
"""

from __future__ import annotations

from pathlib import Path

import click
import torch

import espo_gym
from espo_gym.experiments.warm_start import demonstrations, make_model, make_tokenizer, warm_start


@click.command()
@click.option("--out", type=click.Path(path_type=Path), default=Path(espo_gym.__file__).with_name("teaching"))
@click.option("--seed", default=0, show_default=True, help="Of the initial weights and the demonstrations.")
@click.option("--steps", default=900, show_default=True, help="Batches of 64 demonstrations.")
def main(out: Path, seed: int, steps: int) -> None:
    """Make the teaching policy and write it to a folder."""
    torch.set_num_threads(1)  # sums split over threads would depend on the machine
    tokenizer, model = make_tokenizer(), make_model(seed)
    loss = warm_start(model, demonstrations(tokenizer, steps, seed), tokenizer.pad_token_id)
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    size = (out / "model.safetensors").stat().st_size
    click.echo(f"{model.num_parameters():,} parameters, last loss {loss:.3f} nats a token, {size:,} bytes in {out}")


if __name__ == "__main__":
    main()
