"""What is written to the ledger and read from it, as dataclasses, and their way to and from table rows."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from common.digest import canonical, digest
from judges.records import JudgeIdentity, Label, Order, Pair, Ranking, Reading


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """One call and its reading. `key` is the digest of everything that determines the reading."""

    key: str
    item: str
    principle_id: str
    principle: str
    shown: Order
    prompt: str
    judge: str
    method: str
    reading: Reading
    created_at: float
    sample: int = 0
    serving: str = ""


@dataclass(frozen=True, kw_only=True)
class LabelRow:
    """A label with where it comes from: its content (`item`), its principles' digests, its label set's version."""

    label: Label
    item: str
    principle_digests: tuple[str, ...]
    made_with: str
    created_at: float


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What a person said about a pair: `winner` is "a", "b" or "tie".

    `shown` is the order in which they saw the responses, where that is known; `label` the label they looked at.
    """

    pair_id: str
    item: str
    winner: str
    who: str
    why: str
    created_at: float
    label: str | None = None
    shown: Order | None = None


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Everything that one transaction adds. `members` maps pair ids to label digests in `label_set`."""

    label_set: str
    judgements: Sequence[Judgement] = ()
    failures: Sequence[Judgement] = ()
    labels: Sequence[LabelRow] = ()
    items: Sequence[Pair | Ranking] = ()
    members: Mapping[str, str] = field(default_factory=dict)
    released: Sequence[str] = ()


def judge_digest(identity: JudgeIdentity) -> str:
    """The digest under which a judge is stored, its build included."""
    return digest([identity.kind, identity.model, identity.revision, identity.build])


def version_digest(label_set: str, content: Any) -> str:
    """The digest under which a version of a label set is stored."""
    return digest([label_set, content])


def judgement_values(judgement: Judgement) -> dict[str, Any]:
    reading = judgement.reading
    return {
        "key": judgement.key,
        "item": judgement.item,
        "principle_id": judgement.principle_id,
        "principle": judgement.principle,
        "shown": judgement.shown,
        "sample": judgement.sample,
        "prompt": judgement.prompt,
        "judge": judgement.judge,
        "method": judgement.method,
        "status": reading.status,
        "logprobs": None if reading.logprobs is None else dump_logprobs(reading.logprobs),
        "text": storable(written(reading)),
        "detail": storable(reading.detail),
        "prompt_tokens": reading.prompt_tokens,
        "completion_tokens": reading.completion_tokens,
        "latency_s": reading.latency_s,
        "cost": reading.cost,
        "created_at": judgement.created_at,
        "serving": storable(judgement.serving),
    }


def written(reading: Reading) -> str | None:
    """All that the judge wrote, its thought between marks before the rest."""
    if not reading.thought:
        return reading.text
    return f"<think>\n{reading.thought}\n</think>\n\n{reading.text or ''}".rstrip()


def failure_values(judgement: Judgement) -> dict[str, Any]:
    answered = ("logprobs", "text", "prompt_tokens", "completion_tokens", "cost")
    values = {name: value for name, value in judgement_values(judgement).items() if name not in answered}
    return values | {"cause": storable(judgement.reading.cause)}


def label_values(row: LabelRow) -> dict[str, Any]:
    label = row.label
    return {
        "digest": label.digest,
        "pair_id": label.pair_id,
        "item": row.item,
        "status": label.status,
        "p": label.p,
        "p_ab": label.p_ab,
        "p_ba": label.p_ba,
        "p_raw": label.p_raw,
        "spread": label.spread,
        "detail": storable(label.detail),
        "principles": canonical([list(p) for p in zip(label.principles, row.principle_digests, strict=True)]),
        "judgements": canonical(list(label.judgements)),
        "made_with": row.made_with,
        "created_at": row.created_at,
    }


def item_values(item: Pair | Ranking) -> dict[str, Any]:
    return {
        "digest": item.digest,
        "prompt": json.dumps([dict(m) for m in item.prompt]),
        "responses": json.dumps(list(item.responses)),
    }


def to_reading(row: Any) -> Reading:
    return Reading(
        status=row.status,
        logprobs=None if row.logprobs is None else load_logprobs(row.logprobs),
        text=row.text,
        detail=row.detail,
        prompt_tokens=row.prompt_tokens,
        completion_tokens=row.completion_tokens,
        latency_s=row.latency_s,
        cost=row.cost,
    )


def to_failure(row: Any) -> Reading:
    return Reading(status=row.status, detail=row.detail, latency_s=row.latency_s, cause=row.cause)


def to_label(row: Any) -> Label:
    return Label(
        pair_id=row.pair_id,
        p=row.p,
        status=row.status,
        principles=tuple(p[0] for p in json.loads(row.principles)),
        judgements=tuple(json.loads(row.judgements)),
        digest=row.digest,
        p_ab=row.p_ab,
        p_ba=row.p_ba,
        p_raw=row.p_raw,
        spread=row.spread,
        detail=row.detail,
    )


def dump_logprobs(logprobs: Sequence[float]) -> str:
    """JSON with null for an impossible option: JSON has no minus infinity."""
    # Spelt as json.dumps does, whose encoder takes a fifth of the time of an insert.
    return "[" + ", ".join(["null" if lp == -math.inf else repr(float(lp)) for lp in logprobs]) + "]"


def load_logprobs(text: str) -> tuple[float, ...]:
    return tuple(-math.inf if lp is None else float(lp) for lp in json.loads(text))


def storable(text: str | None) -> str | None:
    """Text that both databases take: PostgreSQL has no NUL characters, neither has lone surrogates."""
    if text is None:
        return None
    return text.replace("\0", "\ufffd").encode("utf-8", "replace").decode()
