"""The report of a run as sections: what each view shows, and report.html."""

from __future__ import annotations

import json
from pathlib import Path

from rich.console import Console

from common.files import write_atomically
from common.sections import Cell, Fold, Measure, Page, Rows, Section
from flows.report import render
from flows.report.costs import cost_plot, cost_section
from flows.report.data import MODELS, ReportData
from flows.report.figures import figures
from flows.report.findings import findings
from flows.report.lineage.view import lineage_sections
from flows.report.over_optimisation import stopping_plot
from flows.report.side_effects import effect_section, stretch_section
from flows.report.weights import weight_plot, weight_section

#: (section of the summary, name in it, what it says)
_RATES = (
    ("judge", "trained_wordings", "judge against gold, trained wordings"),
    ("judge", "heldout_wordings", "judge against gold, held-out wordings"),
    ("judge", "flips", "judge flips when the answers swap places"),
    ("judge", "opposite", "opposite principle flips the verdict"),
    ("judge", "gold_agreement", "labels of this run against gold"),
    ("revision", "to_explained_refusal", "revision: harmful to explained refusal"),
    ("revision", "benign_kept", "revision: good harmless answers kept"),
    ("reward_model", "gold_agreement", "reward model against gold, held-out pairs"),
)


def write_html(data: ReportData, path: Path) -> Path:
    """Write the whole page, replacing `path` as a whole."""
    write_atomically(path, html(data))
    return path


def html(data: ReportData) -> str:
    """The whole page."""
    summary = data.summary
    sections = [
        *_figures(data),
        *example_sections(data),
        *lineage_sections(summary.lineage),
        _stages(data),
        Section(heading="Configuration", folds=[_fold("The resolved configuration", data.config_text)]),
        Section(heading="Environment", folds=[_fold("Versions", json.dumps(dict(data.versions), indent=2))]),
    ]
    return render.html(_page(data, sections))


def result_markdown(data: ReportData) -> str:
    """The artifact of a run's result: findings, plots, tables."""
    lineage = [section for section in lineage_sections(data.summary.lineage) if section.rows]
    return render.markdown(_page(data, [*_figures(data), *lineage]))


def examples_markdown(data: ReportData) -> str:
    """The artifact of the same prompts answered by all models, and of some revisions."""
    return render.markdown(Page(title="Examples", sections=example_sections(data)))


def print_report(data: ReportData, console: Console) -> None:
    """Result, rates, comparison with the attempt before, and the findings."""
    sections = [section for section in (_result(data), _rates(data), _changes(data)) if not section.empty]
    render.terminal(_page(data, sections), console)
    gigabytes = data.summary.peak_memory_bytes / 1e9
    console.print(f"[dim]{data.summary.seconds:.0f} s in all, {gigabytes:.1f} GB of memory at most[/dim]")


def result_rows(data: ReportData) -> Rows:
    """The result table: a heading row, then one row a model."""
    rows: list[list[Cell]] = [["model", *(f.heading for f in data.figures)]]
    for model in data.models:
        found = data.summary.models[model]
        rows.append([MODELS[model], *(Measure(f.of(found), percent=f.share) for f in data.figures)])
    return rows


def example_sections(data: ReportData) -> list[Section]:
    """The same prompts answered by every model, and some critiques with what they changed."""
    examples = [
        Fold(
            heading=one.prompt,
            tag=one.family,
            lines=[(MODELS[model], "", one.answers[model]) for model in data.models if model in one.answers],
            open=number < 3,
        )
        for number, one in enumerate(data.examples)
    ]
    revisions = [
        Fold(
            heading=one.prompt,
            lines=[
                ("answer", "", one.response),
                *(
                    line
                    for principle, critique, revised in one.steps
                    for line in (("critique", principle, critique), ("revision", "", revised))
                ),
            ],
            open=number == 0,
        )
        for number, one in enumerate(data.revisions)
    ]
    found = [
        Section(heading="The same prompts, answered by every model", folds=examples),
        Section(heading="Critiques and revisions", folds=revisions),
    ]
    return [section for section in found if section.folds]


def _page(data: ReportData, sections: list[Section]) -> Page:
    constitution = data.summary.constitution
    about = f"Constitution {constitution.ref}, digest {constitution.digest[:12]}, seed {data.summary.seed}"
    return Page(title=data.summary.name, about=about, findings=findings(data), sections=sections)


def _figures(data: ReportData) -> list[Section]:
    """All that is measured: plots, then tables."""
    summary = data.summary
    plots = [
        *figures(data).values(),
        stopping_plot(summary.rl),
        weight_plot(summary.weights, MODELS),
        cost_plot(summary.costs),
    ]
    effects = effect_section(summary.side_effects, MODELS)
    found = [
        Section(heading="Plots", figures=[plot for plot in plots if plot]),
        _result(data),
        _changes(data),
        *([effects, stretch_section(summary.side_effects)] if effects.rows else []),
        _rates(data),
        weight_section(summary.weights, MODELS),
        cost_section(summary.costs),
    ]
    return [section for section in found if not section.empty]


def _result(data: ReportData) -> Section:
    scores = "gold scores in %, words" if any(f.share for f in data.figures) else "words"
    heading = f"Answers to held-out prompts: {scores} and the reward model's score (95% interval)"
    text = "Words are the mean length of an answer."
    return Section(heading=heading, text=text, rows=result_rows(data), turned=True)


def _rates(data: ReportData) -> Section:
    """Judge, labels, revision and reward model: per cent with interval, and of how many."""
    rows: list[list[Cell]] = [["measure", "% (95% interval)", "n"]]
    for section, name, said in _RATES:
        found = getattr(getattr(data.summary, section), name)
        if found and found.known:
            rows.append([said, Measure(found, percent=True), found.n])
    return Section(heading="Judge, critic and reward model", rows=rows)


def _changes(data: ReportData) -> Section:
    """Before and after an edited constitution, for the last model."""
    if data.before is None or not data.models:
        return Section()
    model = data.models[-1]
    heading = [MODELS[model], data.before.constitution.ref, data.summary.constitution.ref, "difference"]
    rows: list[list[Cell]] = [[*heading]]
    for figure in data.figures:
        old, new = (figure.of(one.models.get(model)) for one in (data.before, data.summary))
        # Two reward models have two scales.
        if figure.key == "reward" or old is None or new is None:
            continue
        scale = 100 if figure.share else 1
        gap = new.scaled(scale)[0] - old.scaled(scale)[0]
        both = (Measure(one, percent=figure.share) for one in (old, new))
        rows.append([figure.heading, *both, Measure(gap, sign=True)])
    return Section(heading="What the edited constitution changed", rows=rows)


def _stages(data: ReportData) -> Section:
    rows: list[list[Cell]] = [["stage", "seconds", "reused"]]
    for name, stage in data.summary.stages.items():
        rows.append([name.replace("_", " "), Measure(stage.seconds), "yes" if stage.reused else ""])
    rows.append(["in all", Measure(data.summary.seconds), ""])
    text = f"At most {data.summary.peak_memory_bytes / 1e9:.1f} GB of memory."
    return Section(heading="How long it took", text=text, rows=rows)


def _fold(heading: str, text: str) -> Fold:
    return Fold(heading=heading, verbatim=text)
