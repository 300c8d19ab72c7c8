"""Where a policy comes from, as sentences and sections; `facts` has the facts, `picture` the drawing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import PurePath

from common.record import plain
from common.sections import Cell, Measure, Page, Plot, Section
from flows.report.lineage.boxes import in_words
from flows.report.lineage.facts import SHORT, facts
from flows.report.lineage.picture import picture
from flows.report.lineage.record import Lineage, StepInput


def lineage_page(found: Lineage) -> Page:
    """All of a lineage but its picture, for a terminal."""
    return Page(title=found.step, findings=lineage_sentences(found), sections=_tables(found))


def lineage_sections(found: Lineage | None) -> list[Section]:
    """The picture, and the facts, principles and steps as tables; nothing without a lineage."""
    if found is None:
        return []
    text = (
        "Read from the manifests of the stages and from the ledger. charter labels explain tells the whole story of "
        "one label. Green: models that this run trained. Grey: its data. Blue, round: from outside. Purple, round: the "
        "constitution. Orange, round: people."
    )
    drawing = Plot(text=in_words(found), svg=picture(found))
    tables = _tables(found)
    return [
        Section(heading=tables[0].heading, text=text, figures=[drawing]),
        replace(tables[0], heading=""),
        *tables[1:],
    ]


def lineage_sentences(found: Lineage | None) -> list[str]:
    """What a person should know first; nothing without a lineage."""
    if found is None:
        return []
    said = [f"Warning: {gap}." for gap in found.gaps]
    labels = sum(record.trained.labels for record in found.labels)
    if labels:
        drawn = _drawn(found)
        people = _people(found)
        checked = sum(people.values())
        by = f"a person looked at {checked:,} of them" if checked else "no person looked at any of them"
        said.append(
            f"The policy comes from {labels:,} labels under {len([n for n in drawn.values() if n])} principles; {by}."
        )
    if found.judge_rewards:
        said.append("The judge's own marks were part of the policy's reward.")
    return said


def _tables(found: Lineage) -> list[Section]:
    sections = [
        Section(
            heading="Where the policy comes from",
            rows=[["what", "which"], *(list(fact) for fact in facts(found))],
            kind="words",
        ),
        Section(heading="Principles of the labels that trained", rows=_principles(found), level=3),
        Section(heading="Step by step", rows=_steps(found), level=3, kind="words steps"),
    ]
    return [section for section in sections if not section.empty]


def _principles(found: Lineage) -> list[list[Cell]]:
    """One row a comparison principle: how often the labels that trained drew it, and its share of all draws."""
    drawn = _drawn(found)
    dimensions = {p.id: p.dimension for record in found.labels for p in record.principles}
    total = sum(drawn.values())
    rows: list[list[Cell]] = [["principle", "dimension", "drawn", "% of draws"]]
    for name, n in sorted(drawn.items(), key=lambda item: (-item[1], item[0])):
        share = Measure(n / total if total else None, percent=True, digits=1)
        rows.append([name, dimensions[name], n, share])
    return rows


def _steps(found: Lineage) -> list[list[Cell]]:
    """One row a step from what came from outside to the policy: its folder, its result, and what it read."""
    rows: list[list[Cell]] = [["step", "under", "made from", "digest of the result"]]
    times = Counter(step.stage for step in found.steps)
    for step in found.steps:
        under, digest = step.constitution, _result(step.outputs)
        made_from = dict.fromkeys(_source(name, read, times) for name, read in step.inputs.items())
        rows.append(
            [
                step.id,
                f"{under.ref} ({under.principle_kind})" if under else "",
                ", ".join(made_from) or "nothing",
                digest[:SHORT] if digest else None,
            ]
        )
    return rows


def _drawn(found: Lineage) -> Counter[str]:
    drawn: Counter[str] = Counter()
    for record in found.labels:
        for principle in record.principles:
            drawn[principle.id] += principle.drawn
    return drawn


def _people(found: Lineage) -> Counter[str]:
    people: Counter[str] = Counter()
    for record in found.labels:
        people.update(plain(record.people))
    return people


def _source(name: str, read: StepInput, times: Mapping[str, int]) -> str:
    """A step by its stage where there is one of it, else with its key; what came from outside with its role."""
    if read.step is None:
        return f"{name.replace('_', ' ')}: {PurePath(read.path).name}"
    stage = read.step.partition("/")[0]
    return stage if times[stage] == 1 else read.step


def _result(outputs: Mapping[str, str]) -> str | None:
    """The digest that says most of a step: of its model, else of its first output."""
    return outputs.get("model") or outputs.get("preferences") or next(iter(outputs.values()), None)
