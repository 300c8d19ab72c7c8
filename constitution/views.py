"""Diffs, plans and constitutions as text for a terminal and as Markdown for an artifact.

Markdown is shown where HTML is rendered, so every text that comes from a file is escaped.
"""

from __future__ import annotations

import html
import re
from collections.abc import Sequence

from common.text import unlinked
from constitution.descent import AffectedRun
from constitution.diff import ConstitutionDiff, FieldChange, PrincipleChange, Words, shown
from constitution.model import Constitution, CritiquePrinciple, Principle
from constitution.plan import HalfPlan, Plan

_NO_DIFFERENCE = "No difference in meaning."
_COLOURS = {"removed": "\x1b[31;9m{}\x1b[0m", "added": "\x1b[32m{}\x1b[0m"}
_PLAIN = {"removed": "[-{}-]", "added": "{{+{}+}}"}
_HTML = {"removed": "<del>{}</del>", "added": "<ins>{}</ins>"}


def diff_text(result: ConstitutionDiff, *, colour: bool) -> str:
    """The diff for a terminal; without colour, words are marked [-removed-] and {+added+}."""
    marks = _COLOURS if colour else _PLAIN
    lines = [f"{result.old.ref} → {result.new.ref}"]
    for change in result.changes:
        lines += ["", f"{change.half} {change.id}: {change.kind}"]
        lines += [f"  {line}" for line in _change_lines(change, marks, _printable)]
    if result.other:
        lines += ["", *result.other]
    return "\n".join(lines if result else [*lines, _NO_DIFFERENCE])


def diff_markdown(result: ConstitutionDiff) -> str:
    """The diff as Markdown, by half and principle."""
    lines = [f"# {escape(result.old.ref)} → {escape(result.new.ref)}", ""]
    for half in ("critique", "comparison"):
        changes = [change for change in result.changes if change.half == half]
        if changes:
            lines += [f"## {half.capitalize()} principles", ""]
        for change in changes:
            lines += [f"### {code(change.id)}: {change.kind}", ""]
            lines += [f"- {line}" for line in _change_lines(change, _HTML, escape)] + [""]
    if result.other:
        lines += ["## Beside the principles", "", *(f"- {escape(text)}" for text in result.other), ""]
    return "\n".join(lines if result else [*lines, _NO_DIFFERENCE, ""])


def plan_text(plan: Plan, runs: Sequence[AffectedRun] = ()) -> str:
    """The plan for a terminal."""
    lines = [f"{plan.old.ref} → {plan.new.ref}", "", *_plan_lines(plan)]
    for title, half in (("labels", plan.labels), ("critiques", plan.critiques)):
        rows = _rows(half)
        if rows:
            width = max(len(row[0]) for row in rows)
            lines += ["", f"{title} to ask, by principle:"]
            lines += [f"  {name:<{width}}  {count:>8,}  {why}" for name, count, why in rows]
    for run in runs:
        lines += ["", f"run {_printable(run.name)} descends from the old {run.half} principles:"]
        lines += [f"  {_printable(name)}  {_printable(folder)}" for name, folder in run.stages.items()]
    return "\n".join(lines)


def plan_markdown(plan: Plan, runs: Sequence[AffectedRun] = ()) -> str:
    """The plan as Markdown."""
    lines = [f"# Plan: {escape(plan.old.ref)} → {escape(plan.new.ref)}", ""]
    lines += [f"- {line}" for line in _plan_lines(plan)]
    for title, half in (("Labels", plan.labels), ("Critiques", plan.critiques)):
        rows = _rows(half)
        if rows:
            lines += ["", f"## {title} to ask", "", "| principle | to ask | why |", "|---|---:|---|"]
            lines += [f"| {code(name)} | {count:,} | {why} |" for name, count, why in rows]
    if runs:
        lines += ["", "## Runs that descend from it", "", "| run | half | stages |", "|---|---|---|"]
        lines += [f"| {code(r.name)} | {r.half} | {', '.join(map(code, r.stages))} |" for r in runs]
    return "\n".join([*lines, ""])


