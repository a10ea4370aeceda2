"""Models from a folder or the Hugging Face Hub, with every weight from a file and none made up."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedModel

from .language_model import no_progress_bars


def load_model(source: str | Path, *, strict: bool, **kwargs: Any) -> PreTrainedModel:
    """The causal language model in the folder or of the name ``source``, as ``Policy.from_pretrained`` takes them.

    Raises:
        ValueError: the file lacks a weight of the model, or has one of another shape; with ``strict`` also a weight
            that the model does not have (without it, that is a warning), or one that is not finite.
    """
    if strict:
        kwargs |= {"use_safetensors": True, "local_files_only": True}
    with no_progress_bars(), _no_report():
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            source, **kwargs, output_loading_info=True, ignore_mismatched_sizes=True
        )
    model: PreTrainedModel = loaded[0]
    found: dict[str, Any] = loaded[1]
    weights, kind = f"the weights of {Path(source).name}", type(model).__name__
    missing = sorted(found["missing_keys"])
    if missing:
        raise ValueError(f"{weights} lack {_listed(missing)} of {kind}: they are not complete; copy them again")
    shapes = [
        f"{name} {tuple(given)} instead of {tuple(expected)}" for name, given, expected in found["mismatched_keys"]
    ]
    if shapes:
        raise ValueError(f"{weights} do not have the shapes of its config.json: {_listed(sorted(shapes))}")
    if extra := sorted(found["unexpected_keys"]):
        unknown = f"{weights} hold {_listed(extra)}, which {kind} does not have"
        if strict:
            raise ValueError(f"{unknown}: the file was changed, or another version wrote it; take another one")
        warnings.warn(f"{unknown}: they were left out", stacklevel=4)
    for tensor in (*model.parameters(), *model.buffers()):
        # A file's tensors lie at any address, and the last bit of a matrix product depends on it; a copy is aligned as
        # every other tensor is. Without it a resumed run would now and then differ from one that went on.
        tensor.data = tensor.data.clone()
    if strict:
        head = model.get_output_embeddings()
        check_finite(model, forbidding=() if head is None else [p for n, p in head.named_parameters() if n == "bias"])
    return model


def load_module(module: nn.Module, path: Path, *, strict: bool) -> None:
    """Load the weights of ``module`` from the safetensors file ``path``.

    Raises:
        ValueError: the file has other tensors, or tensors of other shapes; with ``strict`` also where one of them is
            not finite.
    """
    try:
        module.load_state_dict(load_file(path))
    except RuntimeError as error:
        raise ValueError(f"{path.name} does not fit: {error}") from error
    if strict:
        check_finite(module)


def check_finite(module: nn.Module, forbidding: Iterable[nn.Parameter] = ()) -> None:
    """Raise ValueError where a parameter is NaN or infinite; -inf may stand in ``forbidding`` ones, a head's biases."""
    allowed = {id(parameter) for parameter in forbidding}
    for name, parameter in module.named_parameters():
        values = parameter.detach()
        if id(parameter) in allowed:
            values = values.masked_fill(values == -torch.inf, 0.0)
        if not values.isfinite().all():
            raise ValueError(f"its weight {name} holds NaN or an infinity: take an earlier one")


@contextmanager
def _no_report() -> Iterator[None]:
    """Silence transformers' table of weights that do not fit: that is an error here, or a warning of one line."""
    logger = logging.getLogger("transformers.modeling_utils")

    def other(record: logging.LogRecord) -> bool:
        return "LOAD REPORT" not in str(record.msg)

    logger.addFilter(other)
    try:
        yield
    finally:
        logger.removeFilter(other)


def _listed(names: list[str]) -> str:
    """The first few of ``names``, and how many more there are."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
