"""The result on a terminal."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from common.text import printable
from flows.report.data import ReportData, change_rows, findings, rate_rows, result_rows, result_words


def print_report(data: ReportData, console: Console) -> None:
    """Tables of the run's result, the comparison with the attempt before, and the findings."""
    # Models as columns: four of them fit into 80 characters, eight figures do not.
    by_figure = [list(row) for row in zip(*result_rows(data), strict=True)]
    console.print(table(result_words(data), by_figure))
    if len(rates := rate_rows(data)) > 1:
        console.print(table("Judge, critic and reward model", rates))
    if changes := change_rows(data):
        console.print(table("What the edited constitution changed", changes))
    for sentence in findings(data):
        console.print(f"- {escape(sentence)}", highlight=False)
    gigabytes = data.summary["peak_memory_bytes"] / 1e9
    console.print(f"[dim]{data.summary['seconds']:.0f} s in all, {gigabytes:.1f} GB of memory at most[/dim]")


def table(title: str, rows: list[list[str]]) -> Table:
    """A table with a title; the first column holds names, the others figures."""
    made = Table(title=title, title_justify="left", title_style="bold", header_style="bold")
    for i, heading in enumerate(rows[0]):
        made.add_column(escape(printable(heading)), justify="left" if i == 0 else "right")
    for row in rows[1:]:
        made.add_row(*(escape(printable(cell)) for cell in row))
    return made
