"""What each stage will need, counted from what is there: prompts, demonstrations, pairs, the models' own files."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from common.rows import read_examples
from constitution import Constitution
from flows.config.trainers import PreferenceSection
from flows.labelling.people import decided_pairs
from flows.pipeline.forecast.inputs import WORLD_PROMPT, ForecastInputs
from flows.pipeline.forecast.judge import CHARACTERS_PER_TOKEN, SAMPLE, JudgeForecast, JudgeForecaster, Speed

if TYPE_CHECKING:
    from flows.config import RunConfig
    from flows.runs.directory import RunDirectory
    from flows.runs.manifest import Manifest

# Bytes of a row beside its texts, and of a judgement in the ledger (measured: docs/ledger.md).
ROW, JUDGEMENT = 250, 320
_Estimate = dict[str, Any]


class Forecaster:
    """One method a stage, each giving the fields of its `StageForecast`; `finished` tells of stages that are done."""

    def __init__(self, config: RunConfig, constitution: Constitution, run: RunDirectory) -> None:
        self._config = config
        self._inputs = ForecastInputs(config, run)
        own = f"sqlite:///{run.path / 'ledger.db'}" if isinstance(config.runs_dir, Path) else None
        self._judge = JudgeForecaster(config, constitution, ledger=config.labels.ledger or own)

    def finished(self, stage: str, manifest: Manifest) -> None:
        """This stage's result is there and will be reused."""
        self._inputs.finished(stage, manifest)

    def speed(self, given: float | None, *, measure: bool) -> Speed | None:
        """The judge's speed; a probe asks about pairs of this run, or about its prompts with filled answers."""
        probe = None
        if measure and given is None:
            pairs = self._inputs.pairs() or self._inputs.made_up(answer=" ".join(["and so it goes on"] * 12))
            probe = pairs[:SAMPLE]
        return self._judge.speed(given=given, probe=probe)

    def world(self) -> _Estimate:
        """The microworld's own rows."""
        assert self._config.world is not None
        rows = sum(self._config.world.model_dump().values())
        return {"disk_bytes": rows * (WORLD_PROMPT + ROW), "source": f"{rows:,} rows"}

    def prompts(self) -> _Estimate:
        """The prompts in one form."""
        total = sum(self._inputs.count(purpose) for purpose in ("sl", "sl_benign", "rl", "eval"))
        return {
            "disk_bytes": round(total * (self._inputs.prompt_bytes + 120)),
            "source": f"{total:,} prompts",
        }

    def judge_exam(self) -> _Estimate:
        """The known pairs, and at most `probe_pairs` of them again for every probe."""
        from flows.labelling.exam import read_all
        from judges.exam.probes import HUGE_CHARACTERS, INJECTIONS, SYCOPHANCY

        exam = self._config.exam
        known = [k.pair for k in read_all(list(exam.pairs))[0]] if exam.pairs else []
        pairs = len(known) or exam.generated
        probes = min(pairs, exam.probe_pairs) * (len(INJECTIONS) + len(SYCOPHANCY))
        sample = known[:SAMPLE] or self._inputs.made_up(answer=" ".join(["an answer of some length"] * 8))
        # The huge text goes to endpoints, whose context nobody knows here.
        huge = 0 if self._config.judge.kind == "in_process" else min(pairs, exam.probe_pairs)
        further = huge * HUGE_CHARACTERS / CHARACTERS_PER_TOKEN
        forecast = self._judge.of_prompts(pairs + probes, sample, answer_tokens=0, further_tokens=further)
        found = self._judged(forecast)
        disk = self._label_bytes(forecast, pairs + probes, 2 * self._inputs.prompt_bytes)
        return {**found, "disk_bytes": disk, "source": f"at most; {pairs} known pairs and {probes} probes"}

    def helpful_sft(self) -> _Estimate:
        """Demonstrations are there, or their number is."""
        section, own = self._config.helpful_sft, self._config.demonstrations
        if own is None:
            assert self._config.world is not None
            items, tokens = self._config.world.demonstrations, 64.0
            source = "64 tokens an example assumed"
        else:
            examples = read_examples([own.path])
            items, tokens = len(examples), self._inputs.example_tokens(examples)
            source = "counted on the demonstrations"
        return self._training(section, items, tokens, source=f"{items:,} demonstrations; {source}")

    def critique_revision(self) -> _Estimate:
        """An answer to every prompt, then a critique and a revision of those that may be harmful."""
        section = self._config.critique_revision
        red, benign = self._inputs.count("sl"), self._inputs.count("sl_benign")
        drawn = {
            "response": red + benign,
            "critique": red * section.revisions,
            "revision": red * section.revisions,
        }
        tokens = sum(n * getattr(section, kind).max_new_tokens for kind, n in drawn.items())
        texts = tokens * self._inputs.bytes_per_token
        # Every text lies in its part and in its chain, the last one in sft.jsonl too.
        disk = 2 * texts + drawn["response"] * (2 * self._inputs.prompt_bytes + 2 * ROW)
        disk += drawn["response"] * section.revision.max_new_tokens * self._inputs.bytes_per_token
        return self._sampling(sum(drawn.values()), tokens, disk)

    def sl_cai(self) -> _Estimate:
        """As many examples as chains come through."""
        made = self._inputs.metrics("critique_revision")
        items = (
            made["revised"] + made["harmless_kept"]
            if made
            else self._inputs.count("sl") + self._inputs.count("sl_benign")
        )
        longest = self._config.critique_revision.revision.max_new_tokens
        source = f"{'' if made else 'at most '}{items:,} examples, answers as long as they may be"
        return self._training(self._config.sl_cai, items, self._inputs.prompt_tokens + longest, source=source)

    def pairs(self) -> _Estimate:
        """Two answers to every prompt."""
        prompts, longest = self._inputs.count("rl"), self._config.pairs.sampling.max_new_tokens
        answer = longest * self._inputs.bytes_per_token
        # Each answer lies in its part and in its pair.
        disk = prompts * (4 * answer + self._inputs.prompt_bytes + 2 * ROW)
        return self._sampling(2 * prompts, 2 * prompts * longest, disk)

    def labels(self) -> _Estimate:
        """What the ledger lacks, or the most that the prompts can come to."""
        pairs = self._inputs.pairs()
        if pairs:
            forecast, count = self._judge.of_pairs(pairs), len(pairs)
            answers = sum(len(p.a.encode()) + len(p.b.encode()) for p in pairs) / count
        else:
            count, longest = self._inputs.count("rl"), self._config.pairs.sampling.max_new_tokens
            forecast = self._judge.of_prompts(count, self._inputs.made_up(answer=""), answer_tokens=longest)
            answers = 2 * longest * self._inputs.bytes_per_token
        return self._judged(forecast) | {"disk_bytes": self._label_bytes(forecast, count, answers)}

    def reward_model(self) -> _Estimate:
        """As many models as the section asks for, from the labels that may train."""
        section = self._config.reward_model
        made = self._inputs.metrics("labels")
        usable = made["usable"] if made else self._labelled()
        items = max(1, round(usable * (1 - section.held_out)))
        models = section.ensemble * max(1, len(section.dimensions))
        tokens = self._inputs.prompt_tokens + 2 * self._config.pairs.sampling.max_new_tokens
        source = f"{'' if made else 'at most '}{items:,} pairs, answers as long as they may be"
        one = self._training(section, items, tokens, source=source, logits=False)
        several = ("steps", "trained_tokens", "disk_bytes")
        return {**one, **{name: models * one[name] for name in several}}

    def gold_model(self) -> _Estimate:
        """A reward model from what people decided; the pairs that the run trains on are not known yet."""
        from flows.stages.gold_model import held_out

        items = max(1, round((decided_pairs(self._config) or 0) * (1 - held_out(self._config))))
        tokens = self._inputs.prompt_tokens + 2 * self._config.pairs.sampling.max_new_tokens
        source = f"at most {items:,} pairs, answers as long as they may be"
        return self._training(self._config.reward_model, items, tokens, source=source, logits=False)

    def rl(self) -> _Estimate:
        """Sampling and learning step by step, or a pass over the labels."""
        section: Any = self._config.rl
        if isinstance(section, PreferenceSection):
            made = self._inputs.metrics("labels")
            items = made["usable"] if made else self._labelled()
            tokens = 2 * (self._inputs.prompt_tokens + self._config.pairs.sampling.max_new_tokens)
            return self._training(section, items, tokens, source=f"{items:,} pairs", copies=1)
        samples = section.steps * section.batch_size
        sampled = samples * section.max_new_tokens
        # Beside the policy: a frozen reference and the reward model, and PPO's value model, which trains.
        trained_more = 1 if section.method == "ppo" else 0
        logged = min(section.log_samples, section.batch_size) * section.steps
        kept = logged * (
            self._inputs.prompt_bytes + section.max_new_tokens * self._inputs.bytes_per_token + ROW
        )
        found = {
            "samples": samples,
            "sampled_tokens": sampled,
            "steps": section.steps,
            "trained_tokens": sampled * section.epochs,
            "memory_bytes": self._memory(section, frozen=2, trained=1 + trained_more),
            "disk_bytes": round(self._inputs.model_bytes + kept),
            "source": "answers as long as they may be",
        }
        if section.reward.judge is not None:
            asked = self._judge.of_prompts(
                samples, self._inputs.made_up(answer=""), answer_tokens=section.max_new_tokens
            )
            found |= self._judged(asked)
        return found

    def evaluate(self) -> _Estimate:
        """All models answer the held-out prompts."""
        section = self._config.evaluate
        roles = 3 + self._config.has_demonstrations
        answers = roles * section.samples_per_prompt * self._inputs.count("eval")
        tokens = answers * section.sampling.max_new_tokens
        disk = answers * (3 * section.sampling.max_new_tokens * self._inputs.bytes_per_token + 2 * ROW)
        return self._sampling(answers, tokens, disk + self._inputs.count("eval") * self._inputs.prompt_bytes)

    def _labelled(self) -> int:
        made = self._inputs.metrics("pairs")
        return made["pairs"] if made else self._inputs.count("rl")

    def _judged(self, forecast: JudgeForecast) -> _Estimate:
        return {
            "judgements": forecast.judgements,
            "known_judgements": forecast.known,
            "judge_prompt_tokens": forecast.prompt_tokens,
            "judge_completion_tokens": forecast.completion_tokens,
            "source": forecast.source,
        }

    def _label_bytes(self, forecast: JudgeForecast, pairs: int, answers: float) -> int:
        """Rows of labels and preferences, and what the ledger grows by: judgements, labels, texts, rationales."""
        written = forecast.completion_tokens - forecast.judgements
        ledger = JUDGEMENT * forecast.judgements + written * self._inputs.bytes_per_token + 4 * ROW * pairs
        texts = self._inputs.prompt_bytes + answers
        return round(ledger + pairs * (2 * ROW + 2.5 * texts))

    def _sampling(self, samples: int, tokens: float, disk: float) -> _Estimate:
        return {
            "samples": samples,
            "sampled_tokens": round(tokens),
            "disk_bytes": round(disk),
            "source": "answers as long as they may be",
        }

    def _training(
        self, section: Any, items: int, tokens: float, *, source: str, logits: bool = True, copies: int = 0
    ) -> _Estimate:
        steps = section.epochs * math.ceil(items / section.batch_size)
        done = min(steps, section.max_steps or steps)
        return {
            "steps": done,
            "trained_tokens": round(tokens * items * section.epochs * done / max(1, steps)),
            "memory_bytes": self._memory(section, frozen=copies, trained=1, logits=logits),
            "disk_bytes": round(self._inputs.model_bytes + 300 * done),
            "source": source,
        }

    def _memory(self, section: Any, *, frozen: int, trained: int, logits: bool = True) -> int | None:
        """Bytes per device by `training.run.memory`, with the micro batch filled; None for a model that is not here."""
        if not Path(self._config.models.base).is_dir():
            return None
        from training.config.base import in_bfloat16
        from training.run.memory import activation_bytes, size_of, trained_bytes

        launcher = self._config.launcher
        sharded = launcher.accelerate_config is not None
        runtime: Any = SimpleNamespace(world=launcher.processes, sharded=sharded)
        size = size_of(self._config.models.base, rank=section.lora.r if section.lora else 0)
        bf16, tokens = in_bfloat16(section.precision), section.micro_batch_tokens
        own = sum(trained_bytes(size, section, section.optimizer, runtime))
        activations = activation_bytes(size, tokens, bf16=bf16, checkpointing=section.gradient_checkpointing)
        if logits:
            activations += (14 if bf16 else 12) * tokens * size.vocabulary
        return round(trained * own + frozen * 4 * size.parameters + activations)
