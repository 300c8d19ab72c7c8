"""What an edit of a constitution costs, before anything is asked again.

The draws are a function of ids and seed, so the plan does not estimate: it draws for every pair and prompt
under both constitutions and counts what differs. Tokens and seconds come from the ledger's own means.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from constitution.draw import draw_comparison, draw_critique, drawable
from constitution.model import Constitution, CritiquePrinciple

CALLS_PER_JUDGEMENT = 2
"""Both orders of a pair, when no ledger says otherwise."""


class LedgerStatistics(Protocol):
    """What the plan asks a ledger. A judgement here is one pair under one principle, with all its calls."""

    def judged(self) -> Iterable[tuple[str, str, str]]:
        """(pair id, principle id, principle digest) of every judgement with a usable or final status."""

    def calls_per_judgement(self) -> float | None:
        """Mean number of calls behind one judgement (orders times rationales); None when empty."""

    def tokens_per_call(self) -> float | None:
        """Mean prompt and completion tokens of one call; None when unknown."""

    def seconds_per_call(self) -> float | None:
        """Mean judge time of one call in seconds, batches shared out; None when unknown."""


@dataclass(frozen=True, kw_only=True)
class PrincipleCost:
    """What must be asked anew under one principle of the new constitution.

    `edited`: it was drawn before too, and its words changed. `moved`: another principle was drawn before.
    `exemplars`: the same words, but the exemplars around them changed.
    """

    id: str
    edited: int = 0
    moved: int = 0
    exemplars: int = 0

    @property
    def total(self) -> int:
        return self.edited + self.moved + self.exemplars


@dataclass(frozen=True, kw_only=True)
class HalfPlan:
    """One half of the plan: `items` pairs (or revision steps), of which `stale` no longer stand as they are.

    `judgements` (or steps) must be asked: those counted `by_principle`, in the new file's order, and
    `follow_on`, later revision steps whose own principle stands but whose input changes. `dropped` counts
    by principle what the old constitution drew and the new one does not; `already_known` judgements are in
    the ledger from before.
    """

    items: int
    stale: int
    judgements: int
    by_principle: tuple[PrincipleCost, ...] = ()
    dropped: Mapping[str, int] = field(default_factory=dict)
    already_known: int = 0
    follow_on: int = 0

    @property
    def kept(self) -> int:
        return self.items - self.stale


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The cost of going from `old` to `new`; `tokens` and `seconds` are None when no ledger has means."""

    old: Constitution
    new: Constitution
    labels: HalfPlan
    critiques: HalfPlan
    calls: float
    tokens: float | None
    seconds: float | None


def plan(
    old: Constitution,
    new: Constitution,
    *,
    pair_ids: Iterable[str] = (),
    prompt_ids: Iterable[str] = (),
    seed: int,
    n: int = 1,
    revisions: int = 1,
    statistics: LedgerStatistics | None = None,
) -> Plan:
    """Count exactly which labels, critiques and revisions an edit makes stale.

    `n` principles are drawn per pair and one per revision step, `revisions` steps per prompt, both with
    `seed`, as in the run that is planned. With `statistics`, what the ledger holds is not asked again: an
    edit taken back costs nothing. Raises ConstitutionError when a constitution has fewer than `n`
    principles to draw.
    """
    labels = _plan_labels(old, new, list(pair_ids), seed=seed, n=n, statistics=statistics)
    critiques = _plan_critiques(old, new, list(prompt_ids), seed=seed, revisions=revisions)
    per_judgement = (statistics.calls_per_judgement() if statistics else None) or CALLS_PER_JUDGEMENT
    calls = labels.judgements * per_judgement
    tokens = statistics.tokens_per_call() if statistics else None
    seconds = statistics.seconds_per_call() if statistics else None
    return Plan(
        old=old,
        new=new,
        labels=labels,
        critiques=critiques,
        calls=calls,
        tokens=None if tokens is None else calls * tokens,
        seconds=None if seconds is None else calls * seconds,
    )


