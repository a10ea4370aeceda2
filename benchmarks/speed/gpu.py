"""G11, on a GPU: decoding beside HF ``generate``, and a full training step of a Qwen2 of 0.5 B parameters in bf16.

The weights are made from scratch: speed does not depend on what they say.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from espo_gym.algorithms import GRPO
from espo_gym.envs import MathVectorEnv
from espo_gym.policy import Policy, Sampling
from espo_gym.policy.sampler import left_pad

from . import workload
from .goals import Interval, Row
from .measure import alternate, ratio

BATCH, NEW = 256, 512
TRAINED = 256


def qwen2() -> Any:
    """The shape of Qwen2.5-0.5B."""
    config = Qwen2Config(
        vocab_size=151_936,
        hidden_size=896,
        intermediate_size=4864,
        num_hidden_layers=24,
        num_attention_heads=14,
        num_key_value_heads=2,
        max_position_embeddings=4096,
        tie_word_embeddings=True,
        bos_token_id=None,
        pad_token_id=0,
        eos_token_id=1,
    )
    torch.manual_seed(0)
    with torch.device("cuda"):
        model: Any = Qwen2ForCausalLM(config)
        return model.to(torch.bfloat16).eval()


def describe_device() -> str:
    properties = torch.cuda.get_device_properties(0)
    return f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB, CUDA {torch.version.cuda}"


def measure_g11(repeats: int) -> list[Row]:
    """Wall-clock seconds here: the CPU waits for the card."""
    model = qwen2()
    policy = Policy(model, workload.tokenizer(151_936))
    prompts = workload.prompts(policy, BATCH)
    ids, mask = left_pad(prompts, policy.pad_token_id, policy.device)
    mine_tokens: list[int] = []
    their_tokens: list[int] = []
    seeds = iter(range(2**62))

    def ours() -> None:
        said = policy.generate(prompts, [next(seeds) for _ in prompts], Sampling(max_completion_tokens=NEW))
        mine_tokens.append(int(said.mask.sum()))
        torch.cuda.synchronize()

    def peer() -> None:
        out = model.generate(
            input_ids=ids,
            attention_mask=mask,
            do_sample=True,
            temperature=1.0,
            top_k=0,
            top_p=1.0,
            max_new_tokens=NEW,
            pad_token_id=policy.pad_token_id,
        )
        their_tokens.append(int((out[:, ids.shape[1] :] != policy.pad_token_id).sum()))
        torch.cuda.synchronize()

    mine, theirs = alternate(ours, peer, repeats, time.perf_counter)
    rates = [n / s for n, s in zip(mine_tokens[1:], mine, strict=True)]
    their_rates = [n / s for n, s in zip(their_tokens[1:], theirs, strict=True)]
    figure = ratio([1 / r for r in rates], [1 / r for r in their_rates])
    rate, their_rate = _median(rates), _median(their_rates)
    limit, bandwidth = _decode_limit(policy, ids.shape[1] + NEW / 2)
    case = f"{BATCH} completions of {NEW}"
    share = Interval.exactly(100 * rate / limit)
    return [
        Row("G11", case, figure, f"{rate:,.0f} against {their_rate:,.0f} tokens/s"),
        Row("G11 roofline", case, share, f"limit {limit:,.0f} tokens/s at {bandwidth / 1e12:.2f} TB/s"),
    ]


def training_step() -> str:
    """A rollout and a step of GRPO, in words."""
    policy = Policy(qwen2(), workload.tokenizer(151_936))
    env = MathVectorEnv(workload.Rewarded(), num_envs=TRAINED)
    algorithm = GRPO(policy, env, group_size=8, n_minibatches=1, max_completion_tokens=NEW)
    seconds = {"collect": 0.0, "train": 0.0}
    for turn in range(3):  # the first one warms up
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        begin = time.perf_counter()
        rollout = algorithm.collect_rollout()
        torch.cuda.synchronize()
        middle = time.perf_counter()
        algorithm.train(rollout)
        torch.cuda.synchronize()
        if turn:
            seconds["collect"] += (middle - begin) / 2
            seconds["train"] += (time.perf_counter() - middle) / 2
        algorithm.num_timesteps += rollout.n_generated
        algorithm.n_rollouts += 1
    tokens = int(rollout.mask.sum())
    weights = sum(p.numel() for p in policy.model.parameters())
    peak = _gemm_flops()
    share = 6 * weights * tokens / seconds["train"] / peak
    memory = torch.cuda.max_memory_allocated() / 2**30
    return (
        f"GRPO step, {TRAINED} completions of {NEW}, {weights / 1e6:.0f} M parameters in bf16: "
        f"collected at {tokens / seconds['collect']:,.0f} tokens/s (scoring included), "
        f"trained at {tokens / seconds['train']:,.0f} tokens/s, {share:.0%} of the {peak / 1e12:.0f} TFLOP/s of a "
        f"matrix product; peak memory {memory:.1f} GiB"
    )


def _decode_limit(policy: Policy, context: float) -> tuple[float, float]:
    """Tokens a second if each step did nothing but read the weights and the keys and values once, and the bandwidth.

    The bandwidth is the card's own figure where torch tells it, else what a copy reaches.
    """
    config = policy.model.config
    head = config.hidden_size // config.num_attention_heads
    cache = 2 * config.num_hidden_layers * config.num_key_value_heads * head * 2 * context  # bytes a row
    weights = sum(p.numel() for p in policy.model.parameters()) * 2
    properties: Any = torch.cuda.get_device_properties(0)
    clock, width = getattr(properties, "memory_clock_rate", 0), getattr(properties, "memory_bus_width", 0)
    bandwidth = 2 * clock * 1e3 * width / 8 if clock and width else _copy_bandwidth()
    return BATCH / ((weights + BATCH * cache) / bandwidth), bandwidth


def _copy_bandwidth() -> float:
    source = torch.empty(2**30, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    return 2 * source.numel() / _best(lambda: target.copy_(source))


def _gemm_flops(n: int = 8192) -> float:
    a, b = (torch.randn(n, n, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    return 2 * n**3 / _best(lambda: a @ b)


def _best(run: Callable[[], Any]) -> float:
    seconds = []
    for _ in range(10):
        torch.cuda.synchronize()
        begin = time.perf_counter()
        run()
        torch.cuda.synchronize()
        seconds.append(time.perf_counter() - begin)
    return min(seconds)


def _median(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]