def constitution_markdown(c: Constitution) -> str:
    """A constitution as a page: each principle with its share of the draws, then the digests."""
    lines = [f"# {c.ref}", ""]  # a name is a slug
    if c.description:
        lines += [escape(c.description), ""]
    halves: tuple[tuple[str, Sequence[Principle]], ...] = (
        ("Critique", c.critique),
        ("Comparison", c.comparison),
    )
    for title, principles in halves:
        if not principles:
            continue
        total = sum(p.weight for p in principles if p.enabled)
        lines += [f"## {title} principles", "", "| id | dimension | share | text |", "|---|---|---:|---|"]
        for p in principles:
            share = f"{p.weight / total:.1%}" if p.enabled and total else "off"
            text = "<br>→ ".join(escape(text) for text in texts(p))
            lines.append(f"| {code(p.id)} | {escape(p.dimension)} | {share} | {text} |")
        lines.append("")
    lines += [
        f"- {len(c.critique_exemplars)} critique and {len(c.comparison_exemplars)} comparison exemplars"
    ]
    for name in ("digest", "critique_digest", "comparison_digest"):
        lines.append(f"- {name.replace('_', ' ')} `{getattr(c, name)}`")
    return "\n".join([*lines, ""])


def texts(principle: Principle) -> tuple[str, ...]:
    """What a model reads of a principle: two requests, or one question."""
    if isinstance(principle, CritiquePrinciple):
        return principle.critique_request, principle.revision_request
    return (principle.question,)


def escape(text: str) -> str:
    """Text in which neither HTML nor Markdown survives, on one line."""
    return unlinked(
        _printable(" ".join(text.split())),
        lambda part: html.escape(re.sub(r"([\\`*_{}\[\]()#+!|~@])", r"\\\1", part), quote=False),
    )


def code(text: str) -> str:
    """A name as code, whatever it contains."""
    return f"`{re.sub('[`|<>]', '�', _printable(' '.join(text.split())))}`"


def _change_lines(change: PrincipleChange, marks: dict[str, str], clean) -> list[str]:
    if change.kind == "changed":
        return [f"{clean(field.field)}: {_marked(field, marks, clean)}" for field in change.fields]
    principle = change.new or change.old
    assert principle is not None
    return [marks[change.kind].format(clean(text)) for text in texts(principle)]


def _marked(change: FieldChange, marks: dict[str, str], clean) -> str:
    runs = change.words or (
        Words(op="removed", text=shown(change.old)),
        Words(op="added", text=shown(change.new)),
    )
    return " ".join(
        clean(run.text) if run.op == "same" else marks[run.op].format(clean(run.text)) for run in runs
    )


def _plan_lines(plan: Plan) -> list[str]:
    lines = []
    if plan.labels.items:
        half = plan.labels
        known = f" ({half.already_known:,} are in the ledger already)" if half.already_known else ""
        lines.append(
            f"labels: {half.stale:,} of {half.items:,} become stale ({_share(half)}), {half.kept:,} stay"
        )
        calls = f"{half.judgements:,} judgements to ask, {plan.calls:,.0f} calls{known}"
        if plan.tokens is not None:
            calls += f", {plan.tokens:,.0f} tokens"
        if plan.seconds is not None:
            calls += f", {_duration(plan.seconds)} of judge time"
        lines.append(calls)
        if half.dropped:
            lines.append(
                "no longer drawn: " + ", ".join(f"{name} {count:,}" for name, count in half.dropped.items())
            )
    if plan.critiques.items:
        half = plan.critiques
        follow = f", {half.follow_on:,} of them because an earlier step changes" if half.follow_on else ""
        stale = f"{half.stale:,} of {half.items:,} steps become stale ({_share(half)})"
        lines.append(f"critiques and revisions: {stale}{follow}")
    return lines


def _rows(half: HalfPlan) -> list[tuple[str, int, str]]:
    rows = []
    for cost in half.by_principle:
        reasons = {
            "its words changed": cost.edited,
            "another principle was drawn before": cost.moved,
            "the exemplars changed": cost.exemplars,
        }
        given = {reason: count for reason, count in reasons.items() if count}
        parts = given if len(given) == 1 else [f"{count:,} {reason}" for reason, count in given.items()]
        why = ", ".join(parts)
        rows.append((cost.id, cost.total, why))
    return rows


def _share(half: HalfPlan) -> str:
    return f"{half.stale / half.items:.1%}"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _printable(text: str) -> str:
    """Text that cannot move a terminal's cursor."""
    return "".join(character if character.isprintable() else "�" for character in text)
