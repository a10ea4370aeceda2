"""TRL's GRPOTrainer on the same workload, one optimizer step at a time."""

from __future__ import annotations

import tempfile
import time
import warnings
from collections.abc import Callable
from typing import Any

from datasets import Dataset
from transformers import PrinterCallback, TrainerCallback
from trl import GRPOConfig, GRPOTrainer

from espo_gym.envs import ModularArithmetic

from . import workload
from .workload import GROUP, MAX_NEW, PROMPTS, ROWS, Size

MICRO_BATCHES = (128, 64, 32, 16)


class _EachStep(TrainerCallback):
    """Tells CPU seconds and completion tokens of each step; what the listener does is not counted."""

    def __init__(self, tokens: list[int], listen: Callable[[float, int], None]) -> None:
        self.tokens, self.listen, self.begin = tokens, listen, 0.0

    def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
        self.begin = time.process_time()

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        self.listen(time.process_time() - self.begin, sum(self.tokens))
        self.tokens.clear()
        self.begin = time.process_time()


def run(
    model: Any, size: Size, micro_batch: int, steps: int, listen: Callable[[float, int], None], silent: bool = False
) -> None:
    """``steps`` optimizer steps, each on completions of its own; ``listen(seconds, tokens)`` is called after each.

    Nothing is logged, saved or evaluated, there is no reference model and no recomputation of activations.
    """
    tokens: list[int] = []

    def reward(prompts: list[str], completions: list[str], completion_ids: list[list[int]], **_: Any) -> list[float]:
        tokens.append(sum(map(len, completion_ids)))
        return [float(workload.correct(i, silent)) for i in range(len(completions))]

    problems = ModularArithmetic().problems("train", list(range(PROMPTS * (steps + 1))))
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        settings = GRPOConfig(
            output_dir=folder,
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            per_device_train_batch_size=micro_batch,
            gradient_accumulation_steps=ROWS // micro_batch,
            num_generations=GROUP,
            max_completion_length=MAX_NEW,
            temperature=1.0,
            top_k=0,
            top_p=1.0,
            beta=0.0,
            loss_type="grpo",
            learning_rate=1e-6,
            lr_scheduler_type="constant",
            max_grad_norm=1.0,
            max_steps=steps,
            logging_strategy="no",
            save_strategy="no",
            eval_strategy="no",
            report_to="none",
            disable_tqdm=True,
            seed=0,
        )
        trainer = GRPOTrainer(
            model,
            reward,
            args=settings,
            train_dataset=Dataset.from_list([{"prompt": problem.prompt} for problem in problems]),
            processing_class=workload.tokenizer(size.vocabulary),
            callbacks=[_EachStep(tokens, listen)],
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()


def best_micro_batch(size: Size, silent: bool = False) -> int:
    """The fastest of ``MICRO_BATCHES``, each by its second step."""
    seconds = {}
    for micro_batch in MICRO_BATCHES:
        spent: list[float] = []
        run(workload.model(size), size, micro_batch, 2, lambda s, _, spent=spent: spent.append(s), silent)  # type: ignore[misc]
        seconds[micro_batch] = spent[1]
    return min(seconds, key=seconds.__getitem__)
