"""G6, G7: the loss over a large vocabulary, from hidden states to gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from espo_gym.policy.matmul import product

from .goals import Interval, Row
from .measure import against, alternate, megabytes, peak_bytes, ratio

VOCABULARY, HIDDEN = 150_000, 128
TOKENS = (1024, 4096)
Head = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor | None]]


def ours(hidden: Tensor, weight: Tensor, targets: Tensor) -> tuple[Tensor, None]:
    """As training calls it: the entropies are the sampler's."""
    from espo_gym.policy.lm_head import head_scores

    return head_scores(hidden, weight, None, targets)[0], None


def ours_entropy(hidden: Tensor, weight: Tensor, targets: Tensor) -> tuple[Tensor, Tensor | None]:
    from espo_gym.policy.lm_head import head_scores

    return head_scores(hidden, weight, None, targets, entropies=True)


def trl(hidden: Tensor, weight: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """As GRPOTrainer's fused head calls it."""
    from trl.kernels import ChunkedLogProbFunction
    from trl.trainer.utils import _CHUNKED_LOGPROB_CHUNK_SIZE

    outputs = ("log_probs", "entropy")
    logps, entropy, *_ = ChunkedLogProbFunction.apply(
        hidden, weight, None, targets, 1.0, _CHUNKED_LOGPROB_CHUNK_SIZE, None, 1.0, outputs
    )
    return logps, entropy


def full(hidden: Tensor, weight: Tensor, targets: Tensor) -> tuple[Tensor, None]:
    logprobs = torch.nn.functional.linear(hidden, weight).log_softmax(-1)  # (N, V)
    return logprobs.gather(1, targets[:, None]).squeeze(1), None


HEADS: dict[str, Head] = {"ours": ours, "ours-entropy": ours_entropy, "trl": trl, "full": full}


def case(which: str, tokens: int, vocabulary: int = VOCABULARY) -> Callable[[], tuple[Tensor, Tensor]]:
    """Forward and backward of one of ``HEADS``; it returns log-probs and the gradient of the hidden states."""
    hidden, weight, targets, slope = _inputs(tokens, vocabulary)
    head = HEADS[which]

    def run() -> tuple[Tensor, Tensor]:
        hidden.grad = weight.grad = None
        logps, _ = head(hidden, weight, targets)
        (logps * slope).sum().backward()
        assert hidden.grad is not None
        return logps.detach(), hidden.grad

    return run


def floor(tokens: int) -> Callable[[], Any]:
    """The three matrix products that cannot be done without, in slices of the vocabulary that stay in the cache."""
    hidden, weight, _, _ = _inputs(tokens)
    hidden, weight = hidden.detach(), weight.detach()
    part = 512
    hidden_grad, weight_grad = torch.zeros_like(hidden.t()), torch.zeros_like(weight)

    def run() -> None:
        for start in range(0, VOCABULARY, part):
            some = weight[start : start + part]
            logits = product(some, hidden)
            hidden_grad.add_(product(some.t(), logits.t()))
            weight_grad[start : start + part] = product(logits, hidden.t())

    return run


def measure_g6(repeats: int) -> list[Row]:
    rows = []
    for tokens in TOKENS:
        _agree(tokens, "ours", "trl")
        mine, theirs = alternate(case("ours", tokens), case("trl", tokens), repeats)
        rows.append(Row("G6", f"{tokens} tokens, as each trains", ratio(mine, theirs), against(mine, theirs)))
        mine, least = alternate(case("ours", tokens), floor(tokens), repeats)
        share = ratio(mine, least)
        percent = Interval(100 * share.value, 100 * share.low, 100 * share.high)
        rows.append(Row("G6 floor", f"{tokens} tokens, as it trains", percent, against(mine, least)))
        memory = peak_bytes("head", "ours", tokens), peak_bytes("head", "trl", tokens)
        rows.append(Row("G6 memory", f"{tokens} tokens", Interval.exactly(memory[1] / memory[0]), megabytes(*memory)))
    tokens = TOKENS[0]
    mine, theirs = alternate(case("ours-entropy", tokens), case("trl", tokens), repeats)
    rows.append(Row("G6", f"{tokens} tokens, entropies on both sides", ratio(mine, theirs), against(mine, theirs)))
    return rows


def measure_g7(repeats: int) -> list[Row]:
    tokens = TOKENS[0]
    _agree(tokens, "ours", "full")
    mine, theirs = alternate(case("ours", tokens), case("full", tokens), repeats)
    memory = peak_bytes("head", "ours", tokens), peak_bytes("head", "full", tokens)
    return [
        Row("G7", f"{tokens} tokens", ratio(mine, theirs), against(mine, theirs)),
        Row("G7 memory", f"{tokens} tokens", Interval.exactly(memory[1] / memory[0]), megabytes(*memory)),
    ]


def _inputs(tokens: int, vocabulary: int = VOCABULARY) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(tokens, HIDDEN, generator=generator).requires_grad_()
    weight = (torch.randn(vocabulary, HIDDEN, generator=generator) * HIDDEN**-0.5).requires_grad_()
    targets = torch.randint(vocabulary, (tokens,), generator=generator)
    return hidden, weight, targets, torch.randn(tokens, generator=generator)


def _agree(tokens: int, one: str, other: str) -> None:
    """What is faster must also be the same."""
    for a, b in zip(case(one, tokens)(), case(other, tokens)(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)
