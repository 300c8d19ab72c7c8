"""The readers: prompts, examples and preferences from files of any known format.

What a row says is read in the same way whoever asks. A row that is malformed is refused in a line with its place. A
row that is well-formed and of no use to the one who asks is left out, counted and named: a tie, two equal answers, a
conversation without an answer, two that part before their last answers, a prompt that came before.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from common.digest import digest
from common.errors import DataError
from common.rows.compare import EMPTY, TIE, Content, among
from common.rows.formats import Format, content_of, missing_field
from common.rows.parsers import lone_answer_row
from common.rows.records import Example, LeftOut, Preference, Prompt, Rows
from common.rows.source import Row, fail, kind, read_rows
from common.rows.turns import Turns

R = TypeVar("R")
Paths = Path | Sequence[Path]
STATUSES = ("ok", "tie", "inconsistent", "no_answer", "refused", "truncated", "timeout", "error")
"""The statuses of a label of ours."""
SAME_PROMPT = "asks the same as an earlier row"


def read_prompts(paths: Paths, *, limit: int | None = None, skip: int = 0) -> Rows[Prompt]:
    """The first `limit` distinct prompts after the first `skip`. What stands before a last answer is asked.

    Reference answers, a text under `reference` or a list under `references`, become `meta["references"]`. A row
    without an `id` is named by its text. Raises DataError.
    """
    found = _Found[Prompt](paths, "prompts", None if limit is None else skip + limit)
    asked: set[str] = set()
    for place, row in found.rows():
        _, content = content_of(row, place)
        prompt = content.prompt
        name = digest(prompt)
        if not prompt or prompt[-1]["role"] != "user":
            found.leave(place, "no user turn stands at the end, before the answer")
        elif not prompt[-1]["content"].strip():
            found.leave(place, EMPTY)
        elif name in asked:
            found.leave(place, SAME_PROMPT)
        else:
            asked.add(name)
            identifier = found.identify(row, place, ("id",), name) or name[:16]
            found.note(place, content.note if "chosen" not in row else "")
            found.add(Prompt(id=identifier, prompt=prompt, meta=_meta(row, place), place=place))
    return found.result(skip)


def read_examples(paths: Paths) -> Rows[Example]:
    """Conversations whose last turn is the assistant's. Raises DataError, also for a file of comparisons."""
    found = _Found[Example](paths, "demonstrations")
    for place, row in found.rows():
        known, content = content_of(row, place)
        turns = content.conversation
        if turns is None:
            raise DataError(
                f"{place}: holds {known.title} ({', '.join(sorted(row))}), no demonstration; these are messages, "
                "conversations, prompt and completion, or instruction and output"
            )
        if turns[-1]["role"] != "assistant":
            found.leave(place, f"the last turn is the {turns[-1]['role']}'s, not the assistant's")
        elif content.label is False:
            found.leave(place, "the answer is labelled as undesirable")
        else:
            name = digest(turns)
            found.add(
                Example(
                    id=found.identify(row, place, ("id",), name) or name[:16], messages=turns, place=place
                )
            )
    return found.result()


def read_preferences(
    paths: Paths, *, lone_answers: bool = False, limit: int | None = None
) -> Rows[Preference]:
    """The first `limit` pairs with the probability `p` that the chosen answer is better (1 where none is given).

    Our own export carries `p` and `status`; a label that failed has no `p`, and is read with p = 0.5 so that it can be
    counted. Of ranked and scored answers every pair with a better one is read. With `lone_answers`, rows of `prompt`,
    `completion` and `label` (true or false) too, TRL's unpaired layout. Raises DataError.
    """
    found = _Found[Preference](paths, "preferences", limit)
    scored: list[tuple[str, Row, Content]] = []
    for place, row in found.rows():
        known, content = content_of(row, place)
        if scored and (content.score is None or content.prompt != scored[0][2].prompt):
            _compare_scored(scored, found)
        if content.score is not None:
            scored.append((place, row, content))
        elif lone_answers and known.read is lone_answer_row:
            _add_lone(row, place, content, found)
        elif not known.compares:
            raise DataError(_no_comparison(known, row, place, lone_answers))
        else:
            _add_pairs(row, place, content, found)
    if scored:
        _compare_scored(scored, found)
    return found.result()


def report_left_out(rows: Rows[R]) -> Rows[R]:
    """The same rows, after a line on stderr for each reason for which some were left out (on the main process)."""
    if os.environ.get("RANK", "0") == "0":
        for line in rows.told():
            print(line, file=sys.stderr)
    return rows


