"""Pairs as Markdown: in the audit's artifact, folded, and on a reviewer's page under the letters of the form.

Everything that a model, a user or a reviewer wrote is escaped; an artifact stays under Prefect's comfortable size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from common.sections import Measure
from common.text import escape_html, escape_markdown, printable
from flows.report.render import LONGEST_BODY, fitted, fold_markdown, inert
from judges.asking.readout import normalised
from judges.audit import SampledPair
from judges.explain import ExplainedJudgement
from judges.records import Order, Pair

# A text: so many lines, so many letters of each, so many bytes once escaped.
_LINES, _LINE, _SIZE = 40, 600, 20_000
_TURNS = 4


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


def html_block(text: str, *, lines: int = _LINES) -> str:
    """`block` inside an HTML element."""
    return block(text, lines=lines, escaped=escape_html)


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
    return fold_markdown(heading, "<br><br>".join(body))


def page_markdown(pairs: Sequence[tuple[SampledPair, Order]], *, heading: str, lines: int = _LINES) -> str:
    """A page for a reviewer: the pairs under the letters that the form uses, the judge's view folded away."""
    parts = [heading]
    size = min(_SIZE, LONGEST_BODY // (8 * max(1, len(pairs))))
    for number, (sampled, shown) in enumerate(pairs, start=1):
        key = "A is response a, B is response b" if shown == "ab" else "A is response b, B is response a"
        parts += [
            f"### Pair {number}",
            _texts(sampled.labelled.pair, shown, names=("A", "B"), lines=lines, size=size),
            fold_markdown("What the judge says, for afterwards", f"Here {key}.<br>{judged(sampled)}"),
        ]
    return fitted(parts)


def judged(sampled: SampledPair) -> str:
    """What the judge was asked about a pair and what it said, as HTML; probabilities are for response a."""
    label = sampled.labelled.label
    rows = [["principle", "order", "status", "P(a)"]]
    rows += [[j.principle_id, j.order, j.reading.status, _p_of_a(j)] for j in sampled.explanation.judgements]
    detail = "" if label.detail is None else f" ({escape_html(label.detail)})"
    spread = "" if label.spread is None else f", spread of the votes {label.spread:.2f}"
    p, p_ab, p_ba = (Measure(found, digits=3) for found in (label.p, label.p_ab, label.p_ba))
    parts = [
        f"label <code>{label.digest[:12]}</code>: <b>{escape_html(label.status)}</b>{detail}, P(a) "
        f"{p} (a first {p_ab}, b first {p_ba}){spread}",
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


def _texts(
    pair: Pair, shown: Order, *, names: tuple[str, str], lines: int = _LINES, size: int = _SIZE
) -> str:
    texts = {"a": pair.a, "b": pair.b}
    parts = [
        f"**{inert(m['role'])}**<br>{block(m['content'], lines=lines, size=size)}"
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
