"""Pairs whose better answer is known: the usual public formats, read into one.

- `{"prompt", "chosen", "rejected"}`: each a string or a list of messages. Our own export is one of these.
- `{"chosen", "rejected"}`: transcripts of turns that begin with "\\n\\nHuman: " and "\\n\\nAssistant: " (hh-rlhf), or
  lists of messages; everything but the last answer is shared.
- `{"input", "output_1", "output_2", "label"}`: label 1 or 2 (AlpacaFarm; `instruction` is put before `input`).
- `{"prompt", "corrects", "incorrects", "text_correct", "text_incorrect"}`: the prompt holds a conversation and
  bracketed options, `corrects` and `incorrects` the option letters.

A row may name its pair in `pair_id` or `id`. A file is JSONL or one JSON list, by its content; `.gz` is unpacked.
Which answer becomes `a` is decided by a hash of the pair, so that the known winner is `a` about half of the time.
"""

from __future__ import annotations

import gzip
import json
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from common.digest import digest
from judges.errors import JudgeError
from judges.records import Message, Pair

_TURN = re.compile(r"(?:^|\n\n)(Human|Assistant): ?")
_SPOKEN = re.compile(r"(?:^|\n)\s*(Human|H|User|Assistant|A|AI): ")
_OPTION = re.compile(r"(?:^|\n)\s*\(([A-Z])\)[ \t]*")
_ROLES = {
    "Human": "user",
    "H": "user",
    "User": "user",
    "Assistant": "assistant",
    "A": "assistant",
    "AI": "assistant",
}
MOST_SKIPPED = 0.1


@dataclass(frozen=True, kw_only=True)
class KnownPair:
    """A pair and its better response, "a" or "b"."""

    pair: Pair
    winner: Literal["a", "b"]

    def renamed(self, name: str) -> KnownPair:
        """The same under another id."""
        return replace(self, pair=replace(self.pair, id=name))

    def to_row(self) -> dict[str, Any]:
        """The line of a file of known pairs, `{"id", "prompt", "chosen", "rejected"}`."""
        texts = {"a": self.pair.a, "b": self.pair.b}
        return {
            "id": self.pair.id,
            "prompt": [dict(m) for m in self.pair.prompt],
            "chosen": texts.pop(self.winner),
            "rejected": next(iter(texts.values())),
        }


@dataclass(frozen=True, kw_only=True)
class KnownPairs:
    """The pairs of a file, and one line for every row that was passed over."""

    pairs: tuple[KnownPair, ...]
    skipped: tuple[str, ...] = ()


def read_known_pairs(path: Path, *, limit: int | None = None) -> KnownPairs:
    """All pairs of a file, or the first `limit`.

    Public sets have a few rows that do not fit their own format: these are passed over and named. Raises
    JudgeError when more than a tenth of the rows are, and when the file is no JSON.
    """
    pairs: list[KnownPair] = []
    skipped: list[str] = []
    for line, row in _rows(path):
        if limit is not None and len(pairs) >= limit:
            break
        try:
            pairs.append(known_pair(row))
        except JudgeError as error:
            skipped.append(f"{path}:{line}: {error}")
    if not pairs or len(skipped) > (len(pairs) + len(skipped)) * MOST_SKIPPED:
        detail = f"; first: {skipped[0]}" if skipped else ""
        raise JudgeError(f"{path}: {len(skipped)} of {len(pairs) + len(skipped)} rows are no pairs{detail}")
    return KnownPairs(pairs=tuple(pairs), skipped=tuple(skipped))


def known_pair(row: Any) -> KnownPair:
    """One pair from one row of any of the formats. Raises JudgeError that names the field."""
    if not isinstance(row, Mapping):
        raise JudgeError(f"expected an object, found {type(row).__name__}")
    if {"output_1", "output_2", "label"} <= row.keys():
        return _numbered(row)
    if {"corrects", "incorrects"} <= row.keys():
        return _multiple_choice(row)
    if not {"chosen", "rejected"} <= row.keys():
        raise JudgeError(
            f"fields {', '.join(sorted(map(str, row)))} are none of prompt/chosen/rejected, chosen/rejected, "
            "input/output_1/output_2/label, prompt/corrects/incorrects"
        )
    if "prompt" in row:
        prompt = _messages(row["prompt"], "prompt")
        return _made(row, prompt, _answer(row["chosen"], "chosen"), _answer(row["rejected"], "rejected"))
    chosen, rejected = (_messages(row[name], name) for name in ("chosen", "rejected"))
    if chosen[:-1] != rejected[:-1] or len(chosen) < 2:
        raise JudgeError("chosen and rejected: the conversations differ before their last turn")
    return _made(row, chosen[:-1], _last_answer(chosen, "chosen"), _last_answer(rejected, "rejected"))


def transcript_messages(text: str) -> tuple[Message, ...]:
    """The turns of an hh-rlhf transcript. A marker inside a turn that is not after a blank line is text."""
    parts = _TURN.split(text)
    if len(parts) < 3 or parts[0].strip():
        raise JudgeError("expected turns that begin with '\\n\\nHuman: ' and '\\n\\nAssistant: '")
    turns = zip(parts[1::2], parts[2::2], strict=True)
    return tuple({"role": _ROLES[name], "content": content.strip()} for name, content in turns)


def _numbered(row: Mapping[str, Any]) -> KnownPair:
    label = row["label"]
    if label not in (1, 2, "1", "2"):
        raise JudgeError(f"label: {label!r} is not 1 or 2")
    asked = "\n\n".join(_text(row[k], k) for k in ("instruction", "input") if row.get(k))
    if not asked:
        raise JudgeError("input: is missing or empty")
    outputs = [_text(row["output_1"], "output_1"), _text(row["output_2"], "output_2")]
    best = outputs.pop(int(label) - 1)
    return _made(row, ({"role": "user", "content": asked},), best, outputs[0])


