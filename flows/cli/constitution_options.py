"""What the commands on constitutions share."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from constitution.model import ConstitutionError

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
