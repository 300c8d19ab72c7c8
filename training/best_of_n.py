"""Best-of-n pairs: n answers to every prompt, scored, the best against the worst or against all others.

    python -m training.best_of_n --config best_of_n.yaml

The pairs are data for reward models and for DPO. The best answer is found as in rejection sampling (Touvron et al.
2023, arXiv 2307.09288, section 3.2.3), which fine-tunes on it alone.
The score is a reward as reinforcement learning has it: a reward model, an ensemble, a judge's function, checkers.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from common.files import write_jsonl
from common.rows import Prompt, read_prompts, report_left_out
from engines import Sampling
from engines.samplers import InProcessSampler, Sampler, VllmSampler
from engines.settings import SamplingSettings, VllmSettings
from engines.texts import Text
from training import cli
from training.config.base import Strict
from training.config.rewards import ModelTerm, RewardTerm
from training.errors import TrainingError
from training.models.files import check_model
from training.models.load import load_causal_lm, load_tokenizer
from training.rewards.compose import RewardFn, build_reward, check_terms


class BestOfNConfig(Strict):
    """Pairs of a model's own answers."""

    model: str = Field(min_length=1)
    """The model that answers: a Hugging Face directory or hub id."""

    prompts: tuple[Path, ...] = Field(min_length=1)
    """Files of prompts: JSONL (also .gz) or Parquet with `prompt`, `id`, `meta`."""

    output: Path
    """The file of pairs, ending in .jsonl."""

    reward_model: str | None = None
    """A reward model's directory: short for one part of `rewards` of kind model."""

    rewards: tuple[RewardTerm, ...] = ()
    """The parts whose weighted sum is the score."""

    n: int = Field(default=4, ge=2, le=256)
    """Answers per prompt."""

    against: Literal["worst", "rest"] = "worst"
    """The best answer against the worst one, or a pair with each of the others."""

    min_gap: float = Field(default=0.0, ge=0)
    """Only pairs whose scores differ by more than this."""

    temperature: float = Field(default=1.0, gt=0, le=100)
    """Softmax temperature."""

    top_p: float = Field(default=1.0, gt=0, le=1)
    """Draw from the smallest set of tokens with this much probability."""

    max_new_tokens: int = Field(default=512, ge=1, le=131_072)
    """Longest answer in tokens."""

    batch_size: int = Field(default=128, ge=1, le=65_536)
    """Answers drawn at the same time; bounds memory, does not change what is drawn."""

    sampling: SamplingSettings = SamplingSettings()
    """Which engine draws the answers: this process, or vLLM servers that are started for it (kind vllm)."""

    seed: int = Field(default=0, ge=0, lt=2**31)
    """Seed of the answers."""

    @property
    def terms(self) -> tuple[RewardTerm, ...]:
        """All parts of the score, the short form included."""
        short = (ModelTerm(kind="model", path=self.reward_model),) if self.reward_model else ()
        return short + self.rewards

    @model_validator(mode="after")
    def _consistent(self) -> BestOfNConfig:
        if not self.terms:
            raise ValueError("give reward_model or rewards: nothing says which answer is best")
        if self.sampling.kind == "endpoints":
            raise ValueError("sampling.kind (endpoints) must be in_process or vllm here")
        if self.output.suffix != ".jsonl":
            raise ValueError(f"output ({self.output}) must end in .jsonl")
        return self


@dataclass(frozen=True, kw_only=True)
class Made:
    """What was written, and how much was left out."""

    output_dir: Path
    metrics: dict[str, float]


def best_of_n_pairs(
    prompt: Prompt,
    answers: Sequence[str],
    scores: Sequence[float | None],
    *,
    against: Literal["worst", "rest"] = "worst",
    min_gap: float = 0.0,
) -> list[dict[str, Any]]:
    """Preference rows of one prompt's answers, the best one chosen; p = 1 and the scores beside it.

    An answer without a score takes no part, and an answer given twice counts once. There is no pair where fewer than
    two are left, nor of answers whose scores are equal or differ by no more than `min_gap`.
    """
    scored = {text: score for text, score in zip(answers, scores, strict=True) if score is not None}
    ranked = sorted(scored.items(), key=lambda item: (-item[1], item[0]))
    if len(ranked) < 2:
        return []
    (best, top), others = ranked[0], ranked[1:] if against == "rest" else ranked[-1:]
    return [
        {
            "pair_id": f"{prompt.id}.best-{number}",
            "prompt": prompt.prompt,
            "chosen": [{"role": "assistant", "content": best}],
            "rejected": [{"role": "assistant", "content": text}],
            "p": 1.0,
            "status": "ok",
            "score_chosen": top,
            "score_rejected": score,
        }
        for number, (text, score) in enumerate(others)
        if top - score > min_gap
    ]


