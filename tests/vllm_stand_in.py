"""A stand-in for the part of vLLM that is used: its arguments, results and habits, computed by transformers on a CPU.

Written after vLLM 0.22 and 0.33. What vLLM refuses is refused here, and what it does behind one's back is done here:
seeding the global generators, taking every safetensors file for the model's, keeping the prefix cache across a change
of weights, ending at the tokenizer's and the generation config's end tokens.
"""

import os
import random
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig


@dataclass
class SamplingParams:
    n: int = 1
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int | None = None
    stop: list[str] | None = None
    stop_token_ids: list[int] | None = None
    ignore_eos: bool = False
    max_tokens: int | None = 16
    logprobs: int | None = None
    detokenize: bool = True
    skip_special_tokens: bool = True
    include_stop_str_in_output: bool = False

    def __post_init__(self):
        if 0 < self.temperature < 0.01:
            self.temperature = 0.01
        if self.seed == -1:
            self.seed = None
        self.stop, self.stop_token_ids = self.stop or [], self.stop_token_ids or []
        assert self.max_tokens is not None and self.logprobs is not None, "the sampler sets both"
        valid = 0 <= self.temperature <= 2 and 0 < self.top_p <= 1 and self.top_k >= -1 and self.max_tokens >= 1
        if not valid or (self.stop and not self.detokenize) or "" in self.stop or self.logprobs < 0 or self.n != 1:
            raise ValueError(f"vLLM refuses {self}")
        if not all(type(t) is int for t in self.stop_token_ids) or type(self.top_k) is not int:
            raise ValueError(f"vLLM refuses {self}")
        np.int64(self.seed or 0)  # OverflowError beyond 64 bits with a sign
        if self.temperature < 1e-5:
            self.top_p, self.top_k = 1.0, 0


@dataclass
class Logprob:
    logprob: float
    rank: int | None = None
    decoded_token: str | None = None


@dataclass
class CompletionOutput:
    index: int
    text: str
    token_ids: list[int]
    cumulative_logprob: float | None
    logprobs: list[dict[int, Logprob]] | None
    finish_reason: str | None = None
    stop_reason: int | str | None = None


@dataclass
class RequestOutput:
    request_id: str
    prompt_token_ids: list[int]
    outputs: list[CompletionOutput]
    finished: bool = True


@dataclass
class _WorkerModel:
    """What ``apply_model`` hands over: vLLM's own implementation of the model, in the dtype of the engine."""

    model: torch.nn.Module

    @torch.no_grad()
    def load_weights(self, weights) -> set[str]:
        own, loaded = dict(self.model.named_parameters()), set()
        for name, tensor in weights:
            if name not in own:
                raise ValueError(f"There is no module or parameter named {name!r}")
            own[name].copy_(tensor)
            loaded.add(name)
        return loaded


