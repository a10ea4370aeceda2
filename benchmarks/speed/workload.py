"""What is timed: models from scratch, problems, rewards of which a given share carries no advantage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from espo_gym.algorithms import GRPO
from espo_gym.envs import MathVectorEnv, ModularArithmetic, Problem, Verdict
from espo_gym.policy import Policy

PROMPTS, GROUP, MAX_NEW = 16, 8, 64
ROWS = PROMPTS * GROUP
CONTEXT = 256
SYMBOLS = ["_", "$", *"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMSW", *" ()*+-?=,.:"]
END_PROBABILITY = 0.03
"""Of each token: completions have about 28 tokens on average, and one in seven is cut off at 64."""


@dataclass(frozen=True)
class Size:
    """A Llama: ``SMALL`` has 1 M parameters, ``LARGE`` 16 M."""

    vocabulary: int
    hidden: int
    intermediate: int
    layers: int = 4
    heads: int = 4


SMALL = Size(vocabulary=64, hidden=128, intermediate=512)
LARGE = Size(vocabulary=50_000, hidden=256, intermediate=704)


def tokenizer(vocabulary: int) -> PreTrainedTokenizerFast:
    """One token a character, and words that only a model says up to the size of the vocabulary."""
    words = SYMBOLS + [f"<{i}>" for i in range(len(SYMBOLS), vocabulary)]
    made = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="?"))
    made.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    made.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="_", eos_token="$", model_max_length=CONTEXT, padding_side="left"
    )


@torch.no_grad()
def model(size: Size) -> LlamaForCausalLM:
    """Random weights, always the same, that end a completion with ``END_PROBABILITY`` at each token.

    A Llama's head has no bias: the first component of each embedding is the same, so the last hidden state has it too,
    and the end token's weight on it is the bias.
    """
    config = LlamaConfig(
        vocab_size=size.vocabulary,
        hidden_size=size.hidden,
        intermediate_size=size.intermediate,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        num_key_value_heads=size.heads,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=size is LARGE,
        bos_token_id=None,
        pad_token_id=0,
        eos_token_id=1,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = LlamaForCausalLM(config)
        made.eval()
        ids = torch.randint(2, min(size.vocabulary, 64), (16, 32))
    made.model.embed_tokens.weight[:, 0] = 1.0
    made.lm_head.weight[:, 0] = 1.0
    wanted = torch.tensor(END_PROBABILITY).logit()
    for _ in range(4):  # Newton's method: the logit is linear in the weight
        hidden = made.model(ids).last_hidden_state
        logits = made.lm_head(hidden)
        others = logits.index_fill(-1, torch.tensor(1), -torch.inf).logsumexp(-1)
        made.lm_head.weight[1, 0] += (wanted - (logits[..., 1] - others)).mean() / hidden[..., 0].mean()
    return made


def correct(row: int, silent: bool) -> bool:
    """Every second completion is right; with ``silent`` none of every third group, which has no advantage then."""
    return row % 2 == 0 and not (silent and row // GROUP % 3 == 0)


class Rewarded(ModularArithmetic):
    """The problems of ModularArithmetic-v0 with rewards that are known beforehand."""

    def __init__(self, silent: bool = False) -> None:
        super().__init__()
        self.silent = silent

    def verify(self, completions: Sequence[str], problems: Sequence[Problem]) -> list[Verdict]:
        return [Verdict("correct" if correct(i, self.silent) else "incorrect") for i in range(len(completions))]


def grpo(size: Size, silent: bool = False, llama: LlamaForCausalLM | None = None) -> GRPO:
    """Ours: one optimizer step on each rollout."""
    policy = Policy(model(size) if llama is None else llama, tokenizer(size.vocabulary))
    env = MathVectorEnv(Rewarded(silent), num_envs=ROWS)
    settings: dict[str, Any] = {
        "group_size": GROUP,
        "max_completion_tokens": MAX_NEW,
        "learning_rate": 1e-6,
        "warmup_steps": 0,
    }
    return GRPO(policy, env, n_minibatches=1, **settings)


def step(algorithm: GRPO) -> int:
    """One rollout and one optimizer step; returns the tokens of the completions."""
    rollout = algorithm.collect_rollout()
    algorithm.train(rollout)
    algorithm.num_timesteps += rollout.n_generated
    algorithm.n_rollouts += 1
    return int(rollout.mask.sum())


def prompts(policy: Policy, rows: int) -> list[list[int]]:
    """Token ids of ``rows`` prompts, in groups of 8."""
    problems = ModularArithmetic().problems("train", list(range(-(-rows // GROUP))))
    ids = [policy.encode_prompt(problem.prompt) for problem in problems]
    return [ids[i // GROUP] for i in range(rows)]
