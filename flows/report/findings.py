"""What a person should know first of a run, in sentences."""

from __future__ import annotations

from flows.report.costs import cost_sentences
from flows.report.data import MODELS, ReportData
from flows.report.lineage.view import lineage_sentences
from flows.report.over_optimisation import stopping_sentences
from flows.report.side_effects import effect_sentences
from flows.report.summary import Summary
from flows.report.weights import weight_sentences


def findings(data: ReportData) -> list[str]:
    """Warnings first, then what the run came to, what was reused, and what it cost."""
    summary = data.summary
    found = _warnings(summary) + _harmlessness(data) + _helpfulness(data) + stopping_sentences(summary.rl)
    if data.models:
        found += effect_sentences(summary.side_effects, data.models[-1], MODELS[data.models[-1]])
    found += weight_sentences(summary.weights, MODELS)
    if (change := data.label_change) is not None and data.before is not None:
        found.append(
            f"Against {data.before.constitution.ref}, {change.flipped} of {change.pairs} shared pairs changed "
            f"their winner and {change.moved} their probability."
        )
    if reused := [name for name, stage in summary.stages.items() if stage.reused]:
        found.append(f"{len(reused)} of {len(summary.stages)} stages were reused: {', '.join(reused)}.")
    statuses = summary.judge.statuses or {}
    if total := sum(statuses.values()):
        rest = ", ".join(f"{n} {status}" for status, n in statuses.items() if status != "ok" and n)
        found.append(f"{statuses.get('ok', 0)} of {total} labels are ok" + (f"; {rest}." if rest else "."))
        if (clear := summary.judge.more.get("clear")) is not None:
            found.append(
                f"{clear} of {total} pairs have a clear winner (over 0.05 from a half, the same in both orders); in "
                f"{summary.judge.more['order_flips']} the order of the answers decides."
            )
    found += lineage_sentences(summary.lineage) + cost_sentences(summary.costs)
    if not summary.constitution.published:
        found.append("The constitution is a working file, not a published version: this is a trial run.")
    return found


def _warnings(summary: Summary) -> list[str]:
    """What stands against the labels, although training went on; and what people found."""
    found = []
    exam, audit = summary.judge_exam, summary.audit
    if exam and not exam.taken:
        found.append(f"Warning: the judge was not examined: {exam.reason}.")
    elif exam and not exam.passed:
        found.append(
            f"Warning: the judge failed its exam ({'; '.join(exam.problems or ())}); nothing required it."
        )
    total, turned = sum((summary.judge.statuses or {}).values()), summary.judge.more.get("order_flips", 0)
    if turned > total / 2:
        found.append(
            f"Warning: in {turned} of {total} pairs the order of the answers decides: the judge sees little else "
            "(labels.flip_margin bounds how far the orders of a label that trains may part)."
        )
    if audit and audit.problem:
        found.append(f"Warning: {audit.problem}, and audit.override is set.")
    elif audit and audit.kappa:
        value, low, high = audit.kappa.scaled(1)
        kappa = f"{value:.2f} ({low:.2f}-{high:.2f})"
        found.append(f"Audit: people judged {audit.pairs} pairs, kappa with the judge {kappa}.")
    return found


def _harmlessness(data: ReportData) -> list[str]:
    steps = [
        f"{value.scaled(100)[0]:.0f}% {MODELS[model]}"
        for model in data.models
        if (value := data.value(model, "gold.harmless"))
    ]
    return [f"Harmless on held-out harmful prompts: {', '.join(steps)}."] if steps else []


def _helpfulness(data: ReportData) -> list[str]:
    if not data.models:
        return []
    last = data.models[-1]
    found = (
        data.value("helpful_only", "gold.helpful"),
        data.value(last, "gold.helpful"),
        data.value(last, "gold.benign_refusals"),
    )
    before, after, refused = (None if one is None else one.scaled(100)[0] for one in found)
    if before is None or after is None or refused is None:
        return []
    return [
        f"Helpful on harmless prompts: {before:.0f}% helpful-only, {after:.0f}% {MODELS[last]}, which refuses "
        f"{refused:.0f}% of them."
    ]
