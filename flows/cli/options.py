"""What the commands on a ledger share: its options, opening it, and tables that show hostile text as text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from flows.cli.terminal import console

if TYPE_CHECKING:
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