@dataclass
class LLM:
    model: str
    dtype: str = "auto"
    seed: int = 0
    gpu_memory_utilization: float = 0.92
    max_model_len: int | None = None
    logprobs_mode: str = "raw_logprobs"
    enforce_eager: bool = False
    prefix_cache: dict[tuple[int, ...], torch.Tensor] = field(default_factory=dict, init=False)

    made = 0

    def __post_init__(self):
        type(self).made += 1
        random.seed(self.seed)
        np.random.seed(self.seed)
        torch.manual_seed(self.seed)
        assert 0 < self.gpu_memory_utilization <= 1
        loaded = AutoModelForCausalLM.from_pretrained(self.model, dtype=getattr(torch, self.dtype)).eval()
        for path in Path(self.model).glob("*.safetensors"):
            with safe_open(path, "pt") as file:
                if unknown := set(file.keys()) - loaded.state_dict().keys():
                    raise ValueError(f"There is no module or parameter named {unknown}")
        self.worker = _WorkerModel(loaded)
        self.tokenizer = AutoTokenizer.from_pretrained(self.model)
        self.max_model_len = self.max_model_len or loaded.config.max_position_embeddings
        assert self.max_model_len <= loaded.config.max_position_embeddings
        ends = GenerationConfig.from_pretrained(self.model).eos_token_id
        self.ends = {self.tokenizer.eos_token_id, *(ends if isinstance(ends, list) else [ends])}

    def apply_model(self, func):
        assert os.environ.get("VLLM_ENABLE_V1_MULTIPROCESSING") == "0", "functions do not reach another process"
        return [func(self.worker)]

    def reset_prefix_cache(self, reset_running_requests=False, reset_connector=False) -> bool:
        self.prefix_cache.clear()
        return True

    def generate(self, prompts, sampling_params=None, *, use_tqdm=True) -> list[RequestOutput]:
        assert len(prompts) == len(sampling_params)
        assert all(prompt.keys() == {"prompt_token_ids"} for prompt in prompts)
        pairs = enumerate(zip((p["prompt_token_ids"] for p in prompts), sampling_params, strict=True))
        return [RequestOutput(str(i), ids, [self._complete(ids, params)]) for i, (ids, params) in pairs]

    @torch.no_grad()
    def _complete(self, prompt: list[int], params: SamplingParams) -> CompletionOutput:
        assert params.seed is not None and params.max_tokens is not None and self.max_model_len is not None
        if not 0 < len(prompt) <= self.max_model_len:
            raise ValueError(f"a prompt of {len(prompt)} tokens")
        ends, stops = self.ends | set(params.stop_token_ids or ()), params.stop or []
        generator = torch.Generator().manual_seed(params.seed)
        ids: list[int] = []
        logprobs, finish, stop, text = [], None, None, ""
        while finish is None:
            if not ids and tuple(prompt) in self.prefix_cache:
                logits = self.prefix_cache[tuple(prompt)]
            else:
                logits = self.worker.model(torch.tensor([prompt + ids])).logits[0, -1].float()
            if not ids:
                self.prefix_cache[tuple(prompt)] = logits
            processed = self._process(logits, params)
            if params.temperature == 0:
                token = int(processed.argmax())
            else:
                noise = torch.empty_like(processed).exponential_(generator=generator)
                token = int((processed.softmax(-1) / noise).argmax())
            ids.append(token)
            shown = logits if self.logprobs_mode == "raw_logprobs" else processed
            logprobs.append({token: Logprob(float(shown.log_softmax(-1)[token]))})
            if params.detokenize:
                text = str(self.tokenizer.decode(ids, skip_special_tokens=params.skip_special_tokens))
            if token in ends:
                finish = "stop"
            elif len(ids) >= params.max_tokens or len(prompt) + len(ids) >= self.max_model_len:
                finish = "length"
            for s in stops:
                if s in text:
                    finish, stop = "stop", s
        if stop is not None:
            text = text[: text.index(stop) + len(stop) * params.include_stop_str_in_output]
        total = sum(entry.logprob for at in logprobs for entry in at.values())
        return CompletionOutput(0, text, ids, total, logprobs, finish, stop)

    def _process(self, logits: torch.Tensor, params: SamplingParams) -> torch.Tensor:
        logits = logits / (params.temperature or 1.0)
        if params.top_k > 0:
            logits = logits.masked_fill(logits < logits.topk(params.top_k).values[-1], -torch.inf)
        if params.top_p < 1:
            probs, order = logits.softmax(-1).sort(descending=True)
            out = order[probs.cumsum(-1) - probs >= params.top_p]
            logits = logits.index_fill(-1, out, -torch.inf)
        return logits


def modules(device_type: str = "cpu") -> dict[str, ModuleType]:
    """What goes into ``sys.modules``."""
    vllm: Any = ModuleType("vllm")
    platforms: Any = ModuleType("vllm.platforms")
    vllm.LLM, vllm.SamplingParams, vllm.platforms = LLM, SamplingParams, platforms
    platforms.current_platform = SimpleNamespace(device_type=device_type)
    return {"vllm": vllm, "vllm.platforms": platforms}
