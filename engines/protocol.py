"""What a source of rollouts is, and what it returns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from training.errors import TrainingError

FinishReason = Literal["stop", "length", "prompt_too_long"]
Progress = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How tokens are drawn. Temperature 0 is greedy; `top_p` below 1 keeps the smallest nucleus of that mass."""

    max_new_tokens: int = 64
    temperature: float = 1.0
    top_p: float = 1.0

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise TrainingError(f"max_new_tokens ({self.max_new_tokens}) must be at least 1")
        if not 0 <= self.temperature <= 100:
            raise TrainingError(f"temperature ({self.temperature}) must be between 0 and 100")
        if not 0 < self.top_p <= 1:
            raise TrainingError(f"top_p ({self.top_p}) must be above 0 and at most 1")


@dataclass(frozen=True, kw_only=True)
class Completion:
    """One sampled answer.

    `token_ids` includes the token that ended the turn when `finish_reason` is "stop"; `text` does not.
    `logprobs` has one entry a token: its log-probability under softmax(logits / temperature), before the
    nucleus is cut (temperature 1 when sampling was greedy). "length" means that max_new_tokens or the model's
    context ran out; "prompt_too_long" that the prompt alone fills the context, and nothing was generated.
    """

    text: str
    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    finish_reason: FinishReason


class Rollouts(Protocol):
    """Anything that samples answers from the policy as it is now."""

    def generate(
        self, prompts: Sequence[Sequence[int]], sampling: Sampling, *, seed: int, rows: Sequence[int]
    ) -> list[Completion]:
        """One completion per encoded prompt, in order.

        `rows` numbers the prompts within the step, over all processes: two copies of a prompt differ in it.
        """
        ...

    def update_weights(self, model: Any) -> None:
        """Sample from this model's weights from now on."""
        ...

    def close(self) -> None:
        """Let go of servers and files."""
        ...
