"""`charter run` and `charter demo`: the pipeline from the command line, under Prefect."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import get_args

import click

from flows.cli.options import console
from flows.config.forms import RunRequest, StageName

DEMO_CONFIG = Path(__file__).parents[2] / "configs" / "microworld.yaml"


def _options(command: Callable[..., None]) -> Callable[..., None]:
    for option in reversed(
        (
            click.option(
                "--constitution", metavar="REF", help="name@1.2.0, a working file's name, or a path."
            ),
            click.option(
                "--set",
                "changes",
                metavar="KEY=VALUE",
                multiple=True,
                help="Change the configuration, such as --set rl.steps=20. May be repeated.",
            ),
            click.option(
                "--from-stage",
                type=click.Choice(get_args(StageName)),
                help="Run this stage and all later ones again although nothing changed.",
            ),
            click.option("--to-stage", type=click.Choice(get_args(StageName)), help="Stop after this stage."),
        )
    ):
        command = option(command)
    return command


@click.command()
@click.option("--config", required=True, metavar="FILE", help="The run's configuration, YAML.")
@_options
def run(
    config: str,
    constitution: str | None,
    changes: tuple[str, ...],
    from_stage: str | None,
    to_stage: str | None,
) -> None:
    """Run the pipeline that a configuration describes.

    What an earlier start finished and what did not change is not done again. The last line printed is the run
    directory.
    """
    start(_request(config, constitution, changes, from_stage, to_stage))


@click.command()
@_options
def demo(
    constitution: str | None, changes: tuple[str, ...], from_stage: str | None, to_stage: str | None
) -> None:
    """The whole loop on the embedded microworld: minutes on two cores, no GPU, no downloads."""
    if not DEMO_CONFIG.is_file():
        raise click.ClickException(
            f"{DEMO_CONFIG}: no such file; the demo needs a checkout of the repository"
        )
    start(_request(str(DEMO_CONFIG), constitution, changes, from_stage, to_stage))


def start(request: RunRequest) -> None:
    """Check the request, then run it under Prefect and print the results and the run directory."""
    from flows.orchestration import local as local_prefect
    from flows.pipeline.launch import resolve
    from flows.pipeline.preflight import preflight
    from flows.report.run import print_report
    from flows.runs.progress import Terminal

    config, constitution = resolve(request)
    preflight(config, constitution)
    mark = "" if constitution.published else "  (not published)"
    click.echo(f"charter: {config.name}, constitution {constitution.ref}{mark}")
    local_prefect.prepare(config.local_runs_dir)
    out = console()
    directory = local_prefect.run_rlaif(
        request, Terminal(), lambda data: print_report(data, out), runs_dir=config.local_runs_dir
    )
    click.echo(directory)


def _request(
    config: str,
    constitution: str | None,
    changes: tuple[str, ...],
    from_stage: str | None,
    to_stage: str | None,
) -> RunRequest:
    return RunRequest.model_validate(
        {
            "config": config,
            "constitution": constitution,
            "changes": changes,
            "from_stage": from_stage,
            "to_stage": to_stage,
        }
    )
