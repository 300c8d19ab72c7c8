"""RL-CAI: from the SL-CAI model to a policy (Bai et al. 2022, section 4.1).

PPO, GRPO or RLOO against a reward, with a penalty on KL; or DPO and its relatives, straight from the labels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from common.files import write_jsonl
from flows.config.trainers import PreferenceSection
from flows.labelling.gates import training_gate
from flows.labelling.reward import judge_term
from flows.pipeline.forecast.needs import ROW, Forecaster, Needs
from flows.stages.contract import Artifact, Inputs, Json, Result, Stage, StageInput
from flows.stages.early_stopping import (
    KEY,
    stopping_fields,
    stopping_inputs,
    stopping_judge,
    stopping_settings,
)
from flows.stages.labels import judge_settings
from flows.stages.reward_model import Member, members
from flows.stages.trainer import settings_of, train, tuning_of
from judges import TemplateSet

if TYPE_CHECKING:
    from flows.config import RunConfig


_OWN = ("method", "reward", "rewrites", "early_stopping")


def run(work: StageInput) -> Result:
    """Train; samples.jsonl keeps what the policy said on its way (nothing where it learns from pairs)."""
    outputs = {"model": "model", "samples": "model/samples.jsonl"}
    method = work.settings["method"]
    fields: Json = {"model": work.inputs["model"]}
    if "reference" in work.inputs:  # rounds start from the current policy and are kept near the first one
        fields["reference"] = work.inputs["reference"]
    if "preferences" in work.inputs:
        fields |= {
            "data": [path for name, path in work.inputs.items() if name.startswith("preferences")],
            "statuses": work.settings["statuses"],
            "max_not_ok": 1.0,
            "loss": method,
        }
        metrics = train(work, "dpo", fields=fields, shown=("loss", "margin"))
        write_jsonl(work.directory / "samples.jsonl", [])
        return Result(outputs={**outputs, "samples": "samples.jsonl"}, metrics=metrics)
    fields |= {"prompts": [work.inputs["prompts"]], "rewards": _rewards(work)}
    if work.settings.get(KEY):
        fields["early_stopping"] = stopping_fields(work)
        outputs["early_stopping"] = "model/early_stopping.jsonl"
    total = work.settings["knobs"]["steps"]
    metrics = train(work, method, fields=fields, total=total, shown=("reward", "kl", "length"))
    return Result(outputs=outputs, metrics=metrics)


def _rewards(work: StageInput) -> list[Json]:
    """The parts of the reward, as the trainer's config has them."""
    reward = work.settings["reward"]
    parts: list[Json] = []
    if reward["model"]:
        dimensions = work.settings["dimensions"]
        all_members = members(dimensions, work.settings["ensemble"])
        for dimension in sorted(dimensions) or [None]:
            paths = [work.inputs[input_name(m)] for m in all_members if m.dimension == dimension]
            weight = reward["model"] * (dimensions[dimension] if dimension else 1.0)
            parts.append({"name": dimension or "model", "weight": weight, **_model(paths, reward)})
    if reward["judge"]:
        term = judge_term(
            work,
            "judge_reward.json",
            judge=work.tuning["judge"],
            templates=reward["judge"]["templates"],
            baselines=work.inputs.get("pairs"),
            principles=reward["judge"]["principles"],
            mass_threshold=work.settings["mass_threshold"],
        )
        parts.append({"weight": reward["judge"]["weight"], **term})
    return parts + reward["terms"]


def _model(paths: list[str], reward: Json) -> Json:
    if len(paths) == 1:
        return {"kind": "model", "path": paths[0]}
    return {"kind": "ensemble", "paths": paths, "combine": reward["combine"], "penalty": reward["penalty"]}


def input_name(member: Member) -> str:
    """What the stage calls a reward model among its inputs."""
    return f"reward_{member.name}"


def _inputs(inputs: Inputs) -> dict[str, Artifact]:
    config = inputs.config
    found = {"model": inputs.model("sl_cai")}
    if isinstance(config.rl, PreferenceSection):
        found["preferences"] = inputs.output("labels", "preferences")
        if config.rl.rewrites:
            found["preferences_rewrites"] = inputs.output("critique_revision", "rewrites")
        return found
    found["prompts"] = inputs.output("prompts", "rl")
    if config.rl.reward.model:
        for member in members(config.reward_model.dimensions, config.reward_model.ensemble):
            found[input_name(member)] = inputs.output("reward_model", member.name)
    if config.rl.reward.judge:
        found |= {"constitution": inputs.output("labels", "constitution"), **inputs.judge()}
        if config.rl.reward.judge.kind == "pairwise":
            found["pairs"] = inputs.output("pairs", "pairs")
    return found | stopping_inputs(inputs)


def _settings(config: RunConfig) -> Json:
    settings = settings_of(config.rl, without=_OWN, method=config.rl.method)
    if isinstance(config.rl, PreferenceSection):
        return {**settings, "statuses": list(config.labels.statuses)}
    reward = config.rl.reward.model_dump(mode="json")
    settings |= {
        "reward": reward,
        "ensemble": config.reward_model.ensemble,
        "dimensions": config.reward_model.dimensions,
    }
    if config.rl.reward.judge:
        templates = TemplateSet(config.rl.reward.judge.templates)
        marks = config.rl.reward.judge.kind == "pointwise"
        if marks:
            # Before the run starts: a set that cannot mark a single answer says so here.
            templates.pointwise([{"role": "user", "content": "?"}], "", "")
        settings |= {
            "judge_templates": templates.digest,
            "judge": judge_settings(config),
            # Comparing is the labels' question and is read as they are; marking is another one.
            "mass_threshold": 0.5 if marks else config.labels.mass_threshold,
        }
    return settings | stopping_settings(config.rl.early_stopping)


def _tuning(config: RunConfig) -> Json:
    return {
        **tuning_of(config, config.rl, without=_OWN),
        "judge": config.judge.model_dump(mode="json"),
        "gold_judge": stopping_judge(config),
    }


def _forecast(ahead: Forecaster) -> Needs:
    """Sampling and learning step by step, or a pass over the labels."""
    section: Any = ahead.config.rl
    if isinstance(section, PreferenceSection):
        items, _ = ahead.usable()
        tokens = 2 * (ahead.inputs.prompt_tokens + ahead.config.pairs.sampling.max_new_tokens)
        return ahead.training(section, items, tokens, source=f"{items:,} pairs", copies=1)
    samples = section.steps * section.batch_size
    sampled = samples * section.max_new_tokens
    # Beside the policy: a frozen reference and the reward model, and PPO's value model, which trains.
    trained = 2 if section.method == "ppo" else 1
    logged = min(section.log_samples, section.batch_size) * section.steps
    row = ahead.inputs.prompt_bytes + section.max_new_tokens * ahead.inputs.bytes_per_token + ROW
    found = Needs(
        samples=samples,
        sampled_tokens=sampled,
        steps=section.steps,
        trained_tokens=sampled * section.epochs,
        memory_bytes=ahead.memory(section, frozen=2, trained=trained),
        disk_bytes=round(ahead.inputs.model_bytes + logged * row),
        source="answers as long as they may be",
    )
    if section.reward.judge is None:
        return found
    prompts, longest = ahead.inputs.made_up(answer=""), section.max_new_tokens
    return found.with_judge(ahead.judge.of_prompts(samples, prompts, answer_tokens=longest))


STAGE = Stage(
    name="rl",
    role="rl_cai",
    gate=training_gate,
    title="Reinforcement learning",
    version=3,
    inputs=_inputs,
    settings=_settings,
    tuning=_tuning,
    run=run,
    forecast=_forecast,
)
