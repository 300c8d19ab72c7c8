"""What forecasts count on: prompts, demonstrations and pairs as far as they are there, the models' own files."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.rows import read_prompts, read_rows
from flows.pipeline.forecast.judge import CHARACTERS_PER_TOKEN, SAMPLE
from flows.runs.digests import is_hub_id
from judges import Pair

if TYPE_CHECKING:
    from flows.config import RunConfig
    from flows.runs.directory import RunDirectory
    from flows.runs.manifest import Manifest

# A world's prompts before they are written, in bytes.
WORLD_PROMPT = 60


class ForecastInputs:
    """What is there and what it measures; `finished` tells of stages that are done."""

    def __init__(self, config: RunConfig, run: RunDirectory) -> None:
        self._config, self._run = config, run
        self._done: dict[str, Manifest] = {}

    def finished(self, stage: str, manifest: Manifest) -> None:
        """This stage's result is there and will be reused."""
        self._done[stage] = manifest

    def metrics(self, stage: str) -> Mapping[str, Any] | None:
        """What a finished stage counted; None for one that is not finished."""
        return self._done[stage].metrics if stage in self._done else None

    def _output(self, stage: str, name: str) -> Path | None:
        manifest = self._done.get(stage)
        if manifest is None or name not in manifest.outputs:
            return None
        self._run.fetch(stage, manifest, models=False)
        return self._run.stage_path(stage, manifest.key) / manifest.outputs[name].path

    def pairs(self) -> list[Pair]:
        """The run's pairs; none before they are sampled."""
        path = self._output("pairs", "pairs")
        return [] if path is None else [Pair.from_row(row) for _, row in read_rows(path)]

    def count(self, purpose: str) -> int:
        """How many prompts there are for a purpose; what is too long for the model is known once `prompts` ran."""
        made = self.metrics("prompts")
        if made is not None:
            return made.get(purpose, 0)
        if self._config.prompts is None:
            assert self._config.world is not None
            return getattr(self._config.world, purpose, 0)  # the world's own `sl` holds both kinds
        return len(self._read(purpose))

    def _read(self, purpose: str) -> Sequence[Any]:
        if self._config.prompts is None:
            path = self._output("prompts", purpose) or self._output("world", f"prompts_{purpose}")
            return [] if path is None else read_prompts(path)
        source = getattr(self._config.prompts, purpose)
        return [] if source is None else read_prompts(source.path, limit=source.limit, skip=source.skip)

    @cached_property
    def _sample(self) -> Sequence[Any]:
        return self._read("rl")[:SAMPLE]

    def made_up(self, *, answer: str) -> list[Pair]:
        """Pairs of real prompts with this answer, for counting and probing."""
        return [
            Pair(id=f"plan-{p.id}", prompt=tuple(p.prompt), a=answer, b=f"{answer} ") for p in self._sample
        ] or [
            Pair(
                id="plan",
                prompt=({"role": "user", "content": "x" * WORLD_PROMPT},),
                a=answer,
                b=f"{answer} ",
            )
        ]

    @cached_property
    def prompt_bytes(self) -> float:
        """A prompt as it is written, on average."""
        if not self._sample:
            return WORLD_PROMPT
        return sum(len(json.dumps(p.prompt, ensure_ascii=False).encode()) for p in self._sample) / len(
            self._sample
        )

    @cached_property
    def _tokenizer(self) -> Any:
        base = self._config.models.base
        if is_hub_id(base) and not Path(base).is_dir():
            return None
        from training.models.load import load_tokenizer

        return load_tokenizer(base)

    @cached_property
    def prompt_tokens(self) -> float:
        """A prompt in the base model's chat form, on average; by its letters without a tokenizer."""
        if self._tokenizer is None or not self._sample:
            return self.prompt_bytes / CHARACTERS_PER_TOKEN
        from common.chat import encode_prompt

        lengths = [len(encode_prompt(self._tokenizer, p.prompt)) for p in self._sample]
        return sum(lengths) / len(lengths)

    @cached_property
    def bytes_per_token(self) -> float:
        """Of the prompts' own words under the model's tokenizer."""
        texts = [m["content"] for p in self._sample for m in p.prompt]
        if self._tokenizer is None or not texts:
            return CHARACTERS_PER_TOKEN
        tokens = sum(len(ids) for ids in self._tokenizer(texts, add_special_tokens=False)["input_ids"])
        return sum(len(text.encode()) for text in texts) / max(1, tokens)

    def example_tokens(self, examples: Sequence[Any]) -> float:
        """A demonstration in the base model's chat form, on average."""
        if self._tokenizer is None:
            texts = ["".join(m["content"] for m in e.messages) for e in islice(examples, SAMPLE)]
            return sum(map(len, texts)) / CHARACTERS_PER_TOKEN / max(1, len(texts))
        from common.chat import encode_conversation

        lengths = [len(encode_conversation(self._tokenizer, e.messages)[0]) for e in islice(examples, SAMPLE)]
        return sum(lengths) / max(1, len(lengths))

    @cached_property
    def model_bytes(self) -> float:
        """The base model's weights, whose number format the trained ones keep, and its tokenizer; 0 for a hub's."""
        base = Path(self._config.models.base)
        return float(sum(p.stat().st_size for p in base.glob("*") if p.is_file())) if base.is_dir() else 0.0
