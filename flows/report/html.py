"""report.html: one self-contained file, findings first. Jinja escapes every value that is put into it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import jinja2
from markupsafe import Markup

from flows.report.data import MODELS, ReportData, change_rows, findings, rate_rows, result_rows
from flows.report.figures import figures, svg
from flows.report.side_effects import effect_rows, step_rows

_TEMPLATE = "report.html.j2"


def environment() -> jinja2.Environment:
    """Where the templates of all pages are: every value is escaped, an unknown name is an error."""
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def render(data: ReportData) -> str:
    """The whole page."""
    drawn = [{"text": text, "svg": Markup(svg(draw))} for text, draw in figures(data).values()]
    return (
        environment()
        .get_template(_TEMPLATE)
        .render(
            run=data.summary,
            findings=findings(data),
            results=result_rows(data),
            rates=rate_rows(data),
            changes=change_rows(data),
            figures=drawn,
            effects=effect_rows(data.side_effects, MODELS),
            steps=step_rows(data.side_effects),
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


def write_html(data: ReportData, path: Path) -> Path:
    """Render and write `path`, replacing it whole."""
    beside = path.with_suffix(".tmp")
    beside.write_text(render(data), encoding="utf-8", errors="replace")
    os.replace(beside, path)
    return path
