"""`charter judge …`: serve a judge."""

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


def _waiting(seconds: float) -> None:
    if sys.stderr.isatty():
        click.echo(f"\rwaiting {seconds:.0f} s ", nl=False, err=True)
