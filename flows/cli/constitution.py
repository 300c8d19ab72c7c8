"""`charter constitution …`: check, compare, price, publish and exchange constitutions.

Exit codes: 0 fine, 1 `check` found something, 2 a mistake in the command or in a file.
"""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import click

from constitution.model import ConstitutionError

Command = Callable[..., Any]


def _one_line_errors(command: Command) -> Command:
    """A bad file is one line on stderr and exit code 2, never a traceback."""

    @functools.wraps(command)
    def run(*args: Any, **kwargs: Any) -> Any:
        try:
            return command(*args, **kwargs)
        except ConstitutionError as error:
            click.echo(f"error: {error}", err=True)
            sys.exit(2)

    return run


_root = click.option(
    "--root",
    type=click.Path(file_okay=False, path_type=Path),
    envvar="CHARTER_CONSTITUTIONS",
    show_envvar=True,
    help="Folder of constitutions. Default: ./constitutions if it exists, else the shipped library.",
)


@click.group(name="constitution")
def constitution() -> None:
    """Check, compare, price and publish constitutions.

    REF is a name (its working file), name@1.2.0, name@^1.2, or the path of a file.
    """


@constitution.command()
@click.argument("targets", nargs=-1, metavar="[REF|FILE]...")
@_root
@_one_line_errors
def check(targets: tuple[str, ...], root: Path | None) -> None:
    """Print every problem of the given files or folders, or of the whole library, with its line; exit 1 if any."""
    from constitution.check import check as check_one
    from constitution.check import check_library

    reports = [] if targets else check_library(root)
    for target in targets:
        reports += check_library(Path(target)) if Path(target).is_dir() else [check_one(target, root=root)]
    errors = warnings = 0
    for report in reports:
        for kind, problems in (("error", report.errors), ("warning", report.warnings)):
            for problem in problems:
                place = problem.file or report.file
                place += "" if problem.line is None else f":{problem.line}"
                click.echo(f"{place}: {kind}: {problem.message}")
        errors += len(report.errors)
        warnings += len(report.warnings)
    files = f"{len(reports)} file{'s' if len(reports) != 1 else ''}"
    if errors or warnings:
        click.echo(f"{errors} error(s), {warnings} warning(s) in {files}", err=True)
        sys.exit(1)
    click.echo(f"{files}: no problems", err=True)


@constitution.command()
@click.argument("old", metavar="OLD")
@click.argument("new", metavar="NEW")
@click.option("--markdown", is_flag=True, help="Print Markdown, as the artifact has it.")
@_root
@_one_line_errors
def diff(old: str, new: str, markdown: bool, root: Path | None) -> None:
    """Show by principle what differs between two constitutions, words marked."""
    from constitution.diff import diff as compare
    from constitution.loading import load
    from constitution.views import diff_markdown, diff_text

    result = compare(load(old, root=root), load(new, root=root))
    click.echo(diff_markdown(result) if markdown else diff_text(result, colour=sys.stdout.isatty()))


@constitution.command()
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
@_root
@_one_line_errors
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


@constitution.command()
@click.argument("name")
@click.option(
    "--bump", type=click.Choice(["major", "minor", "patch"]), help="Which part of the version rises."
)
@click.option("--version", "version", metavar="X.Y.Z", help="The version itself, instead of --bump.")
@click.option("-m", "--message", help="What changed and why, for the changelog.")
@click.option("--relock", metavar="X.Y.Z", help="Make the lost lock entry of a published file again.")
@_root
@_one_line_errors
def publish(
    name: str,
    bump: str | None,
    version: str | None,
    message: str | None,
    relock: str | None,
    root: Path | None,
) -> None:
    """Freeze the working file of NAME as a version that never changes again.

    Where PREFECT_API_URL names a Prefect server, it is told, and an automation may label again.
    """
    from constitution import publish as publishing

    if relock:
        c = publishing.relock(name, relock, root=root)
    else:
        c = publishing.publish(name, message=message or "", bump=bump, version=version, root=root)
    click.echo(f"{c.ref}  digest {c.digest[:16]}")
    if not relock:
        from flows.announce import announce

        if (problem := announce(c)) is not None:
            click.echo(f"note: published, but the Prefect server was not told: {problem}", err=True)


@constitution.command(name="import")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--name", required=True, help="Name of the new constitution.")
@click.option("--dimension", default="harmless", show_default=True, help="Dimension of every principle.")
@_root
@_one_line_errors
def import_(file: Path, name: str, dimension: str, root: Path | None) -> None:
    """Make a working file from the paper's or the Hugging Face recipe's JSON, or from a list as text."""
    from constitution.importing import import_text
    from constitution.library import Library
    from constitution.publish import write_atomically

    try:
        text = file.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise ConstitutionError(f"{file}: not UTF-8; save it as UTF-8") from None
    body = import_text(text, name=name, dimension=dimension, file=str(file))
    target = Library(root if root is not None else Path("constitutions")).working_path(name)
    if target.exists():
        raise ConstitutionError(f"{target} exists already; give another --name")
    write_atomically(target, body)
    click.echo(str(target))


@constitution.command()
@click.argument("ref")
@click.option(
    "--format",
    "fmt",
    required=True,
    type=click.Choice(["paper", "instructions", "huggingface", "markdown"]),
    help="paper: critique principles; instructions: comparison principles; both as Bai et al. publish them.",
)
@_root
@_one_line_errors
def export(ref: str, fmt: str, root: Path | None) -> None:
    """Print a constitution's enabled principles in another project's format."""
    from constitution.exporting import export_text
    from constitution.loading import load

    click.echo(export_text(load(ref, root=root), fmt), nl=False)


@constitution.command(name="list")
@_root
@_one_line_errors
def list_(root: Path | None) -> None:
    """List constitutions: working files, published versions, and whether the working file has moved on."""
    from constitution.library import Library, default_root
    from constitution.loading import load, load_published

    library = Library(root if root is not None else default_root())
    for name in library.names():
        versions = library.versions(name)
        published = ", ".join(map(str, versions)) or "none"
        state = "no working file"
        if library.working_path(name).is_file():
            working = load(name, root=library.root)
            same = bool(versions) and load_published(library, name, versions[-1]).digest == working.digest
            state = f"working file = {versions[-1]}" if same else "working file not published"
        click.echo(f"{name}  published: {published}  {state}")


@constitution.command()
@click.argument("ref")
@_root
@_one_line_errors
def show(ref: str, root: Path | None) -> None:
    """Print a constitution as Markdown: principles, their share of the draws, digests."""
    from constitution.loading import load
    from constitution.views import constitution_markdown

    click.echo(constitution_markdown(load(ref, root=root)), nl=False)


def _ids(path: Path) -> list[str]:
    """The "id" of every line of a JSONL file."""
    ids = []
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            try:
                ids.append(str(json.loads(line)["id"]))
            except (ValueError, KeyError, TypeError):
                raise ConstitutionError(f'{path}:{number}: expected an object with an "id"') from None
    return ids


def _manifests(runs: Path) -> Iterable[dict[str, Any]]:
    """Every finished attempt of every run in a folder, as `constitution.descent` reads it."""
    from flows.errors import FlowError
    from flows.runs import RunDirectory

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

    try:
        return Ledger.open(url).statistics()
    except JudgeError as error:
        raise ConstitutionError(str(error)) from None
