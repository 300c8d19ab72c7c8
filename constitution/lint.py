"""What a well-formed constitution may still get wrong; `charter constitution check` prints each finding.

Checked: principles of one list that say the same, nearly the same, or the opposite; an id that serves
different dimensions in the two lists; a principle that no draw returns; a critique that asks what its
revision asks; exemplars that teach nothing or the wrong thing; texts that would read as chat markup in a
prompt.

Lint reads raw data, so that a file with errors gets its findings in the same go.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from constitution.model import Constitution, CritiquePrinciple, Problem
from constitution.source import FieldPath, Source
from constitution.structure import HALVES, entries

NEAR_DUPLICATE = 0.75
"""Share of content words in common from which two principles count as nearly the same."""

_COMMON_WORDS = """
    a an and any are as at be by do for from has have in is it its of on or so such than that the their them
    they this to was were which who whose will with you your choose pick prefer select please answer answers
    response responses assistant's reply rewrite revise say whether
"""
_COMMON = frozenset(_COMMON_WORDS.split())
_DEGREES = frozenset({"more", "most", "very"})
_NEGATIONS = frozenset({"not", "no", "never", "without", "don't", "doesn't", "isn't", "cannot"})
_OPPOSITES = [
    ("more most greater", "less least fewer fewest"),
    ("short shorter shortest brief briefer concise", "long longer longest detailed thorough comprehensive"),
    ("always", "never"),
    ("helpful useful", "unhelpful useless"),
    ("harmless safe safer safest", "harmful dangerous unsafe"),
    ("honest truthful true", "dishonest untruthful false"),
    ("polite kind kinder kindest friendly", "rude unkind hostile"),
    ("formal", "informal casual"),
    ("ethical moral", "unethical immoral"),
    ("cautious", "bold daring"),
    ("accept comply", "refuse decline"),
]
_SIDES: dict[str, set[tuple[int, int]]] = {}
for _number, _pair in enumerate(_OPPOSITES):
    for _side, _words in enumerate(_pair):
        for _word in _words.split():
            _SIDES.setdefault(_word, set()).add((_number, _side))

_MARKUP = re.compile(r"<\|[^|<>]{1,40}\|>|\[/?INST\]|<</?SYS>>|</?s>|<(?:start|end)_of_turn>")
_SPEAKER = re.compile(r"^(Human|Assistant|System):", re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class _Item:
    """A principle as lint sees it, with the place in the file that it comes from."""

    half: str
    id: str
    line: int
    text: str
    dimension: object
    enabled: bool
    weight: object
    words: frozenset[str] = frozenset()
    content: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        words = [word.strip("'") for word in re.findall(r"[^\W_]+(?:'[^\W_]+)?", self.text.casefold())]
        object.__setattr__(self, "words", frozenset(words))
        object.__setattr__(self, "content", frozenset(words) - _COMMON)


def lint(source: Source, c: Constitution | None) -> list[Problem]:
    """Every finding, in the order of the lines. `c` is the constitution when the file loads, else None."""
    if not isinstance(source.data, dict):
        return []
    items = list(_merged_items(source, c) if c is not None else _raw_items(source))
    found: list[tuple[int, str]] = []
    if "version" in source.data:
        found.append((source.line(("version",)), "version: a working file needs none; publish writes it"))
    for half in HALVES:
        found += _alike([item for item in items if item.half == half and item.enabled])
    found += _two_dimensions(items)
    found += _never_drawn(items)
    found += _same_request(source)
    found += _poor_exemplars(source)
    found += _markup(source, source.data, ())
    return sorted({Problem(source.file, line, message) for line, message in found}, key=lambda p: p[1:])


def _merged_items(source: Source, c: Constitution) -> Iterator[_Item]:
    """All principles of a constitution, inherited ones at the line of `extends`."""
    for half in HALVES:
        lines = {
            entry["id"]: source.line((*path, "id")) for path, entry in entries(source, half, "principles")
        }
        for p in getattr(c, half):
            yield _Item(
                half=half,
                id=p.id,
                line=lines.get(p.id, source.line(("extends",))),
                text=p.critique_request if isinstance(p, CritiquePrinciple) else p.question,
                dimension=p.dimension,
                enabled=p.enabled,
                weight=p.weight,
            )


def _raw_items(source: Source) -> Iterator[_Item]:
    """The principles of a file with errors, as far as they can be read."""
    for half, field in (("critique", "critique_request"), ("comparison", "question")):
        for path, entry in entries(source, half, "principles"):
            name, text = entry.get("id"), entry.get(field)
            if isinstance(name, str) and isinstance(text, str):
                yield _Item(
                    half=half,
                    id=name,
                    line=source.line((*path, "id")),
                    text=text,
                    dimension=entry.get("dimension"),
                    enabled=entry.get("enabled") is not False,
                    weight=entry.get("weight", 1),
                )


def _alike(items: list[_Item]) -> Iterator[tuple[int, str]]:
    for first, second in combinations(items, 2):
        a, b = (first, second) if first.line <= second.line else (second, first)
        # Two inherited principles are the business of the base.
        if a.line == b.line:
            continue
        where = f"{b.half} principle '{b.id}'"
        if a.words == b.words:
            yield (
                b.line,
                f"{where} says the same as '{a.id}' (line {a.line}); drop one and add up the weights",
            )
        elif _opposite(a, b):
            yield b.line, f"{where} says the opposite of '{a.id}' (line {a.line}); disable one"
        elif _overlap(a.content, b.content) >= NEAR_DUPLICATE:
            yield (
                b.line,
                f"{where} says nearly the same as '{a.id}' (line {a.line}); merge them or tell them apart",
            )


def _overlap(a: frozenset[str], b: frozenset[str]) -> float:
    """Jaccard similarity; 0 for texts too short to judge."""
    shared = len(a & b)
    return shared / (len(a) + len(b) - shared) if shared >= 3 else 0.0


def _opposite(a: _Item, b: _Item) -> bool:
    """The texts differ by antonyms or by a negation alone."""
    # Most pairs differ by more words than that; they end here, which keeps large files quick.
    if len(a.content ^ b.content) > 8:
        return False
    left, right = a.words - b.words, b.words - a.words
    if left | right <= _NEGATIONS | _COMMON:
        return bool(left & _NEGATIONS) != bool(right & _NEGATIONS)
    left, right = left - _COMMON, right - _COMMON
    return _answered(left, right) and _answered(right, left)


def _answered(words: frozenset[str], others: frozenset[str]) -> bool:
    """Every word, degrees such as "more" aside, has its opposite among the others."""
    opposed = {(number, 1 - side) for word in others for number, side in _SIDES.get(word, ())}
    unanswered = {word for word in words if not _SIDES.get(word, set()) & opposed}
    return unanswered < words and unanswered <= _DEGREES


def _two_dimensions(items: list[_Item]) -> Iterator[tuple[int, str]]:
    critique = {item.id: item for item in items if item.half == "critique"}
    for item in items:
        other = critique.get(item.id)
        if item.half == "comparison" and other is not None and other.dimension != item.dimension:
            yield (
                item.line,
                f"'{item.id}' is {item.dimension} here and {other.dimension} among the critique principles "
                f"(line {other.line}); one id should serve one dimension",
            )


def _never_drawn(items: list[_Item]) -> Iterator[tuple[int, str]]:
    for item in items:
        if item.enabled and item.weight == 0:
            message = (
                f"{item.half} principle '{item.id}' has weight 0, so no draw returns it; say `enabled: false`"
            )
            yield item.line, message


def _same_request(source: Source) -> Iterator[tuple[int, str]]:
    for path, entry in entries(source, "critique", "principles"):
        if _same(entry.get("critique_request"), entry.get("revision_request")):
            yield (
                source.line((*path, "revision_request")),
                "revision_request: asks the same as critique_request",
            )


def _poor_exemplars(source: Source) -> Iterator[tuple[int, str]]:
    for path, entry in entries(source, "critique", "exemplars"):
        if _same(entry.get("revision"), entry.get("response")):
            yield (
                source.line((*path, "revision")),
                "revision: same as the response; the exemplar teaches no change",
            )
    letters = []
    for path, entry in entries(source, "comparison", "exemplars"):
        letters.append(entry.get("better"))
        if _same(entry.get("a"), entry.get("b")):
            yield source.line((*path, "b")), "b: same as a; neither can be better"
    if len(letters) > 1 and letters.count(letters[0]) == len(letters):
        line = source.line(("comparison", "exemplars"))
        yield (
            line,
            f"exemplars: '{letters[0]}' is better in all of them; a judge learns the slot, so swap some",
        )


def _same(a: object, b: object) -> bool:
    return isinstance(a, str) and isinstance(b, str) and a.split() == b.split()


def _markup(source: Source, value: Any, path: FieldPath) -> Iterator[tuple[int, str]]:
    """Texts that a chat template or a transcript would take for its own markup."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if path or key in HALVES:
                yield from _markup(source, inner, (*path, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _markup(source, inner, (*path, index))
    elif isinstance(value, str):
        match = _MARKUP.search(value) or _SPEAKER.search(value)
        if match:
            yield (
                source.line(path),
                f"{path[-1]}: {match.group()!r} reads as chat markup in a prompt; reword it",
            )
