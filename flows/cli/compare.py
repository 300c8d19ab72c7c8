"""`charter eval A B [C …]`: compare models head to head on any prompts."""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import click

from flows.cli.options import console


@click.command(name="eval")
@click.argument("models", nargs=-1, required=True, metavar="A B [C ...]")
@click.option("--prompts", metavar="FILE", help="JSONL or Parquet. Default: the run's held-out prompts.")
@click.option("--constitution", metavar="REF", help="name@1.2.0, a working file's name, or a path.")
@click.option(
    "--by-principle",
    is_flag=True,
    help="Two models: also compare them under each comparison principle alone.",
)
@click.option(
    "--before", metavar="REF", help="By principle: the constitution behind A; marks what was edited since."
)
@click.option("--judge", metavar="DIR|URL", help="A model folder, or a server: http://host:port/v1")
@click.option("--judge-model", metavar="NAME", help="Name of the served model, where a server has several.")
@click.option("--tokenizer", metavar="DIR", help="The served model's folder.")
@click.option("--api-key-env", metavar="NAME", help="Environment variable that holds the server's key.")
@click.option("--templates", metavar="SET", help="The judge's template set, or a folder.")
@click.option("--limit", type=click.IntRange(min=1), help="Take so many prompts only.")
@click.option(
    "--samples", default=1, show_default=True, type=click.IntRange(1, 64), help="Answers per prompt."
)
@click.option("--max-new-tokens", type=click.IntRange(1, 131_072), help="Longest answer. Default: 512.")
@click.option("--temperature", type=click.FloatRange(0, 100), help="Default: 1.")
@click.option("--top-p", type=click.FloatRange(0, 1, min_open=True), help="Default: 1.")
@click.option("--dtype", type=click.Choice(["float32", "bfloat16"]), help="Default: float32.")
@click.option("--batch-size", default=128, show_default=True, type=click.IntRange(1, 65_536))
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0, 2**31 - 1))
@click.option("--folder", default="runs/comparisons", show_default=True, help="Where everything is kept.")
@click.option("--ledger", metavar="FILE|URL", help="Where judgements are kept. Default: in the folder.")
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON instead of tables.")
def evaluate(models: tuple[str, ...], as_json: bool, **options: Any) -> None:
    """Compare two or more models: answers are drawn and judged in both orders under a constitution.

    A model is a Hugging Face folder, a hub id, or a role of a run: runs/microworld:rl_cai, and as an earlier attempt
    at the run had it: runs/microworld:rl_cai@1. Where one is of a run, prompts, constitution, judge and sampling are
    by default that run's. Side effects are measured against A.

    With --by-principle A and B are two models of two versions of a constitution. They meet under every comparison
    principle of B's version (or --constitution), and under those that went since A's (or --before).

    Nothing is asked or drawn twice: the same command goes on where it was stopped.
    """
    from pydantic import ValidationError

    from flows.comparison.compare import compare
    from flows.comparison.report import about, artifact_page
    from flows.config.forms_judging import CompareRequest
    from flows.report.render import terminal as show
    from flows.runs.progress import Terminal

    try:
        request = CompareRequest(models=models, **options)
    except ValidationError as error:
        first = error.errors()[0]
        raise click.UsageError(f"{' '.join(map(str, first['loc']))}: {first['msg']}") from error
    terminal = Terminal(sys.stderr)
    terminal.started("comparison")
    began = time.perf_counter()
    found = compare(request, lambda done, total, text: terminal.progress("comparison", done, total, text))
    asked = f"{found.figures.asked:,} judgements asked"
    terminal.finished("comparison", time.perf_counter() - began, asked)
    if as_json:
        click.echo(json.dumps(found.figures.to_json(), indent=2, ensure_ascii=False))
        return
    out = console()
    out.print(about(found.figures), highlight=False, markup=False)
    show(artifact_page(found.figures), out)
    click.echo(found.directory)
