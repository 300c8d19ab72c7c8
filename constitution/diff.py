"""Two constitutions side by side: which principles came, went or changed, and which words of them."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from constitution.model import Constitution, Principle

TEXT_FIELDS = ("critique_request", "revision_request", "question", "note")


@dataclass(frozen=True, kw_only=True)
class Words:
    """A run of words: `op` is "same", "removed" or "added"."""

    op: str
    text: str


@dataclass(frozen=True, kw_only=True)
class FieldChange:
    """One field of one principle, before and after; for texts, `words` marks the difference."""

    field: str
    old: object
    new: object
    words: tuple[Words, ...] = ()


@dataclass(frozen=True, kw_only=True)
class PrincipleChange:
    """`kind` is "added", "removed" or "changed"; `half` is "critique" or "comparison"."""

    half: str
    id: str
    kind: str
    old: Principle | None
    new: Principle | None
    fields: tuple[FieldChange, ...] = ()

    @property
    def summary(self) -> str:
        """One line, such as `comparison brevity: question changed`."""
        if self.kind != "changed":
            return f"{self.half} {self.id}: {self.kind}"
        switch = next((f for f in self.fields if f.field == "enabled"), None)
        parts = [] if switch is None else ["enabled" if switch.new else "disabled"]
        for change in self.fields:
            if change.field in TEXT_FIELDS:
                parts.append(f"{change.field.replace('_', ' ')} changed")
            elif change.field != "enabled":
                parts.append(f"{change.field} {shown(change.old)} → {shown(change.new)}")
        return f"{self.half} {self.id}: {', '.join(parts)}"


@dataclass(frozen=True, kw_only=True)
class ConstitutionDiff:
    """What differs; `other` lists what is not a principle (exemplars, description, metadata)."""

    old: Constitution
    new: Constitution
    changes: tuple[PrincipleChange, ...]
    other: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.changes or self.other)


def diff(old: Constitution, new: Constitution) -> ConstitutionDiff:
    """Compare by principle id, in the order of the new file, then what was removed."""
    changes = [
        *_changes("critique", old.critique, new.critique),
        *_changes("comparison", old.comparison, new.comparison),
    ]
    other = []
    for half in ("critique", "comparison"):
        before, after = getattr(old, f"{half}_exemplars"), getattr(new, f"{half}_exemplars")
        if before != after:
            other.append(f"{half} exemplars changed ({len(before)} → {len(after)})")
    other += [
        f"{field} changed"
        for field in ("description", "metadata")
        if getattr(old, field) != getattr(new, field)
    ]
    return ConstitutionDiff(old=old, new=new, changes=tuple(changes), other=tuple(other))


def summarize(old: Constitution, new: Constitution) -> list[str]:
    """One line for each change, as the changelog lists them."""
    result = diff(old, new)
    return [change.summary for change in result.changes] + list(result.other)


def word_diff(old: str, new: str) -> tuple[Words, ...]:
    """The words of both texts in order, each run marked as same, removed or added."""
    a, b = re.findall(r"\S+", old), re.findall(r"\S+", new)
    runs: list[Words] = []
    for op, i1, i2, j1, j2 in difflib.SequenceMatcher(None, a, b, autojunk=False).get_opcodes():
        if op == "equal":
            runs.append(Words(op="same", text=" ".join(a[i1:i2])))
            continue
        if i1 < i2:
            runs.append(Words(op="removed", text=" ".join(a[i1:i2])))
        if j1 < j2:
            runs.append(Words(op="added", text=" ".join(b[j1:j2])))
    return tuple(runs)


def _changes(half: str, old: Sequence[Principle], new: Sequence[Principle]) -> Iterator[PrincipleChange]:
    before, after = {p.id: p for p in old}, {p.id: p for p in new}
    for name, principle in after.items():
        if name not in before:
            yield PrincipleChange(half=half, id=name, kind="added", old=None, new=principle)
        elif before[name] != principle:
            fields = tuple(_field_changes(before[name], principle))
            yield PrincipleChange(
                half=half, id=name, kind="changed", old=before[name], new=principle, fields=fields
            )
    for name, principle in before.items():
        if name not in after:
            yield PrincipleChange(half=half, id=name, kind="removed", old=principle, new=None)


def _field_changes(old: Principle, new: Principle) -> Iterator[FieldChange]:
    for field in old.__dataclass_fields__:
        before, after = getattr(old, field), getattr(new, field)
        if before != after:
            words = word_diff(before, after) if field in TEXT_FIELDS else ()
            yield FieldChange(field=field, old=before, new=after, words=words)


def shown(value: object) -> str:
    """A field's value in a message: 2 instead of 2.0."""
    return f"{value:g}" if isinstance(value, float) else str(value)
