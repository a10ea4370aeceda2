"""How tokens are drawn: the settings that sampler, evaluation and training share."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn."""

    temperature: float = 1.0
    """Logits are divided by it; 0 takes the most likely token (log-probs are then those of temperature 1)."""
    top_p: float = 1.0
    """Draw among the fewest tokens whose probabilities add up to this much (1 = all)."""
    top_k: int = 0
    """Draw among this many most likely tokens (0 = all)."""
    max_completion_tokens: int = 16_384
    """Tokens per completion, the end token included; the model's context may allow fewer."""
    stop: tuple[str, ...] = ()
    """Strings that end a completion; they are kept as its end."""

    def __post_init__(self) -> None:
        if self.temperature < 0:
            raise ValueError(f"temperature must be >= 0 (0 is greedy), not {self.temperature}")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must be in (0, 1], not {self.top_p}")
        if self.top_k < 0:
            raise ValueError(f"top_k must be >= 0 (0 is all tokens), not {self.top_k}")
        if self.max_completion_tokens < 1:
            raise ValueError(f"max_completion_tokens must be at least 1, not {self.max_completion_tokens}")
        if isinstance(self.stop, str) or any(not s for s in self.stop):
            raise ValueError(f"stop must be a sequence of non-empty strings, not {self.stop!r}")

    @property
    def unrestricted(self) -> bool:
        """Every token can be drawn."""
        return self.top_k == 0 and self.top_p == 1

    @property
    def scale(self) -> float:
        """The temperature at which log-probs are taken; 1 for greedy decoding."""
        return self.temperature or 1.0
