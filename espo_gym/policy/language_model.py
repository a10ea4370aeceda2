"""A causal language model and its tokenizer: text to tokens, tokens to hidden states and logits.

Sampling, decoding and scoring build on this alone; :class:`~.policy.Policy` adds the two verbs on top of them.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging
from typing_extensions import Self

from .agreement import has_linear_head
from .lm_head import upcast_float32
from .structure import altered, check_trainable, classes

CHECKED = ("head_is_linear", "shares_prompts", "decodes_packed")
"""Shortcuts that are checked against the model when they are first wanted."""


class LanguageModel(nn.Module):
    """A causal language model, its tokenizer and, for PPO, a value head on its last hidden state.

    Dropout is off for good: sampling, the old and the new log-probs must come from the same function.

    Args:
        model: any causal language model of transformers.
        tokenizer: its tokenizer, which must have an end-of-sequence token.
        autocast: compute in this dtype (usually bfloat16) on weights that stay as they are. Weights of 16 bits would
            round away the steps of a learning rate near 1e-6.
        shortcuts: False runs the model's own forward pass everywhere, with all of its logits, to compare with.

    Raises:
        ValueError: a tokenizer without an end token; an adapter of PEFT; quantized weights.
    """

    value_head: nn.Linear | None
    critic: PreTrainedModel | None
    """The value head's own trunk; None where it sits on that of the policy."""

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        autocast: torch.dtype | None = None,
        shortcuts: bool = True,
    ) -> None:
        super().__init__()
        if tokenizer.eos_token_id is None:
            raise ValueError(
                "the tokenizer has no end-of-sequence token, so a completion could never end: set tokenizer.eos_token"
            )
        self.autocast = autocast
        self.shortcuts = shortcuts
        self.model = model
        self.tokenizer = tokenizer
        self.value_head = None
        self.critic = None
        self._classes: tuple[type, ...] = ()
        self.look_again()

    def look_again(self) -> None:
        """Notice what has been done to the model since the last time; before each use of it.

        New modules are put in evaluation mode, and what has been found out about the old ones is forgotten.

        Raises:
            ValueError: an adapter of PEFT, or quantized weights.
        """
        if any(module.training for module in self.modules()):
            self.eval()
        made_of = classes(self.model)
        if made_of != self._classes:
            for model in (self.model, self.critic):
                if model is not None:
                    check_trainable(model)
            if self._classes:
                for name in CHECKED:
                    vars(self).pop(name, None)
            self._classes = made_of

    def train(self, mode: bool = True) -> Self:
        """Stay in evaluation mode: dropout would make the ratios wrong from the first step."""
        return super().train(False)

    def save_pretrained(self, path: str | Path) -> None:
        """Write model and tokenizer to a folder that plain transformers loads. Raises OSError: it cannot be written."""
        with no_progress_bars(), writing(path):
            self.model.save_pretrained(path)
            self.tokenizer.save_pretrained(path)

    # -- text and tokens -----------------------------------------------------------------------------------------

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.model.device

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the weights."""
        return self.model.dtype

    @property
    def compute_dtype(self) -> torch.dtype:
        """Dtype of the forward pass."""
        return self.autocast or self.dtype

    @property
    def vocab_size(self) -> int:
        """Entries of the softmax, V of ESPO's Eq. 8."""
        return int(self.model.config.get_text_config().vocab_size)

    @property
    def recommended_preset(self) -> str:
        """The preset that the model's configuration names as ``espo_gym_preset``, else "paper"."""
        return str(getattr(self.model.config, "espo_gym_preset", "paper"))

    @property
    def context_length(self) -> int:
        """Tokens of prompt and completion together that the model can hold."""
        return int(getattr(self.model.config.get_text_config(), "max_position_embeddings", None) or 2**31)

    @property
    def pad_token_id(self) -> int:
        """What short rows are filled up with; the end token if the tokenizer has no padding token."""
        return int(self.tokenizer.eos_token_id if self.tokenizer.pad_token_id is None else self.tokenizer.pad_token_id)

    @property
    def eos_token_ids(self) -> Tensor:
        """(E,) long: tokens that end a completion (chat models have several)."""
        configured = self.model.generation_config.eos_token_id if self.model.generation_config is not None else None
        more = configured if isinstance(configured, list) else [] if configured is None else [configured]
        return torch.tensor(sorted({int(self.tokenizer.eos_token_id), *more}), device=self.device)

    def encode_prompt(self, observation: str, system_prompt: str | None = None) -> list[int]:
        """The tokens that open an episode.

        With a chat template: a system message (if any), the observation as the user's, and the opening of the
        answer. Without: the observation alone, since a plain language model takes no instructions.

        Raises:
            ValueError: the tokenizer has no token for a character, or the prompt leaves no room for an answer.
        """
        if self.tokenizer.chat_template is not None:
            messages = [{"role": "system", "content": system_prompt}] if system_prompt else []
            messages.append({"role": "user", "content": observation})
            ids = self._encode(self._chat(messages), add_special_tokens=False)  # the template writes them
        else:
            ids = self._encode(observation)
        if len(ids) >= self.context_length:
            raise ValueError(
                f"a prompt of {len(ids)} tokens leaves no room for an answer in the model's context of "
                f"{self.context_length} tokens; it begins {observation[:80]!r}. "
                "Use a model with a longer context, or leave such problems out."
            )
        return ids

    def encode_reply(self, observation: str, *, ended: bool) -> list[int]:
        """The tokens that the environment adds after a completion; ``ended``: the completion has its end token.

        With a chat template the observation is the user's next message; without one, a separate line.
        """
        if self.tokenizer.chat_template is None:
            return self._encode(f"\n{observation}\n", add_special_tokens=False)
        marker = "\N{OBJECT REPLACEMENT CHARACTER}"
        messages = [
            {"role": "user", "content": "?"},
            {"role": "assistant", "content": marker},
            {"role": "user", "content": observation},
        ]
        ids = self._encode(self._chat(messages).split(marker, 1)[1], add_special_tokens=False)
        # The completion may already hold the end of its turn: any of the end tokens, not only the tokenizer's.
        return ids[1:] if ended and ids[0] in self.eos_token_ids.tolist() else ids

    def _chat(self, messages: list[dict[str, str]]) -> str:
        return str(self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))

    def _encode(self, text: str, **kwargs: Any) -> list[int]:
        try:
            ids = list(self.tokenizer(text, **kwargs)["input_ids"])
        except Exception as error:  # tokenizers raises a bare Exception where a character has no token
            raise ValueError(
                f"the tokenizer of this policy cannot write {text[:80]!r} ({error}). "
                "Choose a policy whose vocabulary covers the environment, or another template for the prompt."
            ) from error
        if not ids:
            raise ValueError("the prompt is empty: a language model needs at least one token to start from")
        return ids

    def decode(self, rows: list[list[int]]) -> list[str]:
        """Texts of token lists, without special tokens, spaces unchanged."""
        return self.tokenizer.batch_decode(rows, skip_special_tokens=True, clean_up_tokenization_spaces=False)

    # -- forward passes ----------------------------------------------------------------------------------------------

    def values_of(self, hidden: Tensor) -> Tensor:
        """(B, T) float32 values of the last hidden states (B, T, H)."""
        assert self.value_head is not None
        return upcast_float32(self.value_head(hidden.to(self.value_head.weight.dtype)).squeeze(-1))

    def trunk_states(self, model: PreTrainedModel, ids: Tensor, attention: Tensor, cache: Any) -> Tensor:
        """Last hidden states (B, s, H) of ``model`` without its head, on ``ids`` (B, s).

        ``attention`` (B, s') covers what lies in ``cache`` as well.
        """
        return cast(Tensor, self._run(model.base_model, ids, attention, cache).last_hidden_state)

    def next_states(self, ids: Tensor, attention: Tensor, cache: Any) -> Tensor:
        """One decoding step: last hidden states (N, H) or, without a plain head, logits (N, V) after ``ids`` (N, s)."""
        if self.head is not None:
            return self.trunk_states(self.model, ids, attention, cache)[:, -1]
        return cast(Tensor, self._run(self.model, ids, attention, cache, keep=1).logits)[:, -1]

    def model_logits(self, ids: Tensor, attention: Tensor) -> Tensor:
        """(B, s, V) logits of the model itself, on ``ids`` (B, s) padded on the left."""
        return cast(Tensor, self._run(self.model, ids, attention, None).logits)

    @property
    def head(self) -> tuple[Tensor, Tensor | None] | None:
        """Weight (V, H) and bias (V,) that map last hidden states to logits; None if the model does more than that."""
        head = self.model.get_output_embeddings()
        if not self.shortcuts or altered(self.model) or altered(head) or not self.head_is_linear:
            return None
        return head.weight, head.bias

    @cached_property
    def head_is_linear(self) -> bool:
        """The logits are a linear map of the last hidden states, and nothing is done to them afterwards."""
        with self.without_autocast():
            return has_linear_head(self.model, lambda: self.model_logits(*self.probe()))

    # -- does a shortcut give what the model itself gives? -----------------------------------------------------------

    @contextmanager
    def without_autocast(self) -> Iterator[None]:
        """Within it the forward pass runs in the dtype of the weights."""
        autocast, self.autocast = self.autocast, None
        try:
            yield
        finally:
            self.autocast = autocast

    def probe(self) -> tuple[Tensor, Tensor]:
        """Arbitrary tokens (2, 6) and their attention mask, in which the first token is padding."""
        ids = 1 + torch.arange(12, device=self.device).view(2, 6) * 7 % (self.vocab_size - 1)
        attention = torch.ones_like(ids)
        attention[0, 0] = 0
        return ids, attention

    def _run(
        self, model: Any, ids: Tensor, attention: Tensor, cache: Any, keep: int | None = None, **kwargs: Any
    ) -> Any:
        """Call ``model`` with the arguments that its forward pass takes, in the dtype of the computation."""
        takes = _parameters(getattr(model.forward, "__func__", model.forward))
        if "position_ids" in takes:  # those that do not count the padding on the left
            kwargs["position_ids"] = (attention.cumsum(1) - 1).clamp(min=0)[:, -ids.shape[1] :]
        if keep is not None and "logits_to_keep" in takes:
            kwargs["logits_to_keep"] = keep
        with torch.autocast(self.device.type, dtype=self.autocast, enabled=self.autocast is not None):
            return model(
                input_ids=ids, attention_mask=attention, past_key_values=cache, use_cache=cache is not None, **kwargs
            )


@lru_cache(maxsize=16)
def _parameters(forward: Callable[..., Any]) -> frozenset[str]:
    """Names of the arguments that ``forward`` takes; looked up once rather than at every token."""
    return frozenset(inspect.signature(forward).parameters)


@contextmanager
def writing(path: str | Path) -> Iterator[None]:
    """Within it, what safetensors and tokenizers raise of a full or failing disk is the OSError that it is."""
    try:
        yield
    except Exception as error:
        if isinstance(error, SafetensorError) or type(error) is Exception:  # tokenizers has no class of its own
            raise OSError(f"{path} could not be written: {error}") from error
        raise


@contextmanager
def no_progress_bars() -> Iterator[None]:
    """Silence transformers' bars, one per file, which would bury the training bar at every checkpoint."""
    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            transformers_logging.enable_progress_bar()
