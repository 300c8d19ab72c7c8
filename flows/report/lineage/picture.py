"""The lineage as a picture: a box a step from top to bottom, and a line from each to all that were made from it.

A line that passes other boxes runs in a lane beside them: on the left what came from outside, on the right what the
run made. It is narrow enough for a phone, and takes its text colour from the page.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from markupsafe import Markup

from common.text import clip, printable
from flows.report.lineage.boxes import Box, rows
from flows.report.lineage.record import Lineage

WIDTH, HEIGHT, GAP, LANE, PAD = 300, 44, 16, 12, 8
_ROUND = 6
# From a box to its nearest lane: an arrow's head and a bit of line.
_FIRST = 14
# Readable on white and on near-black.
_COLOURS = ("#3b82c4", "#c7762a", "#2e9e5b", "#8e6bd6", "#c2528b", "#7f8690")
_STRIPES = {
    "outside": "#3b82c4",
    "constitution": "#8e6bd6",
    "people": "#c7762a",
    "data": "#7f8690",
    "model": "#2e9e5b",
}


def picture(found: Lineage) -> Markup:
    """The <svg> of a lineage; every text in it is escaped."""
    boxes = rows(found)
    left = _lanes(boxes, outside=True)
    right = _lanes(boxes, outside=False)
    x = PAD + _room(left)
    width = x + WIDTH + _room(right) + PAD
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


def _room(lanes: Mapping[int, int]) -> int:
    """What the lanes of one side need."""
    return _FIRST + LANE * max(lanes.values()) if lanes else 0


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
    at = edge + side * (_FIRST + LANE * lane)
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
    title = clip(printable(box.title), 23 if box.key else 31)
    return Markup(
        '<rect x="{x}" y="{y}" width="{w}" height="{h}" rx="{r}" stroke="currentColor" stroke-opacity=".45"/>'
        '<rect x="{x}" y="{y}" width="5" height="{h}" rx="2" fill="{stripe}"/>'
        '<text x="{tx}" y="{ty}" fill="currentColor" font-size="13.5" font-weight="600">{title}</text>'
        '<text x="{kx}" y="{ty}" fill="currentColor" font-size="11" text-anchor="end" '
        'font-family="ui-monospace, monospace">{key}</text>'
        '<text x="{tx}" y="{dy}" fill="currentColor" font-size="11">{detail}</text>'
    ).format(
        x=x,
        y=y,
        w=WIDTH,
        h=HEIGHT,
        r=4 if box.key else 16,
        stripe=_STRIPES[box.kind],
        tx=x + 14,
        ty=y + 18,
        kx=x + WIDTH - 8,
        key=box.key,
        title=title,
        dy=y + 35,
        detail=clip(printable(box.detail), 41),
    )


def _top(number: int) -> int:
    return number * (HEIGHT + GAP) + GAP // 2
