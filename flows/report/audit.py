"""The audit as Markdown: the judge's report with the sample below it, and the principle report card."""

from __future__ import annotations

from flows.report.audit_pairs import fitted, pair_markdown, three_places
from flows.report.audit_plots import plots
from flows.report.markdown import escape, table
from judges.audit import Agreement, AuditReport, Card
from judges.audit.report import LabelFigures
from judges.exam.measures import Share
from judges.records import STATUSES

_SHOWN_PRINCIPLES = 40


def report_markdown(report: AuditReport, *, title: str) -> str:
    """The `label-audit` artifact: figures, plots, by principle, then the sample, as many pairs as fit."""
    overall = report.overall
    parts = [
        f"# Labels of {escape(title)}",
        f"Judge {escape(report.judge)}, label set `{report.label_set[:12]}`.",
        table([["measure", "value (95% interval)"], *_figure_rows(overall)]),
        people_markdown(report.people),
        *plots(report),
        "## By principle",
        table(_principle_rows(report.by_principle)),
    ]
    if report.sampled:
        parts += [
            "## Pairs worth a look",
            "Drawn by doubt: low margin, orders that disagree, votes that disagree. Give verdicts with the deployment "
            "**audit-labels**, or in bulk with `charter labels audit export`.",
        ]
    return fitted(parts, [pair_markdown(pair) for pair in report.sampled])


def card_markdown(card: Card, *, title: str) -> str:
    """The `principle-report-card` artifact."""
    return "\n\n".join(
        [
            f"# Principles of {escape(card.constitution)}",
            f"{escape(title)}: {card.labels:,} labels. Every principle's judgements are also taken alone, as if the "
            "pair had drawn no other.",
            table(card_rows(card)),
            "**drawn**: labels that drew it. **flips**: orders that name different winners. **people**: its own "
            "decisions that people share. **changes the label**: labels whose winner or status is another without it, "
            "of those that drew others too. **alone**: labels that drew nothing else.",
            "## Overlap",
            "On pairs that drew both: the same winner, and the correlation of their probabilities.",
            table(_overlap_rows(card)),
        ]
    )


def card_rows(card: Card) -> list[list[str]]:
    """The card as a table, for any kind of view."""
    rows = [["principle", "drawn", "flips", "people", "changes the label", "alone", "statuses"]]
    for row in card.rows:
        statuses = ", ".join(f"{n:,} {status}" for status, n in row.statuses.items())
        drawn = f"{row.drawn:,} ({row.drawn / card.labels:.0%})"
        shares = [_share(row.flips), _share(row.with_people), _share(row.changed)]
        rows.append([row.principle, drawn, *shares, f"{row.sole:,}", statuses])
    return rows


def people_markdown(people: Agreement) -> str:
    """One paragraph on people's agreement with the judge."""
    if people.kappa is None or people.alpha is None:
        return "Nobody has judged any of these pairs yet."
    kappa, alpha = people.kappa, people.alpha
    reviewers = ", ".join(f"{escape(who)} {n:,}" for who, n in people.reviewers.items())
    return (
        f"People judged {people.pairs:,} pairs ({reviewers}): the same as the judge {_share(people.same)}, Cohen's "
        f"kappa {kappa.value:.2f} [{kappa.low:.2f}, {kappa.high:.2f}], Krippendorff's alpha {alpha.value:.2f} "
        f"[{alpha.low:.2f}, {alpha.high:.2f}]."
    )


def _figure_rows(f: LabelFigures) -> list[list[str]]:
    statuses = ", ".join(f"{f.statuses[status]:,} {status}" for status in STATUSES if f.statuses[status])
    return [
        ["labels", f"{f.labels:,}: {statuses}"],
        ["decided", _share(f.decided)],
        ["failed judgements", _share(f.failures)],
        ["same winner in both orders", _share(f.same_in_both_orders)],
        ["flips with the order", _share(f.flips)],
        ["flips that go to the first slot", _share(f.flips_to_first)],
        ["the first slot's lead in probability", three_places(f.mean_lead, sign=True)],
        ["distance of the two orders", three_places(f.mean_difference)],
        ["chose the longer response", _share(f.chose_longer)],
    ]


def _principle_rows(found: dict[str, LabelFigures]) -> list[list[str]]:
    rows = [["principle", "labels", "decided", "flips", "first slot", "longer"]]
    for name, f in list(found.items())[:_SHOWN_PRINCIPLES]:
        shares = [
            _share(f.decided),
            _share(f.flips),
            three_places(f.mean_lead, sign=True),
            _share(f.chose_longer),
        ]
        rows.append([name, f"{f.labels:,}", *shares])
    return rows


def _overlap_rows(card: Card) -> list[list[str]]:
    rows = [["principles", "pairs", "same winner", "correlation"]]
    seen = set()
    for row in card.rows:
        for overlap in row.overlaps:
            both = tuple(sorted((row.principle, overlap.other)))
            if both not in seen:
                seen.add(both)
                share = _share(overlap.same)
                rows.append(
                    [
                        " and ".join(both),
                        f"{overlap.same.of:,}",
                        share,
                        three_places(overlap.correlation, sign=True),
                    ]
                )
    return rows[: 1 + 4 * _SHOWN_PRINCIPLES]


def _share(found: Share) -> str:
    if found.share is None:
        return "-"
    return f"{found.share:.1%} [{100 * found.low:.0f}-{100 * found.high:.0f}] of {found.of:,}"
