"""What passes between judges, ledger and flows: pairs, calls, readings, labels.

A *judgement* is one call: one pair, one principle, one order. A *label* is what the judgements of a pair
add up to. `p` is everywhere the probability that response `a` of the pair is the better one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal, Protocol, runtime_checkable

from judges.digests import digest

Message = Mapping[str, str]
"""`{"role": "user"|"assistant"|"system", "content": str}`."""

Status = Literal["ok", "tie", "inconsistent", "no_answer", "refused", "truncated", "timeout", "error"]
STATUSES: tuple[Status, ...] = (
    "ok",
    "tie",
    "inconsistent",
    "no_answer",
    "refused",
    "truncated",
    "timeout",
    "error",
)
# From the most to the least telling: a label with several failed judgements carries the first of these.
FAILURES: tuple[Status, ...] = ("error", "timeout", "truncated", "refused", "no_answer")
# Failures of the transport, not of the judge: asked again at the next run.
TRANSIENT: tuple[Status, ...] = ("error", "timeout")

Order = Literal["ab", "ba"]
"""Which response is shown first: `ab` shows `a` as the first option, `ba` shows `b` there."""
ORDERS: tuple[Order, Order] = ("ab", "ba")


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two responses to one conversation. `meta` travels along and determines nothing."""

    id: str
    prompt: tuple[Message, ...]
    a: str
    b: str
    prompt_id: str = ""
    meta: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def digest(self) -> str:
        """sha256 of conversation and both responses; neither id nor meta counts."""
        return digest({"prompt": [dict(m) for m in self.prompt], "a": self.a, "b": self.b})

    def swap(self) -> Pair:
        """The same pair with its responses in each other's places."""
        return Pair(
            id=self.id, prompt=self.prompt, a=self.b, b=self.a, prompt_id=self.prompt_id, meta=self.meta
        )

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Pair:
        """A pair from one line of a pairs file: `{"id", "prompt_id", "prompt", "a", "b", "meta"}`."""
        return cls(
            id=str(row["id"]),
            prompt=tuple(dict(m) for m in row["prompt"]),
            a=row["a"],
            b=row["b"],
            prompt_id=str(row.get("prompt_id", "")),
            meta=row.get("meta") or {},
        )

    def to_row(self) -> dict[str, Any]:
        """The line of a pairs file that `from_row` reads."""
        return {
            "id": self.id,
            "prompt_id": self.prompt_id,
            "prompt": [dict(m) for m in self.prompt],
            "a": self.a,
            "b": self.b,
            "meta": dict(self.meta),
        }


@dataclass(frozen=True, kw_only=True)
class JudgeIdentity:
    """Who answered. `model` and `revision` determine an answer; `kind` and `build` are provenance only."""

    kind: str
    model: str
    revision: str
    build: str = ""

    def key(self) -> dict[str, str]:
        """The part that goes into the key of a judgement."""
        return {"model": self.model, "revision": self.revision}


@dataclass(frozen=True, kw_only=True)
class Call:
    """One question to a judge: a conversation (or plain text for a completion) and the options it may answer.

    Every `content` in `messages` is data: a judge never interprets special tokens in it.
    """

    messages: tuple[Message, ...] = ()
    text: str | None = None
    options: tuple[str, ...] = ("A", "B")

    @cached_property
    def digest(self) -> str:
        """sha256 of everything that the judge is shown."""
        return digest(
            {
                "messages": [dict(m) for m in self.messages],
                "text": self.text,
                "options": list(self.options),
            }
        )


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What came back from one call.

    `logprobs` holds the natural log probability of every option as the judge gave it, before any
    renormalisation; it is None unless `status` is "ok". Latency in seconds, cost in the currency of the
    endpoint's price list (None where nobody charges).
    """

    status: Status
    logprobs: tuple[float, ...] | None = None
    text: str | None = None
    detail: str | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    latency_s: float = 0.0
    cost: float | None = None


@runtime_checkable
class Judge(Protocol):
    """Anything that answers calls."""

    @property
    def identity(self) -> JudgeIdentity:
        """Who answers; asked once before the first call."""
        ...

    def ask(self, calls: Sequence[Call]) -> list[Reading]:
        """One reading per call, in the same order. A failed call is a reading with its status."""
        ...


@dataclass(frozen=True, kw_only=True)
class Label:
    """What the judgements of one pair add up to.

    `p` is the mean over principles and orders, None when the status is a failure. `p_ab` and `p_ba` are the
    means of each order alone. `spread` is the standard deviation of the principles' means (0 for one).
    `judgements` are the keys of the judgements in the ledger.
    """

    pair_id: str
    p: float | None
    status: Status
    principles: tuple[str, ...]
    judgements: tuple[str, ...]
    digest: str
    p_ab: float | None = None
    p_ba: float | None = None
    spread: float | None = None
    detail: str | None = None

    @property
    def winner(self) -> Literal["a", "b"] | None:
        """The preferred response, or None where `p` is missing or exactly one half."""
        if self.p is None or self.p == 0.5:
            return None
        return "a" if self.p > 0.5 else "b"

    def swap(self) -> Label:
        """The label of the swapped pair: every probability becomes its complement."""

        def flip(p: float | None) -> float | None:
            return None if p is None else 1.0 - p

        return replace(self, p=flip(self.p), p_ab=flip(self.p_ba), p_ba=flip(self.p_ab))
