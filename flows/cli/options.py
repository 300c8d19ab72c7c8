"""What commands share: options, opening a ledger, errors in one line, and tables that show hostile text as text."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from constitution.model import ConstitutionError

if TYPE_CHECKING:
    from rich.console import Console

    from judges import Ledger

ledger_option = click.option(
    "--ledger",
    "place",
    envvar="CHARTER_LEDGER",
    show_envvar=True,
    metavar="URL|PATH",
    help="sqlite:///file, postgresql://user@host/name, a file, or a run's folder. Default: the newest run's.",
)
label_set_option = click.option(
    "--set", "ref", metavar="DIGEST", help="Beginning of a label set's digest. Default: newest."
)


def open_ledger(place: str | None, *, create: bool = False) -> Ledger:
    """The ledger that the options name. Raises LedgerError, also where there is none and it may not be created."""
    from judges import Ledger
    from judges.ledger.place import ledger_url

    return Ledger.open(ledger_url(place), create=create)


def table(*columns: str, texts: tuple[str, ...] = ()) -> Any:
    """A table of figures, and of texts that share what room the figures leave and are cut rather than wrapped."""
    from rich import box
    from rich.table import Table

    made = Table(box=box.SIMPLE, pad_edge=False, expand=bool(texts))
    for column in columns:
        made.add_column(column, no_wrap=True)
    for column in texts:
        made.add_column(column, no_wrap=True, overflow="ellipsis", ratio=1)
    return made


def text_cells(*values: str) -> list[Any]:
    """Cells as plain text: rich would read [brackets] in a string as its own markup."""
    from rich.text import Text

    return [Text(value) for value in values]


def print_table(made: Any) -> None:
    """On the terminal."""
    console().print(made)


Command = Callable[..., Any]


def one_line_errors(command: Command) -> Command:
    """A bad file is one line on stderr and exit code 2, never a traceback."""

    @functools.wraps(command)
    def run(*args: Any, **kwargs: Any) -> Any:
        try:
            return command(*args, **kwargs)
        except ConstitutionError as error:
            click.echo(f"error: {error}", err=True)
            sys.exit(2)

    return run


root_option = click.option(
    "--root",
    type=click.Path(file_okay=False, path_type=Path),
    envvar="CHARTER_CONSTITUTIONS",
    show_envvar=True,
    help="Folder of constitutions. Default: ./constitutions if it exists, else the shipped library.",
)


PIPED = 200
TEXT = 20
"""Columns, gap included, below which a text says nothing."""


def console() -> Console:
    """Standard output as wide as the terminal, or `PIPED` columns where it goes to a file or another program."""
    from rich.console import Console

    terminal = Console()
    return terminal if terminal.is_terminal else Console(width=PIPED)


def texts_that_fit(names: tuple[str, ...], figures: int) -> tuple[str, ...]:
    """The first of `names` that get `TEXT` columns each beside `figures` columns of others; one at least."""
    return names[: max(1, (console().width - figures) // TEXT)]
