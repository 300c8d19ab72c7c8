"""`charter plan`: what a run will ask of judge, GPUs and disk, before it starts."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from flows.cli.options import console

if TYPE_CHECKING:
    from rich.table import Table

    from flows.pipeline.forecast.plan import Forecast, Servers

# As narrow as a terminal of 80 columns wants it.
_COLUMNS = ("stage", "calls", "tokens", "time", "samples", "steps", "trained", "memory", "disk")


@click.command()
@click.option("--config", required=True, type=click.Path(dir_okay=False), help="The run's YAML file.")
@click.option(
    "--constitution", help="name@1.2.0, a working file's name or a path; by default the configuration's."
)
@click.option(
    "--set", "changes", multiple=True, metavar="SECTION.FIELD=VALUE", help="Change the configuration."
)
@click.option(
    "--judgements-per-second",
    "rate",
    type=click.FloatRange(min=0, min_open=True),
    help="Speed of all endpoints together; by default the ledger's own experience.",
)
@click.option("--measure", is_flag=True, help="Ask the judge a short probe (nothing of it is kept).")
@click.option("--json", "as_json", is_flag=True, help="Print the plan as JSON.")
def plan(
    config: str,
    constitution: str | None,
    changes: tuple[str, ...],
    rate: float | None,
    measure: bool,
    as_json: bool,
) -> None:
    """Say what a run will ask of judge, GPUs and disk. Nothing is run and nothing is written."""
    from flows.config.forms import RunRequest
    from flows.pipeline.forecast.plan import plan_run
    from flows.pipeline.launch import resolve
    from flows.pipeline.preflight import check_constitution, check_data

    if measure and rate is not None:
        raise click.UsageError("--measure and --judgements-per-second exclude each other")
    request = RunRequest(config=config, constitution=constitution or "", changes=changes)
    settings, loaded = resolve(request)
    check_constitution(settings, loaded)
    check_data(settings)
    forecast = plan_run(settings, loaded, judgements_per_second=rate, measure=measure)
    if as_json:
        click.echo(json.dumps(forecast.to_json(), indent=2))
        return
    out = console()
    out.print(_table(forecast))
    for line in _notes(forecast):
        out.print(line, highlight=False, markup=False)


def _table(forecast: Forecast) -> Table:
    from rich.markup import escape
    from rich.table import Table

    title = escape(f"{forecast.name}, constitution {forecast.constitution}")
    table = Table(title=title, title_justify="left", box=None, padding=(0, 1, 0, 0))
    for column in _COLUMNS:
        table.add_column(column, justify="left" if column == "stage" else "right", no_wrap=True)
    for stage in forecast.stages:
        name = stage.stage.replace("_", " ")
        if stage.state == "reused":
            table.add_row(f"[dim]{name}[/dim]", "[dim]reused[/dim]")
            continue
        table.add_row(
            name,
            f"{stage.judgements:,}" if stage.judgements else "",
            _count(stage.judge_prompt_tokens + stage.judge_completion_tokens),
            _time(stage.judge_hours),
            _count(stage.samples),
            _count(stage.steps),
            _count(stage.trained_tokens),
            size(stage.memory_bytes),
            size(stage.disk_bytes),
        )
    total = forecast.total
    judge_tokens = total("judge_prompt_tokens") + total("judge_completion_tokens")
    table.add_row(
        "together",
        *(f"{total('judgements'):,.0f}", _count(judge_tokens)),
        _time(total("judge_hours") if forecast.speed else None),
        *(_count(total("samples")), _count(total("steps")), _count(total("trained_tokens"))),
        size(max((s.memory_bytes or 0 for s in forecast.stages), default=0)),
        size(total("disk_bytes")),
    )
    return table


def _notes(forecast: Forecast) -> list[str]:
    """Where the figures come from."""
    lines = [
        "tokens: read and written by the judge; memory: of training, per device; disk: what is left at the end"
    ]
    if forecast.speed is not None:
        lines.append(f"judge: {forecast.speed.per_second:,.1f} judgements/s, {forecast.speed.source}")
    elif forecast.total("judgements"):
        lines.append("judge: speed unknown; give --judgements-per-second, or --measure it")
    for stage in forecast.stages:
        known = f"; {stage.known_judgements:,} more are in the ledger" if stage.known_judgements else ""
        if stage.source or known:
            lines.append(f"{stage.stage.replace('_', ' ')}: {stage.source}{known}")
        if stage.servers:
            started = ", then ".join(map(_started, stage.servers))
            lines.append(f"{stage.stage.replace('_', ' ')}: starts {started}; they end with the stage")
    return lines


def _started(servers: Servers) -> str:
    count = f"{servers.replicas} vLLM servers" if servers.replicas > 1 else "a vLLM server"
    place = f" on GPU {', '.join(servers.gpus)}" if servers.gpus else ""
    return f"{count} of {servers.model.replace('_', ' ')}{place}"


def _count(n: float) -> str:
    for unit in ("", "k", "M", "G"):
        if n < 1000 or unit == "G":
            return "" if not n else f"{n:,.0f}" if not unit else f"{n:,.1f}{unit}"
        n /= 1000
    raise AssertionError


def _time(hours: float | None) -> str:
    if not hours:
        return ""
    return (
        f"{hours:,.1f} h"
        if hours >= 1
        else f"{hours * 60:.1f} min"
        if hours * 60 >= 1
        else f"{hours * 3600:.0f} s"
    )


def size(n: float | None) -> str:
    """Bytes as people read them, in powers of 1,024."""
    if not n:
        return ""
    for unit in ("B", "K", "M", "G", "T"):
        if n < 1024 or unit == "T":
            return f"{n:,.0f}{unit}" if unit == "B" else f"{n:,.1f}{unit}"
        n /= 1024
    raise AssertionError
