"""`charter lineage`: where a run's policy comes from."""

from __future__ import annotations

import json
from pathlib import Path

import click

from flows.cli.terminal import console


@click.command()
@click.argument("run", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print all of it as JSON.")
def lineage(run: Path, as_json: bool) -> None:
    """Say where the policy of RUN, a run's folder, comes from: labels, principles, people, judge, stages.

    All of it is read from the manifests and the ledger; nothing is written.
    """
    from flows.report.lineage import lineage_of_run
    from flows.report.lineage.facts import fact_rows
    from flows.report.lineage.view import lineage_sentences, principle_rows, step_rows

    found = lineage_of_run(run)
    if as_json:
        click.echo(json.dumps(found, indent=2, ensure_ascii=False))
        return
    out = console()
    for rows, title in (
        (fact_rows(found), "Where the policy comes from"),
        (principle_rows(found), "Principles of the labels that trained"),
        (step_rows(found), "Step by step"),
    ):
        if len(rows) > 1:
            out.print(_table(title, rows))
    for sentence in lineage_sentences(found):
        out.print(f"- {sentence}", highlight=False, markup=False)


def _table(title: str, rows: list[list[str]]) -> object:
    from rich import box
    from rich.table import Table

    from common.text import printable
    from flows.cli.options import text_cells

    table = Table(title=title, title_justify="left", box=box.SIMPLE, pad_edge=False)
    for number, heading in enumerate(rows[0]):
        table.add_column(heading, no_wrap=number == 0, overflow="fold")
    for row in rows[1:]:
        table.add_row(*text_cells(*(printable(cell) for cell in row)))
    return table
