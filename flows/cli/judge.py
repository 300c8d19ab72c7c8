"""`charter judge …`: serve a judge, examine a judge.

Exit codes of `exam`: 0 passed, 1 failed, 2 a mistake in the command.
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import click

from flows.cli.options import console

if TYPE_CHECKING:
    from flows.config.forms_judging import ExamRequest


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
    from engines import EngineError, VllmServer

    server = VllmServer(
        model, port=port, environment=environment, dtype=dtype, log=log, arguments=vllm_arguments
    )

    def interrupt(_signal: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
    # vLLM has a session of its own: nobody else tells it that the terminal was closed. Under nohup both stay.
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        signal.signal(signal.SIGHUP, interrupt)
    server.start()
    try:
        click.echo(f"starting vLLM (pid {server.pid}, log {server.log}) ...", err=True)
        server.wait_until_ready(on_progress=_waiting)
        click.echo(f"ready: {server.url} serves {server.model_name} (Ctrl-C stops it)", err=True)
        status = server.wait()
        raise EngineError(f"vLLM ended with status {status}: {server.reason()} (log: {server.log})")
    except KeyboardInterrupt:
        click.echo("stopping vLLM ...", err=True)
    finally:
        server.stop()


@judge.command()
@click.option(
    "--config",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A run's configuration: its judge, constitution, way of asking, thresholds, pairs and ledger.",
)
@click.option("--judge", "place", metavar="DIR|URL", help="A model folder, or a server: http://host:port/v1")
@click.option("--constitution", metavar="REF", help="A name, name@1.2.0, or a file.")
@click.option(
    "--pairs",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Pairs with known answers, in any of the usual formats; repeatable. Default: the run's, or ours.",
)
@click.option("--model", help="Name of the model, where a server has several.")
@click.option("--tokenizer", type=click.Path(path_type=Path), help="The served model's folder.")
@click.option("--api-key-env", metavar="NAME", help="Environment variable that holds the server's key.")
@click.option(
    "--thinking-budget", type=click.IntRange(1, 131_072), help="Let it think first, so many tokens at most."
)
@click.option("--templates", help="Template set, or a folder. Default: default.")
@click.option(
    "--readout", type=click.Choice(["logprobs", "verdict"]), help="verdict for servers without logprobs."
)
@click.option("--rationales", type=click.IntRange(0, 32), help="Chains of thought before each answer.")
@click.option("--principles", type=click.IntRange(1, 64), help="Principles per pair. Default: 1.")
@click.option("--probes", type=click.IntRange(1, 10_000), help="Pairs to probe. Default: 40.")
@click.option("--ledger", help="Where judgements and results are kept. Default: the run's, or runs/exams.db.")
@click.option("--limit", type=click.IntRange(min=1), help="Ask about so many pairs only.")
@click.option("--html", "page", type=click.Path(path_type=Path), help="Also write the report here.")
def exam(
    config: Path | None,
    constitution: str | None,
    pairs: tuple[Path, ...],
    ledger: str | None,
    limit: int | None,
    page: Path | None,
    **own: Any,
) -> None:
    """Examine a judge under a constitution; print the report and keep it in the ledger.

    An exam counts for labels that are asked in the same way. --config asks as a run of that configuration does.
    """
    from flows.labelling.exam import Exam, take
    from flows.report.exam import exam_page
    from flows.report.render import terminal

    given = {name: value for name, value in own.items() if value is not None}
    if config is not None:
        if given:
            raise click.UsageError(f"--config settles it; leave out {', '.join(map(_option, given))}")
        from flows.config.forms import RunRequest
        from flows.pipeline.launch import resolve

        run = resolve(RunRequest(config=str(config), constitution=constitution or ""))
        wanted = Exam.of_run(*run, files=pairs, ledger=ledger, limit=limit, page=page)
    else:
        if "place" not in given or constitution is None:
            raise click.UsageError("--judge and --constitution are required, or a run's --config")
        given |= {"constitution": constitution, "pairs": tuple(map(str, pairs)), "limit": limit}
        given |= {"page": None if page is None else str(page)} | ({"ledger": ledger} if ledger else {})
        wanted = Exam.of_request(_request(given))
    report = take(wanted, on_progress=_progress, on_skipped=_skipped)
    shown = exam_page(report)
    click.echo(f"{shown.title}\n{shown.about}")
    terminal(shown, console())
    sys.exit(0 if report.passed else 1)


def _request(given: dict[str, Any]) -> ExamRequest:
    """The form, filled in from the options that were given."""
    from flows.config.forms_judging import ExamRequest

    asking = {name: given.pop(name) for name in ("readout", "rationales", "principles") if name in given}
    thresholds = {"probe_pairs": given.pop("probes")} if "probes" in given else {}
    if "tokenizer" in given:
        given["tokenizer"] = str(given["tokenizer"])
    judged = {"judge": given.pop("place"), "asking": asking, "thresholds": thresholds}
    return ExamRequest.model_validate({**judged, **given})


def _option(name: str) -> str:
    return "--judge" if name == "place" else f"--{name.replace('_', '-')}"


def _progress(line: str) -> None:
    if sys.stderr.isatty():
        click.echo(f"\r{line:<60}", nl=False, err=True)


def _skipped(line: str) -> None:
    click.echo(line, err=True)


def _waiting(seconds: float) -> None:
    if sys.stderr.isatty():
        click.echo(f"\rwaiting {seconds:.0f} s ", nl=False, err=True)