def _multiple_choice(row: Mapping[str, Any]) -> KnownPair:
    text = _text(row.get("prompt"), "prompt")
    marks = list(_OPTION.finditer(text))
    if len(marks) < 2:
        raise JudgeError("prompt: no options such as '(A) …' at the beginning of lines")
    ends = [m.start() for m in marks[1:]] + [len(text)]
    options = {m.group(1): text[m.end() : end] for m, end in zip(marks, ends, strict=True)}
    last = marks[-1].group(1)
    # What follows the last option belongs to the prompt's frame: "\n\nAssistant: The answer is:".
    options[last] = _TURN.split(options[last])[0]
    answers = []
    for field, name in (("corrects", "text_correct"), ("incorrects", "text_incorrect")):
        letters = row[field]
        letter = str(letters[0]).strip(" ()") if isinstance(letters, list) and letters else None
        if letter not in options:
            raise JudgeError(f"{field}: {letters!r} names no option of the prompt ({', '.join(options)})")
        given = row.get(name)
        answers.append(_text(given, name) if given else options[letter].strip())
    return _made(row, _quoted_conversation(text[: marks[0].start()]), answers[0], answers[1])


def _quoted_conversation(text: str) -> tuple[Message, ...]:
    """The conversation inside a multiple-choice prompt, up to its last human turn; the whole text if there is none."""
    inner = (
        _TURN.split(text)[-1]
        if text.startswith(("\n\nHuman:", "Human:")) and text.count("Human:") < 2
        else text
    )
    parts = _SPOKEN.split(inner)
    turns = [(_ROLES[n], c.strip()) for n, c in zip(parts[1::2], parts[2::2], strict=True)]
    while turns and (turns[0][0] != "user" or _is_frame(turns[0][1])):
        turns.pop(0)
    while turns and turns[-1][0] != "user":
        turns.pop()
    if not turns:
        return ({"role": "user", "content": inner.strip()},)
    role, content = turns[-1]
    # The question about the options stands in the paragraph after the last turn.
    turns[-1] = (role, content.split("\n\n")[0].strip() or content)
    return tuple({"role": role, "content": content} for role, content in turns)


def _is_frame(text: str) -> bool:
    return text.rstrip().endswith(":") and "conversation" in text


def _made(row: Mapping[str, Any], prompt: tuple[Message, ...], best: str, worst: str) -> KnownPair:
    if best == worst:
        raise JudgeError("both answers are the same")
    if not prompt or prompt[-1]["role"] != "user":
        raise JudgeError("prompt: does not end with the user's turn")
    texts = sorted([best, worst])
    content = digest([[dict(m) for m in prompt], texts])
    # Not by which is better: people who disagree about a pair speak of the same one.
    a, b = texts if int(content[-1], 16) % 2 == 0 else reversed(texts)
    name = next((row[k] for k in ("pair_id", "id") if row.get(k) not in (None, "")), f"known-{content[:16]}")
    return KnownPair(pair=Pair(id=str(name), prompt=prompt, a=a, b=b), winner="a" if a == best else "b")


def _messages(value: Any, field: str) -> tuple[Message, ...]:
    """Messages from a list of them, a transcript, or plain text (the user's one turn)."""
    if isinstance(value, str):
        if field != "prompt":
            return transcript_messages(value)
        if not value.lstrip("\n").startswith("Human:"):
            return ({"role": "user", "content": value},)
        return _without_open_turn(transcript_messages(value))
    if not isinstance(value, list) or not value:
        raise JudgeError(f"{field}: expected a string or a list of messages")
    for message in value:
        if not isinstance(message, Mapping) or message.get("role") not in ("user", "assistant", "system"):
            raise JudgeError(f"{field}: a message needs a role (user, assistant or system) and a content")
        _text(message.get("content"), f"{field}.content")
    return tuple({"role": m["role"], "content": m["content"]} for m in value)


def _without_open_turn(messages: tuple[Message, ...]) -> tuple[Message, ...]:
    """A prompt may end with an empty "Assistant:", where the answer would begin."""
    return messages[:-1] if messages[-1] == {"role": "assistant", "content": ""} else messages


def _answer(value: Any, field: str) -> str:
    """The answer itself, from a string or a list of messages that ends with it."""
    return _text(value, field) if isinstance(value, str) else _last_answer(_messages(value, field), field)


def _last_answer(messages: Sequence[Message], field: str) -> str:
    if messages[-1]["role"] != "assistant":
        raise JudgeError(f"{field}: does not end with the assistant's answer")
    return messages[-1]["content"]


def _text(value: Any, field: str) -> str:
    if not isinstance(value, str):
        raise JudgeError(f"{field}: expected text, found {type(value).__name__}")
    return value


def _rows(path: Path) -> Iterator[tuple[int, Any]]:
    """(line, row) of a JSONL file, or (number, row) of a JSON list."""
    try:
        raw = path.read_bytes()
        text = (gzip.decompress(raw) if path.suffix == ".gz" else raw).decode("utf-8")
    except (OSError, UnicodeDecodeError, EOFError, zlib.error) as error:
        raise JudgeError(f"{path}: {getattr(error, 'strerror', None) or error}") from None
    if text.lstrip().startswith("["):
        yield from enumerate(_json(text, path, 1), start=1)
        return
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield number, _json(line, path, number)


def _json(text: str, path: Path, line: int) -> Any:
    """The value of `text`, which begins on `line`."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        at = line + getattr(error, "lineno", 1) - 1
        raise JudgeError(f"{path}:{at}: not JSON: {getattr(error, 'msg', error)}") from None
