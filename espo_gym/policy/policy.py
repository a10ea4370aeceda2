"""A policy: a language model with two verbs, ``generate`` and ``logps``."""

from __future__ import annotations

import copy
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from espo_gym.choices import SAMPLERS
from espo_gym.rollout import Rollout
from espo_gym.sampling import Sampling

from .cuda_graphs import GraphStep
from .decoding import ModelStep, check_packed_step
from .language_model import CHECKED, LanguageModel, no_progress_bars, writing
from .lm_head import upcast_float32
from .loading import load_model, load_module
from .matmul import fast_linear_layers
from .names import check_policy_name, hub_options
from .packed_step import PackedStep
from .sampler import Completions, generate
from .scoring import TokenScores, check_prefix, plain_pieces, prepared, shared_prompt_pieces
from .step import Step
from .structure import FAMILIES, supports, unaltered
from .vllm import VLLMSampler

BUNDLED = {"espo_gym/teaching": Path(__file__).parents[1] / "teaching"}
"""Policies that come with the package: names that need no download."""

VALUE_HEAD_FILE = "value_head.safetensors"
CRITIC_FOLDER = "critic"


@dataclass(frozen=True)
class Captures:
    """What a sampler reports of every token it draws."""

    entropies: bool
    """The entropy over the whole vocabulary."""
    training_logps: bool
    """Log-probs that equal those of the training forward pass to within float32 rounding."""


