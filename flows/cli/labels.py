"""`charter labels …`: what a ledger holds, why a label is what it is, exports for training, imports of people's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from flows.cli.audit import agreement_lines, audit, card
from flows.cli.explain import decimals, story
from flows.cli.options import (
    label_set_option,
    ledger_option,
    open_ledger,
    print_table,
    table,
    text_cells,
    texts_that_fit,
)

if TYPE_CHECKING:
    from judges import Status

STATUSES: tuple[Status, ...] = (
    "ok",
    "tie",
    "inconsistent",
    "no_answer",
    "refused",
    "truncated",
    "timeout",
    "error",
)

_FIGURES = 75
"""Columns that everything but texts takes in `show`, with names of middling length."""


@click.group(name="labels")
def labels() -> None:
    """Look into a ledger of judgements, labels and human verdicts."""


@labels.command()
@ledger_option
@label_set_option
@click.option(
    "--status", "statuses", multiple=True, type=click.Choice(STATUSES), help="Only these; repeatable."
)
@click.option("--principle", help="Only labels that drew this principle.")
@click.option("--limit", default=20, show_default=True, type=click.IntRange(min=1), help="How many to show.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line instead of a table.")
def show(
    place: str | None,
    ref: str | None,
    statuses: tuple[str, ...],
    principle: str | None,
    limit: int,
    as_json: bool,
) -> None:
    """Labels of a set, one a line: winner, probability, orders, status, principles, texts."""
    from itertools import islice

    from common.text import clipped
    from judges.ledger.reading import find_label_set, labelled_pairs

    with open_ledger(place) as ledger:
        label_set = find_label_set(ledger, ref)
        chosen = (
            x
            for x in labelled_pairs(ledger, label_set)
            if (not statuses or x.label.status in statuses)
            and (principle is None or principle in x.label.principles)
        )
        rows = list(islice(chosen, limit))
    if as_json:
        for x in rows:
            row = x.pair.to_row() | {
                "p": x.label.p,
                "p_ab": x.label.p_ab,
                "p_ba": x.label.p_ba,
                "status": x.label.status,
                "principles": list(x.label.principles),
                "label_digest": x.label.digest,
                "verdict": None if x.verdict is None else x.verdict.winner,
            }
            click.echo(json.dumps(row))
        return
    texts = texts_that_fit(("prompt", "a", "b"), _FIGURES)
    shown = table("pair", "p", "ab", "ba", "status", "principle", "person", texts=texts)
    for x in rows:
        label, last = x.label, x.pair.prompt[-1]["content"]
        said = (clipped(last, 200), clipped(x.pair.a, 200), clipped(x.pair.b, 200))
        shown.add_row(
            *text_cells(
                clipped(x.pair.id, 24),
                decimals(label.p),
                decimals(label.p_ab),
                decimals(label.p_ba),
                label.status,
            ),
            *text_cells(clipped(", ".join(label.principles), 24), x.verdict.winner if x.verdict else ""),
            *text_cells(*said[: len(texts)]),
        )
    print_table(shown)


@labels.command()
@click.argument("label", metavar="LABEL|PAIR")
@ledger_option
def explain(label: str, place: str | None) -> None:
    """The whole story of one label: by the beginning of its digest, or by its pair's id."""
    from judges.explain import explain as tell

    with open_ledger(place) as ledger:
        told = tell(ledger, label)
    click.echo("\n".join(story(told)))


@labels.command()
@click.argument("out", type=click.Path(path_type=Path))
@ledger_option
@label_set_option
@click.option(
    "--status",
    "statuses",
    multiple=True,
    default=("ok",),
    show_default=True,
    type=click.Choice(("ok", "tie", "inconsistent")),
    help="Labels to export; repeatable.",
)
@click.option("--people", is_flag=True, help="Instead, all pairs that people decided, labelled or not.")
def export(out: Path, place: str | None, ref: str | None, statuses: tuple[Any, ...], people: bool) -> None:
    """Write preferences to OUT.jsonl and OUT.parquet, or to the one that OUT's suffix names.

    With --people, OUT is one file (JSONL) for `charter labels import` into another ledger.
    """
    from judges import export_preferences
    from judges.ledger.reading import find_label_set

    if people:
        if ref is not None or statuses != ("ok",):
            raise click.UsageError(
                "--people: takes every pair that people decided; leave out --set and --status"
            )
        _export_people(out, place)
        return
    with open_ledger(place) as ledger:
        counts = export_preferences(ledger, find_label_set(ledger, ref), out, statuses=statuses)
    for status, count in counts.items():
        click.echo(f"{count:>9,} {status}{'' if status in statuses else ' (left out)'}")


