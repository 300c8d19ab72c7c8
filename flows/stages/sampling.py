"""Sampling from a model in parts that survive a kill: a finished part is a file and is not drawn again."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.files import write_jsonl
from flows.runs.digests import digest_json
from flows.stages.contract import StageInput

# Part of what decides the answers (each part has a seed of its own), so not a setting.
PART = 512
_POLL_SECONDS = 0.2

Messages = Sequence[Mapping[str, str]]


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A sampled text; `finish` is stop, length (cut off) or prompt_too_long (nothing was drawn)."""

    text: str
    finish: str

    @property
    def problem(self) -> str | None:
        """Why the text cannot be used as a whole answer, or None."""
        if self.finish == "prompt_too_long":
            return "prompt_too_long"
        if not self.text.strip():
            return "empty"
        return "truncated" if self.finish == "length" else None


class Sampler:
    """A model that draws answers, loaded when first needed."""

    def __init__(self, ref: str, *, dtype: str) -> None:
        self._ref, self._dtype = ref, dtype
        self._loaded: tuple[Any, Any] | None = None

    def load(self) -> tuple[Any, Any]:
        """(model, tokenizer), the model on the GPU where there is one.

        Raises TrainingError for a model that cannot be loaded.
        """
        if self._loaded is None:
            import torch

            from training.models.load import load_causal_lm, load_tokenizer

            model = load_causal_lm(self._ref, dtype=getattr(torch, self._dtype), trainable=False)
            device = "cuda" if torch.cuda.is_available() else "cpu"
            self._loaded = model.to(device), load_tokenizer(self._ref)
        return self._loaded

    def draw(
        self,
        conversations: Sequence[Messages],
        settings: Mapping[str, Any],
        *,
        batch_size: int,
        seed: int,
        on_progress: Callable[[int, int], None],
    ) -> list[Answer]:
        """One answer per conversation."""
        from engines.in_process import generate

        model, tokenizer = self.load()
        completions = generate(
            model,
            tokenizer,
            conversations,
            max_new_tokens=settings["max_new_tokens"],
            temperature=settings["temperature"],
            top_p=settings["top_p"],
            seed=seed,
            batch_size=batch_size,
            on_progress=on_progress,
        )
        return [Answer(text=c.text, finish=c.finish_reason) for c in completions]


def sample_in_parts(
    work: StageInput,
    name: str,
    sampler: Sampler,
    conversations: Sequence[Messages],
    settings: Mapping[str, Any],
    *,
    batch_size: int,
) -> list[Answer]:
    """Answers to all conversations, part by part.

    Parts on disk from an interrupted attempt are read back. Of several processes each draws every `world`-th
    part and waits for the others'.
    """
    parts = [conversations[start : start + PART] for start in range(0, len(conversations), PART)]
    paths = [work.directory / "parts" / f"{name}-{index:06d}.jsonl" for index in range(len(parts))]
    for index in range(work.rank, len(parts), work.world):
        if _read_part(paths[index], parts[index]) is None:
            at = index * PART
            drawn = sampler.draw(
                parts[index],
                settings,
                batch_size=batch_size,
                seed=part_seed(work, name, index),
                on_progress=lambda done, _, at=at: work.progress(at + done, len(conversations), name),  # type: ignore[misc]
            )
            asked = digest_json(_plain(parts[index]))
            write_jsonl(paths[index], ({"asked": asked, "text": a.text, "finish": a.finish} for a in drawn))
    answers: list[Answer] = []
    for path, part in zip(paths, parts, strict=True):
        while (found := _read_part(path, part)) is None:  # another process is drawing it
            time.sleep(_POLL_SECONDS)
        answers += found
    work.progress(len(conversations), len(conversations), name)
    return answers


def part_seed(work: StageInput, name: str, index: int) -> int:
    """The seed of one part: a different one for every stage, purpose and part, the same in every attempt."""
    return int(digest_json([work.seed, work.stage, name, index])[:7], 16)


def _read_part(path: Path, part: Sequence[Messages]) -> list[Answer] | None:
    if not path.exists():
        return None
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
    asked = digest_json(_plain(part))
    if len(rows) != len(part) or any(row["asked"] != asked for row in rows):
        return None
    return [Answer(text=row["text"], finish=row["finish"]) for row in rows]


def _plain(conversations: Sequence[Messages]) -> list[list[dict[str, str]]]:
    return [[dict(message) for message in conversation] for conversation in conversations]
