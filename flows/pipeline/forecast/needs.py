"""What a stage will need, and what forecasts are made from: each stage's own forecast asks a `Forecaster`."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from constitution import Constitution
from flows.config import RunConfig
from flows.labelling.ledger import ledger_of
from flows.pipeline.forecast.inputs import ForecastInputs
from flows.pipeline.forecast.judge import SAMPLE, JudgeForecast, JudgeForecaster, Speed
from flows.runs.directory import RunDirectory
from flows.runs.manifest import Manifest

# Bytes of a row beside its texts, and of a judgement in the ledger (measured: docs/ledger.md).
ROW, JUDGEMENT = 250, 320


@dataclass(frozen=True, kw_only=True)
class Needs:
    """What one stage needs; None is what nobody can know beforehand.

    `models` are those that it samples from, by their roles. `memory_bytes` is the trained model's per device;
    `disk_bytes` what is left on disk when the stage is done.
    """

    judgements: int = 0
    known_judgements: int = 0
    judge_prompt_tokens: int = 0
    judge_completion_tokens: int = 0
    samples: int = 0
    sampled_tokens: int = 0
    models: tuple[str, ...] = ()
    steps: int = 0
    trained_tokens: int = 0
    memory_bytes: int | None = None
    disk_bytes: int = 0
    source: str = ""

    def with_judge(self, asked: JudgeForecast) -> Needs:
        """The same with judgements, whose count says where it comes from."""
        return replace(
            self,
            judgements=asked.judgements,
            known_judgements=asked.known,
            judge_prompt_tokens=asked.prompt_tokens,
            judge_completion_tokens=asked.completion_tokens,
            source=asked.source,
        )


class Forecaster:
    """What is there, counted: prompts, pairs, models and the ledger; `finished` tells of stages that are done."""

    def __init__(self, config: RunConfig, constitution: Constitution, run: RunDirectory) -> None:
        self.config = config
        self.inputs = ForecastInputs(config, run)
        self.judge = JudgeForecaster(config, constitution, ledger=ledger_of(config))

    def finished(self, stage: str, manifest: Manifest) -> None:
        """This stage's result is there and will be reused."""
        self.inputs.finished(stage, manifest)

    def speed(self, given: float | None, *, measure: bool) -> Speed | None:
        """The judge's speed; a probe asks about pairs of this run, or about its prompts with filled answers."""
        probe = None
        if measure and given is None:
            pairs = self.inputs.pairs() or self.inputs.made_up(answer=" ".join(["and so it goes on"] * 12))
            probe = pairs[:SAMPLE]
        return self.judge.speed(given=given, probe=probe)

    def labelled(self) -> int:
        """Pairs that will be labelled."""
        made = self.inputs.metrics("pairs")
        return made["pairs"] if made else self.inputs.count("rl")

    def usable(self) -> tuple[int, str]:
        """Labels that may train, and "at most " where that is not known yet."""
        made = self.inputs.metrics("labels")
        return (made["usable"], "") if made else (self.labelled(), "at most ")

    def label_bytes(self, forecast: JudgeForecast, pairs: int, answers: float) -> int:
        """Rows of labels and preferences, and what the ledger grows by: judgements, labels, texts, rationales."""
        written = forecast.completion_tokens - forecast.judgements
        ledger = JUDGEMENT * forecast.judgements + written * self.inputs.bytes_per_token + 4 * ROW * pairs
        texts = self.inputs.prompt_bytes + answers
        return round(ledger + pairs * (2 * ROW + 2.5 * texts))

    def sampling(self, samples: int, tokens: float, disk: float, *, models: Iterable[str]) -> Needs:
        """A stage that draws answers of these models."""
        return Needs(
            samples=samples,
            models=tuple(models),
            sampled_tokens=round(tokens),
            disk_bytes=round(disk),
            source="answers as long as they may be",
        )

    def training(
        self, section: Any, items: int, tokens: float, *, source: str, logits: bool = True, copies: int = 0
    ) -> Needs:
        """A stage that trains one model on `items` of so many tokens, beside `copies` frozen ones."""
        steps = section.epochs * math.ceil(items / section.batch_size)
        done = min(steps, section.max_steps or steps)
        return Needs(
            steps=done,
            trained_tokens=round(tokens * items * section.epochs * done / max(1, steps)),
            memory_bytes=self.memory(section, frozen=copies, trained=1, logits=logits),
            disk_bytes=round(self.inputs.model_bytes + 300 * done),
            source=source,
        )

    def memory(self, section: Any, *, frozen: int, trained: int, logits: bool = True) -> int | None:
        """Bytes per device by `training.run.memory`, with the micro batch filled; None for a model that is not here."""
        if not Path(self.config.models.base).is_dir():
            return None
        from training.config.base import in_bfloat16
        from training.run.memory import activation_bytes, size_of, trained_bytes

        launcher = self.config.launcher
        sharded = launcher.accelerate_config is not None
        runtime: Any = SimpleNamespace(world=launcher.processes, sharded=sharded)
        size = size_of(self.config.models.base, rank=section.lora.r if section.lora else 0)
        bf16, tokens = in_bfloat16(section.precision), section.micro_batch_tokens
        own = sum(trained_bytes(size, section, section.optimizer, runtime))
        activations = activation_bytes(size, tokens, bf16=bf16, checkpointing=section.gradient_checkpointing)
        if logits:
            activations += (14 if bf16 else 12) * tokens * size.vocabulary
        return round(trained * own + frozen * 4 * size.parameters + activations)
