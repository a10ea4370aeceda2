"""Tiny random policies, made on the fly, and what several test files need."""

import copy
import warnings
from collections.abc import Callable, Hashable, Sequence
from dataclasses import fields
from typing import Any, TypeVar

import numpy as np
import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from espo_gym.algorithms import LossBatch
from espo_gym.envs import Verdict
from espo_gym.experiments.warm_start import make_tokenizer
from espo_gym.policy import Policy
from espo_gym.policy.sampler import Completions
from espo_gym.rollout import Rollout

CHAT_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CONTEXT = 64
T = TypeVar("T")


def not_none(value: T | None) -> T:
    """The value, where a test knows that it is there."""
    assert value is not None
    return value


def char_tokenizer() -> PreTrainedTokenizerFast:
    return make_tokenizer()


def byte_tokenizer(*, chat: bool = True, pad: bool = True) -> PreTrainedTokenizerFast:
    """One token a byte, and Qwen's marks of a message."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(t, special=True) for t in ("<|im_start|>", "<|im_end|>", "<|pad|>")])
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|pad|>" if pad else None
    )
    wrapped.chat_template = CHAT_TEMPLATE if chat else None
    return wrapped


def tiny_model(kind: str, tokenizer: PreTrainedTokenizerFast, *, seed: int = 0, context: int = CONTEXT, **config):
    """A model of two layers with random weights, far from uniform in what it says."""
    common = {
        "vocab_size": len(tokenizer),
        "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "initializer_range": 0.3,
    }
    classes: dict[str, tuple[Any, Any]] = {
        "gpt2": (GPT2LMHeadModel, GPT2Config),
        "llama": (LlamaForCausalLM, LlamaConfig),
        "qwen2": (Qwen2ForCausalLM, Qwen2Config),
    }
    sizes: dict[str, Any]
    if kind == "gpt2":
        sizes = {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": context}
    else:
        sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
        sizes |= {"num_key_value_heads": 1 if kind == "qwen2" else 2, "tie_word_embeddings": True}
        sizes |= {"max_position_embeddings": context}
    cls, make = classes[kind]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return cls(make(**(sizes | common | config)))


def tiny_policy(
    kind: str = "llama",
    *,
    tokenizer: str = "char",
    dtype: torch.dtype = torch.float32,
    fresh: bool = False,
    **kwargs: Any,
) -> Policy:
    """A policy with random weights. Made once per arguments and copied, with what it knows of its shortcuts.

    ``fresh`` makes a new one, for tests of how it finds out.
    """

    def make() -> Policy:
        made = {"char": char_tokenizer, "byte": byte_tokenizer}[tokenizer]()
        return Policy(tiny_model(kind, made, **kwargs).to(dtype), made)

    return make() if fresh else made_once((kind, tokenizer, dtype, repr(sorted(kwargs.items()))), make)


def teaching_policy() -> Policy:
    """A copy of the bundled policy; read from disk once."""
    return made_once("teaching", lambda: Policy.from_pretrained("espo_gym/teaching", device="cpu"))


_made: dict[Hashable, Policy] = {}


def made_once(key: Hashable, make: Callable[[], Policy]) -> Policy:
    """A copy of what ``make`` makes, which is made once; checks of its shortcuts take ten times as long as a copy."""
    if key not in _made:
        policy = _made[key] = make()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            _ = policy.head, policy.shares_prompts, policy.decodes_packed
    return copy.deepcopy(_made[key])


def completions(policy: Policy, said: Sequence[tuple[list[int], bool]]) -> Completions:
    """What ``policy.generate`` would return had it written these token ids; True: cut off after them."""
    width, pad = max(len(ids) for ids, _ in said), policy.pad_token_id
    tokens = torch.tensor([ids + [pad] * (width - len(ids)) for ids, _ in said])
    mask = torch.tensor([[True] * len(ids) + [False] * (width - len(ids)) for ids, _ in said])
    zeros, cut = torch.zeros(mask.shape), torch.tensor([cut for _, cut in said])
    return Completions(policy.decode([ids for ids, _ in said]), tokens, mask, zeros, zeros.clone(), cut)


SMALL: dict[str, Any] = {
    "rollout_size": 8,
    "group_size": 4,
    "n_minibatches": 2,
    "max_completion_tokens": 6,
    "learning_rate": 1e-2,
    "warmup_steps": 2,
}
"""Hyperparameters of a run of milliseconds."""


def random_rollout(
    policy: Policy,
    *,
    lengths: list[int],
    prompts: list[int] | None = None,
    group_size: int = 4,
    no_verdict: Sequence[int] = (),
    seed: int = 0,
) -> Rollout:
    """A rollout of random tokens and scores near the policy's own, with ragged prompts and completions."""
    rng = np.random.default_rng(seed)
    n, width = len(lengths), max(lengths)
    prompts = prompts or rng.integers(1, 6, n).tolist()
    deep = max(prompts)
    ids = torch.from_numpy(rng.integers(2, policy.vocab_size, (n, deep + width)))
    prompt_mask = torch.arange(deep) >= deep - torch.tensor(prompts)[:, None]
    mask = torch.arange(width) < torch.tensor(lengths)[:, None]
    pad = policy.pad_token_id
    verdicts = [Verdict("correct" if c else "incorrect") for c in rng.integers(0, 2, n)]
    for i in no_verdict:
        verdicts[i] = Verdict("no_verdict", reason="crash")
    rollout = Rollout(
        prompt_ids=torch.where(prompt_mask, ids[:, :deep], pad),
        prompt_mask=prompt_mask,
        completion_ids=torch.where(mask, ids[:, deep:], pad),
        completion_mask=mask,
        mask=mask,
        old_logps=torch.zeros(n, width),
        entropies=torch.from_numpy(rng.uniform(0.1, 2.5, (n, width))).float() * mask,
        rewards=torch.tensor([v.reward for v in verdicts]),
        has_verdict=torch.tensor([v.has_verdict for v in verdicts]),
        groups=torch.arange(n) // group_size,
        truncated=torch.zeros(n, dtype=torch.bool),
        prompts=["1+1="] * n,
        texts=["2"] * n,
        verdicts=verdicts,
        seconds={"generate": 1.0, "verify": 1.0},
    )
    with torch.no_grad():
        scores = policy.logps(rollout)
    noise = torch.from_numpy(rng.normal(0, 0.1, (n, width))).float()
    rollout.old_logps = ((scores.logps + noise) * mask).to(scores.logps.dtype)
    if scores.values is not None:
        rollout.values = (scores.values + noise) * mask
    return rollout


