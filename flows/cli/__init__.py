"""The command `charter`. Each command's module is imported when it is used, so that `--help` stays quick."""

from __future__ import annotations

import importlib
import sys

import click

# Command: (module, attribute, help in one line).
COMMANDS = {
    "check": ("flows.cli.check", "check", "Try a model or an endpoint before anything is spent on it."),
    "constitution": (
        "flows.cli.constitution",
        "constitution",
        "Check, compare, price and publish constitutions.",
    ),
    "demo": ("flows.cli.run", "demo", "The whole loop on the embedded microworld."),
    "eval": ("flows.cli.compare", "evaluate", "Compare models head to head, on any prompts."),
    "judge": ("flows.cli.judge", "judge", "Examine a judge against pairs with known answers."),
    "labels": ("flows.cli.labels", "labels", "Look into a ledger: labels, their reasons, exports."),
    "lineage": ("flows.cli.lineage", "lineage", "Where a run's policy comes from."),
    "models": ("flows.cli.check", "models", "Fetch the small real model of the demonstration."),
    "plan": ("flows.cli.plan", "plan", "What a run will ask of judge, GPUs and disk, before it starts."),
    "run": ("flows.cli.run", "run", "Run the pipeline that a configuration describes."),
    "ui": ("flows.cli.ui", "ui", "Start the Prefect server and serve the flows on this machine."),
}


class LazyGroup(click.Group):
    """A group whose commands are imported only when called."""

    def list_commands(self, context: click.Context) -> list[str]:
        return sorted(COMMANDS)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        module, attribute, _ = COMMANDS[name]
        return getattr(importlib.import_module(module), attribute)

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, COMMANDS[name][2]) for name in self.list_commands(context)])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="charter")
def cli() -> None:
    """From a written constitution to a trained policy: Constitutional AI and RLAIF, orchestrated."""


def main(arguments: list[str] | None = None) -> None:
    """Run the command line. A user's mistake is one line on stderr and exit code 2, never a traceback."""
    try:
        cli.main(args=arguments, prog_name="charter", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("stopped; the same command goes on from here", err=True)
        sys.exit(130)
    except ValueError as error:
        from flows.errors import is_ours

        if not is_ours(error):
            raise
        click.echo(f"error: {' '.join(str(error).split())}", err=True)
        sys.exit(2)
