"""What the picture of a lineage shows: a box a step, and one for everything that came from outside."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import PurePath

from flows.report.lineage.record import LabelRecord, LabelsJudge, Lineage, PeopleCounts, StepRecord

_MODELS = ("helpful_sft", "sl_cai", "reward_model", "gold_model", "rl")
_TITLES = {
    "world": "The microworld",
    "prompts": "Prompts",
    "helpful_sft": "Helpful-only model",
    "critique_revision": "Critiques and revisions",
    "sl_cai": "SL-CAI model",
    "pairs": "Pairs of answers",
    "labels": "Labels",
    "reward_model": "Reward model",
    "gold_model": "Gold model of early stopping",
    "rl": "Policy (RL-CAI)",
}


@dataclass(kw_only=True)
class Box:
    """One row of the picture. `feeds` are the rows that were made from it."""

    kind: str
    title: str
    detail: str
    key: str = ""
    feeds: list[int] = field(default_factory=list)


def in_words(found: Lineage) -> str:
    """The picture for those who do not see it: every box with what it was made from."""
    boxes = rows(found)
    made_from = {n: [b.title for b in boxes if n in b.feeds] for n in range(len(boxes))}
    return (
        "; ".join(
            f"{box.title} from {', '.join(made_from[n])}" for n, box in enumerate(boxes) if made_from[n]
        )
        + "."
    )


def rows(found: Lineage) -> list[Box]:
    """The boxes in order: what came from outside stands right above the first that read it."""
    boxes: list[Box] = []
    places: dict[tuple[str, ...], int] = {}

    def place(name: tuple[str, ...], box: Box) -> int:
        if name not in places:
            places[name] = len(boxes)
            boxes.append(box)
        return places[name]

    labels = {record.step: record for record in found.labels}
    outside = _outside(found, labels)
    for step in found.steps:
        sources = list(_sources(step, labels.get(step.id), outside, place, places))
        here = place((step.id,), _step(step, labels.get(step.id)))
        for source in dict.fromkeys(sources):
            boxes[source].feeds.append(here)
    return boxes


def _sources(
    step: StepRecord,
    record: LabelRecord | None,
    outside: Mapping[tuple[str, str], Box],
    place: Callable[[tuple[str, ...], Box], int],
    places: Mapping[tuple[str, ...], int],
) -> Iterator[int]:
    """The rows of all that a step was made from; those that are not there yet are placed."""
    for name, read in step.inputs.items():
        source = (read.path, read.digest)
        if read.step is not None:
            yield places[(read.step,)]
        elif name == "verdicts":
            yield place(("people", step.id), _people(step, record))
        else:
            yield place(source, outside[source])
    if "judge" not in step.inputs:
        for judge in (record.judges if record else None) or ():
            box = Box(kind="outside", title=judge.model, detail=f"judge; {_exam(judge)}")
            yield place(("judge", judge.model, judge.revision), box)
    if under := step.constitution:
        box = Box(
            kind="constitution",
            title=under.ref,
            detail=f"constitution, {under.principle_kind} principles",
        )
        yield place(("constitution", under.ref, under.principle_kind), box)


def _outside(found: Lineage, labels: Mapping[str, LabelRecord]) -> dict[tuple[str, str], Box]:
    """A box for every model and file from outside: under which names it was read, and who it is if it judged."""
    names: dict[tuple[str, str], list[str]] = {}
    judges: dict[tuple[str, str], str] = {}
    for step in found.steps:
        for name, read in step.inputs.items():
            source = (read.path, read.digest)
            if read.step is None:
                names.setdefault(source, []).append(name.replace("_", " "))
            if name == "judge" and (label := labels.get(step.id)) and label.judges:
                judges[source] = _exam(label.judges[0])
    return {
        source: Box(
            kind="outside",
            title=PurePath(source[0]).name,
            detail=f"{', '.join(sorted(set(roles)))}; {judges.get(source) or source[1][:12]}",
        )
        for source, roles in names.items()
    }


def _exam(judge: LabelsJudge) -> str:
    exam = judge.exam
    return "no exam" if exam is None else "exam passed" if exam.passed else "exam failed"


def _people(step: StepRecord, record: LabelRecord | None) -> Box:
    if step.stage == "gold_model":
        return Box(kind="people", title="People", detail=f"{step.metrics['pairs']:,} other pairs decided")
    counts = record.people if record else PeopleCounts()
    detail = f"{counts.confirmed:,} labels confirmed, {counts.overridden:,} overridden"
    return Box(kind="people", title="People", detail=detail)


def _step(step: StepRecord, record: LabelRecord | None) -> Box:
    stage, metrics = step.stage, step.metrics
    said = f"made {step.created_at[:10]}"
    if record is not None:
        trained = record.trained
        said = f"{trained.labels:,} trained: {trained.soft:,} soft, {trained.hard:,} hard"
    elif stage == "prompts":
        said = ", ".join(f"{name} {metrics[name]:,}" for name in step.outputs if name in metrics)
    elif stage == "critique_revision":
        said = f"{metrics['revised']:,} revised, {metrics['harmless_kept']:,} kept as they were"
    elif stage == "pairs":
        said = f"{metrics['pairs']:,} pairs of answers"
    elif stage == "reward_model" and "eval_accuracy" in metrics:
        said = f"right on {100 * metrics['eval_accuracy']:.0f}% of held-out labels"
    elif stage in _MODELS and "model" in step.outputs:
        said = f"model, digest {step.outputs['model'][:12]}"
    kind = "model" if stage in _MODELS else "data"
    return Box(kind=kind, title=_TITLES.get(stage, stage), detail=said, key=step.id.rpartition("/")[2])
