"""What a source of tokens is, what it is asked and what it answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from engines.errors import EngineError, Failure

FinishReason = Literal["stop", "length", "prompt_too_long"]
Progress = Callable[[int, int], None]
Spellings = tuple[tuple[tuple[int, ...], ...], ...]
"""Per option the token ids of every way in which it may be spelt after a prompt."""


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How tokens are drawn: all that an engine obeys, so that no default of a server or a model decides a draw.

    Temperature 0 is greedy; `top_p` below 1 keeps the smallest nucleus of that mass, `top_k` above 0 the likeliest
    tokens, `min_p` those at least that likely as a share of the likeliest. Penalties are always off. `stop_ids` end
    an answer beside the model's own stops.
    """

    max_new_tokens: int = 64
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    stop_ids: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        for name, good, allowed in (
            ("max_new_tokens", self.max_new_tokens >= 1, "at least 1"),
            ("temperature", 0 <= self.temperature <= 100, "between 0 and 100"),
            ("top_p", 0 < self.top_p <= 1, "above 0 and at most 1"),
            ("top_k", self.top_k >= 0, "at least 0"),
            ("min_p", 0 <= self.min_p <= 1, "between 0 and 1"),
        ):
            if not good:
                raise EngineError(f"{name} ({getattr(self, name)}) must be {allowed}")


@dataclass(frozen=True, kw_only=True)
class Completion:
    """One sampled answer.

    `token_ids` includes the token that ended the turn when `finish_reason` is "stop"; `text` does not.
    `logprobs` has one entry a token: in process its log-probability under softmax(logits / temperature) before the
    nucleus is cut (temperature 1 when sampling was greedy), from a server that under softmax(logits). "length" means
    that max_new_tokens or the model's context ran out; "prompt_too_long" that the prompt alone fills the context,
    and nothing was generated.
    """

    text: str
    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    finish_reason: FinishReason


@dataclass(frozen=True, kw_only=True)
class Request:
    """One prompt in one of its forms, and what is wanted of it.

    The prompt is token ids, or a text or a conversation that a server is to tokenise. With `write` the answer is
    text; otherwise the log-probabilities of `options`, which are `spellings` where the prompt is token ids. `seed`
    belongs to `write`; `schema` is the JSON schema that the text must follow. `thinking` turns on or off the
    thoughts of a model whose server renders the conversation; None leaves it to the server.
    """

    ids: tuple[int, ...] | None = None
    text: str | None = None
    messages: tuple[Mapping[str, str], ...] = ()
    options: tuple[str, ...] = ()
    spellings: Spellings = ()
    write: Sampling | None = None
    seed: int = 0
    schema: Mapping[str, Any] | None = None
    thinking: bool | None = None


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What came back for one request.

    `logprobs` holds the natural log-probability of every option, None unless `status` is "ok" and options were
    asked for; `thought` is what came before the answer, where it is known. `cause` names what in the way of serving
    caused a failure (a short context, a short list, a reasoning parser): under another, the same model may answer.
    """

    status: Literal["ok"] | Failure
    logprobs: tuple[float, ...] | None = None
    text: str | None = None
    thought: str | None = None
    detail: str | None = None
    cause: str | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0


class Engine(Protocol):
    """Anything that answers encoded prompts."""

    def generate(
        self, prompts: Sequence[Sequence[int]], sampling: Sampling, *, seed: int, rows: Sequence[int]
    ) -> list[Completion]:
        """One completion per prompt, in order.

        What a prompt draws depends on the seed and its number in `rows` alone: copies of a prompt differ in it.
        """
        ...

    def option_logprobs(
        self, prompts: Sequence[Sequence[int]], spellings: Sequence[Spellings]
    ) -> list[Answer]:
        """Per prompt the log-probability that its answer begins with each of its options, all spellings summed."""
        ...

    def close(self) -> None:
        """Let go of servers and files."""
        ...


class Rollouts(Protocol):
    """An engine that answers for a policy in training."""

    def generate(
        self, prompts: Sequence[Sequence[int]], sampling: Sampling, *, seed: int, rows: Sequence[int]
    ) -> list[Completion]:
        """As `Engine.generate`; `rows` numbers the prompts within the step, over all processes."""
        ...

    def update_weights(self, model: Any) -> None:
        """Sample from this model's weights from now on."""
        ...

    def close(self) -> None:
        """Let go of servers and files."""
        ...
