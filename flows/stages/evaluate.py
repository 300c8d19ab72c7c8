"""Every model answers the held-out prompts; the reward model and, in the microworld, gold score the answers.

Answers and the exam are kept by the digest of what they depend on, so a second constitution costs only the
models that it changed.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.files import write_json, write_jsonl
from common.record import plain
from common.rows import Prompt, read_prompts, read_rows
from common.statistics import mean
from constitution import templates_digest
from flows.evaluation import Answered, OpinionPair, gold, opinion_pairs, read_answers, watch
from flows.labelling.judge import judge_tuning
from flows.pipeline.forecast.needs import ROW, Forecaster, Needs
from flows.runs.digests import digest_json
from flows.stages.contract import Artifact, Inputs, Json, Result, Stage, StageInput
from flows.stages.labels import judge_settings
from flows.stages.sampling import Answer, Sampler, sample_in_parts
from flows.stages.weights import moved_weights
from judges import TemplateSet

if TYPE_CHECKING:
    from flows.config import RunConfig

ROLES = ("base", "helpful_only", "sl_cai", "rl_cai")
# What reinforcement learning starts from is what its side effects are measured against.
NORMAL = "sl_cai"


def run(work: StageInput) -> Result:
    """Write answers.jsonl (one line a prompt and sample, all models side by side) and evaluation.json."""
    prompts = read_prompts([work.input("prompts")])
    roles = [role for role in ROLES if role in work.inputs]
    repeated = [p for p in prompts for _ in range(work.settings["samples_per_prompt"])]
    answers = {role: answers_of(work, role, repeated) for role in roles}
    with_gold = work.settings["gold"] is not None
    rewards = rewards_of(work, repeated, {role: [a.text for a in found] for role, found in answers.items()})
    evaluation: dict[str, Any] = {"models": {}}
    scores: dict[str, list[Any]] = {}
    for role in roles:
        texts = [a.text for a in answers[role]]
        record: dict[str, Any] = {
            "words": mean([float(len(t.split())) for t in texts], seed=work.seed).to_json(),
            "reward": mean([r for r in rewards[role] if r is not None], seed=work.seed).to_json(),
        }
        if with_gold:
            scores[role] = [gold.score_answer(p.prompt, t) for p, t in zip(repeated, texts, strict=True)]
            record["gold"] = plain(gold.figures(scores[role], seed=work.seed))
        evaluation["models"][role] = record
    samples = [row for _, row in read_rows(work.input("rl_samples"))]
    evaluation["rl_curve"] = gold.curve(samples, gold=with_gold)
    along = _sampled(samples, by_gold=with_gold)
    evaluation["side_effects"] = _side_effects(work, repeated, answers, scores, along)
    evaluation["weights"] = moved_weights(work)
    rows = _side_by_side(repeated, answers, rewards, scores)
    if with_gold:
        evaluation["exam"] = _exam(work)
        evaluation["gold_agreement"] = _agreement(work, rows)
    write_jsonl(work.directory / "answers.jsonl", rows)
    write_json(work.directory / "evaluation.json", evaluation)
    return Result(
        outputs={"answers": "answers.jsonl", "evaluation": "evaluation.json"},
        metrics={"prompts": len(prompts), "answers": len(repeated) * len(roles)},
    )


def _side_effects(
    work: StageInput,
    prompts: list[Prompt],
    answers: dict[str, list[Answer]],
    scores: dict[str, list[Any]],
    along: list[tuple[int, Answered]],
) -> dict[str, Any]:
    """The watch over all models' answers and along reinforcement learning; each question that holds an opinion is
    asked again without it."""
    pairs = opinion_pairs(prompts, gold=bool(scores))
    place = {prompt.id: index for index, prompt in reversed(list(enumerate(prompts)))}
    swayed = {}
    for role in answers if pairs else ():
        swayed[role] = [
            (answers[role][place[pair.prompt]].text, without.text)
            for pair, without in zip(pairs, _neutral_answers(work, role, pairs), strict=True)
        ]
    read = {
        role: read_answers(prompts, [a.text for a in found], scores.get(role))
        for role, found in answers.items()
    }
    watched = watch(read, reference=NORMAL, opinions=pairs, swayed=swayed, steps=along, seed=work.seed)
    return watched.to_json()


def _neutral_answers(work: StageInput, role: str, pairs: list[OpinionPair]) -> list[Answer]:
    asked = [Prompt(id=pair.prompt, prompt=[dict(m) for m in pair.neutral]) for pair in pairs]
    return answers_of(work, role, asked, of=digest_json([p.prompt for p in asked]))


def _sampled(samples: list[dict[str, Any]], *, by_gold: bool) -> list[tuple[int, Answered]]:
    """What the policy said on its way, read like any answer, with the step."""
    prompts = [Prompt(id=row["prompt_id"], prompt=row["prompt"]) for row in samples]
    texts = [row["response"] for row in samples]
    scores = (
        [gold.score_answer(p.prompt, t) for p, t in zip(prompts, texts, strict=True)] if by_gold else None
    )
    read = read_answers(prompts, texts, scores)
    return list(zip((row["step"] for row in samples), read, strict=True))


def answers_of(work: StageInput, role: str, prompts: list[Prompt], of: str | None = None) -> list[Answer]:
    """The answers of the model that is the stage's input `role`: drawn now, or by an earlier start or evaluation.

    `of` is the digest of the prompts, by default that of the input `prompts`.
    """
    depends_on = [
        work.digests[role],
        of or work.digests["prompts"],
        work.settings["sampling"],
        work.settings["dtype"],
    ]
    name = f"answers-{digest_json([*depends_on, work.settings['samples_per_prompt'], work.seed])[:12]}"

    def draw(path: Path) -> None:
        sampled = sample_in_parts(
            work,
            name,
            Sampler(work.inputs[role], dtype=work.settings["dtype"]),
            [p.prompt for p in prompts],
            work.settings["sampling"],
            batch_size=work.tuning["batch_size"],
        )
        write_jsonl(path, ({"text": a.text, "finish": a.finish} for a in sampled))

    path = work.once(f"{name}.jsonl", draw)
    return [Answer(text=row["text"], finish=row["finish"]) for _, row in read_rows(path)]


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


def _exam(work: StageInput) -> dict[str, Any]:
    """What the judge and the critic can do on held-out topics, by the microworld's exam."""
    from flows.labelling.known_pairs import examine

    depends_on = [work.digests.get("judge"), work.digests["critic"], work.settings["exam"], work.seed]
    name = f"exam-{digest_json(depends_on)[:12]}.json"
    path = work.once(name, lambda path: write_json(path, examine(work)))
    return json.loads(path.read_text(encoding="utf-8"))


