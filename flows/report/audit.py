"""The audit's two artifacts: the judge's report on a label set with a sample, and the principle scorecard."""

from __future__ import annotations

from collections.abc import Mapping

from common.sections import Cell, Measure, Page, Plot, Rows, Section, percent, words
from flows.report import render
from flows.report.audit_pairs import pair_markdown
from flows.report.drawing import PROXY, axes_of, share_bars
from judges.audit import Agreement, AuditReport, Card
from judges.audit.report import BINS, LabelFigures
from judges.records import STATUSES

_PRINCIPLES = 40
_PLOTTED = 20


def report_markdown(report: AuditReport, *, title: str) -> str:
    """The `label-audit` artifact: figures, plots, by principle, then the sample, as many pairs as fit."""
    page = Page(
        title=f"Labels of {title}",
        about=f"Judge {report.judge}, label set {report.label_set[:12]}.",
        findings=[agreement_sentence(report.people)],
        sections=[
            Section(rows=_figure_rows(report.overall), figures=_plots(report)),
            Section(heading="By principle", rows=_principle_rows(report)),
        ],
    )
    parts = [render.markdown(page)]
    if report.sampled:
        sample = Section(
            heading="Pairs worth a look",
            text="Drawn by doubt: low margin, orders that disagree, votes that disagree. Give verdicts with the "
            "deployment audit-labels, or in bulk with charter labels audit export, which has all pairs.",
        )
        parts += [*render.section_markdown(sample), *map(pair_markdown, report.sampled)]
    return render.fitted(parts)


def card_markdown(card: Card, *, title: str) -> str:
    """The `principle-report-card` artifact."""
    text = (
        f"{title}: {card.labels:,} labels. Every principle's judgements are also taken alone, as if the pair had drawn "
        "no other."
    )
    columns = (
        "drawn: labels that drew it. flips: orders that name different winners. people: its own decisions that people "
        "share. changes the label: labels whose winner or status is another without it, of those that drew others too. "
        "alone: labels that drew nothing else."
    )
    overlap = "On pairs that drew both: the same winner, and the correlation of their probabilities."
    return render.markdown(
        Page(
            title=f"Principles of {card.constitution}",
            about=text,
            sections=[
                Section(text=columns, rows=card_rows(card)),
                Section(heading="Overlap", text=overlap, rows=_overlap_rows(card)),
            ],
        )
    )


def card_rows(card: Card) -> Rows:
    """The principle scorecard as a table."""
    rows: list[list[Cell]] = [
        ["principle", "drawn", "flips", "people", "changes the label", "alone", "statuses"]
    ]
    for row in card.rows:
        drawn = f"{row.drawn:,} ({row.drawn / card.labels:.0%})"
        shares = [percent(share) for share in (row.flips, row.with_people, row.changed)]
        rows.append([row.principle, drawn, *shares, row.sole, _counts(row.statuses)])
    return rows


def agreement_sentence(people: Agreement) -> str:
    """People's agreement with the judge in a sentence."""
    if people.kappa is None or people.alpha is None:
        return "No person has judged any of these pairs yet."
    kappa, alpha = (words(Measure(one, digits=2)) for one in (people.kappa, people.alpha))
    reviewers = ", ".join(f"{who} {n:,}" for who, n in people.reviewers.items())
    return (
        f"People judged {people.pairs:,} pairs ({reviewers}): the same as the judge {percent(people.same)}, Cohen's "
        f"kappa {kappa}, Krippendorff's alpha {alpha}."
    )


def _counts(statuses: Mapping[str, int]) -> str:
    return ", ".join(f"{n:,} {status}" for status, n in statuses.items())


def _figure_rows(f: LabelFigures) -> Rows:
    statuses: dict[str, int] = {status: f.statuses[status] for status in STATUSES if f.statuses[status]}
    return [
        ["measure", "value (95% interval)"],
        ["labels", f"{f.labels:,}: {_counts(statuses)}"],
        ["decided", percent(f.decided)],
        ["failed judgements", percent(f.failures)],
        ["same winner in both orders", percent(f.same_in_both_orders)],
        ["flips with the order", percent(f.flips)],
        ["flips that go to the first slot", percent(f.flips_to_first)],
        ["position bias: probability of the first slot over the second", _bias(f)],
        ["distance of the two orders", Measure(f.mean_difference, digits=3)],
        ["chose the longer response", percent(f.chose_longer)],
    ]


def _principle_rows(report: AuditReport) -> Rows:
    rows: list[list[Cell]] = [["principle", "labels", "decided", "flips", "position bias", "longer"]]
    for name, f in list(report.by_principle.items())[:_PRINCIPLES]:
        rows.append([name, f.labels, percent(f.decided), percent(f.flips), _bias(f), percent(f.chose_longer)])
    return rows


def _bias(f: LabelFigures) -> Measure:
    return Measure(f.position_bias, digits=3, sign=True)


def _overlap_rows(card: Card) -> Rows:
    rows: list[list[Cell]] = [["principles", "pairs", "same winner", "correlation"]]
    for row in card.rows:
        for overlap in row.overlaps:
            if row.principle < overlap.other:
                r = Measure(overlap.correlation, digits=3, sign=True)
                rows.append(
                    [f"{row.principle} and {overlap.other}", overlap.same.n, percent(overlap.same), r]
                )
    return rows[: 1 + 4 * _PRINCIPLES]


def _plots(report: AuditReport) -> list[Plot]:
    """How sure the judge is, and how often a principle's two orders disagree."""
    flips = {name: f.flips for name, f in list(report.by_principle.items())[:_PLOTTED]}

    def margins(ink: str) -> object:
        figure, (axes,) = axes_of(ink, width=5.4, height=2.6)
        axes.bar(
            [(i + 0.5) / BINS for i in range(BINS)], report.overall.margins, width=0.9 / BINS, color=PROXY
        )
        axes.set_xlabel("margin: 2 |p - 1/2|")
        axes.set_ylabel("labels")
        return figure

    def flipped(ink: str) -> object:
        return share_bars(flips, ink, label="flips with the order, 95% interval")

    found = [Plot(text="How sure the judge is", draw=margins)]
    return [*found, Plot(text="Flips by principle", draw=flipped)] if flips else found
