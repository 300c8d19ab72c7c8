"""The report as Markdown for Prefect artifacts. Prefect renders HTML in Markdown, so model text is escaped."""

from __future__ import annotations

from collections.abc import Sequence

from common.text import escape_html, escape_markdown
from flows.report.cost_plot import cost_figure
from flows.report.costs import cost_rows, price_words
from flows.report.data import MODELS, ReportData, change_rows, findings, rate_rows, result_rows, result_words
from flows.report.early_stopping_plot import brake_figure
from flows.report.figures import figures, png_uri
from flows.report.lineage.facts import fact_rows
from flows.report.lineage.view import principle_rows, step_rows
from flows.report.side_effects import effect_rows
from flows.report.side_effects import step_rows as effect_steps
from flows.report.weights import SAID, weight_rows
from flows.report.weights_plot import weights_figure

# Prefect's artifact list downloads every body; keep one well under 250 KB.
LONGEST_TEXT = 600


def escape(text: str) -> str:
    """Model text as inert Markdown, clipped."""
    return escape_markdown(text, limit=LONGEST_TEXT)


def table(rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; cells are escaped."""
    lines = [" | ".join(escape(c) for c in row) for row in rows]
    lines.insert(1, " | ".join("---" for _ in rows[0]))
    return "\n".join(f"| {line} |" for line in lines)


def result_markdown(data: ReportData) -> str:
    """The artifact of a run's result: findings, tables, plots."""
    summary = data.summary
    parts = [f"# {escape(summary['name'])}"]
    parts.append(f"Constitution {escape(summary['constitution']['ref'])}, seed {summary['seed']}.")
    parts.append("\n".join(f"- {escape(s)}" for s in findings(data)))
    parts += [f"## {result_words(data)}", table(result_rows(data))]
    if effects := effect_rows(data.side_effects, MODELS):
        said = (
            f"Normal is {MODELS[data.side_effects['reference']]}; ▲: beyond its threshold, interval and all."
        )
        parts += ["## Side effects, shares in % (95% interval)", said, table(effects)]
        if len(steps := effect_steps(data.side_effects)) > 2:
            parts += ["By stretches of steps; the first is what is normal there. Shares in %.", table(steps)]
    if len(rates := rate_rows(data)) > 1:
        parts += ["## Judge, critic and reward model", table(rates)]
    if changes := change_rows(data):
        parts += ["## What the edited constitution changed", table(changes)]
    costs, lineage = summary.get("costs", {}), summary.get("lineage", {})
    if costs:
        parts += ["## What the labels cost", escape(price_words(costs)), table(cost_rows(costs))]
    if lineage:
        parts += ["## Where the policy comes from", table(fact_rows(lineage))]
        parts += [table(principle_rows(lineage)), table(step_rows(lineage))]
    weights = summary.get("weights", [])
    if len(rows := weight_rows(weights, MODELS)) > 1:
        parts += ["## Where the weights moved", escape(SAID), table(rows)]
    more = [brake_figure(summary["rl"]), weights_figure(weights, MODELS), cost_figure(costs)]
    for text, draw in [*figures(data).values(), *filter(None, more)]:
        parts.append(f"![{escape(text)}]({png_uri(draw)})")
    return "\n\n".join(p for p in parts if p)


def walk_markdown(data: ReportData) -> str:
    """The artifact of the walk-through: the same prompts answered by all models, and some revisions."""
    parts = ["# The same prompts, answered by every model"]
    for walk in data.walks:
        rows = [
            ["model", "answer"],
            *([MODELS[m], walk.answers[m]] for m in data.models if m in walk.answers),
        ]
        parts.append(f"**{escape(walk.prompt)}**\n\n{table(rows)}")
    if data.revisions:
        parts.append("# Critiques and revisions")
    for revision in data.revisions:
        # One block of HTML: Prefect's page does not fold Markdown.
        lines = [f"answer: {_inside(revision.response)}"]
        for principle, critique, revised in revision.steps:
            lines += [
                f"critique ({_inside(principle)}): {_inside(critique)}",
                f"revision: {_inside(revised)}",
            ]
        heading = _inside(revision.prompt)
        parts.append(f"<details><summary>{heading}</summary>{'<br>'.join(lines)}</details>")
    return "\n\n".join(parts)


def _inside(text: str) -> str:
    """Model text inside an HTML element, clipped."""
    return escape_html(text, limit=LONGEST_TEXT)
