"""Whether a shortcut says what the model says, up to what rounding does to this model.

How far two right computations of the same log-probs lie apart depends on the model: on its depth, on its width, on how
large its logits have become in training. So no fixed number tells rounding from a fault. Here the model is asked
itself: everything that its modules put out is moved by one unit in the last place, up or down at random, as though each
had rounded once more (Monte Carlo arithmetic), and the log-probs are compared with those of the undisturbed pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn

ALLOWED = 4.0
"""A shortcut may differ from the model by this many times what rounding changes; right ones differ by about once."""

FLOOR = 8.0
"""And by this many units in the last place, since the log-probs themselves are rounded."""


TRIALS = 8
"""Disturbed passes until a shortcut counts as wrong; one is nearly always enough. By chance one may change little,
where a single token decides how much."""


@torch.no_grad()
def gap_and_limit(
    own: Callable[[], Tensor], shortcut: Callable[[], Tensor], trunk: nn.Module, dtype: torch.dtype
) -> tuple[float, float]:
    """The largest difference of log-probs between ``own`` and ``shortcut``, in nats, and the largest that is allowed.

    NaN, which is no agreement either, if one of them has NaN.

    Args:
        own: (n, V) logits by the modules of ``trunk``.
        shortcut: (n, V) the same by another way.
        trunk: what is disturbed.
        dtype: that of the computation.
    """
    unit = max(torch.finfo(dtype).eps, torch.finfo(torch.float32).eps)  # norms take float32 whatever the dtype is
    expected = own()
    gap, rounding = _gap(shortcut(), expected), 0.0
    with _disturbed(trunk, unit):
        for _ in range(TRIALS):
            rounding = max(rounding, _gap(own(), expected))
            if gap <= ALLOWED * rounding + FLOOR * unit:
                break
    return gap, ALLOWED * rounding + FLOOR * unit


def _gap(a: Tensor, b: Tensor) -> float:
    """The largest difference of log-probs between two tables of logits; of a token that both forbid it is 0."""
    a, b = a.double().log_softmax(-1), b.double().log_softmax(-1)
    return float(torch.where(a == b, 0.0, (a - b).abs()).max())


@contextmanager
def _disturbed(trunk: nn.Module, unit: float) -> Iterator[None]:
    """Within it, what the innermost modules of ``trunk`` put out is off by ``unit`` times itself, up or down."""
    rng = torch.Generator().manual_seed(0)

    def disturb(module: nn.Module, args: Any, out: Any) -> Any:
        if not isinstance(out, Tensor) or not out.is_floating_point():
            return out
        signs = 2 * torch.randint(2, out.shape, generator=rng) - 1
        return (out * (1 + unit * signs.to(out.device))).to(out.dtype)

    innermost = [module for module in trunk.modules() if not module._modules]
    handles = [module.register_forward_hook(disturb) for module in innermost]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def has_linear_head(model: Any, logits: Callable[[], Tensor]) -> bool:
    """Whether the logits are what a plain linear layer makes of the last hidden states, whatever their size.

    What goes into the head has to be what comes out of the trunk, and what comes out of the head has to be what
    ``logits``, a call of the whole ``model``, returns: exactly, and with large numbers in its place, on which a soft
    cap or a scale would show.
    """
    trunk, head = getattr(model, "base_model", model), model.get_output_embeddings()
    if type(head) is not nn.Linear or trunk is model:
        return False
    seen: dict[str, Any] = {}

    def after_trunk(module: nn.Module, args: Any, out: Any) -> None:
        seen["states"] = getattr(out, "last_hidden_state", None)

    def after_head(module: nn.Module, args: Any, out: Tensor) -> Tensor:
        seen["input"] = args[0]
        seen["output"] = torch.linspace(-1e3, 1e3, out.numel(), device=out.device).view(out.shape).to(out.dtype)
        return cast(Tensor, seen["output"])

    handles = [trunk.register_forward_hook(after_trunk), head.register_forward_hook(after_head)]
    try:
        whole = logits()
    finally:
        for handle in handles:
            handle.remove()
    if seen.get("states") is None or "input" not in seen:
        return False
    return torch.equal(seen["states"].to(seen["input"].dtype), seen["input"]) and torch.equal(
        whole.double(), seen["output"].double()
    )
