"""The head of a language model, from hidden states to log-probs and next tokens, without ever holding all logits.

With a vocabulary of 150,000 the logits of 1,000 tokens are 600 MB, their softmax as much again, and the gradient too.
Both functions here go over the vocabulary in tiles that stay in a processor's cache: :func:`head_scores` gives the
log-probs (and entropies) of tokens that are already written, with gradients; :func:`next_tokens` draws new ones.
All sums are taken in float32 where the hidden states have 16 bits.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import log
from typing import Any

import torch
from torch import Tensor

from .matmul import product, product_by_rows

ROWS, COLUMNS = 256, 2048
"""A tile of logits: 2 MB of float32. Every product has one of these shapes, so that the result of a row does not depend
on how many others there are."""

GPU_ROWS, GPU_COLUMNS = 2048, 16_384
"""The same on a GPU, 128 MB: there a tile has to be large enough to be worth its launch."""

FORBIDDEN = -1e5
"""In place of a bias of -inf, by which a model forbids a token: 0 times -inf would be NaN."""

NAT = 1 / log(2)
"""In bits. Softmax is taken to the base of 2 here: a power of 2 costs a CPU less than one of e, and is as exact."""

LOGITS_BYTES = 2**26
"""At most this many bytes of logits are held at once by :func:`next_tokens`."""


def head_logits(states: Tensor, head: tuple[Tensor, Tensor | None] | None) -> Tensor:
    """(n, V) logits, float32 at least, from last hidden states (n, H); without a head ``states`` are the logits."""
    if head is not None:
        weight, bias = head
        bias = None if bias is None else bias.to(states.dtype)
        states = product_by_rows(states, weight.to(states.dtype), bias)
    return upcast_float32(states)


def upcast_float32(x: Tensor) -> Tensor:
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
    logps, entropy = _HeadScores.apply(  # type: ignore[no-untyped-call]
        hidden, weight, bias, targets, temperature, entropies
    )
    return logps, entropy if entropies else None


def _logits(weight: Tensor, hidden: Tensor, bias: Tensor | None) -> Tensor:
    """(columns, rows) of one tile, before the temperature."""
    logits = upcast_float32(product(weight, hidden))
    return logits if bias is None else logits.add_(bias[:, None])


def _bits(logits: Tensor, unit: float, shift: Tensor) -> Tensor:
    """``logits * unit - shift``, in their place."""
    return torch.add(-shift, logits, alpha=unit, out=logits)


def _tile(device: torch.device) -> tuple[int, int]:
    return (ROWS, COLUMNS) if device.type == "cpu" else (GPU_ROWS, GPU_COLUMNS)


def _columns(weight: Tensor, bias: Tensor | None, dtype: torch.dtype) -> Iterator[tuple[slice, Tensor, Any]]:
    """Tiles of the head: which entries of the vocabulary, their weights in ``dtype``, their bias."""
    width = _tile(weight.device)[1]
    for start in range(0, len(weight), width):
        part = slice(start, min(start + width, len(weight)))
        yield part, weight[part].to(dtype), None if bias is None else upcast_float32(bias[part]).clamp(min=FORBIDDEN)


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
            m, unit = len(targets), NAT / temperature
            x = _padded(hidden)
            rows, height = len(x), _tile(hidden.device)[0]
            top = upcast_float32(x.new_full((rows,), -torch.inf))  # of the logits so far, in bits
            mass, moment = torch.zeros_like(top), torch.zeros_like(top)  # sums of 2^(bits - top), and of it times bits
            chosen = torch.zeros_like(top)
            wanted = torch.nn.functional.pad(targets, (0, rows - m))
            for part, w, b in _columns(weight, bias, x.dtype):
                for start in range(0, rows, height):
                    i = slice(start, start + height)
                    logits = _logits(w, x[i], b)
                    entry, row = _inside(wanted[i], part)
                    chosen[start + row] = logits[entry, row]
                    new_top = torch.maximum(top[i], logits.amax(0) * unit)
                    shrink = (top[i] - new_top).exp2()
                    bits = _bits(logits, unit, new_top)
                    weights = bits.exp2() if entropies else bits.exp2_()
                    total = weights.sum(0)
                    mass[i] = mass[i] * shrink + total
                    if entropies:
                        moment[i] = moment[i] * shrink + weights.mul_(bits).sum(0) + total * new_top
                    top[i] = new_top
            lse = top.double() + mass.double().log2()
            entropy = lse - moment / mass
            ctx.save_for_backward(hidden, weight, bias, targets, lse[:m].to(top.dtype), entropy[:m].to(top.dtype))
            ctx.temperature, ctx.entropies = temperature, entropies
            return tuple((v[:m] / NAT).to(top.dtype) for v in (chosen * unit - lse, entropy))  # type: ignore[return-value]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        hidden, weight, bias, targets, lse, entropy = ctx.saved_tensors
        live = grads[0] != 0
        if ctx.entropies:
            live |= grads[1] != 0
        index = live.nonzero().squeeze(1)  # a clipped token has no gradient: exactly 0
        wants_hidden, wants_weight, wants_bias = ctx.needs_input_grad[:3]
        grad_hidden = upcast_float32(torch.zeros_like(hidden)) if wants_hidden else None
        grad_weight = upcast_float32(torch.zeros_like(weight)) if wants_weight else None
        grad_bias = upcast_float32(torch.zeros_like(bias)) if wants_bias and bias is not None else None
        if len(index):
            with torch.autocast(hidden.device.type, enabled=False):
                x, height = _padded(hidden[index]), _tile(hidden.device)[0]

                def padded(v: Tensor, value: float = 0.0) -> Tensor:
                    return torch.nn.functional.pad(v[index], (0, len(x) - len(index)), value=value)

                up, up_entropy = (padded(g) / ctx.temperature for g in grads)
                lse, entropy = padded(lse, -FORBIDDEN), padded(entropy)  # the padding has probability 0
                wanted = padded(targets)
                # What a row has in common stays out of the tile: without entropies, its slope is p - 1 and p.
                common = torch.ones_like(up) if ctx.entropies else -up
                scaled = (x * common[:, None]).to(x.dtype)
                out = upcast_float32(x.new_zeros(x.shape[::-1]))  # (H, rows)
                for part, w, b in _columns(weight, bias, x.dtype):
                    turned = w.t().contiguous() if wants_hidden else w.t()
                    for start in range(0, len(x), height):
                        i = slice(start, start + height)
                        bits = _bits(_logits(w, x[i], b), NAT / ctx.temperature, lse[i])
                        entry, row = _inside(wanted[i], part)
                        if ctx.entropies:  # d entropy / d logit = -p (log p + entropy)
                            slope = bits.exp2().mul_(bits.add_(entropy[i]).mul_(-up_entropy[i] / NAT).sub_(up[i]))
                            slope[entry, row] += up[i][row]
                        else:
                            slope = bits.exp2_()
                            slope[entry, row] -= 1.0
                        narrow = slope.to(x.dtype)
                        if wants_hidden:
                            out[:, i] += product(turned, narrow.t())
                        if grad_weight is not None:
                            grad_weight[part] += product(narrow, scaled[i].t())
                        if grad_bias is not None:
                            grad_bias[part] += slope @ common[i]
                if grad_hidden is not None:
                    grad_hidden[index] = (out * common).t()[: len(index)]
        return (
            None if grad_hidden is None else grad_hidden.to(hidden.dtype),
            None if grad_weight is None else grad_weight.to(weight.dtype),
            None if grad_bias is None else grad_bias.to(bias.dtype),
            None,
            None,
            None,
        )


def _inside(wanted: Tensor, part: slice) -> tuple[Tensor, Tensor]:
    """Where in the tile ``part`` the ``wanted`` (rows,) entries lie that lie in it: (k,) entries, (k,) rows."""
    row = ((wanted >= part.start) & (wanted < part.stop)).nonzero().squeeze(1)
    return wanted[row] - part.start, row


def _padded(hidden: Tensor) -> Tensor:
    """``hidden`` with rows of 0 added up to a multiple of a tile's."""
    return torch.nn.functional.pad(hidden, (0, 0, 0, -len(hidden) % _tile(hidden.device)[0]))


