"""Two constitutions side by side: which principles came, went or changed, and which words of them."""

from __future__ import annotations

import difflib
import html
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from constitution.model import Constitution, CritiquePrinciple, Principle

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
                parts.append(f"{change.field} {_shown(change.old)} → {_shown(change.new)}")
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


def diff_markdown(result: ConstitutionDiff) -> str:
    """The diff as Markdown, safe to show where HTML is rendered: every text of a file is escaped."""
    lines = [f"# {_escaped(result.old.ref)} → {_escaped(result.new.ref)}", ""]
    if not result:
        return "\n".join([*lines, "No difference in meaning.", ""])
    for half in ("critique", "comparison"):
        changes = [change for change in result.changes if change.half == half]
        if changes:
            lines += [f"## {half.capitalize()} principles", ""]
        for change in changes:
            lines += [f"### {change.id}: {change.kind}", ""]
            if change.kind == "changed":
                lines += [f"- **{field.field}**: {_marked(field)}" for field in change.fields]
            else:
                principle = change.new or change.old
                assert principle is not None
                tag = "ins" if change.new else "del"
                lines += [f"- <{tag}>{_escaped(text)}</{tag}>" for text in _texts(principle)]
            lines.append("")
    if result.other:
        lines += ["## Beside the principles", "", *(f"- {text}" for text in result.other), ""]
    return "\n".join(lines)


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


def _texts(principle: Principle) -> tuple[str, ...]:
    if isinstance(principle, CritiquePrinciple):
        return principle.critique_request, principle.revision_request
    return (principle.question,)


def _marked(change: FieldChange) -> str:
    if not change.words:
        return f"{_escaped(_shown(change.old))} → {_escaped(_shown(change.new))}"
    tags = {"removed": "del", "added": "ins"}
    return " ".join(
        _escaped(run.text) if run.op == "same" else f"<{tags[run.op]}>{_escaped(run.text)}</{tags[run.op]}>"
        for run in change.words
    )


def _shown(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _escaped(text: str) -> str:
    """Neither HTML nor Markdown survives."""
    return re.sub(r"([\\`*_{}\[\]()#+!|~-])", r"\\\1", html.escape(text))
