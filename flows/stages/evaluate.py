"""Every model answers the held-out prompts; the reward model and, in the microworld, gold score the answers.

Answers and the exam are kept by the digest of what they depend on, so a second constitution costs only the
models that it changed.
"""

from __future__ import annotations

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
from flows.stages.answers import answers_of, rewards_of, side_by_side
from flows.stages.contract import Artifact, Inputs, Json, Result, Stage, StageInput
from flows.stages.gold_exam import gold_agreement, gold_exam
from flows.stages.labels import judge_settings
from flows.stages.samplers import Answer, Sampler, engine_settings, engine_tuning, sampler_of
from flows.stages.sampling import spent
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
    with_gold = work.settings["gold"] is not None
    opinions = opinion_pairs(repeated, gold=with_gold)
    answers, neutral = {}, {}
    for role in roles:
        sampler = sampler_of(work, role)
        answers[role] = answers_of(work, role, sampler, repeated)
        neutral[role] = _neutral_answers(work, role, sampler, opinions)
        sampler.close()
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
    evaluation["side_effects"] = _side_effects(work, repeated, answers, (opinions, neutral), scores, along)
    evaluation["weights"] = moved_weights(work)
    rows = side_by_side(repeated, answers, rewards, scores)
    if with_gold:
        evaluation["exam"] = gold_exam(work)
        evaluation["gold_agreement"] = gold_agreement(work, rows)
    write_jsonl(work.directory / "answers.jsonl", rows)
    write_json(work.directory / "evaluation.json", evaluation)
    return Result(
        outputs={"answers": "answers.jsonl", "evaluation": "evaluation.json"},
        metrics={"prompts": len(prompts), "answers": len(repeated) * len(roles), "texts": spent(work)},
    )


def _side_effects(
    work: StageInput,
    prompts: list[Prompt],
    answers: dict[str, list[Answer]],
    without: tuple[list[OpinionPair], dict[str, list[Answer]]],
    scores: dict[str, list[Any]],
    along: list[tuple[int, Answered]],
) -> Json:
    """The watch over all models' answers and along reinforcement learning; each question that holds an opinion is
    asked again without it, and `without` holds those answers."""
    pairs, neutral = without
    place = {prompt.id: index for index, prompt in reversed(list(enumerate(prompts)))}
    swayed = {}
    for role in answers if pairs else ():
        swayed[role] = [
            (answers[role][place[pair.prompt]].text, other.text)
            for pair, other in zip(pairs, neutral[role], strict=True)
        ]
    read = {
        role: read_answers(prompts, [a.text for a in found], scores.get(role))
        for role, found in answers.items()
    }
    watched = watch(read, reference=NORMAL, opinions=pairs, swayed=swayed, steps=along, seed=work.seed)
    return watched.to_json()


def _neutral_answers(work: StageInput, role: str, sampler: Sampler, pairs: list[OpinionPair]) -> list[Answer]:
    if not pairs:
        return []
    asked = [Prompt(id=pair.prompt, prompt=[dict(m) for m in pair.neutral]) for pair in pairs]
    return answers_of(work, role, sampler, asked, of=digest_json([p.prompt for p in asked]))


def _sampled(samples: list[Json], *, by_gold: bool) -> list[tuple[int, Answered]]:
    """What the policy said on its way, read like any answer, with the step."""
    prompts = [Prompt(id=row["prompt_id"], prompt=row["prompt"]) for row in samples]
    texts = [row["response"] for row in samples]
    scores = (
        [gold.score_answer(p.prompt, t) for p, t in zip(prompts, texts, strict=True)] if by_gold else None
    )
    read = read_answers(prompts, texts, scores)
    return list(zip((row["step"] for row in samples), read, strict=True))


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
        **engine_settings(config),
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
        **engine_tuning(config),
        "judge": judge_tuning(config),
        "judge_templates": config.labels.templates,
        "templates": config.critique_revision.templates,
    }


def _forecast(ahead: Forecaster) -> Needs:
    """All models answer the held-out prompts."""
    section = ahead.config.evaluate
    roles = [role for role in ROLES if role != "helpful_only" or ahead.config.has_demonstrations]
    answers = len(roles) * section.samples_per_prompt * ahead.inputs.count("eval")
    tokens = answers * section.sampling.max_new_tokens
    disk = answers * (3 * section.sampling.max_new_tokens * ahead.inputs.bytes_per_token + 2 * ROW)
    disk += ahead.inputs.count("eval") * ahead.inputs.prompt_bytes
    return ahead.sampling(answers, tokens, disk, models=roles)


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
