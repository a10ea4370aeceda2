"""The head of a language model, from hidden states to what is wanted of its logits, without ever holding them all.

With a vocabulary of 150,000 the logits of 1,000 tokens are 600 MB, their softmax as much again, and the gradient too.
Both functions here go over the vocabulary in tiles that stay in a processor's cache: :func:`head_scores` gives the
log-probs (and entropies) of tokens that are already written, with gradients; :func:`next_tokens` draws new ones.
All sums are taken in float32 where the hidden states have 16 bits.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

ROWS, COLUMNS = 256, 2048
"""A tile of logits: 2 MB of float32. Every product has one of these shapes, so that the result of a row does not depend
on how many others there are."""

GPU_ROWS, GPU_COLUMNS = 2048, 16_384
"""The same on a GPU, 128 MB: there a tile has to be large enough to be worth its launch."""

FORBIDDEN = -1e30
"""In place of a bias of -inf, by which a model forbids a token: 0 times -inf would be NaN."""

LOGITS_BYTES = 2**26
"""What :func:`next_tokens` holds of the logits at a time."""


def head_logits(states: Tensor, head: tuple[Tensor, Tensor | None] | None) -> Tensor:
    """(n, V) logits, float32 at least, from last hidden states (n, H); without a head ``states`` are the logits."""
    if head is not None:
        weight, bias = head
        bias = None if bias is None else bias.to(states.dtype)
        states = torch.nn.functional.linear(states, weight.to(states.dtype), bias)
    return wide(states)


def wide(x: Tensor) -> Tensor:
    """``x`` in float32 at least."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def head_scores(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    targets: Tensor,
    *,
    temperature: float = 1.0,
    entropies: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """Log-probs of ``targets`` under ``softmax((hidden @ weight.T + bias) / temperature)``, and its entropies.

    Args:
        hidden: (M, H) hidden states, of any floating dtype.
        weight, bias: (V, H) and (V,), the head.
        targets: (M,) long.
        temperature: the logits are divided by it.
        entropies: whether they are wanted; their gradient then is, too.

    Returns:
        ``(logps, entropies)``, each (M,), in nats, float32 at least; the latter None unless asked for. Gradients go to
        ``hidden``, ``weight`` and ``bias``. A row whose gradient is 0 costs nothing in the backward pass.
    """
    logps, entropy = _HeadScores.apply(hidden, weight, bias, targets, temperature, entropies)
    return logps, entropy if entropies else None


def _logits(hidden: Tensor, weight: Tensor, bias: Tensor | None, temperature: float) -> Tensor:
    """(rows, columns) of one tile."""
    logits = wide(torch.mm(hidden, weight.t()))
    if bias is not None:
        logits += bias
    return logits if temperature == 1.0 else logits.div_(temperature)


def _tile(device: torch.device) -> tuple[int, int]:
    return (ROWS, COLUMNS) if device.type == "cpu" else (GPU_ROWS, GPU_COLUMNS)


def _columns(weight: Tensor, bias: Tensor | None, dtype: torch.dtype) -> Iterator[tuple[slice, Tensor, Any]]:
    """Tiles of the head: which entries of the vocabulary, their weights in ``dtype``, their bias."""
    width = _tile(weight.device)[1]
    for start in range(0, len(weight), width):
        part = slice(start, min(start + width, len(weight)))
        yield part, weight[part].to(dtype), None if bias is None else wide(bias[part]).clamp(min=FORBIDDEN)