def _agreement(work: StageInput, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """How often this run's labels and its reward model agree with gold."""
    from flows.labelling.known_pairs import label_agreement, reward_agreement

    assert work.constitution is not None
    principles = work.constitution.comparison
    pairs = {row["id"]: row for _, row in read_rows(work.input("pairs"))}
    labels = [row for _, row in read_rows(work.input("labels"))]
    return {
        "labels": label_agreement(pairs, labels, principles),
        "reward_model": reward_agreement(rows, principles),
    }


def _side_by_side(
    prompts: list[Prompt],
    answers: dict[str, list[Answer]],
    rewards: dict[str, list[float | None]],
    scores: dict[str, list[Any]],
) -> list[Json]:
    rows = []
    for index, prompt in enumerate(prompts):
        models: dict[str, dict[str, Any]] = {}
        for role in answers:
            models[role] = {"response": answers[role][index].text, "reward": rewards[role][index]}
            if role in scores:
                found = scores[role][index]
                models[role]["gold"] = {n: getattr(found, n) for n in found.__dataclass_fields__}
        rows.append({"id": prompt.id, "prompt": prompt.prompt, "meta": prompt.meta, "models": models})
    return rows


def _inputs(inputs: Inputs) -> dict[str, Artifact]:
    config = inputs.config
    found = {
        "base": inputs.model("base"),
        "sl_cai": inputs.model("sl_cai"),
        "rl_cai": inputs.model("rl_cai"),
        "reward_model": inputs.model("reward_model"),
        "rl_samples": inputs.output("rl", "samples"),
        "prompts": inputs.output("prompts", "eval"),
    }
    if config.has_demonstrations:
        found["helpful_only"] = inputs.model("helpful_only")
    if config.gold is not None:
        found["critic"] = inputs.model("critic")
        found["pairs"] = inputs.output("pairs", "pairs")
        found["labels"] = inputs.output("labels", "labels")
        found |= inputs.judge()
    return found


def _settings(config: RunConfig) -> Json:
    section = config.evaluate
    settings: Json = {
        "gold": config.gold,
        "samples_per_prompt": section.samples_per_prompt,
        "sampling": section.sampling.model_dump(exclude={"batch_size"}),
        "dtype": config.models.dtype,
        "sl_cai_from": config.sl_cai.start_from,
    }
    if config.gold is not None:
        settings["exam"] = {
            "pairs": section.exam_pairs,
            "judge_templates": TemplateSet(config.labels.templates).digest,
            "templates": templates_digest(config.critique_revision.templates),
            "judge": judge_settings(config),
            "critique": config.critique_revision.critique.model_dump(exclude={"batch_size"}),
            "revision": config.critique_revision.revision.model_dump(exclude={"batch_size"}),
        }
    return settings


def _tuning(config: RunConfig) -> Json:
    return {
        "batch_size": config.evaluate.sampling.batch_size,
        "judge": judge_tuning(config),
        "judge_templates": config.labels.templates,
        "templates": config.critique_revision.templates,
    }


def _forecast(ahead: Forecaster) -> Needs:
    """All models answer the held-out prompts."""
    section = ahead.config.evaluate
    roles = 3 + ahead.config.has_demonstrations
    answers = roles * section.samples_per_prompt * ahead.inputs.count("eval")
    tokens = answers * section.sampling.max_new_tokens
    disk = answers * (3 * section.sampling.max_new_tokens * ahead.inputs.bytes_per_token + 2 * ROW)
    return ahead.sampling(answers, tokens, disk + ahead.inputs.count("eval") * ahead.inputs.prompt_bytes)


STAGE = Stage(
    name="evaluate",
    title="Evaluation",
    version=4,
    principle_kind="comparison",
    isolated=True,
    samples=True,
    inputs=_inputs,
    settings=_settings,
    tuning=_tuning,
    run=run,
    forecast=_forecast,
    summary=lambda m: f"{m['answers']} answers to {m['prompts']} held-out prompts",
)
