"""Answers of a run's models to prompts, and the reward model's scores: for the evaluation, and for what rounds gain."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from common.files import write_jsonl
from common.rows import Prompt, read_rows
from flows.runs.digests import digest_json
from flows.stages.contract import Json, StageInput
from flows.stages.samplers import Answer, Sampler
from flows.stages.sampling import sample_in_parts


def answers_of(
    work: StageInput, role: str, sampler: Sampler, prompts: list[Prompt], of: str | None = None
) -> list[Answer]:
    """The answers of the model that is the stage's input `role`: drawn now from `sampler`, or by an earlier start or
    evaluation.

    `of` is the digest of the prompts, by default that of the input `prompts`.
    """
    depends_on = [
        work.digests[role],
        of or work.digests["prompts"],
        work.settings["sampling"],
        work.settings["dtype"],
        *([work.settings["engine"]] if "engine" in work.settings else []),
    ]
    name = f"answers-{digest_json([*depends_on, work.settings['samples_per_prompt'], work.seed])[:12]}"

    def draw(path: Path) -> None:
        sampled = sample_in_parts(
            work,
            name,
            sampler,
            [p.prompt for p in prompts],
            work.settings["sampling"],
            batch_size=work.tuning["batch_size"],
            kind="evaluation",
        )
        write_jsonl(path, map(vars, sampled))

    path = work.once(f"{name}.jsonl", draw)
    return [Answer(**row) for _, row in read_rows(path)]


def rewards_of(
    work: StageInput, prompts: list[Prompt], texts: dict[str, list[str]]
) -> dict[str, list[float | None]]:
    """The reward model's scores; None where prompt and answer exceed its context."""
    import torch

    from training.rewards.scoring import RewardScorer

    device = "cuda" if torch.cuda.is_available() else "cpu"
    scorer = RewardScorer.load(work.inputs["reward_model"], device=device)
    conversations = [prompt.prompt for prompt in prompts]
    scores = {}
    for role, answers in texts.items():
        work.progress(0, 0, f"reward of {role.replace('_', ' ')}")
        scores[role] = scorer(conversations, answers)
    return scores


def side_by_side(
    prompts: list[Prompt],
    answers: dict[str, list[Answer]],
    rewards: dict[str, list[float | None]],
    scores: dict[str, list[Any]],
) -> list[Json]:
    """The rows of answers.jsonl: a prompt with every model's answer, its reward, and gold's scores if any."""
    rows = []
    for index, prompt in enumerate(prompts):
        models: dict[str, Json] = {}
        for role in answers:
            models[role] = {"response": answers[role][index].text, "reward": rewards[role][index]}
            if role in scores:
                found = scores[role][index]
                models[role]["gold"] = {n: getattr(found, n) for n in found.__dataclass_fields__}
        rows.append({"id": prompt.id, "prompt": prompt.prompt, "meta": prompt.meta, "models": models})
    return rows
