"""Sampling from a model in parts that survive a kill: a finished part is a file and is not drawn again.

Of a part that servers draw, each finished text is kept at once: the part's seed and its own number decide it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.files import write_jsonl
from engines.protocol import Sampling
from engines.samplers import ChatSampler, InProcessSampler, Text, VllmSampler
from engines.samplers import Sampler as Engine
from flows.config.data import CriticEndpoints, SamplingSection
from flows.errors import FlowError
from flows.runs.digests import digest_json, local_folder
from flows.stages.contract import Json, StageInput

if TYPE_CHECKING:
    from flows.config import RunConfig

# Part of what decides the answers (each part has a seed of its own), so not a setting.
PART = 512
_POLL_SECONDS = 0.2

Messages = Sequence[Mapping[str, str]]


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A sampled text and its tokens; `finish` is stop, length (cut off), prompt_too_long (nothing drawn) or refused."""

    text: str
    finish: str
    prompt_tokens: int = 0
    completion_tokens: int = 0

    @property
    def problem(self) -> str | None:
        """Why the text cannot be used as a whole answer, or None."""
        if self.finish in ("prompt_too_long", "refused"):
            return self.finish
        if not self.text.strip():
            return "empty"
        return "truncated" if self.finish == "length" else None


OnAnswer = Callable[[int, Answer], None]


class Sampler:
    """A model that draws answers, loaded or served when first needed, by whichever engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @property
    def keeps_each(self) -> bool:
        """Whether answers come one by one, each worth keeping at once."""
        return not isinstance(self._engine, InProcessSampler)

    def draw(
        self,
        conversations: Sequence[Messages],
        settings: Mapping[str, Any],
        *,
        batch_size: int,
        seed: int,
        on_progress: Callable[[int, int], None],
        rows: Sequence[int] | None = None,
        on_answer: OnAnswer = lambda place, answer: None,
    ) -> list[Answer]:
        """One answer per conversation. What is drawn depends on the seed and a conversation's number in `rows`.

        Raises TrainingError for a model that cannot be loaded, EngineError when servers fail.
        """
        found: dict[int, Answer] = {}

        def finished(place: int, text: Text) -> None:
            found[place] = Answer(**vars(text))
            on_answer(place, found[place])

        self._engine.draw(
            conversations,
            Sampling(**{name: settings[name] for name in ("max_new_tokens", "temperature", "top_p")}),
            seed=seed,
            rows=range(len(conversations)) if rows is None else rows,
            at_once=batch_size,
            on_text=finished,
            on_progress=lambda done: on_progress(done, len(conversations)),
        )
        return [found[place] for place in range(len(conversations))]

    def close(self) -> None:
        """Let go of the model's memory and of its servers."""
        self._engine.close()


def sampler_of(work: StageInput, role: str) -> Sampler:
    """The model that is the stage's input `role`, behind the engine that its tuning names; in process without one."""
    if role == "critic" and (critic := work.tuning.get("critic")) is not None:
        return critic_sampler(CriticEndpoints.model_validate(critic))
    engine = SamplingSection.model_validate(work.tuning.get("engine", {}))
    if engine.kind == "in_process":
        return in_process_sampler(work.inputs[role], dtype=work.settings["dtype"])
    folder = local_folder(work.inputs[role])
    if folder is None:
        raise FlowError(f"{work.inputs[role]}: is not in the local hub cache; download it first")
    return Sampler(
        VllmSampler(
            folder,
            engine.vllm(),
            logs=work.directory,
            dtype=work.settings["dtype"],
            timeout_s=engine.timeout_s,
            say=lambda line: work.progress(0, 0, line),
        )
    )


def in_process_sampler(ref: str, *, dtype: str) -> Sampler:
    """A model folder or hub id in this process, on the GPU where there is one."""

    def load() -> tuple[Any, Any]:
        import torch

        from training.models.load import load_causal_lm, load_tokenizer

        model = load_causal_lm(ref, dtype=getattr(torch, dtype), trainable=False)
        return model.to("cuda" if torch.cuda.is_available() else "cpu"), load_tokenizer(ref)

    return Sampler(InProcessSampler(load))


def critic_sampler(critic: CriticEndpoints) -> Sampler:
    """A critic on servers of the user's."""
    return Sampler(
        ChatSampler(
            critic.endpoints,
            model=critic.model,
            tokenizer=critic.tokenizer,
            api_key_env=critic.api_key_env,
            timeout_s=critic.timeout_s,
        )
    )


def engine_settings(config: RunConfig) -> Json:
    """What of the engine decides the answers: servers draw others than this process; nothing where that draws."""
    return {} if config.sampling.kind == "in_process" else {"engine": "vllm"}


def engine_tuning(config: RunConfig) -> Json:
    """How texts are drawn, for `sampler_of`."""
    critic = config.models.critic
    return {
        "engine": config.sampling.model_dump(mode="json"),
        "critic": critic.model_dump(mode="json") if isinstance(critic, CriticEndpoints) else None,
    }


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
            drawn = _draw_part(
                paths[index],
                sampler,
                parts[index],
                settings,
                batch_size=batch_size,
                seed=part_seed(work, name, index),
                on_progress=lambda done, at=at: work.progress(at + done, len(conversations), name),  # type: ignore[misc]
            )
            asked = digest_json(_plain(parts[index]))
            write_jsonl(paths[index], ({"asked": asked, **vars(answer)} for answer in drawn))
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


def _draw_part(
    path: Path,
    sampler: Sampler,
    part: Sequence[Messages],
    settings: Mapping[str, Any],
    *,
    batch_size: int,
    seed: int,
    on_progress: Callable[[int], None],
) -> list[Answer]:
    """The answers of a part, of which each that a server gave is kept beside `path` until all are there."""
    kept = _Kept(path.with_suffix(".begun"), part)
    found = kept.read() if sampler.keeps_each else {}
    rows = [row for row in range(len(part)) if row not in found]
    if rows:

        def finished(place: int, answer: Answer) -> None:
            found[rows[place]] = answer
            if sampler.keeps_each:
                kept.add(rows[place], answer)

        done = len(found)
        drawn = sampler.draw(
            [part[row] for row in rows],
            settings,
            batch_size=batch_size,
            seed=seed,
            rows=rows,
            on_progress=lambda n, _: on_progress(done + n),
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
