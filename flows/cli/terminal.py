"""Where commands print: a terminal, or a file or program that has no width of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

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
