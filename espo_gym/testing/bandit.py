"""The smallest thing that can be learned, and the smallest policy that learns it."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, cast

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from espo_gym.envs import Problem, Task, Verdict
from espo_gym.policy import Policy

PAD, EOS = "_", "$"
CONTEXT = 32


class Bandit(Task):
    """Two actions, the characters a and b; a is right."""

    splits = ("train", "test")

    def problem(self, split: str, seed: int) -> Problem:
        return Problem(prompt="?", answer="a", key="?")

    def verify(self, completions: Sequence[str], problems: Sequence[Problem]) -> list[Verdict]:
        pairs = zip(completions, problems, strict=True)
        return [Verdict("correct" if said == problem.answer else "incorrect", said, said) for said, problem in pairs]


def tiny_policy(alphabet: str = "ab?", *, seed: int = 0, dtype: torch.dtype = torch.float32) -> Policy:
    """A Llama of one layer with random weights, whose tokens are the characters of ``alphabet``, ``_`` (padding) and
    ``$`` (the end)."""
    return copy.deepcopy(_prototype(alphabet, seed, dtype))


@lru_cache(maxsize=64)
def _prototype(alphabet: str, seed: int, dtype: torch.dtype) -> Policy:
    """The policy that is copied, once it knows which shortcuts it can take: finding out costs ten times a copy."""
    vocabulary = {symbol: i for i, symbol in enumerate(dict.fromkeys(PAD + EOS + alphabet))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="\0"))  # not in it: an unknown character is an error
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    tokenizer.decoder = decoders.Fuse()
    config = LlamaConfig(
        vocab_size=len(vocabulary),
        hidden_size=8,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        initializer_range=0.3,
        bos_token_id=None,
        pad_token_id=vocabulary[PAD],
        eos_token_id=vocabulary[EOS],
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config)
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token=PAD, eos_token=EOS)
    policy = Policy(cast(Any, model).to(dtype), wrapped)
    _ = policy.head, policy.shares_prompts, policy.decodes_packed
    return policy
