"""`charter constitution …`: check, compare, price, publish and exchange constitutions.

Exit codes: 0 fine, 1 `check` found something, 2 a mistake in the command or in a file.
"""

from __future__ import annotations

import sys
from pathlib import Path

import click

from constitution.model import ConstitutionError
from flows.cli.constitution_plan import plan
from flows.cli.options import one_line_errors, root_option


@click.group(name="constitution")
def constitution() -> None:
    """Check, compare, price and publish constitutions.

    REF is a name (its working file), name@1.2.0, name@^1.2, or the path of a file.
    """


constitution.add_command(plan)


@constitution.command()
@click.argument("targets", nargs=-1, metavar="[REF|FILE]...")
@root_option
@one_line_errors
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
@root_option
@one_line_errors
def diff(old: str, new: str, markdown: bool, root: Path | None) -> None:
    """Show by principle what differs between two constitutions, words marked."""
    from constitution.diff import diff as compare
    from constitution.loading import load
    from constitution.views import diff_markdown, diff_text

    result = compare(load(old, root=root), load(new, root=root))
    click.echo(diff_markdown(result) if markdown else diff_text(result, colour=sys.stdout.isatty()))


@constitution.command()
@click.argument("name")
@click.option(
    "--bump", type=click.Choice(["major", "minor", "patch"]), help="Which part of the version rises."
)
@click.option("--version", "version", metavar="X.Y.Z", help="The version itself, instead of --bump.")
@click.option("-m", "--message", help="What changed and why, for the changelog.")
@click.option("--relock", metavar="X.Y.Z", help="Make the lost lock entry of a published file again.")
@root_option
@one_line_errors
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
        from flows.orchestration.events import announce

        if (problem := announce(c)) is not None:
            click.echo(f"note: published, but the Prefect server was not told: {problem}", err=True)


@constitution.command(name="import")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--name", required=True, help="Name of the new constitution.")
@click.option("--dimension", default="harmless", show_default=True, help="Dimension of every principle.")
@root_option
@one_line_errors
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
@root_option
@one_line_errors
def export(ref: str, fmt: str, root: Path | None) -> None:
    """Print a constitution's enabled principles in another project's format."""
    from constitution.exporting import export_text
    from constitution.loading import load

    click.echo(export_text(load(ref, root=root), fmt), nl=False)


@constitution.command(name="list")
@root_option
@one_line_errors
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
@root_option
@one_line_errors
def show(ref: str, root: Path | None) -> None:
    """Print a constitution as Markdown: principles, their share of the draws, digests."""
    from constitution.loading import load
    from constitution.views import constitution_markdown

    click.echo(constitution_markdown(load(ref, root=root)), nl=False)