def _plan_labels(
    old: Constitution,
    new: Constitution,
    pair_ids: Sequence[str],
    *,
    seed: int,
    n: int,
    statistics: LedgerStatistics | None,
) -> HalfPlan:
    same_exemplars = old.comparison_exemplars == new.comparison_exemplars
    known: set[tuple[str, str]] = set()
    # The ledger keys what it holds by the whole prompt: other exemplars, other prompts.
    if statistics is not None and same_exemplars:
        known = {(pair, digest) for pair, _, digest in statistics.judged()}
    edited, moved, exemplars, dropped = _counters()
    stale = already = 0
    can_old, can_new = bool(drawable(old.comparison)), bool(drawable(new.comparison))
    for pair in pair_ids:
        before = draw_comparison(old, pair, seed=seed, n=n) if can_old else ()
        after = draw_comparison(new, pair, seed=seed, n=n) if can_new else ()
        old_ids, old_digests = {p.id for p in before}, {p.digest for p in before}
        new_digests = {p.digest for p in after}
        dropped.update(p.id for p in before if p.digest not in new_digests)
        stale += old_digests != new_digests or not same_exemplars
        for principle in after:
            if principle.digest in old_digests and same_exemplars:
                continue
            if (pair, principle.digest) in known:
                already += 1
            elif principle.digest in old_digests:
                exemplars[principle.id] += 1
            else:
                (edited if principle.id in old_ids else moved)[principle.id] += 1
    return HalfPlan(
        items=len(pair_ids),
        stale=stale,
        judgements=edited.total() + moved.total() + exemplars.total(),
        by_principle=_costs([p.id for p in new.comparison], edited, moved, exemplars),
        dropped=dict(sorted(dropped.items())),
        already_known=already,
    )


def _plan_critiques(
    old: Constitution, new: Constitution, prompt_ids: Sequence[str], *, seed: int, revisions: int
) -> HalfPlan:
    same_exemplars = old.critique_exemplars == new.critique_exemplars
    edited, moved, exemplars, dropped = _counters()
    stale = follow_on = 0
    can_old, can_new = bool(drawable(old.critique)), bool(drawable(new.critique))
    for prompt in prompt_ids:
        input_changed = False
        for step in range(revisions):
            before = draw_critique(old, prompt, step, seed=seed) if can_old else None
            after = draw_critique(new, prompt, step, seed=seed) if can_new else None
            differs = _digest(before) != _digest(after)
            if before is not None and differs:
                dropped[before.id] += 1
            if after is not None:
                if differs:
                    (edited if before is not None and before.id == after.id else moved)[after.id] += 1
                elif not same_exemplars:
                    exemplars[after.id] += 1
                elif input_changed:
                    follow_on += 1
            changed = before is not after and (
                before is None or after is None or before.digest != after.digest
            )
            # Each step rewrites what the step before left, so a stale step makes all later ones stale.
            input_changed = input_changed or changed or not same_exemplars
            stale += input_changed
    return HalfPlan(
        items=len(prompt_ids) * revisions,
        stale=stale,
        judgements=edited.total() + moved.total() + exemplars.total() + follow_on,
        by_principle=_costs([p.id for p in new.critique], edited, moved, exemplars),
        dropped=dict(sorted(dropped.items())),
        follow_on=follow_on,
    )


def _digest(principle: CritiquePrinciple | None) -> str | None:
    return None if principle is None else principle.digest


def _counters() -> tuple[Counter[str], Counter[str], Counter[str], Counter[str]]:
    return Counter(), Counter(), Counter(), Counter()


def _costs(
    ids: Sequence[str], edited: Mapping[str, int], moved: Mapping[str, int], exemplars: Mapping[str, int]
) -> tuple[PrincipleCost, ...]:
    costs = (
        PrincipleCost(id=i, edited=edited.get(i, 0), moved=moved.get(i, 0), exemplars=exemplars.get(i, 0))
        for i in ids
    )
    return tuple(cost for cost in costs if cost.total)