def make(config: BestOfNConfig, *, reward_functions: Mapping[str, RewardFn] | None = None) -> Made:
    """Sample, score and write the pairs, whole or not at all.

    Raises TrainingError, also when not one pair came of it.
    """
    functions = reward_functions or {}
    if config.output.exists():
        raise TrainingError(f"output {config.output}: exists already; choose another")
    check_model(config.model, head="causal")
    check_terms(config.terms, functions)
    prompts = report_left_out(read_prompts(config.prompts))
    answers, cut = _sample(config, prompts)
    repeated = [prompt for prompt in prompts for _ in range(config.n)]
    reward = build_reward(config.terms, functions=functions, device=_device())
    scores = reward(repeated, answers).total
    rows = [row for group in _groups(config, prompts, answers, scores) for row in group]
    if not rows:
        missing = sum(score is None for score in scores)
        raise TrainingError(
            f"not one pair came of {len(answers)} answers: {missing} have no score, and the others' do not differ by "
            f"more than min_gap ({config.min_gap:g})"
        )
    write_jsonl(config.output, rows)
    gaps = [row["score_chosen"] - row["score_rejected"] for row in rows]
    metrics = {
        "pairs": float(len(rows)),
        "gap": sum(gaps) / len(gaps),
        "missing_scores": float(sum(score is None for score in scores)),
        "truncated": float(cut),
    }
    return Made(output_dir=config.output, metrics=metrics)


def _groups(
    config: BestOfNConfig, prompts: Sequence[Prompt], answers: Sequence[str], scores: Sequence[float | None]
) -> Iterator[list[dict[str, Any]]]:
    for number, prompt in enumerate(prompts):
        own = slice(number * config.n, (number + 1) * config.n)
        yield best_of_n_pairs(
            prompt, answers[own], scores[own], against=config.against, min_gap=config.min_gap
        )


def _sample(config: BestOfNConfig, prompts: Sequence[Prompt]) -> tuple[list[str], int]:
    """n answers to each prompt, and how many of them were cut off."""
    from training.run.logs import Progress

    sampler = _sampler(config)
    conversations = [prompt.prompt for prompt in prompts for _ in range(config.n)]
    found: dict[int, Text] = {}
    with Progress(len(conversations), "best of n", start=0, visible=True) as progress:
        try:
            sampler.draw(
                conversations,
                Sampling(
                    max_new_tokens=config.max_new_tokens, temperature=config.temperature, top_p=config.top_p
                ),
                seed=config.seed,
                rows=range(len(conversations)),
                at_once=config.batch_size,
                on_text=found.__setitem__,
                on_progress=progress.update,
            )
        finally:
            sampler.close()
    answers = [found[n] for n in range(len(conversations))]
    if all(answer.finish == "prompt_too_long" for answer in answers):
        raise TrainingError(f"model {config.model}: every prompt fills its context")
    return [answer.text for answer in answers], sum(answer.finish == "length" for answer in answers)


def _sampler(config: BestOfNConfig) -> Sampler:
    if config.sampling.kind == "in_process":

        def load() -> tuple[Any, Any]:
            model = load_causal_lm(config.model, trainable=False).to(_device())
            return model, load_tokenizer(config.model)

        return InProcessSampler(load)
    if not Path(config.model).is_dir():
        raise TrainingError(f"model {config.model}: sampling.kind vllm serves a folder")
    settings = VllmSettings(**config.sampling.model_dump(include=set(VllmSettings.model_fields)))
    logs = config.output.parent / f"{config.output.stem}-vllm"
    return VllmSampler(Path(config.model), settings, logs=logs, timeout_s=config.sampling.timeout_s)


def _device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def train(config: BestOfNConfig, *, resume: bool = False) -> Made:
    """The command line's entry: `make`, which has nothing to resume."""
    if resume:
        raise TrainingError("--resume: making pairs writes nothing before its end; start it again without")
    return make(config)


if __name__ == "__main__":
    sys.exit(cli.main(BestOfNConfig, train, "Pairs of the best and the worst of n answers."))
