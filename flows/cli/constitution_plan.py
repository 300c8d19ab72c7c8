"""`charter constitution plan`: what an edit makes stale, counted on a ledger, on given pairs, or on made-up ones."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click

from common.rows import read_rows
from constitution.model import ConstitutionError
from flows.cli.options import one_line_errors, root_option


@click.command()
@click.argument("old", metavar="OLD")
@click.argument("new", metavar="NEW")
@click.option("--ledger", metavar="URL", help="Take pairs, token counts and times from this ledger.")
@click.option("--pairs", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="JSONL of pairs.")
@click.option(
    "--prompts", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="JSONL of prompts."
)
@click.option(
    "--runs", default=Path("runs"), type=click.Path(file_okay=False, path_type=Path), show_default=True
)
@click.option("--seed", default=0, show_default=True, help="Seed of the draws, as in the run.")
@click.option("--n", default=1, type=click.IntRange(1), show_default=True, help="Principles per pair.")
@click.option("--revisions", default=1, type=click.IntRange(1), show_default=True, help="Steps per prompt.")
@click.option("--markdown", is_flag=True, help="Print Markdown, as the artifact has it.")
@root_option
@one_line_errors
def plan(
    old: str,
    new: str,
    ledger: str | None,
    pairs: Path | None,
    prompts: Path | None,
    runs: Path,
    seed: int,
    n: int,
    revisions: int,
    markdown: bool,
    root: Path | None,
) -> None:
    """Count what an edit makes stale, by principle, and what asking again costs.

    Without --ledger and --pairs the shares are those of 10,000 made-up pairs.
    """
    from constitution.descent import affected_runs
    from constitution.loading import load
    from constitution.plan import plan as make_plan
    from constitution.views import plan_markdown, plan_text

    before, after = load(old, root=root), load(new, root=root)
    statistics = _ledger_statistics(ledger) if ledger else None
    if pairs is not None:
        pair_ids = _ids(pairs)
    elif statistics is not None:
        pair_ids = sorted({pair for pair, _, _ in statistics.judged()})
    else:
        pair_ids = [f"pair-{i}" for i in range(10_000)] if before.comparison and after.comparison else []
        click.echo("no pairs given: the shares are those of 10,000 made-up pairs", err=True)
    result = make_plan(
        before,
        after,
        pair_ids=pair_ids,
        prompt_ids=_ids(prompts) if prompts is not None else (),
        seed=seed,
        n=n,
        revisions=revisions,
        statistics=statistics,
    )
    affected = affected_runs(before, after, _manifests(runs))
    click.echo(plan_markdown(result, affected) if markdown else plan_text(result, affected))


def _ids(path: Path) -> list[str]:
    """The "id" of every row of a file."""
    ids = []
    for place, row in read_rows(path):
        if row.get("id") in (None, ""):
            raise ConstitutionError(f"{place}: id: is missing")
        ids.append(str(row["id"]))
    return ids


def _manifests(runs: Path) -> Iterable[dict[str, Any]]:
    """Every finished attempt of every run in a folder, as `constitution.descent` reads it."""
    from flows.errors import FlowError
    from flows.runs.directory import RunDirectory

    for path in sorted(runs.glob("*/run.json")):
        run = RunDirectory(path.parent)
        try:
            attempts = [a for a in run.attempts() if a.status == "finished"]
        except FlowError as error:
            click.echo(f"passed over {error}", err=True)
            continue
        for attempt in attempts:
            stages = {
                name: {"dir": str(path.parent / name / found["key"])}
                for name, found in attempt.stages.items()
            }
            name = f"{path.parent.name}, attempt {attempt.number}"
            yield {"name": name, "constitution": attempt.constitution, "stages": stages}


def _ledger_statistics(url: str) -> Any:
    from judges import JudgeError, Ledger
    from judges.ledger.statistics import PlanStatistics

    try:
        return PlanStatistics(Ledger.open(url, create=False))
    except JudgeError as error:
        raise ConstitutionError(str(error)) from None
