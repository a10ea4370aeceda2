"""A policy: any causal language model of transformers, its tokenizer, and two verbs, ``generate`` and ``logps``."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from espo_gym.rollout import Rollout

from .decoding import check_functional
from .lm_head import wide
from .matmul import quick_linears
from .sampling import Completions, Sampling, generate
from .scoring import TokenScores, check_head, check_prefix, hooked, plain_pieces, prepared, shared_prompt_pieces
from .vllm import VLLMSampler

SAMPLERS = ("auto", "functional", "hf", "vllm")

BUNDLED = {"espo_gym/teaching": Path(__file__).parents[1] / "teaching"}
"""Policies that come with the package: names that need no download."""

VALUE_HEAD_FILE = "value_head.safetensors"
CRITIC_FOLDER = "critic"


class Policy(nn.Module):
    """A causal language model, its tokenizer and, for PPO, a value head on its last hidden state.

    Dropout is off for good: sampling, the old and the new log-probs must come from one and the same function.

    ``autocast`` computes in that dtype (bfloat16, usually) on weights that stay as they are. Weights of 16 bits would
    round the steps of a learning rate near 1e-6 away.

    ``sampler`` is how tokens follow each other (:mod:`espo_gym.policy.decoding`): "hf" the model's own forward pass,
    "functional" packed weights of the Llama family, "vllm" an engine of vLLM (:mod:`espo_gym.policy.vllm`), "auto" the
    fastest of the first two that says the same as the model. ``reference`` turns every shortcut off, to compare with:
    sampling by the model's own forward pass and cache, and log-probs from one padded batch with all of its logits.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        value_head: bool = False,
        autocast: torch.dtype | None = None,
        sampler: str = "auto",
        reference: bool = False,
    ) -> None:
        super().__init__()
        if sampler not in SAMPLERS:
            raise ValueError(f"sampler must be one of {', '.join(SAMPLERS)}, not {sampler!r}")
        self.autocast = autocast
        self.reference = reference
        self.sampler = "hf" if reference else sampler
        self.model = model
        self.tokenizer = tokenizer
        self.value_head: nn.Linear | None = None
        self.critic: PreTrainedModel | None = None
        if value_head:
            self.add_value_head()
        self.eval()
        if tokenizer.eos_token_id is None:
            raise ValueError(
                "the tokenizer has no end-of-sequence token, so a completion could never end: set tokenizer.eos_token"
            )

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | Path,
        *,
        dtype: torch.dtype | str = torch.float32,
        device: torch.device | str | None = None,
        value_head: bool = False,
        autocast: torch.dtype | None = None,
        sampler: str = "auto",
        reference: bool = False,
        **kwargs: Any,
    ) -> Policy:
        """Load a bundled policy (``espo_gym/teaching``), a folder, or a model of the Hugging Face hub.

        ``device`` is a GPU where there is one; ``kwargs`` go to ``AutoModelForCausalLM.from_pretrained``. A value head
        that was saved with the model is loaded with it.

        Raises:
            OSError: neither a bundled name, nor a folder with a model, nor a model that the hub knows.
        """
        source = BUNDLED.get(str(name_or_path), name_or_path)
        try:
            with _no_progress_bars():
                tokenizer = AutoTokenizer.from_pretrained(source)
                model = _load_model(source, dtype=dtype, **kwargs)
        except (OSError, ValueError) as error:
            known = ", ".join(BUNDLED)
            raise OSError(
                f"no policy could be loaded from {str(name_or_path)!r}, which is neither bundled ({known}) "
                f"nor a folder with a model and a tokenizer nor a model that the hub has given: {error}"
            ) from error
        saved = Path(source) / VALUE_HEAD_FILE
        policy = cls(
            model,
            tokenizer,
            value_head=value_head or saved.is_file(),
            autocast=autocast,
            sampler=sampler,
            reference=reference,
        )
        if policy.value_head is not None and saved.is_file():
            policy.value_head.load_state_dict(load_file(saved))
        if (critic := Path(source) / CRITIC_FOLDER).is_dir():
            with _no_progress_bars():
                policy.critic = _load_model(critic, dtype=dtype, **kwargs)
        return policy.to(device or ("cuda" if torch.cuda.is_available() else "cpu"))

    def save_pretrained(self, path: str | Path) -> None:
        """Write a folder that plain transformers loads; the value head, if any, lies beside the model."""
        with _no_progress_bars():
            self.model.save_pretrained(path)
            self.tokenizer.save_pretrained(path)
        if self.value_head is not None:
            save_file(self.value_head.state_dict(), Path(path) / VALUE_HEAD_FILE)
        if self.critic is not None:
            with _no_progress_bars():
                self.critic.save_pretrained(Path(path) / CRITIC_FOLDER)

    def add_value_head(self, *, separate: bool = False) -> None:
        """Give the policy a value head that starts at 0 everywhere; nothing happens if it has one.

        ``separate`` puts it on a trunk of its own, a copy of the policy's as it is now.
        """
        if separate and self.critic is None:
            self.critic = copy.deepcopy(self.model)
        if self.value_head is None:
            hidden = self.model.config.get_text_config().hidden_size
            head = nn.utils.skip_init(nn.Linear, hidden, 1, device=self.device)  # draws no global random numbers
            nn.init.zeros_(head.weight)
            nn.init.zeros_(head.bias)
            self.value_head = head

    def frozen_copy(self) -> Policy:
        """The policy as it is now, without gradients and value head: a reference to measure the divergence from."""
        frozen = Policy(copy.deepcopy(self.model), self.tokenizer, autocast=self.autocast, reference=self.reference)
        return frozen.requires_grad_(False)

    def train(self, mode: bool = True) -> Policy:
        """Training mode would turn dropout on and make the ratios wrong from the first step, so there is none."""
        return super().train(False)

    # -- text and tokens -----------------------------------------------------------------------------------------

    @property
    def device(self) -> torch.device:
        return self.model.device

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights."""
        return self.model.dtype

    @property
    def compute_dtype(self) -> torch.dtype:
        """Of the forward pass."""
        return self.autocast or self.dtype

    @property
    def vocab_size(self) -> int:
        """V of ESPO's Eq. 8: the entries of the softmax."""
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
        return int(self.tokenizer.eos_token_id if self.tokenizer.pad_token_id is None else self.tokenizer.pad_token_id)

    @property
    def eos_token_ids(self) -> Tensor:
        """(E,) long: the tokens that end a completion (chat models have several)."""
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
        """The tokens that the environment adds after a completion; ``ended`` says that it came to its end token.

        With a chat template the observation is the user's next message; without, a line of its own.
        """
        if self.tokenizer.chat_template is None:
            return self._encode(f"\n{observation}\n", add_special_tokens=False)
        said = "\N{OBJECT REPLACEMENT CHARACTER}"
        messages = [
            {"role": "user", "content": "?"},
            {"role": "assistant", "content": said},
            {"role": "user", "content": observation},
        ]
        ids = self._encode(self._chat(messages).split(said, 1)[1], add_special_tokens=False)
        # The completion may hold the end of its own turn already: any of the end tokens, not only the tokenizer's.
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
        """Texts of token lists, special tokens left out, spaces as they are."""
        return self.tokenizer.batch_decode(rows, skip_special_tokens=True, clean_up_tokenization_spaces=False)

    # -- the two verbs -------------------------------------------------------------------------------------------

    def generate(self, prompts: Sequence[Sequence[int]], seeds: Sequence[int], sampling: Sampling) -> Completions:
        """Sample one completion for each prompt.

        Args:
            prompts: N lists of token ids (see :meth:`encode_prompt`). Equal prompts are run once.
            seeds: N integers; a completion is a function of the weights, its prompt and its seed.
            sampling: temperature, limits and stop strings.
        """
        if len(prompts) != len(seeds):
            raise ValueError(f"{len(prompts)} prompts but {len(seeds)} seeds: each completion needs its own")
        if self.sampler == "vllm":
            return self.vllm.generate(self, prompts, seeds, sampling)
        with quick_linears([] if self.reference else [self.model]):
            return generate(self, prompts, seeds, sampling)

    @cached_property
    def vllm(self) -> VLLMSampler:
        """The engine of ``sampler="vllm"``, not started before it is asked for completions."""
        return VLLMSampler()

    def logps(self, rollout: Rollout, *, temperature: float = 1.0, entropies: bool = False) -> TokenScores:
        """Log-probs (and entropies, if asked for) of ``rollout`` under the weights as they are now, with gradient.

        The graph of all rows is alive at once; :meth:`micro_batches` needs less memory. Sums are taken in float32
        whatever the model's dtype.
        """
        pieces = self._pieces(rollout, None, temperature, entropies, checkpointing=False, whole=True)
        return TokenScores.concat(list(pieces))

    def micro_batches(
        self,
        rollout: Rollout,
        *,
        tokens: int | None = None,
        temperature: float = 1.0,
        entropies: bool = False,
        checkpointing: bool = False,
    ) -> Iterator[tuple[Tensor, TokenScores]]:
        """Pieces of ``rollout`` as ``(rows (B,) long, scores of those rows)``, one after the other.

        Take the gradient of each piece before you ask for the next one, and go through all of them: what the pieces
        share, their prompts, gets its gradient at the end.

        Args:
            tokens: completion tokens, padding included, in a piece of more than one row. None is
                :attr:`default_micro_batch_tokens`.
            temperature: that of sampling.
            entropies: whether they are wanted; they carry gradient, too.
            checkpointing: compute activations again in the backward pass instead of keeping them.
        """
        return self._pieces(rollout, tokens, temperature, entropies, checkpointing, whole=False)

    def _pieces(
        self,
        rollout: Rollout,
        tokens: int | None,
        temperature: float,
        entropies: bool,
        checkpointing: bool,
        *,
        whole: bool,
    ) -> Iterator[tuple[Tensor, TokenScores]]:
        """``whole`` keeps the graph of the prompts in one with that of the completions."""
        if tokens is None and not self.reference:
            tokens = self.default_micro_batch_tokens
        if self.head is not None and self.shares_prompts:
            assert tokens is not None
            yield from shared_prompt_pieces(self, rollout, tokens, temperature, entropies, checkpointing, whole)
        else:
            for rows in plain_pieces(rollout, tokens, in_order=self.reference):
                with prepared([self.model, self.critic], checkpointing, quick=not self.reference):
                    scores = self._plain_scores(rollout.rows(rows), temperature, entropies)
                yield rows, scores

    def _plain_scores(self, rollout: Rollout, temperature: float, entropies: bool) -> TokenScores:
        """The model over prompt and completion, (B, S + T), as it is, and all logits of the completion at once."""
        n_tokens = rollout.completion_ids.shape[1]
        out = self._forward(self.model, rollout, hidden=self.value_head is not None and self.critic is None)
        # The logits at one position speak of the next one.
        logprobs = (wide(out.logits[:, -n_tokens - 1 : -1]) / temperature).log_softmax(-1)  # (B, T, V)
        logps = logprobs.gather(-1, rollout.completion_ids[..., None]).squeeze(-1)  # (B, T)
        entropy = values = None
        if entropies:
            entropy = -torch.where(logprobs > -torch.inf, logprobs.exp() * logprobs, 0.0).sum(-1)
            entropy = entropy.masked_fill(~rollout.mask, 0.0)
        if self.value_head is not None:
            trunk = out if self.critic is None else self._forward(self.critic, rollout, hidden=True)
            values = self.values_of(trunk.hidden_states[-1][:, -n_tokens - 1 : -1]).masked_fill(~rollout.mask, 0.0)
        return TokenScores(logps.masked_fill(~rollout.mask, 0.0), entropy, values)

    def _forward(self, model: PreTrainedModel, rollout: Rollout, *, hidden: bool) -> Any:
        """``model`` over prompts and completions, (B, S + T); its head over the completions alone."""
        ids = torch.cat([rollout.prompt_ids, rollout.completion_ids], 1)
        attention = torch.cat([rollout.prompt_mask, rollout.completion_mask], 1).long()
        keep = rollout.completion_ids.shape[1] + 1
        return self._run(model, ids, attention, None, keep=keep, output_hidden_states=hidden)

    # -- what both verbs are made of ----------------------------------------------------------------------------------

    def values_of(self, hidden: Tensor) -> Tensor:
        """(B, T) float32 of the value head, from the last hidden states (B, T, H)."""
        assert self.value_head is not None
        return wide(self.value_head(hidden.to(self.value_head.weight.dtype)).squeeze(-1))

    def trunk_states(self, model: PreTrainedModel, ids: Tensor, attention: Tensor, cache: Any) -> Tensor:
        """Last hidden states (B, s, H) of ``model`` without its head, on ``ids`` (B, s).

        ``attention`` (B, s') covers what lies in ``cache`` as well.
        """
        return self._run(model.base_model, ids, attention, cache).last_hidden_state

    def next_states(self, ids: Tensor, attention: Tensor, cache: Any) -> Tensor:
        """One step of decoding: what :meth:`logits` takes, (N, ...), at the last of the tokens ``ids`` (N, s)."""
        if self.head is not None:
            return self.trunk_states(self.model, ids, attention, cache)[:, -1]
        return self._run(self.model, ids, attention, cache, keep=1).logits[:, -1]

    def model_logits(self, ids: Tensor, attention: Tensor) -> Tensor:
        """(B, s, V) of the model as it is, on ``ids`` (B, s) padded on the left."""
        return self._run(self.model, ids, attention, None).logits

    @property
    def head(self) -> tuple[Tensor, Tensor | None] | None:
        """Weight (V, H) and bias (V,) by which the logits follow from the last hidden states; None if by other ways."""
        head = self.model.get_output_embeddings()
        if self.reference or not self._plain_head or hooked(head):
            return None
        return head.weight, head.bias

    @cached_property
    def _plain_head(self) -> bool:
        return check_head(self)

    @cached_property
    def shares_prompts(self) -> bool:
        """The model can go on from keys and values that were computed before, with the same result."""
        return check_prefix(self)

    @cached_property
    def decodes_functionally(self) -> bool:
        """The functional step is for this model and says the same."""
        return check_functional(self)

    @property
    def default_micro_batch_tokens(self) -> int:
        """On a CPU few enough for its caches, on a GPU enough to fill it."""
        return 512 if self.device.type == "cpu" else 16_384

    def _run(
        self, model: Any, ids: Tensor, attention: Tensor, cache: Any, keep: int | None = None, **kwargs: Any
    ) -> Any:
        """Call ``model`` with what its forward pass takes, in the dtype of the computation."""
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
    """Names that ``forward`` takes; looked up once, and not at each token."""
    return frozenset(inspect.signature(forward).parameters)


def _load_model(source: str | Path, **kwargs: Any) -> PreTrainedModel:
    model = AutoModelForCausalLM.from_pretrained(source, **kwargs)
    for tensor in (*model.parameters(), *model.buffers()):
        # A file's tensors lie at any address, and the last bit of a matrix product depends on it; a copy is aligned as
        # every other tensor is. Without it a resumed run would now and then differ from one that went on.
        tensor.data = tensor.data.clone()
    return model


@contextmanager
def _no_progress_bars() -> Iterator[None]:
    """Without transformers' bars, one for each file, which would bury the bar of training at every checkpoint."""
    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            transformers_logging.enable_progress_bar()
