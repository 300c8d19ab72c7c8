"""`charter judge …`: serve a judge, examine a judge.

Exit codes of `exam`: 0 passed, 1 failed, 2 a mistake in the command.
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from types import FrameType

import click


@click.group(name="judge")
def judge() -> None:
    """Serve a judge with vLLM, and examine it before it is trusted."""


@judge.command(context_settings={"ignore_unknown_options": True})
@click.argument("model", type=click.Path(path_type=Path))
@click.option(
    "--port", default=8000, show_default=True, type=click.IntRange(0, 65535), help="0 takes a free one."
)
@click.option(
    "--environment",
    default=".venv-vllm",
    show_default=True,
    type=click.Path(path_type=Path),
    help="vLLM's own environment; `make vllm` makes it.",
)
@click.option("--dtype", help="Default: float32 on a CPU, the model's own on a GPU.")
@click.option("--log", type=click.Path(path_type=Path), help="vLLM's output. Default: a temporary file.")
@click.argument("vllm_arguments", nargs=-1, type=click.UNPROCESSED)
def serve(
    model: Path,
    port: int,
    environment: Path,
    dtype: str | None,
    log: Path | None,
    vllm_arguments: tuple[str, ...],
) -> None:
    """Serve MODEL (a Hugging Face folder) on this machine until interrupted.

    Whatever stands after the options goes to vLLM: charter judge serve DIR --max-model-len 4096
    """
    from judges import JudgeError, VllmServer

    server = VllmServer(
        model, port=port, environment=environment, dtype=dtype, log=log, arguments=vllm_arguments
    )

    def interrupt(_signal: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
    server.start()
    try:
        click.echo(f"starting vLLM (pid {server.pid}, log {server.log}) ...", err=True)
        server.wait_until_ready(on_progress=_waiting)
        click.echo(f"ready: {server.url} serves {server.model_name} (Ctrl-C stops it)", err=True)
        status = server.wait()
        raise JudgeError(f"vLLM ended with status {status}: {server.reason()} (log: {server.log})")
    except KeyboardInterrupt:
        click.echo("stopping vLLM ...", err=True)
    finally:
        server.stop()


@judge.command()
@click.option(
    "--judge",
    "place",
    required=True,
    metavar="DIR|URL",
    help="A model folder, or a server: http://host:port/v1",
)
@click.option("--constitution", required=True, metavar="REF", help="A name, name@1.2.0, or a file.")
@click.option(
    "--pairs",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Pairs with known answers, in any of the usual formats; repeatable. Default: ours.",
)
@click.option("--model", help="Name of the model, where a server has several.")
@click.option("--tokenizer", type=click.Path(path_type=Path), help="The served model's folder.")
@click.option("--api-key-env", metavar="NAME", help="Environment variable that holds the server's key.")
@click.option("--templates", default="default", show_default=True, help="Template set, or a folder.")
@click.option(
    "--ledger", default="runs/exams.db", show_default=True, help="Where judgements and results are kept."
)
@click.option("--limit", type=click.IntRange(min=1), help="Ask about so many pairs only.")
@click.option(
    "--probes", default=40, show_default=True, type=click.IntRange(1, 10_000), help="Pairs to probe."
)
@click.option("--html", "page", type=click.Path(path_type=Path), help="Also write the report here.")
def exam(
    place: str,
    constitution: str,
    pairs: tuple[Path, ...],
    model: str | None,
    tokenizer: Path | None,
    api_key_env: str | None,
    templates: str,
    ledger: str,
    limit: int | None,
    probes: int,
    page: Path | None,
) -> None:
    """Examine a judge under a constitution; print the report and keep it in the ledger."""
    from flows.examining import ExamRequest, Thresholds, take
    from judges.exam import text

    request = ExamRequest(
        judge=place,
        constitution=constitution,
        pairs=tuple(map(str, pairs)),
        limit=limit,
        model=model,
        tokenizer=None if tokenizer is None else str(tokenizer),
        api_key_env=api_key_env,
        templates=templates,
        ledger=ledger,
        page=None if page is None else str(page),
        thresholds=Thresholds(probe_pairs=probes),
    )
    report = take(request, on_progress=_progress, on_skipped=_skipped)
    click.echo(text(report))
    sys.exit(0 if report.passed else 1)


def _progress(line: str) -> None:
    if sys.stderr.isatty():
        click.echo(f"\r{line:<60}", nl=False, err=True)


def _skipped(line: str) -> None:
    click.echo(f"passed over {line}", err=True)


def _waiting(seconds: float) -> None:
    if sys.stderr.isatty():
        click.echo(f"\rwaiting {seconds:.0f} s ", nl=False, err=True)
