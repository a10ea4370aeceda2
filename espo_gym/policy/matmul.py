"""Matrix products in float32 on a CPU, by the faster of the two libraries that PyTorch ships.

PyTorch calls MKL, which does not use AVX-512 on AMD processors and reaches half of their speed; oneDNN does use it.
Elsewhere, and for anything but float32 on a CPU, everything here is the plain product.

oneDNN compiles a kernel for each shape and keeps more than half a megabyte of each. So products of many shapes, as they
come of batches, are taken in pieces of a few heights. And it adds up long sums in one go, which rounds twice as
coarsely as MKL does, so they are taken in parts here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache, partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import pad
from transformers.pytorch_utils import Conv1D

TILE_ROWS = (32, 48, 64, 96, 128, 192, 256, 384, 512)
"""Rows of a piece; fewer are filled up with zeros."""

MAX_SUM = 256
"""Summed up in one go at most."""

MIN_FLOPS = 3_000_000
"""Multiplications of a call below which MKL is done as soon, since a call of it costs less."""


@lru_cache(maxsize=1)
def prefers_onednn() -> bool:
    """The processor is one on which oneDNN is the faster."""
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(
        "AMD" in str(capabilities.get("cpu_name"))
        and capabilities.get("avx512_f")
        and torch.backends.mkldnn.is_available()
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    )


def _suits_onednn(x: Tensor, weight: Tensor) -> bool:
    return x.dtype == weight.dtype == torch.float32 and x.device.type == "cpu" and prefers_onednn()


def product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``x @ weight.T + bias``, (m, n), of x (m, k), weight (n, k), bias (n,), of a shape that comes again and again.

    ``weight`` may be the transpose of a contiguous matrix at no cost. There is no gradient.
    """
    if not _suits_onednn(x, weight):
        return nn.functional.linear(x, weight, bias)
    if x.shape[1] <= MAX_SUM:
        return _onednn(x, weight, bias)
    parts = -(-x.shape[1] // MAX_SUM)
    first, *others = zip(x.chunk(parts, 1), weight.chunk(parts, 1), strict=True)
    total = _onednn(*first, bias)
    for x_part, weight_part in others:
        total += _onednn(x_part, weight_part)
    return total


def _onednn(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    if not (weight.is_contiguous() or weight.t().is_contiguous()):
        weight = weight.contiguous()  # with gaps in it, oneDNN takes a loop that is a thousand times as slow
    return cast(Tensor, torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], None))


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``torch.nn.functional.linear`` of x (..., k), weight (n, k) and bias (n,), with its gradients."""
    if x.numel() * weight.shape[0] < MIN_FLOPS or not _suits_onednn(x, weight) or torch.is_autocast_enabled("cpu"):
        return nn.functional.linear(x, weight, bias)
    apply = _Linear.apply if torch.is_grad_enabled() else product_by_rows
    return apply(x.reshape(-1, x.shape[-1]), weight, bias).view(*x.shape[:-1], -1)


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return product_by_rows(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Any:
        x, weight = ctx.saved_tensors
        wants_x, wants_weight, wants_bias = ctx.needs_input_grad
        return (
            product_by_rows(grad, weight.t()) if wants_x else None,
            _over_rows(grad, x) if wants_weight else None,
            grad.sum(0) if wants_bias else None,
        )


def product_by_rows(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """The same as :func:`product`, of any number of rows."""
    if x.numel() * weight.shape[0] < MIN_FLOPS or not _suits_onednn(x, weight):
        return nn.functional.linear(x, weight, bias)
    if len(x) <= TILE_ROWS[-1]:
        return _piece(x, weight, bias)
    out = x.new_empty(len(x), len(weight))
    for target, part in zip(out.split(TILE_ROWS[-1]), x.split(TILE_ROWS[-1]), strict=True):
        target.copy_(_piece(part, weight, bias))
    return out


def _piece(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    height = _height(len(x), len(weight), weight.shape[1])
    if height is None:
        return nn.functional.linear(x, weight, bias)
    return product(_filled(x, height), weight, bias)[: len(x)]


def _over_rows(left: Tensor, right: Tensor) -> Tensor:
    """``left.T @ right``, (n, k), of left (m, n) and right (m, k)."""
    total: Tensor | None = None
    for a, b in zip(left.split(TILE_ROWS[-1]), right.split(TILE_ROWS[-1]), strict=True):
        height = _height(len(a), a.shape[1], b.shape[1])
        part = a.t() @ b if height is None else product(_filled(a, height).t(), _filled(b, height).t())
        total = part if total is None else total.add_(part)
    assert total is not None
    return total


def _height(rows: int, n: int, k: int) -> int | None:
    """Of the piece for ``rows``, each multiplied by n x k numbers; None where MKL is as fast."""
    height = next(h for h in TILE_ROWS if h >= rows)
    return height if rows * n * min(k, MAX_SUM) >= MIN_FLOPS and 2 * rows > height else None


def _filled(x: Tensor, height: int) -> Tensor:
    return x if len(x) == height else pad(x, (0, 0, 0, height - len(x)))


@contextmanager
def fast_linear_layers(models: Sequence[nn.Module]) -> Iterator[None]:
    """Within it, the linear layers of ``models`` use :func:`linear` (and GPT-2's, whose weights lie the other way)."""
    modules = [module for model in models for module in model.modules()] if prefers_onednn() else []
    plain = [m for m in modules if type(m) in (nn.Linear, Conv1D) and "forward" not in m.__dict__]
    layers = [m for m in plain if type(m.weight) is nn.Parameter and m.weight.is_cpu]
    try:
        for layer in layers:
            layer.forward = partial(_forward, layer)
        yield
    finally:
        for layer in layers:
            layer.__dict__.pop("forward", None)


def is_fast_forward(module: nn.Module) -> bool:
    """The ``forward`` in the place of its class's is the one that :func:`fast_linear_layers` puts there."""
    forward = module.__dict__.get("forward")
    return isinstance(forward, partial) and forward.func is _forward


def _forward(layer: Any, x: Tensor) -> Tensor:
    return linear(x, layer.weight.t() if type(layer) is Conv1D else layer.weight, layer.bias)