def next_tokens(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, draws: Tensor | None, temperature: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Tokens drawn from ``softmax(logits / temperature)`` of each row, their log-probs, and the entropies, each (n,).

    ``draws`` (n,) float64 in [0, 1) decide, by the inverse of the cumulative distribution; None takes the most likely
    token. Tiles are chosen first, then the token within one, so only one tile a row is looked at twice. Where the
    logits are not finite the token means nothing, and the entropy is NaN.
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
    n, width, unit = len(hidden), _tile(hidden.device)[1], NAT / temperature
    tiles = -(-len(weight) // width)
    logits = upcast_float32(hidden.new_full((tiles, n, width), -torch.inf))
    top = upcast_float32(hidden.new_empty(n, tiles))  # in bits, as all that follows from it
    mass, moment = torch.empty_like(top), torch.empty_like(top)
    for j, (part, w, b) in enumerate(_columns(weight, bias, hidden.dtype)):
        tile = logits[j, :, : part.stop - part.start]
        tile.copy_(product_by_rows(hidden, w))
        if b is not None:
            tile += b
        top[:, j] = tile.amax(1) * unit
        weights = torch.add(-top[:, j, None], tile, alpha=unit).exp2_()
        mass[:, j] = weights.sum(1)
        moment[:, j] = weights.mul_(tile).sum(1) * unit
    highest = top.amax(1, keepdim=True)  # (n, 1)
    shrink = (top - highest).exp2()
    mass, moment = mass * shrink, moment * shrink  # (n, tiles)
    total = mass.sum(1)
    lse = highest.squeeze(1).double() + total.double().log2()
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
        chosen = torch.add(-highest, logits[tile_of, rows], alpha=unit).exp2()  # (n, width)
        within = inverse_cdf(chosen, rest)
    logp = logits[tile_of, rows, within] * unit - lse
    choice = (tile_of * width + within).clamp_(max=len(weight) - 1)  # NaN may have led into the last tile's padding
    return choice, (logp / NAT).to(top.dtype), (entropy / NAT).to(top.dtype)


def inverse_cdf(mass: Tensor, point: Tensor) -> Tensor:
    """(n,) the entry of each row of ``mass`` (n, k) at which its cumulative sum passes ``point`` (n,) float64.

    An entry of mass 0 is never taken.
    """
    return first_above(mass.cumsum(-1, dtype=torch.float64), point)


def first_above(cdf: Tensor, point: Tensor) -> Tensor:
    """Like :func:`inverse_cdf`, but from cumulative sums (n, k) float64.

    A point rounded up to the total is clamped just below it. Where the sums are NaN it is the last entry, which the
    caller finds out by the entropy.
    """
    total = cdf[:, -1]
    point = torch.minimum(point, torch.nextafter(total, torch.zeros_like(total)))
    # right=True finds the first entry *above* the point.
    return torch.searchsorted(cdf, point[:, None], right=True).squeeze(-1).clamp_(max=cdf.shape[-1] - 1)
