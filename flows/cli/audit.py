"""`charter labels audit …` and `charter labels card`: people's verdicts in bulk, and what each principle does."""

from __future__ import annotations

import json
from pathlib import Path

import click

from flows.cli.options import label_set_option, ledger_option, open_ledger, print_table, table, text_cells


@click.group()
def audit() -> None:
    """People's verdicts in bulk: export pairs, import verdicts, keep them as an exam.

    One at a time: `charter ui`, then /charter/audit on its page.
    """


_who = click.option("--who", required=True, help="The reviewer's name; it is kept with each verdict.")
_seed = click.option("--seed", default=0, show_default=True, type=click.IntRange(min=0))


@audit.command()
@click.argument("csv", type=click.Path(dir_okay=False, path_type=Path))
@ledger_option
@label_set_option
@_who
@_seed
@click.option("--pairs", default=100, show_default=True, type=click.IntRange(min=1), help="How many.")
def export(csv: Path, place: str | None, ref: str | None, who: str, seed: int, pairs: int) -> None:
    """Write pairs that the reviewer has not judged to CSV, the doubtful ones more often.

    Fill in the column verdict (A, B, tie or skip) and, if you like, note; then `charter labels audit import`.
    """
    from judges.audit import sample, write_sheet
    from judges.audit.verdicts import judged_by
    from judges.ledger.reading import find_label_set, labelled_pairs

    with open_ledger(place) as ledger:
        label_set = find_label_set(ledger, ref)
        done = judged_by(ledger, who)
        drawn = sample(labelled_pairs(ledger, label_set), pairs, seed=seed, without=done)
        count = write_sheet(drawn, csv, reviewer=who, seed=seed)
    click.echo(f"{count:,} pairs of label set {label_set[:12]} in {csv}")


@audit.command(name="import")
@click.argument("csv", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@ledger_option
@label_set_option
@_who
def import_(csv: Path, place: str | None, ref: str | None, who: str) -> None:
    """Read verdicts from a filled-in CSV: all of them, or none when a row is wrong."""
    from judges.audit import agreement, read_sheet, record
    from judges.ledger.reading import find_label_set

    with open_ledger(place) as ledger:
        label_set = find_label_set(ledger, ref)
        given = read_sheet(ledger, label_set, csv)
        new = record(ledger, given, reviewer=who)
        people = agreement(ledger, label_set)
    click.echo(f"{new:,} new verdicts by {who}, {len(given) - new:,} known already")
    for line in agreement_lines(people):
        click.echo(line)


@audit.command()
@click.argument("out", type=click.Path(dir_okay=False, path_type=Path))
@ledger_option
@label_set_option
def known(out: Path, place: str | None, ref: str | None) -> None:
    """Write the pairs that people decided to OUT (JSONL), for `charter judge exam --pairs` and `exam.pairs`."""
    from common.files import write_atomically
    from judges.audit import known_from_verdicts
    from judges.ledger.reading import find_label_set

    with open_ledger(place) as ledger:
        pairs = known_from_verdicts(ledger, find_label_set(ledger, ref))
    write_atomically(out, "".join(json.dumps(k.to_row()) + "\n" for k in pairs))
    click.echo(f"{len(pairs):,} pairs with known answers in {out}")


@click.command()
@ledger_option
@label_set_option
def card(place: str | None, ref: str | None) -> None:
    """The scorecard of each principle: drawn, flips, agreement with people, effect on the labels, overlap."""
    from common.sections import texts
    from flows.report.audit import card_rows
    from judges.audit import report_card
    from judges.ledger.reading import find_label_set

    with open_ledger(place) as ledger:
        found = report_card(ledger, find_label_set(ledger, ref))
    heading, *rows = texts(card_rows(found))
    shown = table(*heading)
    # Wide figures go on over a second line rather than off the edge of a narrow terminal.
    for column in shown.columns:
        column.overflow, column.no_wrap = "fold", False
    for row in rows:
        shown.add_row(*text_cells(*row))
    click.echo(f"principles of {found.constitution}, {found.labels:,} labels of set {found.label_set[:12]}")
    print_table(shown)
    click.echo(
        "people: its decisions that people share. changes the label: without it, of those with others."
    )


def agreement_lines(people: object) -> list[str]:
    """People's agreement with the judge for a terminal; nothing without verdicts."""
    from flows.report.audit import agreement_sentence
    from judges.audit import Agreement

    assert isinstance(people, Agreement)
    if people.kappa is None or people.alpha is None:
        return []
    return [agreement_sentence(people)]
