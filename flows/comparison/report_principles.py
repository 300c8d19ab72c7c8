"""Two models principle by principle, for people: table, sentences, and the answers where they part."""

from __future__ import annotations

from collections.abc import Sequence

from common.sections import Cell, Fold, Measure, Rows, Section
from flows.comparison.figures import ComparisonFigures, PrincipleFigures, ShownPair

TEXT = (
    "Both models under one principle at a time. Intervals are 95% for each principle on its own; p is adjusted for the "
    "number of principles (Benjamini and Hochberg), and a winner is named where it is below 0.05. The same prompts "
    "and answers stand in every row."
)
_OPEN = 3


def principle_rows(figures: ComparisonFigures) -> Rows:
    """One row a principle: what was done to it, the first model's wins, and who is ahead; a heading alone for none."""
    headings = ["p adjusted", "ahead", "won", "tied", "lost", "undecided"]
    rows: list[list[Cell]] = [["principle", "edit", f"{figures.names[0]} wins %", *headings]]
    for one in _principles(figures):
        p = one.p_adjusted
        rows.append(
            [
                one.id,
                one.mark or None,
                Measure(one.win_rate, percent=True),
                "<0.001" if p is not None and p < 0.001 else Measure(p, digits=3),
                one.favours,
                *(one.wins, one.ties, one.losses, one.undecided),
            ]
        )
    return rows


def principle_sentences(figures: ComparisonFigures) -> list[str]:
    """Under which principles the models part, then one sentence for each principle that was edited."""
    found = figures.by_principle
    if found is None:
        return []
    tested = [one for one in found.principles if one.p_adjusted is not None]
    parted = [one for one in tested if one.favours]
    ahead = ", ".join(f"{one.id} ({one.favours} is ahead)" for one in parted)
    of = f"Under {len(parted)} of {len(tested)} principles the models part, after correction for that number"
    said = [f"{of}: {ahead}." if ahead else f"{of}."]
    said += [f"Edited: {_outcome(one, figures.names[0])}" for one in found.principles if one.mark]
    if found.before is None:
        said.append("What was edited is not known: the constitution behind the first model was not given.")
    elif found.before.digest == found.after.digest:
        said.append(f"Both models belong to one constitution, {found.after.ref}.")
    else:
        elsewhere = f"; also edited: {'; '.join(found.also_edited)}" if found.also_edited else ""
        said.append(f"From {found.before.ref} to {found.after.ref}{elsewhere}.")
    return said


def example_section(figures: ComparisonFigures, *, each: int | None = None) -> Section:
    """The principles that have pairs to show, edited ones first, then those that part the models, then the rest.

    For each model and principle there are at most `each` examples.
    """
    with_pairs = [one for one in _principles(figures) if one.examples]
    with_pairs.sort(key=lambda one: (not one.mark, not one.favours))
    return Section(
        heading="Where the models part",
        text="For each model the prompts where its answer won by most, with the judge's probability; edited principles "
        "first.",
        folds=[
            Fold(
                heading=one.id,
                tag=one.mark,
                text=_questions(one),
                lines=[
                    line for example in _some(one.examples, each) for line in _lines(example, figures.names)
                ],
                open=number < _OPEN,
            )
            for number, one in enumerate(with_pairs)
        ],
    )


def _principles(figures: ComparisonFigures) -> Sequence[PrincipleFigures]:
    return figures.by_principle.principles if figures.by_principle else ()


def _outcome(one: PrincipleFigures, first: str) -> str:
    """One principle in a sentence."""
    what = one.change.partition(": ")[2]
    edit = "; ".join(dict.fromkeys(part for part in (one.mark, what) if part))
    name = f"{one.id} ({edit})" if edit else one.id
    if not one.win_rate.known:
        return f"{name}: the judge decided nothing."
    ahead = f"{one.favours} is ahead" if one.favours else "the models cannot be told apart"
    wins = Measure(one.win_rate, percent=True)
    return f"{name}: {ahead}; {first} wins {wins} % of {one.win_rate.n} prompts."


def _some(examples: Sequence[ShownPair], each: int | None) -> list[ShownPair]:
    """The first so many examples that each model won."""
    winners = [one.winner for one in examples]
    return [one for n, one in enumerate(examples) if each is None or winners[:n].count(one.winner) < each]


def _lines(example: ShownPair, names: Sequence[str]) -> list[tuple[str, str, str]]:
    sure = f"preferred, {100 * max(example.p, 1 - example.p):.0f}%"
    answers = zip(names, (example.a, example.b), strict=False)
    return [
        ("prompt", "", example.prompt),
        *((name, sure if name == example.winner else "", text) for name, text in answers),
    ]


def _questions(one: PrincipleFigures) -> str:
    before = one.question_before
    return one.question if before in (None, one.question) else f"{one.question} Before: {before}"
