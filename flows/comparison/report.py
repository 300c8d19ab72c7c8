"""A comparison of models as pages: all of it for the HTML page and the terminal, what an artifact holds for Prefect."""

from __future__ import annotations

from collections.abc import Mapping

from common.sections import Cell, Measure, Page, Rows, Section
from common.statistics import Estimate
from flows.comparison.figures import ComparisonFigures
from flows.comparison.matches import OVERALL
from flows.comparison.report_principles import TEXT, example_section, principle_rows, principle_sentences
from flows.report.side_effects import effect_section, effect_sentences

_GOLD = ("helpful", "honest", "harmless", "non_evasive", "benign_refusals", "overall")


def comparison_page(figures: ComparisonFigures) -> Page:
    """The whole comparison."""
    rows: list[list[Cell]] = [["model", "digest", "place"]]
    rows += [[model.name, model.digest[:12], model.path] for model in figures.models]
    made = Section(
        heading="How it was made",
        text=figures.ratings.method if figures.ratings else "",
        rows=rows,
        kind="words",
    )
    sections = [*sections_of(figures), example_section(figures), made]
    return _page(figures, [section for section in sections if not section.empty])


def artifact_page(figures: ComparisonFigures) -> Page:
    """What Prefect and a terminal show: no folders, and one example for each model and principle."""
    sections = [*sections_of(figures), example_section(figures, each=1)]
    return _page(figures, [section for section in sections if not section.empty])


def about(figures: ComparisonFigures) -> str:
    """What was asked of whom, in one line."""
    prompts = figures.prompts
    each = f", {prompts.samples} answers each" if prompts.samples > 1 else ""
    return (
        f"{prompts.n} prompts of {prompts.path}{each}; judge {figures.judge.model}, constitution "
        f"{figures.constitution.ref}, seed {figures.sampling.seed}"
    )


def findings(figures: ComparisonFigures) -> list[str]:
    """What a person should know first, in sentences; never the rank alone."""
    found = [_lead(figures)]
    statuses = figures.statuses[OVERALL]
    total = sum(statuses.values())
    flips, failed = statuses.get("inconsistent", 0), _failed(statuses)
    found.append(
        f"Of {total} matches the judge decided {statuses.get('ok', 0)}; {statuses.get('tie', 0)} ties, {flips} "
        f"verdicts that turned with the order (counted as ties), {statuses.get('identical', 0)} identical answers, "
        f"{failed} failed."
    )
    found += principle_sentences(figures)
    if dropped := figures.prompts.too_long:
        found.append(f"{dropped} prompts were left out: too long for one of the models.")
    for name in figures.names:
        found += effect_sentences(figures.side_effects, name, name)
        if truncated := figures.answers[name].truncated:
            found.append(f"Cut off at the longest length: {truncated} of the answers of {name}.")
    if not figures.constitution.published:
        found.append("The constitution is a working file, not a published version.")
    return found


def sections_of(figures: ComparisonFigures) -> list[Section]:
    """Every table that has something to say."""
    effects = effect_section(figures.side_effects, {name: name for name in figures.names})
    found = [
        Section(
            heading="Standings",
            text="Each model against all others together, 95% intervals over prompts; a tie counts one half. One "
            "number alone misleads: a judge may like what is long, and help may be bought with harm.",
            rows=_standing_rows(figures),
            turned=True,
        ),
        Section(
            heading="Head to head",
            text="By all principles together, seen from the first model.",
            rows=_pair_rows(figures),
        ),
        Section(heading="Principle by principle", text=TEXT, rows=principle_rows(figures)),
        Section(
            heading="Gold",
            text="The microworld's oracle, which no judge and no training sees.",
            rows=_gold_rows(figures),
            turned=True,
        ),
        Section(
            heading="Against reference answers",
            text="BLEU 0-100, ROUGE F in %.",
            rows=_reference_rows(figures),
        ),
        effects,
    ]
    return [section for section in found if not section.empty]