class Policy(LanguageModel):
    """A language model with two verbs: :meth:`generate` samples completions, :meth:`logps` scores them with gradient.

    Args:
        model, tokenizer, autocast: see :class:`~.language_model.LanguageModel`.
        value_head: predict returns, as PPO needs.
        sampler: how the next token follows (:mod:`.decoding`): "hf" the model's own forward pass, "packed" packed
            weights of the Llama family, "vllm" a vLLM engine (:mod:`.vllm`), "auto" the fastest of the first two that
            agrees with the model.
        shortcuts: False turns every shortcut off, to compare with: sampling runs the model's own forward pass and
            cache, and log-probs come from one padded batch with all of its logits.

    Raises:
        ValueError: an unknown sampler; a tokenizer without an end token; an adapter of PEFT; quantized weights.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        value_head: bool = False,
        autocast: torch.dtype | None = None,
        sampler: str = "auto",
        shortcuts: bool = True,
    ) -> None:
        if sampler not in SAMPLERS:
            raise ValueError(f"sampler must be one of {', '.join(SAMPLERS)}, not {sampler!r}")
        super().__init__(model, tokenizer, autocast=autocast, shortcuts=shortcuts)
        self.sampler = sampler if shortcuts else "hf"
        if value_head:
            self.add_value_head()

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
        shortcuts: bool = True,
        trust_remote_code: bool = False,
        strict: bool = False,
        **kwargs: Any,
    ) -> Policy:
        """Load a bundled policy (``espo_gym/teaching``), a folder, or a model from the Hugging Face Hub.

        ``device`` is a GPU by default if there is one; ``kwargs`` go to ``AutoModelForCausalLM.from_pretrained``. A
        value head that was saved with the model is loaded with it. No weight is ever made up: a file that lacks one, or
        has it in another shape, is refused. Weights that the model does not have are left out with a warning.

        Args:
            trust_remote_code: let a model or tokenizer run Python files that lie beside its weights. Without it such a
                model is refused; transformers' own default would ask on standard input.
            strict: for a folder that :meth:`save_pretrained` wrote, as one in a checkpoint: refuse weights that the
                model does not have, too, weights that are not finite, and every file but safetensors.

        Raises:
            TypeError: no name or folder.
            OSError: not a bundled name, not a folder, and not a model that the Hub has.
            ValueError: a folder that does not hold a whole model and tokenizer, or that brings code, which was not
                trusted.
        """
        check_policy_name(name_or_path, BUNDLED)
        source = BUNDLED.get(str(name_or_path), name_or_path)
        hub = hub_options(source)
        kwargs = hub | kwargs | {"trust_remote_code": trust_remote_code, "strict": strict, "dtype": dtype}
        head, critic = Path(source) / VALUE_HEAD_FILE, Path(source) / CRITIC_FOLDER
        try:
            with no_progress_bars():
                tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=trust_remote_code, **hub)
            policy = cls(
                load_model(source, **kwargs),
                tokenizer,
                value_head=value_head or head.is_file(),
                autocast=autocast,
                sampler=sampler,
                shortcuts=shortcuts,
            )
            if policy.value_head is not None and head.is_file():
                load_module(policy.value_head, head, strict=strict)
            if critic.is_dir():
                policy.critic = load_model(critic, **kwargs)
        except Exception as error:  # a damaged file may lead to any, in three libraries
            reason = " ".join(str(error).split())[:400] or type(error).__name__
            if "trust_remote_code" in str(error) and not trust_remote_code:
                trusting = "--trust-remote-code (in Python: trust_remote_code=True)"
                reason = f"it brings code of its own: if you trust it, add {trusting}"
            if Path(source).is_dir():
                raise ValueError(f"{name_or_path} cannot be loaded as a policy: {reason}") from error
            known = ", ".join(BUNDLED)
            raise OSError(
                f"could not load a policy from {str(name_or_path)!r}: it is not bundled ({known}), not a folder with a "
                f"model and a tokenizer, and the Hugging Face Hub answered: {reason}"
            ) from error
        return policy.to(device or ("cuda" if torch.cuda.is_available() else "cpu"))

    def save_pretrained(self, path: str | Path) -> None:
        """Write a folder that plain transformers loads; the value head, if any, lies beside the model.

        Raises OSError: it cannot be written.
        """
        super().save_pretrained(path)
        folder, critic = Path(path), Path(path) / CRITIC_FOLDER
        with no_progress_bars(), writing(path):
            if self.value_head is not None:
                save_file(self.value_head.state_dict(), folder / VALUE_HEAD_FILE)
            if self.critic is not None:
                self.critic.save_pretrained(critic)
        mode = stat.S_IMODE((folder / "config.json").stat().st_mode)  # that of the umask
        for weights in (*folder.glob("*.safetensors"), *critic.glob("*.safetensors")):
            weights.chmod(mode)  # safetensors lets nobody but the owner read them

    def add_value_head(self, *, separate: bool = False) -> None:
        """Give the policy a value head that starts at 0 everywhere, unless it has one.

        ``separate`` puts it on its own trunk, a copy of the policy's as it is now.
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
        """The policy as it is now, without gradients or value head: a reference to measure the divergence from."""
        frozen = Policy(copy.deepcopy(self.model), self.tokenizer, autocast=self.autocast, shortcuts=self.shortcuts)
        return frozen.requires_grad_(False)

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
        step = self.make_step()
        with fast_linear_layers([self.model] if self.shortcuts else []):
            return generate(self, step, prompts, seeds, sampling)

    def make_step(self) -> Step:
        """The decoding step that ``sampler`` asks for; "auto" takes the fastest one that passes its check.

        Raises:
            ValueError: ``sampler="packed"`` with a model that the packed step does not know.
        """
        self.look_again()
        if self.sampler != "hf" and supports(self.model) and self.decodes_packed:
            kind = GraphStep if self.device.type == "cuda" else PackedStep
            return kind(self.model, self.compute_dtype)
        if self.sampler == "packed":
            raise ValueError(
                f"sampler='packed' supports the model families {', '.join(FAMILIES)} as transformers makes them (no "
                f"hooks, no exchanged modules, no window that cuts), not this {type(self.model).__name__}: use 'auto' "
                "or 'hf'"
            )
        return ModelStep(self)

    @cached_property
    def vllm(self) -> VLLMSampler:
        """The engine of ``sampler="vllm"``; it starts when it is first asked for completions."""
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

        Call ``backward`` on each piece before you take the next one, and go through all of them: the prompts, which
        pieces share, get their gradient at the end.

        Args:
            tokens: completion tokens, padding included, in a piece of more than one row. None is
                :attr:`default_micro_batch_tokens`.
            temperature: that of sampling.
            entropies: compute them too; they carry gradient.
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
        self.look_again()
        if tokens is None and self.shortcuts:
            tokens = self.default_micro_batch_tokens
        if self.head is not None and unaltered(self.model, self.critic) and self.shares_prompts:
            assert tokens is not None
            yield from shared_prompt_pieces(self, rollout, tokens, temperature, entropies, checkpointing, whole)
        else:
            for rows in plain_pieces(rollout, tokens, in_order=not self.shortcuts):
                with prepared([self.model, self.critic], checkpointing, fast=self.shortcuts):
                    scores = self._plain_scores(rollout.rows(rows), temperature, entropies)
                yield rows, scores

    def _plain_scores(self, rollout: Rollout, temperature: float, entropies: bool) -> TokenScores:
        """Scores from the model itself over prompt and completion, (B, S + T), with all of its logits at once."""
        n_tokens = rollout.completion_ids.shape[1]
        out = self._forward(self.model, rollout, hidden=self.value_head is not None and self.critic is None)
        # The logits at one position predict the next one.
        logprobs = (upcast_float32(out.logits[:, -n_tokens - 1 : -1]) / temperature).log_softmax(-1)  # (B, T, V)
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

    # -- which shortcuts this model allows ---------------------------------------------------------------------------

    @cached_property
    def shares_prompts(self) -> bool:
        """The model can continue from keys and values that were computed before, with the same result."""
        return check_prefix(self)

    @cached_property
    def decodes_packed(self) -> bool:
        """The packed step knows this model and agrees with it."""
        return check_packed_step(self)

    @property
    def checked_shortcuts(self) -> dict[str, bool]:
        """The outcomes of the checks made so far, by name. They belong to a run: later weights may come out otherwise,
        and the run would continue with other rounding.
        """
        return {name: vars(self)[name] for name in CHECKED if name in vars(self)}

    def keep_shortcuts(self, outcomes: Mapping[str, bool]) -> None:
        """Use the ``outcomes`` of :attr:`checked_shortcuts` instead of checking again; a run that is resumed does.

        Raises:
            ValueError: there is no such shortcut, or its outcome is not a bool.
        """
        for name, outcome in outcomes.items():
            if name not in CHECKED or not isinstance(outcome, bool):
                raise ValueError(f"{name}={outcome!r} is no outcome of a check of {', '.join(CHECKED)}: True or False")
            if name != "decodes_packed" or supports(self.model):
                vars(self)[name] = outcome

    @property
    def captures(self) -> Captures:
        """What the sampler reports, and so what training need not compute again."""
        engine = self.sampler == "vllm"
        return Captures(entropies=not engine, training_logps=not engine and self.compute_dtype == torch.float32)

    @property
    def default_micro_batch_tokens(self) -> int:
        """On a CPU few enough to stay in its caches, on a GPU enough to fill it."""
        return 512 if self.device.type == "cpu" else 16_384