def state(module: torch.nn.Module) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in module.state_dict().items()}


def same_state(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    """Bit for bit."""
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def global_random_state() -> Callable[[], bool]:
    """Remember the state of every global generator; the function returned says whether it is still the same."""
    import random

    def now():
        numpy: Any = np.random.get_state()
        return random.getstate(), (numpy[0], numpy[1].tobytes(), *numpy[2:]), torch.get_rng_state().numpy().tobytes()

    before = now()
    return lambda: now() == before


def rollout_fields(rollout: Rollout) -> dict[str, Tensor]:
    return {f.name: v for f in fields(rollout) if isinstance(v := getattr(rollout, f.name), Tensor)}


def random_batch(seed: int = 0, *, rows: int = 6, width: int = 7, noise: float = 0.3, **fields: Any) -> LossBatch:
    """A ragged batch in float64 with holes in the mask, a one-token completion, an empty one and one without a verdict.

    What stands under a masked position is NaN, where it may be anything.
    """
    rng = np.random.default_rng(seed)

    def tensor(x: np.ndarray) -> Tensor:
        return torch.tensor(np.where(mask, x, np.nan))

    lengths = rng.integers(1, width + 1, rows)
    lengths[:2] = 1, width
    mask = np.arange(width) < lengths[:, None]
    mask[2:] &= rng.random((rows - 2, width)) < 0.9
    mask[rows - 1] = False
    old = -rng.exponential(1, (rows, width))
    made: dict[str, Any] = {
        "logps": tensor(old + rng.normal(0, noise, old.shape)).requires_grad_(),
        "old_logps": tensor(old),
        "mask": torch.tensor(mask),
        "advantages": torch.tensor(rng.normal(0, 1, rows)),
        "entropies": tensor(rng.uniform(0.05, 3, old.shape)),
        "vocab_size": 50,
        "ref_logps": tensor(old + rng.normal(0, noise, old.shape)),
        "has_verdict": torch.arange(rows) != rows - 2,
        "values": tensor(rng.normal(0, 1, old.shape)).requires_grad_(),
        "old_values": tensor(rng.normal(0, 1, old.shape)),
        "returns": tensor(rng.normal(0, 1, old.shape)),
    }
    return LossBatch(**(made | fields))