def _page(figures: ComparisonFigures, sections: list[Section]) -> Page:
    title = " : ".join(figures.names)
    return Page(title=title, about=about(figures), findings=findings(figures), sections=sections)


def _percent(figure: Estimate) -> Measure:
    return Measure(figure, percent=True)


def _standing_rows(figures: ComparisonFigures) -> Rows:
    """One row a model: rating, win rate against all others, the same at equal length, and by dimension."""
    dimensions = [d for d in figures.dimensions if d != OVERALL]
    rows: list[list[Cell]] = [
        ["model", "Elo", "wins %", "at equal length %", *(f"{d} %" for d in dimensions), "words"]
    ]
    rated = figures.ratings.models if figures.ratings else {}
    for name in figures.names:
        overall = figures.dimensions[OVERALL].against_all[name]
        rates = [figures.dimensions[d].against_all[name].win_rate for d in dimensions]
        rows.append(
            [
                name,
                Measure(rated.get(name), digits=0),
                *map(_percent, (overall.win_rate, overall.length_controlled, *rates)),
                Measure(figures.answers[name].words.value),
            ]
        )
    return rows


def _pair_rows(figures: ComparisonFigures) -> Rows:
    """One row a pair of models: wins, ties, losses, what was not decided, and the win rates of the first."""
    rows: list[list[Cell]] = [
        ["first against second", "won", "tied", "lost", "undecided", "wins %", "at equal length %"]
    ]
    for pair in figures.pairs:
        counts = [pair.wins, pair.ties, pair.losses, pair.undecided]
        rows.append(
            [f"{pair.a} : {pair.b}", *counts, *map(_percent, (pair.win_rate, pair.length_controlled))]
        )
    return rows


def _gold_rows(figures: ComparisonFigures) -> Rows:
    """What gold says of each model's answers; only a heading where it says nothing."""
    rows: list[list[Cell]] = [["model", *(f"{key.replace('_', '-')} %" for key in _GOLD)]]
    for name in figures.names:
        if found := figures.answers[name].gold:
            rows.append([name, *(_percent(found[key]) for key in _GOLD)])
    return rows


def _reference_rows(figures: ComparisonFigures) -> Rows:
    """BLEU and ROUGE of each model's answers; only a heading where no prompt has references."""
    rows: list[list[Cell]] = [["model", "BLEU", "ROUGE-1 F", "ROUGE-2 F", "ROUGE-L F", "prompts"]]
    for name in figures.names:
        if found := figures.answers[name].references:
            rouge = map(_percent, (found.rouge1, found.rouge2, found.rougeL))
            rows.append([name, Measure(found.bleu.value), *rouge, found.bleu.n])
    return rows


def _lead(figures: ComparisonFigures) -> str:
    rated = {
        name: one.value
        for name, one in (figures.ratings.models if figures.ratings else {}).items()
        if one.value is not None
    }
    if not rated:
        return "The judge decided too little to rate the models."
    best, second = sorted(rated, key=lambda name: -rated[name])[:2]
    (pair,) = [p for p in figures.pairs if {p.a, p.b} == {best, second}]
    _, low, high = pair.win_rate.scaled(1) if pair.win_rate.known else (0.5, 0.0, 1.0)
    clear = low > 0.5 if pair.a == best else high < 0.5
    shares = {d: found.against_all[best].win_rate for d, found in figures.dimensions.items() if d != OVERALL}
    dimensions = [f"{d} {share.scaled(100)[0]:.0f}%" for d, share in shares.items() if share.known]
    lead = f"{best} is rated highest" if clear else f"{best} and {second} cannot be told apart"
    return f"{lead}: {best} wins on {', '.join(dimensions)}."


def _failed(statuses: Mapping[str, int]) -> int:
    return sum(
        n for status, n in statuses.items() if status not in ("ok", "tie", "inconsistent", "identical")
    )
