"""What an edited constitution did: two models judged under every comparison principle on its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from constitution import ComparisonPrinciple, Constitution
from constitution.diff import diff
from constitution.draw import drawable
from flows.comparison.figures import ByPrinciple, PrincipleFigures, ShownPair
from flows.comparison.matches import Judged, Match
from flows.evaluation.win_rates import by_principle
from flows.report.summary import ConstitutionName
from flows.runs.record import describe_constitution

#: pairs shown for each model and principle
_EXAMPLES = 2


@dataclass(frozen=True, kw_only=True)
class Edited:
    """A comparison principle with what an edit did to it.

    `mark` is "added", "changed" or "removed" (no longer drawn, since it went, was disabled or weighs nothing), "" where
    nothing was done or no version before is known. `change` is the diff's line.
    """

    principle: ComparisonPrinciple
    before: ComparisonPrinciple | None = None
    mark: str = ""
    change: str = ""


def edited_principles(before: Constitution | None, after: Constitution) -> list[Edited]:
    """The principles that `after` draws, in its order, then those that only `before` drew."""
    if before is None:
        return [Edited(principle=p) for p in drawable(after.comparison)]
    changes = {c.id: c for c in diff(before, after).changes if c.half == "comparison"}
    drew = {p.id: p for p in drawable(before.comparison)}
    draws = {p.id: p for p in drawable(after.comparison)}
    found = []
    for name, principle in draws.items():
        change = changes.get(name)
        mark = "added" if name not in drew else "changed" if change else ""
        found.append(
            Edited(
                principle=principle,
                before=drew.get(name),
                mark=mark,
                change=change.summary if change else "",
            )
        )
    found += [
        Edited(principle=principle, before=principle, mark="removed", change=changes[name].summary)
        for name, principle in drew.items()
        if name not in draws
    ]
    return found


def parts(edited: Sequence[Edited], constitution: Constitution) -> dict[str, Constitution]:
    """For each principle the constitution with this one alone; all are asked with the same exemplars."""
    return {e.principle.id: replace(constitution, comparison=(e.principle,)) for e in edited}


def principle_figures(
    models: tuple[str, str],
    edited: Sequence[Edited],
    before: Constitution | None,
    after: Constitution,
    judged: Judged,
    matches: Mapping[str, Match],
) -> ByPrinciple:
    """Per principle the figures, the edit, and examples."""
    found = by_principle(*models, judged.matches)
    principles = []
    for e in edited:
        together, p_adjusted, favours = found[e.principle.id]
        rows = [row for row in judged.rows if row["principle"] == e.principle.id]
        principles.append(
            PrincipleFigures(
                id=e.principle.id,
                dimension=e.principle.dimension,
                question=e.principle.question,
                question_before=e.before.question if e.before else None,
                mark=e.mark,
                change=e.change,
                statuses=judged.statuses[e.principle.id],
                wins=together.wins,
                ties=together.ties,
                losses=together.losses,
                undecided=together.undecided,
                win_rate=together.win_rate,
                p=together.p,
                length_controlled=together.length_controlled,
                p_adjusted=p_adjusted,
                favours=favours,
                examples=tuple(_examples(rows, matches, models)),
            )
        )
    return ByPrinciple(
        before=ConstitutionName(**describe_constitution(before)) if before else None,
        after=ConstitutionName(**describe_constitution(after)),
        also_edited=tuple(_also_edited(before, after)),
        principles=tuple(principles),
    )


def _also_edited(before: Constitution | None, after: Constitution) -> list[str]:
    """What else differs between the two versions, and may have made the difference."""
    if before is None:
        return []
    result = diff(before, after)
    return [c.summary for c in result.changes if c.half != "comparison"] + list(result.other)


def _examples(
    rows: Sequence[Mapping[str, Any]], matches: Mapping[str, Match], models: tuple[str, str]
) -> list[ShownPair]:
    """For each model the prompts where its answer won by most, one pair of answers a prompt."""
    won = [row for row in rows if row["outcome"] in (0.0, 1.0)]
    won.sort(key=lambda row: (-abs(row["p"] - 0.5), row["pair"]))
    found: list[ShownPair] = []
    for model, outcome in zip(models, (1.0, 0.0), strict=True):
        best: dict[str, ShownPair] = {}
        for row in won:
            if row["outcome"] == outcome and row["prompt"] not in best and len(best) < _EXAMPLES:
                pair = matches[row["pair"]].pair
                assert pair is not None
                best[row["prompt"]] = ShownPair(
                    winner=model,
                    prompt=pair.prompt[-1]["content"],
                    a=pair.a,
                    b=pair.b,
                    p=row["p"],
                    p_ab=row["p_ab"],
                    p_ba=row["p_ba"],
                )
        found += best.values()
    return found
