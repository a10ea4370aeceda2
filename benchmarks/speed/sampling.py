"""G4, G5: sampling beside HF ``generate``. G9: log-probs as sampled and as recomputed."""

from __future__ import annotations

from typing import Any

import torch

from espo_gym.policy import Completions, Policy, Sampling
from espo_gym.policy.sampler import left_pad

from . import workload
from .goals import Interval, Row
from .measure import against, alternate, gemm_flops, ratio, read_bandwidth
from .workload import MAX_NEW, SMALL


def measure_g4(repeats: int) -> list[Row]:
    peak = gemm_flops()
    return [_beside_generate("G4", "packed", batch, repeats, peak) for batch in (8, 32, 128, 512)]


def measure_g5(repeats: int) -> list[Row]:
    return [_beside_generate("G5", "hf", batch, repeats) for batch in (32, 128, 512)]


def measure_g9(repeats: int) -> list[Row]:
    token, mean = [], []
    algorithm = workload.grpo(SMALL)
    for _ in range(repeats):
        rollout = algorithm.collect_rollout()
        algorithm.num_timesteps += rollout.n_generated
        with torch.no_grad():
            gap = (algorithm.policy.logps(rollout).logps - rollout.old_logps) * rollout.mask
        token.append(float(gap.abs().max()))
        mean.append(float((gap.sum(1) / rollout.mask.sum(1)).abs().max()))
    case = f"{repeats} rollouts of {workload.ROWS}, float32"
    return [
        Row("G9 token", case, Interval.exactly(max(token)), "largest of all tokens"),
        Row("G9 mean", case, Interval.exactly(max(mean)), "largest of all completions"),
    ]


def _beside_generate(goal: str, sampler: str, batch: int, repeats: int, peak: float | None = None) -> Row:
    policy = Policy(workload.model(SMALL), workload.tokenizer(SMALL.vocabulary), sampler=sampler)
    plain: Any = workload.model(SMALL)
    prompts = workload.prompts(policy, batch)
    ids, mask = left_pad(prompts, policy.pad_token_id, policy.device)
    calls = max(1, 128 // batch)  # the longest of 8 completions varies, of 128 hardly
    said: list[Completions] = []
    our_tokens: list[int] = []
    their_tokens: list[int] = []
    seeds = iter(range(2**62))

    def ours() -> None:
        said[:] = [
            policy.generate(prompts, [next(seeds) for _ in prompts], Sampling(max_completion_tokens=MAX_NEW))
            for _ in range(calls)
        ]
        our_tokens.extend(int(one.mask.sum()) for one in said)

    def peer() -> None:
        for _ in range(calls):
            out = plain.generate(
                input_ids=ids,
                attention_mask=mask,
                do_sample=True,
                temperature=1.0,
                top_k=0,
                top_p=1.0,
                max_new_tokens=MAX_NEW,
                eos_token_id=policy.eos_token_ids.tolist(),
                pad_token_id=policy.pad_token_id,
            )
            their_tokens.append(int((out[:, ids.shape[1] :] != policy.pad_token_id).sum()))

    torch.manual_seed(0)
    mine, theirs = alternate(ours, peer, repeats)
    lengths = [sum(side) / len(side) / batch for side in (our_tokens, their_tokens)]
    detail = (
        f"{against(mine, theirs, 'ms')} for {calls} x {batch}; "
        f"{lengths[0]:.1f} and {lengths[1]:.1f} tokens a completion"
    )
    if peak is not None:
        limit = sum(_limit(policy, s, len(prompts[0]), peak) for s in said)
        detail += f"; {limit / sorted(mine)[len(mine) // 2]:.0%} of the roofline"
    return Row(goal, f"batch {batch}", ratio(mine, theirs), detail)


def _limit(policy: Policy, said: Completions, prompt: int, peak: float) -> float:
    """Seconds that decoding ``said`` takes at the speed of matrix products or of memory, whichever is slower there.

    At each step all weights and the keys and values of the rows that still run are read once, and each of these rows
    takes two operations a weight.
    """
    config = policy.model.config
    weights = sum(p.numel() for name, p in policy.model.named_parameters() if "embed_tokens" not in name)
    cache = 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim * 4  # bytes a token
    bandwidth = read_bandwidth(weights * 4)
    seconds = 0.0
    for step, rows in enumerate(said.mask.sum(0).tolist()):
        seconds += max(2 * weights * rows / peak, (4 * weights + cache * rows * (prompt + step)) / bandwidth)
    return seconds
