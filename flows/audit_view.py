"""The audit as Markdown: the judge's report, the sample, a page for a reviewer, the principle report card.

Everything that a model, a user or a reviewer wrote is escaped; an artifact stays under Prefect's comfortable size.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from flows.escape import escape_html, escape_markdown
from flows.report.figures import PROXY, png_uri
from flows.report.markdown import escape, table
from judges.audit import Agreement, AuditReport, Card, SampledPair
from judges.audit.report import BINS, LabelFigures
from judges.exam.measures import Share
from judges.explain import ExplainedJudgement
from judges.readout import normalised
from judges.records import STATUSES, Order, Pair
from judges.text import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Prefect's artifact list downloads every body; one stays well under 250 KB.
LONGEST_BODY = 230_000
# A text: so many lines, so many letters of each, so many bytes once escaped.
_LINES, _LINE, _SIZE = 40, 600, 20_000
_TURNS = 4
_SHOWN_PRINCIPLES = 40


def block(
    text: str, *, lines: int = _LINES, size: int = _SIZE, escaped: Callable[..., str] = escape_markdown
) -> str:
    """A text of several lines as inert Markdown: control characters are written out, and what is more than so many
    lines or bytes is cut, which is said."""
    found = printable(text).strip("\n").split("\n")
    shown: list[str] = []
    for line in found[:lines]:
        made = escaped(line, limit=_LINE)
        size -= len(made.encode())
        if size < 0 and shown:
            break
        shown.append(made)
    if len(found) > len(shown):
        shown.append(f"<em>{len(found) - len(shown)} more lines</em>")
    return "<br>".join(shown) or "<em>nothing</em>"


def report_markdown(report: AuditReport, *, title: str) -> str:
    """The `label-audit` artifact: figures, plots, by principle, then the sample, as many pairs as fit."""
    overall = report.overall
    parts = [
        f"# Labels of {escape(title)}",
        f"Judge {escape(report.judge)}, label set `{report.label_set[:12]}`.",
        table([["measure", "value (95% interval)"], *_figure_rows(overall)]),
        people_markdown(report.people),
        *_plots(report),
        "## By principle",
        table(_principle_rows(report.by_principle)),
    ]
    if report.sampled:
        parts += [
            "## Pairs worth a look",
            "Drawn by doubt: low margin, orders that disagree, votes that disagree. Give verdicts with the deployment "
            "**audit-labels**, or in bulk with `charter labels audit export`.",
        ]
    return _fitted(parts, [pair_markdown(pair) for pair in report.sampled])


def pair_markdown(sampled: SampledPair) -> str:
    """One pair, folded: texts, principle, probabilities in both orders, rationales, people's verdicts."""
    label, pair = sampled.labelled.label, sampled.labelled.pair
    p = "-" if label.p is None else f"{label.p:.2f}"
    heading = f"{escape_html(label.status)}, p {p}: {escape_html(pair.prompt[-1]['content'], limit=80)}"
    body = [f"<b>{escape_html(m['role'])}</b><br>{html_block(m['content'])}" for m in pair.prompt[-_TURNS:]]
    body += [f"<b>response {name}</b><br>{html_block(text)}" for name, text in (("a", pair.a), ("b", pair.b))]
    body.append(judged(sampled))
    for verdict in sampled.verdicts:
        note = f": {html_block(verdict.why, lines=5)}" if verdict.why else ""
        body.append(f"<b>{escape_html(verdict.who)}</b> says {escape_html(verdict.winner)}{note}")
    return _folded(heading, "<br><br>".join(body))


def _folded(heading: str, html: str) -> str:
    """Prefect's page folds what is one block of HTML; Markdown between the tags would stand below, unfolded."""
    return f"<details><summary>{heading}</summary>{html}</details>"


def html_block(text: str, *, lines: int = _LINES) -> str:
    """`block` inside an HTML element."""
    return block(text, lines=lines, escaped=escape_html)


def judged(sampled: SampledPair) -> str:
    """What the judge was asked about a pair and what it said, as HTML; probabilities are for response a."""
    label = sampled.labelled.label
    rows = [["principle", "order", "status", "P(a)"]]
    rows += [[j.principle_id, j.order, j.reading.status, _p_of_a(j)] for j in sampled.explanation.judgements]
    detail = "" if label.detail is None else f" ({escape_html(label.detail)})"
    spread = "" if label.spread is None else f", spread of the votes {label.spread:.2f}"
    parts = [
        f"label <code>{label.digest[:12]}</code>: <b>{escape_html(label.status)}</b>{detail}, P(a) "
        f"{_number(label.p)} (a first {_number(label.p_ab)}, b first {_number(label.p_ba)}){spread}",
        _html_table(rows),
    ]
    questions = {j.principle_id: j.question for j in sampled.explanation.judgements}
    parts += [f"{escape_html(name)}: {escape_html(question)}" for name, question in questions.items()]
    for j in sampled.explanation.judgements:
        if j.reading.text:
            said = html_block(j.reading.text, lines=12)
            parts.append(f"rationale ({escape_html(j.principle_id)}, {escape_html(j.order)}): {said}")
    return "<br>".join(parts)


def _html_table(rows: Sequence[Sequence[str]]) -> str:
    """A table as HTML; cells are escaped."""
    lines = ["".join(f"<td>{escape_html(cell)}&#160;&#160;</td>" for cell in row) for row in rows]
    return "<table>" + "".join(f"<tr>{line}</tr>" for line in lines) + "</table>"


