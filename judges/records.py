"""What passes between judges, ledger and flows: pairs, calls, readings, labels.

A *judgement* is one call: one pair, one principle, one order. A *label* is what the judgements of a pair
add up to. `p` is everywhere the probability that response `a` of the pair is the better one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from itertools import combinations
from typing import Any, Literal, Protocol, runtime_checkable

from common.digest import digest
from judges.errors import JudgeError
from judges.identity import JudgeIdentity

Message = Mapping[str, str]
"""`{"role": "user"|"assistant"|"system"|"tool", "content": str}`."""
ROLES = ("user", "assistant", "system", "tool")

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

# Closer to one half than this is one half: the means of a judge that follows the slot miss it by their rounding.
HALF_ROUNDING = 1e-9

Order = str
"""In which order the responses are shown: `ab` shows `a` as the first option, `ba` shows `b` there."""
LETTERS = ("A", "B", "C", "D")
"""The options, in the order shown."""


def orders(k: int) -> tuple[Order, ...]:
    """The orders in which k responses are shown: each stands once in every place (k = 2: both orders)."""
    names = "abcd"[:k]
    return tuple(names[i:] + names[:i] for i in range(k))


ORDERS = orders(2)


def check_turns(name: str, turns: Sequence[Message]) -> None:
    """Raises JudgeError for a turn that has another role, or no text; `name` says whose turns they are."""
    for number, turn in enumerate(turns):
        if turn.get("role") not in ROLES:
            role = turn.get("role")
            raise JudgeError(f"{name}[{number}].role: {role!r} is not allowed: {', '.join(ROLES)}")
        if not isinstance(turn.get("content"), str):
            found = type(turn.get("content")).__name__
            raise JudgeError(f"{name}[{number}].content: expected text, found {found}")


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two responses to one conversation. `meta` travels along and determines nothing.

    Raises JudgeError for a turn of the prompt whose role is none of `ROLES`, or without text.
    """

    id: str
    prompt: tuple[Message, ...]
    a: str
    b: str
    prompt_id: str = ""
    meta: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_turns(f"pair {self.id!r}: prompt", self.prompt)

    @cached_property
    def digest(self) -> str:
        """sha256 of conversation and both responses; neither id nor meta counts."""
        return digest({"prompt": [dict(m) for m in self.prompt], "a": self.a, "b": self.b})

    @cached_property
    def content(self) -> str:
        """The same for a pair and its swap, another for every other pair."""
        return min(self.digest, self.swap().digest)

    @property
    def responses(self) -> tuple[str, ...]:
        """Both responses."""
        return (self.a, self.b)

    @property
    def pairs(self) -> tuple[Pair, ...]:
        """The pair itself: what a judgement of it yields labels for."""
        return (self,)

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
class Ranking:
    """Two to four responses to one conversation, to be ordered; yields a label for each of their pairs.

    Raises JudgeError for another number of responses, and for a prompt that no `Pair` may have.
    """

    id: str
    prompt: tuple[Message, ...]
    responses: tuple[str, ...]
    prompt_id: str = ""

    def __post_init__(self) -> None:
        if not 2 <= len(self.responses) <= len(LETTERS):
            n = len(self.responses)
            raise JudgeError(f"ranking {self.id!r} has {n} responses, allowed are 2 to {len(LETTERS)}")
        check_turns(f"ranking {self.id!r}: prompt", self.prompt)

    @cached_property
    def digest(self) -> str:
        """sha256 of conversation and responses; the id does not count."""
        return digest({"prompt": [dict(m) for m in self.prompt], "responses": list(self.responses)})

    @cached_property
    def pairs(self) -> tuple[Pair, ...]:
        """All pairs of the responses; the pair of the first and the third has the id `<id>:ac`."""
        named = list(zip("abcd", self.responses, strict=False))
        return tuple(
            Pair(id=f"{self.id}:{x}{y}", prompt=self.prompt, a=a, b=b, prompt_id=self.prompt_id)
            for (x, a), (y, b) in combinations(named, 2)
        )


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How a judge writes free text."""

    max_tokens: int
    temperature: float
    top_p: float = 1.0
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class Call:
    """One question to a judge: a conversation (or plain text for a completion) and the options it may answer.

    Every `content` in `messages` is data: a judge never interprets special tokens in it. Without more, the
    reading is the options' log probabilities. With `write` the judge writes text and no option is read. With
    `conclude` as well, that question follows what it wrote, and its answer is read; with `verdict`, the text is a
    JSON object that names an option (see `judges.asking.verdict`). A judge that thinks does so before it answers, where
    `think` is true; that is part of who judges, not of the call.
    """

    messages: tuple[Message, ...] = ()
    text: str | None = None
    options: tuple[str, ...] = LETTERS[:2]
    write: Sampling | None = None
    conclude: str | None = None
    verdict: bool = False
    think: bool = True

    @cached_property
    def digest(self) -> str:
        """sha256 of everything that the judge is shown and asked for."""
        shown: dict[str, Any] = {
            "messages": [dict(m) for m in self.messages],
            "text": self.text,
            "options": list(self.options),
        }
        if self.write is not None:
            shown |= {"write": asdict(self.write), "verdict": self.verdict}
        if self.conclude is not None:
            shown["conclude"] = self.conclude
        return digest(shown)


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What came back from one call.

    `logprobs` holds the natural log probability of every option as the judge gave it, before any
    renormalisation; it is None unless `status` is "ok" and options were asked for. `text` is what the judge
    wrote, where it wrote, `thought` what it thought before. Latency in seconds, cost in the currency of the
    endpoint's price list (None where nobody charges). `cause` names what in the way of serving caused a failure, such
    as a short context.
    """

    status: Status
    logprobs: tuple[float, ...] | None = None
    text: str | None = None
    thought: str | None = None
    detail: str | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    latency_s: float = 0.0
    cost: float | None = None
    cause: str | None = None

    @property
    def may_change(self) -> bool:
        """Whether the same call may be answered another time: the transport lost it, or the way of serving did."""
        return self.status in TRANSIENT or self.cause is not None


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


def preferred(p: float | None) -> Literal["a", "b"] | None:
    """The response that `p` prefers; None where it is missing or one half, to rounding."""
    if p is None or abs(p - 0.5) < HALF_ROUNDING:
        return None
    return "a" if p > 0.5 else "b"


@dataclass(frozen=True, kw_only=True)
class Label:
    """What the judgements of one pair add up to.

    `p` is the mean over votes and orders, None when the status is a failure; after a chain of thought it is
    clamped and `p_raw` holds the mean itself. `p_ab` and `p_ba` are the means of each order alone. A vote is one
    principle, one judge, one rationale; `spread` is the standard deviation of the votes' means (0 for one).
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
    p_raw: float | None = None
    spread: float | None = None
    detail: str | None = None

    @property
    def winner(self) -> Literal["a", "b"] | None:
        """The preferred response, or None where `p` is missing or exactly one half."""
        return preferred(self.p)

    def swap(self) -> Label:
        """The label of the swapped pair: every probability becomes its complement."""

        def flip(p: float | None) -> float | None:
            return None if p is None else 1.0 - p

        return replace(
            self, p=flip(self.p), p_ab=flip(self.p_ba), p_ba=flip(self.p_ab), p_raw=flip(self.p_raw)
        )
