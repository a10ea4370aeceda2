"""Sampling by a vLLM engine in this process, behind ``Policy(..., sampler="vllm")``.

The engine holds its own copy of the weights, in the policy's compute dtype; the policy's are pushed to it before each
batch of completions. It returns the log-prob of each token it draws, but no entropy over the whole vocabulary, and its
kernels are not those of training. So old log-probs and entropies are recomputed by the training forward pass, and
what the engine returned is kept as ``Rollout.sampler_logps``.
"""

from __future__ import annotations

import os
import random
import shutil
import tempfile
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from espo_gym.sampling import Sampling

from .language_model import LanguageModel
from .sampler import Completions

MULTIPROCESSING = "VLLM_ENABLE_V1_MULTIPROCESSING"
LOWEST_TEMPERATURE = 0.01
"""vLLM silently raises lower temperatures to this."""


class VLLMSampler:
    """A vLLM engine that follows a policy. It starts lazily on first use; copies of the policy do not share it."""

    options: dict[str, Any]
    """Further arguments of ``vllm.LLM``; change them before first use. ``gpu_memory_utilization`` is the share of the
    GPU's memory that weights and cache of the engine take, beside those of training."""

    def __init__(self) -> None:
        self.options = {"gpu_memory_utilization": 0.3}
        self._llm: Any = None

    def __getstate__(self) -> dict[str, Any]:
        return {"options": dict(self.options), "_llm": None}  # an engine can be neither copied nor pickled

    def generate(
        self, lm: LanguageModel, prompts: Sequence[Sequence[int]], seeds: Sequence[int], sampling: Sampling
    ) -> Completions:
        """One completion for each prompt under the weights as they are now. See :meth:`Policy.generate`.

        Log-probs are at the sampling temperature (1 where it is 0, greedy), as the other samplers' are, but where
        ``top_p`` or ``top_k`` rule tokens out they are those among the tokens that are left. Entropies are NaN.

        Raises:
            ImportError: vLLM is not installed.
            RuntimeError: vLLM cannot run beside this policy, or aborted a completion.
            ValueError: a temperature that vLLM would change.
        """
        if 0 < sampling.temperature < LOWEST_TEMPERATURE:
            raise ValueError(
                f"vLLM samples at temperatures of at least {LOWEST_TEMPERATURE}, not at {sampling.temperature}: "
                'take a higher one, 0 (greedy), or sampler="auto"'
            )
        if self._llm is None:
            self._start(lm)
        self._sync(lm)
        from vllm import SamplingParams

        ends = lm.eos_token_ids.tolist()
        params = [
            SamplingParams(
                temperature=sampling.temperature,
                top_p=sampling.top_p,
                top_k=sampling.top_k,
                seed=int(seed) % 2**63,  # the engine keeps it in 64 bits with a sign, and -1 would be no seed
                max_tokens=min(sampling.max_completion_tokens, lm.context_length - len(prompt)),
                stop=list(sampling.stop),
                stop_token_ids=ends,
                include_stop_str_in_output=True,
                detokenize=bool(sampling.stop),  # nothing else needs the engine's text
                logprobs=0,  # of the token drawn alone
            )
            for prompt, seed in zip(prompts, seeds, strict=True)
        ]
        requests = [{"prompt_token_ids": list(prompt)} for prompt in prompts]
        return _completions(lm, self._llm.generate(requests, params, use_tqdm=False))

    def close(self) -> None:
        """Stop the engine and remove its folder; the next completions start another one."""
        if self._llm is not None:
            self._llm = None
            self._remove_folder()

    def _start(self, lm: LanguageModel) -> None:
        os.environ.setdefault(MULTIPROCESSING, "0")  # read by vLLM when it is imported or an engine is made
        try:
            from vllm import LLM
            from vllm.platforms import current_platform
        except ModuleNotFoundError as error:
            if error.name != "vllm":
                raise
            raise ImportError(
                "sampler=\"vllm\" needs vLLM, which is not installed: pip install 'espo-gym[vllm]', "
                'or take sampler="auto"'
            ) from error
        if os.environ[MULTIPROCESSING] != "0":
            raise RuntimeError(
                f"{MULTIPROCESSING} is {os.environ[MULTIPROCESSING]!r}, which puts the engine into a process that the "
                "policy's weights do not reach: unset it"
            )
        if lm.device.type != current_platform.device_type:
            raise RuntimeError(
                f"the policy is on {lm.device}, and this vLLM "
                + (f"computes on {where}" if (where := current_platform.device_type) else "has found no GPU")
                + ': vLLM needs the policy on a GPU that it can use; sampler="auto" needs none'
            )
        folder = tempfile.mkdtemp(prefix="espo-gym-vllm-")
        self._remove_folder = weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        # Without a value head: vLLM takes every safetensors file for the model's.
        LanguageModel.save_pretrained(lm, folder)
        options: dict[str, Any] = {
            "model": folder,
            "dtype": str(lm.compute_dtype).removeprefix("torch."),
            "seed": 0,
            "logprobs_mode": "processed_logprobs",  # at the temperature
        }
        if lm.context_length < 2**31:
            options["max_model_len"] = lm.context_length
        try:
            with _random_state_kept():
                self._llm = LLM(**(options | self.options))
        except BaseException:
            self._remove_folder()
            raise

    def _sync(self, lm: LanguageModel) -> None:
        """Copy the policy's weights into the engine's, and forget the keys and values of the old ones."""
        weights = [(name, p.detach()) for name, p in lm.model.named_parameters()]

        def load(model: Any) -> None:
            model.load_weights(weights)

        self._llm.apply_model(load)
        self._llm.reset_prefix_cache()


def _completions(lm: LanguageModel, outputs: Sequence[Any]) -> Completions:
    """What the engine returned, a ``vllm.RequestOutput`` a row, in the order of the rows."""
    completions = [output.outputs[0] for output in outputs]
    for one in completions:
        if one.finish_reason not in ("stop", "length"):
            raise RuntimeError(f"vLLM aborted a completion (finish_reason={one.finish_reason!r})")
    ids = [list(one.token_ids) for one in completions]
    drawn = [[at[t].logprob for t, at in zip(one.token_ids, one.logprobs, strict=True)] for one in completions]
    width, device = max(map(len, ids)), lm.device
    tokens = torch.tensor([row + [lm.pad_token_id] * (width - len(row)) for row in ids], device=device)  # (N, T)
    logps = torch.tensor([row + [0.0] * (width - len(row)) for row in drawn], device=device)  # (N, T)
    lengths = torch.tensor([len(row) for row in ids], device=device)
    mask = torch.arange(width, device=device) < lengths[:, None]  # (N, T)
    entropies = torch.zeros_like(logps).masked_fill(mask, torch.nan)
    truncated = torch.tensor([one.finish_reason == "length" for one in completions], device=device)
    return Completions(lm.decode(ids), tokens, mask, logps, entropies, truncated)


@contextmanager
def _random_state_kept() -> Iterator[None]:
    """Keep the state of the global generators, all of which an engine seeds when it starts."""
    python, numpy = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