def page_markdown(pairs: Sequence[tuple[SampledPair, Order]], *, heading: str, lines: int = _LINES) -> str:
    """A page for a reviewer: the pairs under the letters that the form uses, the judge's view folded away."""
    parts = [heading]
    size = min(_SIZE, LONGEST_BODY // (8 * max(1, len(pairs))))
    for number, (sampled, shown) in enumerate(pairs, start=1):
        key = "A is response a, B is response b" if shown == "ab" else "A is response b, B is response a"
        parts += [
            f"### Pair {number}",
            _texts(sampled.labelled.pair, shown, names=("A", "B"), lines=lines, size=size),
            _folded("What the judge says, for afterwards", f"Here {key}.<br>{judged(sampled)}"),
        ]
    return _fitted(parts, [])


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


def _texts(
    pair: Pair, shown: Order, *, names: tuple[str, str], lines: int = _LINES, size: int = _SIZE
) -> str:
    texts = {"a": pair.a, "b": pair.b}
    parts = [
        f"**{escape(m['role'])}**<br>{block(m['content'], lines=lines, size=size)}"
        for m in pair.prompt[-_TURNS:]
    ]
    if len(pair.prompt) > _TURNS:
        parts.insert(0, f"<em>{len(pair.prompt) - _TURNS} earlier turns</em>")
    parts += [
        f"**{name}**<br>{block(texts[response], lines=lines, size=size)}"
        for name, response in zip(names, shown, strict=True)
    ]
    return "\n\n".join(parts)


def _p_of_a(j: ExplainedJudgement) -> str:
    if j.reading.logprobs is None:
        return "-"
    by_name = dict(zip(j.order, normalised(j.reading.logprobs), strict=True))
    return (
        f"{by_name['a']:.3f}"
        if len(j.order) == 2
        else ", ".join(f"{name} {by_name[name]:.2f}" for name in sorted(by_name))
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
        ["the first slot's lead in probability", _number(f.mean_lead, sign=True)],
        ["distance of the two orders", _number(f.mean_difference)],
        ["chose the longer response", _share(f.chose_longer)],
    ]


def _principle_rows(found: dict[str, LabelFigures]) -> list[list[str]]:
    rows = [["principle", "labels", "decided", "flips", "first slot", "longer"]]
    for name, f in list(found.items())[:_SHOWN_PRINCIPLES]:
        shares = [_share(f.decided), _share(f.flips), _number(f.mean_lead, sign=True), _share(f.chose_longer)]
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
                        _number(overlap.correlation, sign=True),
                    ]
                )
    return rows[: 1 + 4 * _SHOWN_PRINCIPLES]


def _plots(report: AuditReport) -> list[str]:
    overall = report.overall

    def margins(ink: str) -> Figure:
        figure, axes = _axes(ink)
        axes.bar([(i + 0.5) / BINS for i in range(BINS)], overall.margins, width=0.9 / BINS, color=PROXY)
        axes.set_xlabel("margin: 2 |p - 1/2|")
        axes.set_ylabel("labels")
        return figure

    names = list(report.by_principle)[:20]

    def flips(ink: str) -> Figure:
        figure, axes = _axes(ink, height=0.8 + 0.28 * len(names))
        shares = [report.by_principle[name].flips for name in names]
        errors = [
            [(s.share or 0) - s.low if s.of else 0 for s in shares],
            [s.high - (s.share or 0) if s.of else 0 for s in shares],
        ]
        # "$" would start a formula in a label.
        labels = [printable(name)[:30].replace("$", r"\$") for name in names]
        axes.barh(range(len(names)), [s.share or 0 for s in shares], xerr=errors, color=PROXY, ecolor=ink)
        axes.set_yticks(range(len(names)), labels)
        axes.invert_yaxis()
        axes.set_xlim(0, 1)
        axes.set_xlabel("flips with the order, 95% interval")
        return figure

    return [
        _image("How sure the judge is", margins),
        *([_image("Flips by principle", flips)] if names else []),
    ]


def _image(text: str, draw: Callable[[str], Figure]) -> str:
    return f"![{escape(text)}]({png_uri(draw)})"


def _axes(ink: str, *, height: float = 2.6) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.4, height), layout="constrained")
    axes = figure.add_subplot()
    axes.tick_params(colors=ink, labelsize=8)
    for spine in ("top", "right"):
        axes.spines[spine].set_visible(False)
    return figure, axes


def _fitted(parts: Sequence[str], pairs: Sequence[str]) -> str:
    """The parts, then as many pairs as fit."""
    out = io.StringIO()
    size = 0
    for number, part in enumerate((*parts, *pairs)):
        length = len(part.encode()) + 2
        if size + length > LONGEST_BODY:
            left = len(parts) + len(pairs) - number
            out.write(
                f"\n\n<em>{left} more do not fit here; see them with `charter labels audit export`.</em>"
            )
            break
        out.write(("\n\n" if number else "") + part)
        size += length
    return out.getvalue()


def _share(found: Share) -> str:
    if found.share is None:
        return "-"
    return f"{found.share:.1%} [{100 * found.low:.0f}-{100 * found.high:.0f}] of {found.of:,}"


def _number(value: float | None, *, sign: bool = False) -> str:
    return "-" if value is None else f"{value:{'+' if sign else ''}.3f}"