class _HeadScores(torch.autograd.Function):
    """The backward pass computes the logits once more instead of keeping them: four products in place of three."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        temperature: float,
        entropies: bool,
    ) -> tuple[Tensor, Tensor]:
        with torch.autocast(hidden.device.type, enabled=False):
            m = len(targets)
            padded = _padded(hidden)
            rows, height = len(padded), _tile(hidden.device)[0]
            top = wide(padded.new_full((rows,), -torch.inf))
            mass, moment = torch.zeros_like(top), torch.zeros_like(top)
            chosen = torch.zeros_like(top)
            wanted = torch.nn.functional.pad(targets, (0, rows - m))
            for part, w, b in _columns(weight, bias, padded.dtype):
                for start in range(0, rows, height):
                    i = slice(start, start + height)
                    logits = _logits(padded[i], w, b, temperature)
                    inside = ((wanted[i] >= part.start) & (wanted[i] < part.stop)).nonzero().squeeze(1)
                    chosen[start + inside] = logits[inside, wanted[i][inside] - part.start]
                    new_top = torch.maximum(top[i], logits.amax(1))
                    shrink = (top[i] - new_top).exp()
                    weights = (logits - new_top[:, None]).exp_()
                    mass[i] = mass[i] * shrink + weights.sum(1)
                    if entropies:
                        moment[i] = moment[i] * shrink + weights.mul_(logits).sum(1)
                    top[i] = new_top
            lse = top + mass.log()
            entropy = lse - moment / mass
            ctx.save_for_backward(hidden, weight, bias, targets, lse[:m], entropy[:m])
            ctx.temperature, ctx.entropies = temperature, entropies
            return (chosen - lse)[:m], entropy[:m]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        hidden, weight, bias, targets, lse, entropy = ctx.saved_tensors
        live = grads[0] != 0
        if ctx.entropies:
            live |= grads[1] != 0
        index = live.nonzero().squeeze(1)  # a clipped token has no gradient: exactly 0
        wants_hidden, wants_weight, wants_bias = ctx.needs_input_grad[:3]
        grad_hidden = wide(torch.zeros_like(hidden)) if wants_hidden else None
        grad_weight = wide(torch.zeros_like(weight)) if wants_weight else None
        grad_bias = wide(torch.zeros_like(bias)) if wants_bias and bias is not None else None
        if len(index):
            with torch.autocast(hidden.device.type, enabled=False):
                x, height = _padded(hidden[index]), _tile(hidden.device)[0]
                extra = (0, len(x) - len(index))  # padding has gradient 0
                scale = [torch.nn.functional.pad(g[index], extra) / ctx.temperature for g in grads]
                lse, entropy = (torch.nn.functional.pad(v[index], extra) for v in (lse, entropy))
                wanted = torch.nn.functional.pad(targets[index], extra)
                out = wide(torch.zeros_like(x))
                for part, w, b in _columns(weight, bias, x.dtype):
                    for start in range(0, len(x), height):
                        i = slice(start, start + height)
                        logits = _logits(x[i], w, b, ctx.temperature)
                        logprobs = logits.sub_(lse[i, None])
                        probs = logprobs.exp()
                        if ctx.entropies:  # d entropy / d logit = -p (log p + entropy)
                            factor = (logprobs.add_(entropy[i, None])).mul_(-scale[1][i, None]).sub_(scale[0][i, None])
                            slope = probs.mul_(factor)
                        else:
                            slope = probs.mul_(-scale[0][i, None])
                        inside = ((wanted[i] >= part.start) & (wanted[i] < part.stop)).nonzero().squeeze(1)
                        slope[inside, wanted[i][inside] - part.start] += scale[0][i][inside]
                        narrow = slope.to(x.dtype)
                        if wants_hidden:
                            out[i] += torch.mm(narrow, w)
                        if grad_weight is not None:
                            if x.dtype == grad_weight.dtype:
                                grad_weight[part].addmm_(narrow.t(), x[i])
                            else:
                                grad_weight[part] += torch.mm(narrow.t(), x[i])
                        if grad_bias is not None:
                            grad_bias[part] += slope.sum(0)
                if grad_hidden is not None:
                    grad_hidden[index] = out[: len(index)]
        return (
            None if grad_hidden is None else grad_hidden.to(hidden.dtype),
            None if grad_weight is None else grad_weight.to(weight.dtype),
            None if grad_bias is None else grad_bias.to(bias.dtype),
            None,
            None,
            None,
        )


def _padded(hidden: Tensor) -> Tensor:
    """``hidden`` with rows of 0 added up to a multiple of a tile's."""
    return torch.nn.functional.pad(hidden, (0, 0, 0, -len(hidden) % _tile(hidden.device)[0]))


def next_tokens(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, draws: Tensor | None, temperature: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Tokens drawn from ``softmax(logits / temperature)`` of each row, their log-probs, and the entropies, each (n,).

    ``draws`` (n,) float64 in [0, 1) decide, by the inverse of the cumulative distribution; None takes the most likely
    token. Tiles are chosen first, then the token within one, so only one tile a row is looked at twice.
    """
    n = max(1, LOGITS_BYTES // (4 * len(weight)))
    parts = [
        _next_tokens(rows, weight, bias, None if draws is None else draws[i * n : i * n + len(rows)], temperature)
        for i, rows in enumerate(hidden.split(n))
    ]
    choices, logps, entropies = zip(*parts, strict=True)
    return torch.cat(choices), torch.cat(logps), torch.cat(entropies)


def _next_tokens(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, draws: Tensor | None, temperature: float
) -> tuple[Tensor, Tensor, Tensor]:
    n, width = len(hidden), _tile(hidden.device)[1]
    tiles = -(-len(weight) // width)
    logits = wide(hidden.new_full((tiles, n, width), -torch.inf))
    top = wide(hidden.new_empty(n, tiles))
    mass, moment = torch.empty_like(top), torch.empty_like(top)
    for j, (part, w, b) in enumerate(_columns(weight, bias, hidden.dtype)):
        tile = logits[j, :, : part.stop - part.start]
        tile.copy_(_logits(hidden, w, b, temperature))
        top[:, j] = tile.amax(1)
        weights = (tile - top[:, j, None]).exp_()
        mass[:, j] = weights.sum(1)
        moment[:, j] = weights.mul_(tile).sum(1)
    highest = top.amax(1, keepdim=True)  # (n, 1)
    shrink = (top - highest).exp()
    mass, moment = mass * shrink, moment * shrink  # (n, tiles)
    total = mass.sum(1)
    lse = highest.squeeze(1) + total.log()
    entropy = lse - moment.sum(1) / total
    rows = torch.arange(n, device=hidden.device)
    if draws is None:
        tile_of = top.argmax(1)
        within = logits[tile_of, rows].argmax(1)
    else:
        point = draws * mass.sum(1, dtype=torch.float64)
        tile_of = inverse_cdf(mass, point)
        before = mass.cumsum(1, dtype=torch.float64) - mass
        rest = point - before[rows, tile_of]
        chosen = (logits[tile_of, rows] - highest).exp()  # (n, width)
        within = inverse_cdf(chosen, rest)
    return tile_of * width + within, logits[tile_of, rows, within] - lse, entropy


def inverse_cdf(mass: Tensor, point: Tensor) -> Tensor:
    """(n,) the entry of each row of ``mass`` (n, k) at which its cumulative sum passes ``point`` (n,) float64.

    An entry of mass 0 is never taken.
    """
    cdf = mass.cumsum(-1, dtype=torch.float64)
    total = cdf[:, -1]
    point = torch.minimum(point, torch.nextafter(total, torch.zeros_like(total)))  # rounding may reach the total
    # right=True finds the first entry *above* the point.
    return torch.searchsorted(cdf, point[:, None], right=True).squeeze(-1)
