"""`charter lineage`: where a run's policy comes from."""

from __future__ import annotations

import json
from pathlib import Path

import click

from flows.cli.options import console


@click.command()
@click.argument("run", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print all of it as JSON.")
def lineage(run: Path, as_json: bool) -> None:
    """Say where the policy of RUN, a run's folder, comes from: labels, principles, people, judge, stages.

    All of it is read from the manifests and the ledger; nothing is written.
    """
    from flows.report.lineage import lineage_of_run
    from flows.report.lineage.view import lineage_page
    from flows.report.render import terminal

    found = lineage_of_run(run)
    if as_json:
        click.echo(json.dumps(found.to_json(), indent=2, ensure_ascii=False))
    else:
        terminal(lineage_page(found), console())
