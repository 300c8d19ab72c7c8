"""The three formats of a report: an HTML page, Markdown for a Prefect artifact, tables on a terminal.

All escaping is here: whatever a model or a user wrote is shown as text. HTML by Jinja, which escapes every value;
Markdown letter by letter, since Prefect renders HTML in it; a terminal with control characters written out.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import jinja2
from markupsafe import Markup
from rich.console import Console
from rich.markup import escape as without_markup
from rich.table import Table
from rich.text import Text

from common.sections import Fold, Page, Plot, Rows, Section, texts
from common.text import clipped, escape_html, escape_markdown, printable
from flows.report.drawing import png_uri, svg

LONGEST_BODY = 230_000
"""Bytes of an artifact: Prefect's list of artifacts downloads every body, and one stays well under 250 KB."""
_LONGEST_TEXT = 600
_TERMINAL_FOLDS = 4


def html(page: Page) -> str:
    """One self-contained page."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html.j2").render(page=page, texts=texts, drawn=_drawn)


def markdown(page: Page, *, level: int = 1) -> str:
    """The body of an artifact; what does not fit is left out, which is said. `level` is the title's."""
    parts = [f"{'#' * level} {inert(page.title)}", inert(page.about)]
    parts.append("\n".join(f"- {inert(sentence)}" for sentence in page.findings))
    for section in page.sections:
        parts += section_markdown(section)
    return fitted([part for part in parts if part])


def terminal(page: Page, console: Console) -> None:
    """Tables, some of what is folded, then the findings. What is said below the headings stays on the page."""
    for section in page.sections:
        if len(section.rows) > 1:
            console.print(_terminal_table(section))
        for fold in section.folds[:_TERMINAL_FOLDS]:
            title = f"[bold]{without_markup(clipped(fold.heading, 60))}[/bold]"
            console.print(f"{title} {without_markup(clipped(fold.tag, 30))}", highlight=False)
            for name, tag, text in fold.lines:
                line = f"{name} ({tag}): {text}" if tag else f"{name}: {text}"
                console.print(Text("  " + clipped(line, max(40, console.width - 4))))
    for sentence in page.findings:
        console.print(f"- {without_markup(printable(sentence))}", highlight=False)


def inert(text: str) -> str:
    """Text as Markdown in which nothing is markup, on one line and clipped."""
    return escape_markdown(text, limit=_LONGEST_TEXT)


def inside(text: str) -> str:
    """The same inside an HTML element of Markdown."""
    return escape_html(text, limit=_LONGEST_TEXT)


def markdown_table(rows: Rows) -> str:
    """A Markdown table; cells are escaped."""
    lines = [" | ".join(map(inert, row)) for row in texts(rows)]
    lines.insert(1, " | ".join("---" for _ in rows[0]))
    return "\n".join(f"| {line} |" for line in lines)


def fold_markdown(heading: str, body: str) -> str:
    """Two pieces of HTML, folded: Prefect's page folds one block of HTML; Markdown inside would stand below it."""
    return f"<details><summary>{heading}</summary>{body}</details>"


def fitted(parts: Sequence[str]) -> str:
    """As many of the parts as an artifact holds, and how many it does not."""
    out = io.StringIO()
    size = 0
    for number, part in enumerate(parts):
        size += len(part.encode()) + 2
        if size > LONGEST_BODY:
            out.write(f"\n\n<em>{len(parts) - number} more do not fit here.</em>")
            break
        out.write(("\n\n" if number else "") + part)
    return out.getvalue()


def _drawn(plot: Plot) -> Markup:
    return Markup(svg(plot.draw) if plot.draw else plot.svg)


def section_markdown(section: Section) -> list[str]:
    parts = [f"{'#' * section.level} {inert(section.heading)}"] if section.heading else []
    parts.append(inert(section.text))
    parts += [f"![{inert(plot.text)}]({png_uri(plot.draw)})" for plot in section.figures if plot.draw]
    if len(section.rows) > 1:
        parts.append(markdown_table(section.rows))
    return [*parts, *map(_fold, section.folds)]


def _fold(fold: Fold) -> str:
    """An open one as a table, another folded."""
    heading = " ".join(part for part in (fold.heading, fold.tag) if part)
    named = [(f"{name} ({tag})" if tag else name, text) for name, tag, text in fold.lines]
    if fold.open and named:
        said = f": {inert(fold.text)}" if fold.text else ""
        return f"**{inert(heading)}**{said}\n\n{markdown_table([('', ''), *named])}"
    lines = [inside(text) for text in (fold.text, fold.verbatim) if text]
    lines += [f"{inside(name)}: {inside(text)}" for name, text in named]
    return fold_markdown(inside(heading), "<br>".join(lines))


def _terminal_table(section: Section) -> Table:
    """The first column holds names, the others figures or words."""
    rows = texts(section.rows)
    if section.turned:
        rows = [list(row) for row in zip(*rows, strict=True)]
    made = Table(
        title=printable(section.heading), title_justify="left", title_style="bold", header_style="bold"
    )
    for number, heading in enumerate(rows[0]):
        left = number == 0 or section.kind == "words"
        made.add_column(Text(printable(heading)), justify="left" if left else "right", overflow="fold")
    for row in rows[1:]:
        made.add_row(*(Text(printable(cell)) for cell in row))
    return made
