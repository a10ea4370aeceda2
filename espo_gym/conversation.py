"""The tokens of an episode, the policy's and the environment's, as ``collect`` and ``predict`` both write them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .sampling import Sampling

if TYPE_CHECKING:  # the algorithms import this module, and their losses need torch alone
    from .policy import Policy


@dataclass
class Conversation:
    """What policy and environment have written so far, in the ids that the policy reads."""

    prompt_ids: list[int]
    ids: list[int] = field(default_factory=list)
    """What followed the prompt."""
    own: list[bool] = field(default_factory=list)
    """Chosen by the policy, not written by the environment."""
    logps: list[float] = field(default_factory=list)
    entropies: list[float] = field(default_factory=list)
    text: str = ""
    """The policy's last turn."""
    truncated: bool = False
    """The last turn was cut off, or the context has no room for another: nothing more is written."""

    @property
    def context(self) -> list[int]:
        """Everything that the policy's next turn follows from."""
        return self.prompt_ids + self.ids

    def write(self, ids: list[int], logps: list[float] | None = None, entropies: list[float] | None = None) -> None:
        """Append tokens: the policy's with their scores, the environment's without."""
        self.ids += ids
        self.own += [logps is not None] * len(ids)
        self.logps += logps or [0.0] * len(ids)
        self.entropies += entropies or [0.0] * len(ids)

    def hear(self, policy: Policy, observation: str) -> None:
        """Append the environment's words after a turn of the policy's, if the context has room for them."""
        reply = policy.encode_reply(observation, ended=self.context[-1] in policy.eos_token_ids.tolist())
        if len(self.context) + len(reply) >= policy.context_length:
            self.truncated = True
        else:
            self.write(reply)


def speak(policy: Policy, conversations: Sequence[Conversation], seeds: Sequence[int], sampling: Sampling) -> list[str]:
    """Append the policy's next turn to each conversation.

    Returns the actions: the texts, and an empty one for a turn that was cut off, since a fragment is no answer.
    """
    completions = policy.generate([c.context for c in conversations], [int(seed) for seed in seeds], sampling)
    rows = zip(
        conversations,
        completions.tokens.tolist(),
        completions.logps.tolist(),
        completions.entropies.tolist(),
        completions.mask.sum(1).tolist(),
        completions.texts,
        completions.truncated.tolist(),
        strict=True,
    )
    actions = []
    for conversation, ids, logps, entropies, length, text, truncated in rows:
        conversation.write(ids[:length], logps[:length], entropies[:length])
        conversation.text, conversation.truncated = text, truncated
        actions.append("" if truncated else text)
    return actions
