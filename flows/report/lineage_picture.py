"""The lineage as a picture: a box a step from top to bottom, and a line from each to all that were made from it.

A line that passes other boxes runs in a lane beside them: on the left what came from outside, on the right what the
run made. It is narrow enough for a phone, and takes its text colour from the page.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any

from markupsafe import Markup

from flows.escape import clip
from judges.text import printable

WIDTH, HEIGHT, GAP, LANE, PAD = 290, 44, 16, 13, 10
_ROUND = 6
# Readable on white and on near-black.
_COLOURS = ("#3b82c4", "#c7762a", "#2e9e5b", "#8e6bd6", "#c2528b", "#7f8690")
_STRIPES = {
    "outside": "#3b82c4",
    "constitution": "#8e6bd6",
    "people": "#c7762a",
    "data": "#7f8690",
    "model": "#2e9e5b",
}
_MODELS = ("helpful_sft", "sl_cai", "reward_model", "rl")
_TITLES = {
    "world": "The microworld",
    "prompts": "Prompts",
    "helpful_sft": "Helpful-only model",
    "critique_revision": "Critiques and revisions",
    "sl_cai": "SL-CAI model",
    "pairs": "Pairs of answers",
    "labels": "Labels",
    "reward_model": "Reward model",
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


def picture(found: Mapping[str, Any]) -> Markup:
    """The <svg> of a lineage; every text in it is escaped."""
    boxes = rows(found)
    left = _lanes(boxes, outside=True)
    right = _lanes(boxes, outside=False)
    x = PAD + LANE * (1 + max(left.values(), default=-1))
    width = x + WIDTH + LANE * (1 + max(right.values(), default=-1)) + PAD
    height = len(boxes) * (HEIGHT + GAP)
    parts = [
        Markup(
            '<svg viewBox="0 0 {w} {h}" width="{w}" height="{h}" fill="none" aria-hidden="true" focusable="false">'
        ).format(w=width, h=height)
    ]
    for number, box in enumerate(boxes):
        parts += _lines(number, box, x, left.get(number), right.get(number))
    parts += [_box(number, box, x) for number, box in enumerate(boxes)]
    return Markup("").join([*parts, Markup("</svg>")])


def in_words(found: Mapping[str, Any]) -> str:
    """The picture for those who do not see it: every box with what it was made from."""
    boxes = rows(found)
    made_from = {n: [b.title for b in boxes if n in b.feeds] for n in range(len(boxes))}
    return (
        "; ".join(
            f"{box.title} from {', '.join(made_from[n])}" for n, box in enumerate(boxes) if made_from[n]
        )
        + "."
    )


def rows(found: Mapping[str, Any]) -> list[Box]:
    """The boxes in order: what came from outside stands right above the first that read it."""
    boxes: list[Box] = []
    places: dict[tuple[str, ...], int] = {}

    def place(name: tuple[str, ...], box: Box) -> int:
        if name not in places:
            places[name] = len(boxes)
            boxes.append(box)
        return places[name]

    labels = {record["step"]: record for record in found["labels"]}
    for step in found["steps"]:
        sources = list(_sources(step, labels.get(step["id"]), place, places))
        here = place((step["id"],), _step(step, labels.get(step["id"])))
        for source in dict.fromkeys(sources):
            boxes[source].feeds.append(here)
    return boxes


def _sources(
    step: Mapping[str, Any],
    record: Mapping[str, Any] | None,
    place: Any,
    places: Mapping[tuple[str, ...], int],
) -> Iterable[int]:
    for name, read in step["inputs"].items():
        if read["step"] is not None:
            yield places[(read["step"],)]
        elif name == "verdicts":
            yield place(("people", step["id"]), _people(record))
        else:
            yield place((read["path"], read["digest"]), _outside(name, read, record))
    if record and record["judges"] and "judge" not in step["inputs"]:
        judge = record["judges"][0]
        yield place(("judge", judge["model"], judge["revision"]), _judge(judge, judge["model"]))
    if under := step["constitution"]:
        box = Box(
            kind="constitution",
            title=under["ref"] if under["published"] else f"{under['ref']} (working file)",
            detail=f"constitution, {under['half']} half, digest {under['half_digest'][:12]}",
        )
        yield place(("constitution", under["ref"], under["half"]), box)


def _outside(name: str, read: Mapping[str, Any], record: Mapping[str, Any] | None) -> Box:
    shown = PurePath(read["path"]).name
    if name == "judge" and record and record["judges"]:
        return _judge(record["judges"][0], shown)
    what = f"from outside, first read as {name.replace('_', ' ')}, digest {read['digest'][:12]}"
    return Box(kind="outside", title=shown, detail=what)


def _judge(judge: Mapping[str, Any], shown: str) -> Box:
    exam = judge["exam"]
    said = "no exam" if exam is None else "exam passed" if exam["passed"] else "exam failed"
    detail = f"the judge, revision {judge['revision'][:12]}, {said}"
    return Box(kind="outside", title=shown, detail=detail)


def _people(record: Mapping[str, Any] | None) -> Box:
    counts = record["people"] if record else {}
    detail = f"{counts.get('confirmed', 0):,} labels confirmed, {counts.get('overridden', 0):,} overridden"
    return Box(kind="people", title="People", detail=detail)


def _step(step: Mapping[str, Any], record: Mapping[str, Any] | None) -> Box:
    stage, metrics = step["stage"], step["metrics"]
    said = f"made {step['created_at'][:10]}"
    if record is not None:
        trained = record["trained"]
        said = f"{trained['labels']:,} trained: {trained['soft']:,} soft, {trained['hard']:,} hard"
    elif stage == "prompts":
        said = ", ".join(f"{name} {metrics[name]:,}" for name in step["outputs"] if name in metrics)
    elif stage == "critique_revision":
        said = f"{metrics['revised']:,} revised, {metrics['harmless_kept']:,} kept as they were"
    elif stage == "pairs":
        said = f"{metrics['pairs']:,} pairs of answers"
    elif stage == "reward_model" and "eval_accuracy" in metrics:
        said = f"right on {100 * metrics['eval_accuracy']:.0f}% of held-out labels"
    elif stage in _MODELS and "model" in step["outputs"]:
        said = f"model, digest {step['outputs']['model'][:12]}"
    kind = "model" if stage in _MODELS else "data"
    return Box(kind=kind, title=_TITLES.get(stage, stage), detail=said, key=step["id"].rpartition("/")[2])


def _lanes(boxes: Sequence[Box], *, outside: bool) -> dict[int, int]:
    """Row to lane, for the rows of one side whose line passes other boxes; lines that never meet share a lane."""
    free_from: list[int] = []
    lanes = {}
    for number, box in enumerate(boxes):
        end = max(box.feeds, default=number)
        if (box.kind in ("outside", "constitution", "people")) is not outside or end <= number + 1:
            continue
        lane = next((n for n, free in enumerate(free_from) if free <= number), len(free_from))
        free_from[lane : lane + 1] = [end + 1]
        lanes[number] = lane
    return lanes


def _lines(number: int, box: Box, x: int, left: int | None, right: int | None) -> list[Markup]:
    """From one box to all that it feeds: straight down to the next row, through a lane to the others."""
    colour = _COLOURS[number % len(_COLOURS)]
    found = []
    if number + 1 in box.feeds:
        top, middle = _top(number) + HEIGHT, x + WIDTH // 2
        found.append(_path(f"M{middle} {top}V{top + GAP - 1}", colour) + _arrow(middle, top + GAP, 0, colour))
    lane = right if left is None else left
    if lane is None:
        return found
    # Towards the outside is negative on the left.
    side, edge = (1, x + WIDTH) if left is None else (-1, x)
    at = edge + side * (LANE // 2 + LANE * lane)
    start = _top(number) + HEIGHT // 2
    for target in box.feeds:
        if target == number + 1:
            continue
        end = _top(target) + HEIGHT // 2 + 5 * (lane % 4) - 7
        turn = side * _ROUND
        path = f"M{edge} {start}H{at - turn}Q{at} {start} {at} {start + _ROUND}V{end - _ROUND}"
        path += f"Q{at} {end} {at - turn} {end}H{edge + side}"
        found.append(_path(path, colour) + _arrow(edge, end, side, colour))
    return found


def _path(d: str, colour: str) -> Markup:
    return Markup('<path d="{}" stroke="{}" stroke-width="1.6"/>').format(d, colour)


def _arrow(x: int, y: int, side: int, colour: str) -> Markup:
    """A head whose point is at (x, y): from above (side 0), from the right (1) or from the left (-1)."""
    points = (
        f"{x},{y} {x - 4},{y - 7} {x + 4},{y - 7}"
        if side == 0
        else f"{x},{y} {x + 7 * side},{y - 4} {x + 7 * side},{y + 4}"
    )
    return Markup('<polygon points="{}" fill="{}"/>').format(points, colour)


def _box(number: int, box: Box, x: int) -> Markup:
    y = _top(number)
    title = clip(printable(box.title), 24 if box.key else 38)
    return Markup(
        '<rect x="{x}" y="{y}" width="{w}" height="{h}" rx="{r}" stroke="currentColor" stroke-opacity=".45"/>'
        '<rect x="{x}" y="{y}" width="5" height="{h}" rx="2" fill="{stripe}"/>'
        '<text x="{tx}" y="{ty}" fill="currentColor" font-size="13.5" font-weight="600">{title}</text>'
        '<text x="{kx}" y="{ty}" fill="currentColor" font-size="11" text-anchor="end" '
        'font-family="ui-monospace, monospace">{key}</text>'
        '<text x="{tx}" y="{dy}" fill="currentColor" font-size="11.5">{detail}</text>'
    ).format(
        x=x,
        y=y,
        w=WIDTH,
        h=HEIGHT,
        r=4 if box.key else HEIGHT // 2,
        stripe=_STRIPES[box.kind],
        tx=x + 14,
        ty=y + 18,
        kx=x + WIDTH - 8,
        key=box.key,
        title=title,
        dy=y + 35,
        detail=clip(printable(box.detail), 48),
    )


def _top(number: int) -> int:
    return number * (HEIGHT + GAP) + GAP // 2
