"""Reading data sets: JSONL (also gzipped) and Parquet, each problem one line with file, row and column."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from training.errors import TrainingError

ROLES = ("system", "user", "assistant")
_SPEAKER = re.compile(r"\n\n(Human|Assistant):")


@dataclass(frozen=True, kw_only=True)
class Example:
    """A conversation to imitate; its last message is the assistant's."""

    id: str
    messages: list[dict[str, str]]


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """A conversation that awaits the assistant's answer, with whatever the file says about it."""

    id: str
    prompt: list[dict[str, str]]
    meta: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Preference:
    """Two answers to one prompt. `p` is the probability that `chosen` is the better one.

    Or, for KTO, a lone answer: `rejected` is None, and `p` the probability that `chosen` is a desirable answer.
    """

    id: str
    prompt: list[dict[str, str]]
    chosen: str
    rejected: str | None
    p: float
    status: str = "ok"
    source: str = ""


def read_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Rows of a JSONL, JSONL.gz or Parquet file, each with the place to name in an error (`file:line`).

    Raises TrainingError.
    """
    path = Path(path)
    if not path.exists():
        raise TrainingError(f"{path}: no such file")
    suffixes = path.suffixes
    if suffixes[-1:] == [".parquet"]:
        yield from _parquet_rows(path)
        return
    if suffixes[-1:] != [".jsonl"] and suffixes[-2:] != [".jsonl", ".gz"]:
        raise TrainingError(f"{path}: unknown kind of file; .jsonl, .jsonl.gz and .parquet are read")
    try:
        with gzip.open(path, "rb") if suffixes[-1] == ".gz" else path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield f"{path}:{number}", _json_row(line, f"{path}:{number}")
    except (OSError, EOFError) as error:
        raise TrainingError(f"{path}: cannot be read: {error}") from error


def read_examples(paths: Sequence[Path]) -> list[Example]:
    """SFT data: `messages` (the last one the assistant's), and `id` if the rows carry one."""
    examples = []
    for place, row in _all_rows(paths):
        messages = _messages(row, "messages", place)
        if messages[-1]["role"] != "assistant":
            raise TrainingError(
                f"{place}: messages: the last message is the {messages[-1]['role']}'s, not the assistant's"
            )
        examples.append(Example(id=str(row.get("id", place)), messages=messages))
    return examples


def read_prompts(paths: Sequence[Path]) -> list[Prompt]:
    """Prompts for sampling: `prompt` (ending in a user turn), and `id` and `meta` if the rows carry them."""
    prompts = []
    for place, row in _all_rows(paths):
        messages = _messages(row, "prompt", place)
        if messages[-1]["role"] != "user":
            raise TrainingError(
                f"{place}: prompt: the last message is the {messages[-1]['role']}'s, not the user's"
            )
        prompts.append(Prompt(id=str(row.get("id", place)), prompt=messages, meta=row.get("meta") or {}))
    return prompts


def read_preferences(paths: Sequence[Path], *, lone_answers: bool = False) -> list[Preference]:
    """Preference pairs: `prompt`, `chosen`, `rejected`, and the soft label `p` (1 where there is none).

    Takes the conversational layout of `datasets` and TRL, and plain strings. A row without `prompt`, whose
    `chosen` and `rejected` are whole conversations, or transcripts of turns that begin with a blank line and
    "Human:" or "Assistant:" (as in hh-rlhf), gets the turns that the two share as its prompt.

    With `lone_answers`, rows of `prompt`, `completion` and `label` (true or false) too, TRL's unpaired layout.
    """
    preferences = []
    for place, row in _all_rows(paths):
        if lone_answers and "completion" in row:
            preferences.append(_lone_answer(row, place))
            continue
        chosen, rejected = (_answer(row, name, place) for name in ("chosen", "rejected"))
        if "prompt" in row:
            prompt = _messages(row, "prompt", place)
        elif chosen[:-1] and chosen[:-1] == rejected[:-1]:
            prompt, chosen, rejected = chosen[:-1], chosen[-1:], rejected[-1:]
        else:
            raise TrainingError(f"{place}: column prompt is missing, and chosen and rejected share no turns")
        if len(chosen) != 1 or len(rejected) != 1:
            raise TrainingError(
                f"{place}: chosen and rejected must each be one assistant message after the prompt"
            )
        p = row.get("p", 1.0)
        status = str(row.get("status") or "ok")
        if p is None and status != "ok":
            p = 0.5  # a label that failed carries no preference; it is counted and never trained on
        if isinstance(p, bool) or not isinstance(p, (int, float)) or not 0 <= p <= 1:
            raise TrainingError(f"{place}: p: {p!r} is not a probability between 0 and 1")
        preferences.append(
            Preference(
                id=str(row.get("pair_id", row.get("id", place))),
                prompt=prompt,
                chosen=chosen[0]["content"],
                rejected=rejected[0]["content"],
                p=float(p),
                status=status,
                source=place.rsplit(":", 1)[0],
            )
        )
    return preferences


def _lone_answer(row: dict[str, Any], place: str) -> Preference:
    prompt, answer = _messages(row, "prompt", place), _answer(row, "completion", place)
    if len(answer) != 1:
        raise TrainingError(f"{place}: completion must be one assistant message after the prompt")
    status, label = str(row.get("status") or "ok"), row.get("label")
    if label is None and status != "ok":
        label = 0.5
    elif not isinstance(label, bool):
        raise TrainingError(f"{place}: label: {label!r} is not true or false")
    return Preference(
        id=str(row.get("id", place)),
        prompt=prompt,
        chosen=answer[0]["content"],
        rejected=None,
        p=float(label),
        status=status,
        source=place.rsplit(":", 1)[0],
    )


def _all_rows(paths: Sequence[Path]) -> Iterator[tuple[str, dict[str, Any]]]:
    empty = True
    for path in paths:
        for place, row in read_rows(path):
            empty = False
            yield place, row
    if empty:
        raise TrainingError(f"{', '.join(map(str, paths))}: no rows")


def _json_row(line: bytes, place: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except UnicodeDecodeError as error:
        raise TrainingError(f"{place}: is not UTF-8") from error
    except ValueError as error:
        raise TrainingError(f"{place}: is not JSON: {error}") from error
    if not isinstance(row, dict):
        raise TrainingError(f"{place}: expected an object, got {type(row).__name__}")
    return row


def _parquet_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    import pyarrow
    import pyarrow.parquet

    number = 0
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches():
                for row in batch.to_pylist():
                    number += 1
                    yield f"{path}:{number}", row
    except (pyarrow.ArrowException, OSError) as error:
        raise TrainingError(f"{path}: is not Parquet: {' '.join(str(error).split())}") from error


def _messages(row: dict[str, Any], column: str, place: str) -> list[dict[str, str]]:
    if column not in row:
        raise TrainingError(
            f"{place}: column {column} is missing; found {', '.join(sorted(row)) or 'nothing'}"
        )
    value = row[column]
    if isinstance(value, str) and column == "prompt":
        return [{"role": "user", "content": value}]
    if not isinstance(value, list) or not value:
        raise TrainingError(f"{place}: {column}: expected a list of messages, got {_kind(value)}")
    for message in value:
        if not isinstance(message, dict) or not {"role", "content"} <= message.keys():
            raise TrainingError(f"{place}: {column}: each message needs role and content")
        if message["role"] not in ROLES:
            raise TrainingError(
                f"{place}: {column}: role {message['role']!r} is not one of {', '.join(ROLES)}"
            )
        if not isinstance(message["content"], str):
            raise TrainingError(f"{place}: {column}: content must be text, got {_kind(message['content'])}")
    return [{"role": message["role"], "content": message["content"]} for message in value]


def _answer(row: dict[str, Any], column: str, place: str) -> list[dict[str, str]]:
    if isinstance(row.get(column), str):
        if "prompt" not in row and row[column].startswith("\n\nHuman:"):
            return _turns(row[column])
        return [{"role": "assistant", "content": row[column]}]
    messages = _messages(row, column, place)
    if messages[-1]["role"] != "assistant":
        raise TrainingError(
            f"{place}: {column}: the last message is the {messages[-1]['role']}'s, not the assistant's"
        )
    return messages


def _turns(transcript: str) -> list[dict[str, str]]:
    parts = _SPEAKER.split(transcript)
    roles = {"Human": "user", "Assistant": "assistant"}
    turns: list[dict[str, str]] = []
    for speaker, text in zip(parts[1::2], parts[2::2], strict=True):
        if turns and turns[-1]["role"] == roles[speaker]:
            # A model that went on in both roles wrote the label itself: it is part of that turn's text.
            turns[-1]["content"] += f"\n\n{speaker}:{text.rstrip()}"
        else:
            turns.append({"role": roles[speaker], "content": text.strip()})
    return turns


def _kind(value: Any) -> str:
    return "an empty list" if value == [] else "nothing" if value is None else type(value).__name__
