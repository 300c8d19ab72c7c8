"""Sampling from a model in parts that survive a kill: a finished part is a file and is not drawn again.

Of a part that servers draw, each finished text is kept at once: the part's seed and its own number decide it.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from common.files import write_json, write_jsonl
from flows.runs.digests import digest_json
from flows.runs.pace import Pace
from flows.stages.contract import Json, StageInput
from flows.stages.samplers import Answer, Messages, Sampler

# Part of what decides the answers (each part has a seed of its own), so not a setting.
PART = 512
_POLL_SECONDS = 0.2
_NOTHING: Json = {"texts": 0, "prompt_tokens": 0, "completion_tokens": 0, "seconds": 0.0}


def sample_in_parts(
    work: StageInput,
    name: str,
    sampler: Sampler,
    conversations: Sequence[Messages],
    settings: Mapping[str, Any],
    *,
    batch_size: int,
    kind: str | None = None,
) -> list[Answer]:
    """Answers to all conversations, part by part; `kind` is what they are called in `spent`, by default their name.

    Parts on disk from an interrupted attempt are read back. Of several processes each draws every `world`-th
    part and waits for the others'.
    """
    pace = Pace(len(conversations))
    kind = kind or re.sub(r"-\d+$", "", name)
    parts = [conversations[start : start + PART] for start in range(0, len(conversations), PART)]
    paths = [work.directory / "parts" / f"{name}-{index:06d}.jsonl" for index in range(len(parts))]
    for index in range(work.rank, len(parts), work.world):
        if _read_part(paths[index], parts[index]) is None:
            at, began = index * PART, time.monotonic()
            drawn = _draw_part(
                paths[index],
                sampler,
                parts[index],
                settings,
                batch_size=batch_size,
                seed=part_seed(work, name, index),
                on_progress=lambda done, tokens, at=at: work.progress(  # type: ignore[misc]
                    at + done, len(conversations), f"{name}  {pace(at + done, tokens)}".rstrip()
                ),
            )
            spent = {"kind": kind, "seconds": round(time.monotonic() - began, 3)}
            write_json(paths[index].with_suffix(".spent.json"), spent)
            asked = digest_json(_plain(parts[index]))
            write_jsonl(paths[index], ({"asked": asked, **vars(answer)} for answer in drawn))
            pace.add(sum(answer.completion_tokens for answer in drawn))
    answers: list[Answer] = []
    for path, part in zip(paths, parts, strict=True):
        while (found := _read_part(path, part)) is None:  # another process is drawing it
            time.sleep(_POLL_SECONDS)
        answers += found
    work.progress(len(conversations), len(conversations), name)
    return answers


def spent(work: StageInput) -> dict[str, Json]:
    """Of the texts that this stage drew, by kind: how many, their tokens, and the seconds of all processes together."""
    found: dict[str, Json] = {}
    for path in sorted((work.directory / "parts").glob("*.spent.json")):
        told = json.loads(path.read_text(encoding="utf-8"))
        texts = path.with_name(path.name.removesuffix(".spent.json") + ".jsonl")
        if not texts.exists():
            continue
        rows = [json.loads(line) for line in texts.read_text(encoding="utf-8").split("\n") if line]
        kind = found.setdefault(told["kind"], dict(_NOTHING))
        kind["texts"] += len(rows)
        for name in ("prompt_tokens", "completion_tokens"):
            kind[name] += sum(row.get(name, 0) for row in rows)
        kind["seconds"] = round(kind["seconds"] + told["seconds"], 3)
    return found


def part_seed(work: StageInput, name: str, index: int) -> int:
    """The seed of one part: a different one for every stage, purpose and part, the same in every attempt."""
    return int(digest_json([work.seed, work.stage, name, index])[:7], 16)


def _draw_part(
    path: Path,
    sampler: Sampler,
    part: Sequence[Messages],
    settings: Mapping[str, Any],
    *,
    batch_size: int,
    seed: int,
    on_progress: Callable[[int, int], None],
) -> list[Answer]:
    """The answers of a part, of which each that a server gave is kept beside `path` until all are there."""
    kept = _Kept(path.with_suffix(".begun"), part)
    found = kept.read() if sampler.keeps_each else {}
    rows = [row for row in range(len(part)) if row not in found]
    if rows:
        tokens = 0

        def finished(place: int, answer: Answer) -> None:
            nonlocal tokens
            found[rows[place]] = answer
            tokens += answer.completion_tokens
            if sampler.keeps_each:
                kept.add(rows[place], answer)

        done = len(found)
        drawn = sampler.draw(
            [part[row] for row in rows],
            settings,
            batch_size=batch_size,
            seed=seed,
            rows=rows,
            on_progress=lambda n, _: on_progress(done + n, tokens),
            on_answer=finished,
        )
        found |= dict(zip(rows, drawn, strict=True))
    kept.drop()
    return [found[row] for row in range(len(part))]


class _Kept:
    """Answers of a part that is under way, one a line; a line that a kill cut off does not count."""

    def __init__(self, path: Path, part: Sequence[Messages]) -> None:
        self._path, self._part = path, part

    @cached_property
    def _asked(self) -> str:
        return digest_json(_plain(self._part))

    def read(self) -> dict[int, Answer]:
        found: dict[int, Answer] = {}
        if not self._path.exists():
            return found
        for line in self._path.read_text(encoding="utf-8", errors="replace").split("\n")[:-1]:
            try:
                row = json.loads(line)
            except ValueError:
                continue
            if row.pop("asked") == self._asked:
                number = row.pop("row")
                found[number] = Answer(**row)
        return found

    def add(self, row: int, answer: Answer) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"asked": self._asked, "row": row, **vars(answer)}) + "\n")

    def drop(self) -> None:
        self._path.unlink(missing_ok=True)


def _read_part(path: Path, part: Sequence[Messages]) -> list[Answer] | None:
    if not path.exists():
        return None
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
    asked = digest_json(_plain(part))
    if len(rows) != len(part) or any(row.pop("asked") != asked for row in rows):
        return None
    return [Answer(**row) for row in rows]


def _plain(conversations: Sequence[Messages]) -> list[list[dict[str, str]]]:
    return [[dict(message) for message in conversation] for conversation in conversations]
