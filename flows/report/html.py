"""report.html: one self-contained file, findings first. Jinja escapes every value that is put into it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from common.files import write_atomically
from flows.report.cost_plot import cost_figure
from flows.report.costs import cost_rows, price_words
from flows.report.data import MODELS, ReportData, change_rows, findings, rate_rows, result_rows, result_words
from flows.report.early_stopping_plot import brake_figure
from flows.report.figures import figures, svg
from flows.report.lineage.boxes import in_words
from flows.report.lineage.facts import fact_rows
from flows.report.lineage.picture import picture
from flows.report.lineage.view import principle_rows, step_rows
from flows.report.side_effects import effect_rows
from flows.report.side_effects import step_rows as side_effect_steps
from flows.report.weights import SAID, weight_rows
from flows.report.weights_plot import weights_figure

_TEMPLATE = "report.html.j2"


def environment() -> jinja2.Environment:
    """Where the templates of all pages are: every value is escaped, an unknown name is an error."""
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def render(data: ReportData) -> str:
    """The whole page."""
    costs, lineage = data.summary.get("costs", {}), data.summary.get("lineage", {})
    weights = data.summary.get("weights", [])
    more = [brake_figure(data.summary["rl"]), weights_figure(weights, MODELS), cost_figure(costs)]
    plots = [*figures(data).values(), *filter(None, more)]
    drawn = [{"text": text, "svg": Markup(svg(draw))} for text, draw in plots]
    return (
        environment()
        .get_template(_TEMPLATE)
        .render(
            run=data.summary,
            findings=findings(data),
            results=result_rows(data),
            results_said=result_words(data),
            rates=rate_rows(data),
            changes=change_rows(data),
            figures=drawn,
            effects=effect_rows(data.side_effects, MODELS),
            steps=side_effect_steps(data.side_effects),
            weights=weight_rows(weights, MODELS),
            weights_said=SAID,
            costs=cost_rows(costs),
            prices=price_words(costs),
            lineage=lineage_parts(lineage),
            normal=data.side_effects.get("reference"),
            names=MODELS,
            models=data.models,
            walks=data.walks,
            revisions=data.revisions,
            stages=data.summary["stages"],
            seconds=data.summary["seconds"],
            memory_gb=data.summary["peak_memory_bytes"] / 1e9,
            config=data.config_text,
            versions=json.dumps(dict(data.versions), indent=2),
        )
    )


def lineage_parts(found: Mapping[str, Any]) -> dict[str, Any] | None:
    """The picture and the tables of a lineage for the page; None without one."""
    if not found:
        return None
    return {
        "picture": picture(found),
        "text": in_words(found),
        "facts": fact_rows(found),
        "principles": principle_rows(found),
        "steps": step_rows(found),
    }


def write_html(data: ReportData, path: Path) -> Path:
    """Render and write `path`, replacing it whole."""
    write_atomically(path, render(data))
    return path