class _Found(list[R]):
    """Records as they are found, with what is left out, and the ids that were given."""

    def __init__(self, paths: Paths, what: str, limit: int | None = None) -> None:
        super().__init__()
        self.paths = [paths] if isinstance(paths, Path) else [Path(path) for path in paths]
        self.what, self.limit, self.path = what, limit, Path()
        self.left_out: list[LeftOut] = []
        self.notes: list[LeftOut] = []
        self._ids: dict[str, tuple[str, str]] = {}

    def rows(self) -> Iterator[tuple[str, Row]]:
        for path in self.paths:
            self.path, self._ids = path, {}
            for place, row in read_rows(path):
                if self.limit is not None and len(self) >= self.limit:
                    return
                yield place, row

    add = list.append

    def leave(self, place: str, reason: str) -> None:
        self.left_out.append(LeftOut(place=place, reason=reason))

    def note(self, place: str, text: str) -> None:
        if text:
            self.notes.append(LeftOut(place=place, reason=text))

    def identify(self, row: Row, place: str, names: Sequence[str], content: str) -> str | None:
        """The row's own id, "" and null being none. Raises DataError for one that returns with other content."""
        name = next((name for name in names if row.get(name) not in (None, "")), None)
        if name is None:
            return None
        value = row[name]
        if isinstance(value, bool) or not isinstance(value, (str, int, float)):
            fail(place, name, f"expected text or a number, got {kind(value)}")
        given = str(value)
        if isinstance(row.get("subset"), str):
            given = f"{row['subset']}/{given}"  # RewardBench counts anew in every subset
        before, first = self._ids.setdefault(given, (content, place))
        if before != content:
            fail(place, name, f"{given[:60]!r} was already used for another row, {first}")
        return given

    def result(self, skip: int = 0) -> Rows[R]:
        if self and len(self) <= skip:
            raise DataError(f"{self.paths[0]}: has {len(self)} {self.what}, and skip leaves out {skip}")
        read = Rows(tuple(self[skip : self.limit]), tuple(self.left_out), tuple(self.notes))
        if not read:
            why = "".join(f"; {line}" for line in read.told()[:2])
            raise DataError(f"{', '.join(map(str, self.paths))}: holds no {self.what}{why}")
        return read


def _add_pairs(row: Row, place: str, content: Content, found: _Found[Preference]) -> None:
    p, status = _label(row, place)
    if content.why_no_pair or (p is None and status == "tie"):
        found.leave(place, content.why_no_pair or TIE)
        return
    if (end := content.prompt[-1:]) and end[0]["role"] == "user" and not end[0]["content"].strip():
        found.leave(place, EMPTY)
        return
    found.note(place, content.note)
    for number, (better, worse, own) in enumerate(content.pairs, 1):
        key = pair_digest(content.prompt, better, worse)
        several = len(content.pairs) > 1
        identifier = found.identify(row, place, ("pair_id", "id"), "" if several else key)
        if identifier is not None and several:
            identifier = f"{identifier}:{number}"
        found.add(
            Preference(
                id=identifier or f"known-{key[:16]}",
                prompt=content.prompt,
                chosen=better,
                rejected=worse,
                p=own if p is None else p,
                status=status,
                source=str(found.path),
                place=place,
                named=row.get("pair_id") not in (None, ""),
            )
        )


def pair_digest(prompt: Turns, first: str, second: str) -> str:
    """sha256 of a conversation and two answers, in whichever order."""
    return digest([prompt, sorted([first, second])])


def _compare_scored(scored: list[tuple[str, Row, Content]], found: _Found[Preference]) -> None:
    """The pairs of neighbouring rows that score answers to one prompt."""
    graded = [(content.answer or "", content.score or 0.0) for _, _, content in scored]
    place, row, _ = scored[-1]
    _add_pairs({**row, "id": None, "pair_id": None}, place, among(scored[0][2].prompt, graded), found)
    scored.clear()


def _label(row: Row, place: str) -> tuple[float | None, str]:
    """The row's own `p`, if it has one, and its status."""
    status = row.get("status")
    if status is None:
        status = "ok"
    if not isinstance(status, str) or not status:
        fail(place, "status", f"expected text, got {kind(status)}")
    if "p" not in row:
        # Other people's words for how a row came about are no status of a label.
        return None, status if status in STATUSES else "ok"
    p = row["p"]
    if isinstance(p, str):
        p = _parsed(p)
    if p is None and status != "ok":
        return 0.5, status  # a label that failed carries no preference; it is counted and never trained on
    if isinstance(p, bool) or not isinstance(p, (int, float)) or not 0 <= p <= 1:
        shown = kind(p) if p is None or isinstance(p, bool) else repr(p)[:60]
        fail(place, "p", f"{shown} is not a probability between 0 and 1")
    return float(p), status


def _parsed(text: str) -> Any:
    try:
        return float(text)
    except ValueError:
        return text


def _add_lone(row: Row, place: str, content: Content, found: _Found[Preference]) -> None:
    if content.answer is None:
        found.leave(place, content.why_no_pair)
        return
    _, status = _label({**row, "p": 1.0}, place)
    label: Any = content.label
    if label is None and status != "ok":
        label = 0.5
    elif not isinstance(label, bool):
        problem = (
            "is missing; true or false is needed" if label is None else f"{label!r} is not true or false"
        )
        fail(place, "label", problem)
    # Good and bad answers made of one pair often share its id: no id is held to one content here.
    name = found.identify(row, place, ("id",), "")
    found.add(
        Preference(
            id=name or digest([content.prompt, content.answer])[:16],
            prompt=content.prompt,
            chosen=content.answer,
            rejected=None,
            p=float(label),
            status=status,
            source=str(found.path),
            place=place,
        )
    )


def _no_comparison(known: Format, row: Row, place: str, lone_answers: bool) -> str:
    present = frozenset(name for name, value in row.items() if value is not None)
    hint = missing_field(present, compares=True)
    if "completion" in row and not lone_answers:
        hint = " (unpaired answers are for KTO)"
    found = ", ".join(sorted(present))
    return f"{place}: holds {known.title} ({found}), no two answers to compare{hint}"


def _meta(row: Row, place: str) -> dict[str, Any]:
    meta = row.get("meta")
    if meta is None:
        meta = {}
    if not isinstance(meta, dict):
        fail(place, "meta", f"expected an object, got {kind(meta)}")
    name = "references" if row.get("references") is not None else "reference"
    found = row.get(name)
    if found is None or found == []:
        return meta
    found = [found] if isinstance(found, str) else found
    if not isinstance(found, list) or not all(isinstance(text, str) for text in found):
        fail(place, name, "expected a text, or a list of texts")
    return {**meta, "references": found}