def _export_people(out: Path, place: str | None) -> None:
    from common.files import write_atomically
    from judges.audit import last_words
    from judges.export import json_line

    with open_ledger(place) as ledger:
        decided = [word for word in last_words(ledger) if word.decided is not None]
    write_atomically(out, "".join(json_line(word.to_row()) for word in decided))
    click.echo(f"{len(decided):,} pairs that people decided in {out}")


@labels.command(name="import")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@ledger_option
@click.option("--who", required=True, help="Whose preferences these are, such as the data set's name.")
@click.option(
    "--pairs", "pairs_out", type=click.Path(path_type=Path), help="Also write the pairs here, to label them."
)
@click.option("--limit", type=click.IntRange(min=1), help="Read only so many pairs.")
def import_(file: Path, place: str | None, who: str, pairs_out: Path | None, limit: int | None) -> None:
    """Read human preferences from FILE as verdicts: in any of the formats of docs/data.md.

    Rows of our own export are verdicts on the pairs that it names. What was read before is not added again.
    """
    from common.files import write_atomically
    from common.rows import Rows
    from judges.audit.preferences import match_labelled, record_preferences
    from judges.known import read_known_pairs

    read = read_known_pairs(file, limit=limit)
    with open_ledger(place, create=True) as ledger:
        matched = match_labelled(ledger, read.records)
        known = matched.known
        new = record_preferences(ledger, known, who=who, source=file.name)
    left_out: Rows[Any] = Rows((), (*read.left_out, *matched.missed), read.notes)
    if pairs_out is not None:
        write_atomically(pairs_out, "".join(json.dumps(k.pair.to_row()) + "\n" for k in known))
    for line in left_out.told():
        click.echo(line, err=True)
    click.echo(
        f"{new:,} new verdicts by {who}, {len(known) - new:,} known already, {len(left_out.left_out):,} rows left out"
    )


@labels.command()
@ledger_option
@label_set_option
def stats(place: str | None, ref: str | None) -> None:
    """Counts, rates and means of a label set, per principle, with the judge's cost and people's agreement."""
    from judges.audit import agreement
    from judges.ledger.reading import find_label_set, label_set_content
    from judges.ledger.statistics import set_statistics

    with open_ledger(place) as ledger:
        label_set = find_label_set(ledger, ref)
        content = label_set_content(ledger, label_set)
        s = set_statistics(ledger, label_set, judges=content["judges"], method=content["method"])
        people = agreement(ledger, label_set)
        url = ledger.url
    shown = table(
        "principle", "labels", *(x for x in STATUSES if s.overall.statuses[x]), "decided", "first slot"
    )
    for name, tally in [*sorted(s.by_principle.items()), ("all", s.overall)]:
        shares = [f"{tally.statuses[x] / tally.labels:.1%}" for x in STATUSES if s.overall.statuses[x]]
        shown.add_row(
            *text_cells(name, f"{tally.labels:,}", *shares, f"{tally.decided:.3f}", f"{tally.lead:+.3f}")
        )
    click.echo(f"label set {label_set[:12]} of {content['constitution']['ref']} in {url}")
    print_table(shown)
    click.echo("decided: mean distance of p from one half. first slot: its lead in probability; 0 is fair.")
    click.echo(
        f"{s.judgements:,} judgements, {s.failures:,} calls lost, {s.prompt_tokens + s.completion_tokens:,} tokens, "
        f"{s.seconds:,.0f} s" + ("" if s.cost is None else f", cost {s.cost:.2f}")
    )
    for line in agreement_lines(people):
        click.echo(line)


labels.add_command(audit)
labels.add_command(card)
