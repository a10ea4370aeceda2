"""What a model is made of: whether a shortcut knows it, and whether it can be trained here at all.

A shortcut computes what a model's modules would, without calling them, so it may only stand for modules that it knows.
Whoever holds the model can exchange one, hang a hook on it or add an adapter at any time; so all of this is looked at
again before each batch of completions and each pass of the learner. Where something is not known, it is called.
"""

from __future__ import annotations

from math import inf
from typing import Any

import torch
from torch import nn
from transformers.activations import ACT2FN

from .matmul import is_fast_forward

FAMILIES = {"llama": "Llama", "qwen2": "Qwen2", "qwen3": "Qwen3", "mistral": "Mistral"}
"""Models whose layer the packed step writes out: ``model_type``, and what the names of their classes begin with."""

PARTS = ("ForCausalLM", "Model", "DecoderLayer", "Attention", "MLP", "RMSNorm", "RotaryEmbedding")

PLAIN = (nn.Linear, nn.Embedding, nn.ModuleList, type(ACT2FN["silu"]))

ATTENTION = ("eager", "sdpa", "flex_attention", "flash_attention_2", "flash_attention_3", "flash_attention_4")
"""Implementations that compute plain attention; others may be anybody's."""


def altered(module: nn.Module) -> bool:
    """This module, by itself, does something else than its class: hooks, a ``forward`` or a parametrization of its own.

    Such a module has to be called.
    """
    return bool(
        module._forward_hooks
        or module._forward_pre_hooks
        or "parametrizations" in module._modules
        or ("forward" in module.__dict__ and not is_fast_forward(module))
    )


def unaltered(*models: nn.Module | None) -> bool:
    """None of ``models`` has an :func:`altered` module in it."""
    return not any(altered(module) for model in models if model is not None for module in model.modules())


def classes(model: nn.Module) -> tuple[type, ...]:
    """What ``model`` is made of. What a check has found out about it holds for the same classes alone."""
    return tuple(type(module) for module in model.modules())


def check_trainable(model: nn.Module) -> None:
    """Raise for weights that would be sampled, trained or saved wrongly.

    Raises:
        ValueError: an adapter of PEFT, or quantized weights.
    """
    name = type(model).__name__
    for place, module in model.named_modules():
        for cls in type(module).__mro__:
            if cls.__module__.partition(".")[0] == "peft":
                raise ValueError(
                    f"{place or 'the model'} is a {cls.__module__}.{cls.__name__}: adapters of PEFT cannot be trained "
                    "here yet. Train the model itself, or merge the adapter into its weights first: "
                    "Policy(PeftModel.from_pretrained(model, adapter).merge_and_unload(), tokenizer)"
                )
    quantized = getattr(model, "is_quantized", False) or _quantization(model)
    for parameter, weight in model.named_parameters():
        if not weight.is_floating_point() or weight.itemsize < 2:
            quantized = f"{parameter} is {str(weight.dtype).removeprefix('torch.')}"
            break
    if quantized:
        detail = quantized if isinstance(quantized, str) else "its configuration has a quantization_config"
        raise ValueError(
            f"this {name} is quantized ({detail}): quantized weights cannot be trained. Load the model in float32, "
            "bfloat16 or float16 (of one that has been dequantized, delete config.quantization_config)"
        )


def _quantization(model: Any) -> bool:
    return getattr(getattr(model, "config", None), "quantization_config", None) is not None


def supports(model: Any) -> bool:
    """Whether the layers of ``model`` are those that the packed step writes out, and nothing else is in it."""
    config = model.config
    family = getattr(config, "model_type", None)
    if family not in FAMILIES:
        return False
    home = f"transformers.models.{family}.modeling_{family}"
    known = {f"{home}.{FAMILIES[family]}{part}" for part in PARTS}
    return (
        all(cls in PLAIN or f"{cls.__module__}.{cls.__qualname__}" in known for cls in classes(model))
        and type(model).__name__.endswith("ForCausalLM")
        and unaltered(model)
        and all(type(weight) is nn.Parameter for weight in model.parameters())
        and {weight.dtype for weight in model.parameters()} <= {model.dtype}
        and model.dtype in (torch.float32, torch.bfloat16, torch.float16)
        and config._attn_implementation in ATTENTION
        and {getattr(module, "variance_epsilon", None) for module in model.modules()} <= {None, config.rms_norm_eps}
        and config.rope_parameters.get("rope_type") not in ("dynamic", "longrope")  # they depend on the length
        and config.rope_parameters.get("partial_rotary_factor", 1.0) == 1.0
        and (getattr(config, "sliding_window", None) or inf)
        >= config.max_position_embeddings  # the window never cuts anything
    )
