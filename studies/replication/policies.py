"""Policies: every learner with the demo's settings where it has them, and gold's verdict on what it made."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from flows.evaluation.gold import curve
from studies.replication.jobs import Study
from studies.replication.world import (
    WEIGHTS,
    answers,
    examine,
    fact_match,
    fact_questions,
    paths,
    prompts,
    read_lines,
    settings,
    write_lines,
)

_LAST = 5
_REPEATED = 1_000
"""Between the seeds of repeats, more than there are seeds."""


def reinforce(
    study: Study,
    name: str,
    seed: int,
    *,
    method: str,
    rewards: Sequence[str],
    combine: str = "mean",
    start: str | None = None,
    repeat: int = 0,
    **changes: Any,
) -> dict[str, Any]:
    """PPO, GRPO or RLOO from SL-CAI against the reward models of these jobs ("pipeline": the pipeline's own).

    `changes` are fields of the trainer's config, by default the demo's `rl` section. `start` names the job whose
    policy is trained on instead of SL-CAI; `repeat` draws other samples in the same world.
    """
    where = paths(study, seed)
    models = [
        where["reward_model.model"] if r == "pipeline" else str(study.work(r) / "model") for r in rewards
    ]
    if len(models) == 1:
        terms: list[dict[str, Any]] = [{"kind": "model", "path": models[0]}]
    else:
        terms = [{"kind": "ensemble", "paths": models, "combine": combine}]
    policy = where["sl_cai.model"] if start is None else str(study.work(start) / "model")
    asked = Path(where["prompts.rl"])
    changes = {"seed": seed + _REPEATED * repeat, **changes}
    return learn(study, name, seed, method, policy, terms, asked, changes)


def direct(
    study: Study, name: str, seed: int, *, method: str, principles: int, **changes: Any
) -> dict[str, Any]:
    """Direct RLAIF (Lee et al. 2023, section 2.2.2): the judge scores what the policy has just written.

    The microworld's judge compares and gives no marks from 1 to 10. So a response's reward is the log-odds with
    which the judge prefers it to SL-CAI's greedy answer to the same prompt, in the units of the reward model
    (divided by the standard deviation of its scores).
    """
    from constitution import load
    from judges import InProcessJudge
    from judges.against import BaselineScorer, conversation_key

    where = paths(study, seed)
    asked = prompts(where["prompts.rl"])
    greedy = answers(where["sl_cai.model"], asked, seed=0, temperature=0.0)
    reward = BaselineScorer(
        InProcessJudge(WEIGHTS / "feedback", dtype="float32"),
        load(settings().constitution),
        {conversation_key(p.prompt): text for p, text in zip(asked, greedy, strict=True)},
        principles=principles,
        templates="microworld",
        seed=seed,
    )
    std = json.loads((Path(where["reward_model.model"]) / "config.json").read_text())["reward_std"]
    terms = [{"kind": "callable", "name": "judge", "weight": 1 / std}]
    if method == "ppo":
        changes = {"value": {**settings().rl.value.model_dump(), "start_from": "policy"}, **changes}
    found = learn(
        study, name, seed, method, where["sl_cai.model"], terms, Path(where["prompts.rl"]), changes, reward
    )
    return {**found, "reward_std": std}


def verify(study: Study, name: str, seed: int, **changes: Any) -> dict[str, Any]:
    """RLVR: GRPO on prompts about facts of the training split, 1 for an answer that names the true value, else 0."""
    where = paths(study, seed)
    asked = [row for family in ("fact", "flattery") for row in fact_questions(family, "train")]
    write_lines(study.work(name) / "questions.jsonl", asked)
    terms = [{"kind": "exact", "match": "contains"}]
    questions = study.work(name) / "questions.jsonl"
    found = learn(study, name, seed, "grpo", where["sl_cai.model"], terms, questions, changes)
    return {**found, "facts": fact_match(str(study.work(name) / "model"), seed)}


def prefer(
    study: Study,
    name: str,
    seed: int,
    *,
    data: str | None = None,
    statuses: Sequence[str] = ("ok", "tie"),
    **changes: Any,
) -> dict[str, Any]:
    """DPO and its relatives from SL-CAI, on the very labels that the reward model learns from."""
    from training.dpo.train import DpoConfig, train

    where = paths(study, seed)
    labels = where["labels.preferences"] if data is None else str(study.work(data) / "preferences.jsonl")
    result = train(
        DpoConfig(
            model=where["sl_cai.model"],
            data=(Path(labels),),
            output_dir=study.work(name) / "model",
            seed=seed,
            statuses=tuple(statuses),
            max_not_ok=1.0,
            checkpoint_every=0,
            **changes,
        ),
        resume=True,
    )
    return {
        "gold": examine(study, name, seed, str(study.work(name) / "model")),
        "training": result.metrics,
    }


def learn(
    study: Study,
    name: str,
    seed: int,
    method: str,
    policy: str,
    terms: list[dict[str, Any]],
    asked: Path,
    changes: Mapping[str, Any],
    judge: Any = None,
) -> dict[str, Any]:
    """Train `policy` by `method` with the demo's `rl` section but for `changes`; gold's figures and curve."""
    from training import grpo, ppo, rloo
    from training.config.rl import GRPOConfig, PPOConfig, RLConfig, RLOOConfig

    config_class, module = {
        "ppo": (PPOConfig, ppo),
        "grpo": (GRPOConfig, grpo),
        "rloo": (RLOOConfig, rloo),
    }[method]
    shared = PPOConfig if method == "ppo" else RLConfig
    demo = settings().rl.model_dump(mode="json", exclude={"reward_model", "brake"})
    knobs = {key: value for key, value in demo.items() if key in shared.model_fields}
    if method != "ppo":
        del knobs["samples_per_prompt"]  # the method's own default: groups
    knobs |= {"checkpoint_every": 0, "seed": seed, **changes}
    output = study.work(name) / "model"
    config = config_class(**knobs, model=policy, rewards=terms, prompts=(asked,), output_dir=output)
    result = module.train(config, resume=True, reward_functions={"judge": judge} if judge else None)
    samples = read_lines(output / "samples.jsonl")
    return {
        "gold": examine(study, name, seed, str(output)),
        "curve": curve(samples, gold=True),
        "training": result.metrics,
    }


def ends(points: Sequence[Mapping[str, Any]], last: int = _LAST) -> dict[str, float]:
    """A curve in a few figures, from means over `last` neighbouring steps: gold's peak, its step, gold and proxy at
    the end, the fall from peak to end, and the KL at peak and end."""
    windows = [points[i : i + last] for i in range(len(points) - last + 1)]

    def mean(window: Sequence[Mapping[str, Any]], key: str) -> float:
        return sum(point[key] for point in window) / len(window)

    peak = max(windows, key=lambda window: mean(window, "gold"))
    end = windows[-1]
    return {
        "gold_peak": mean(peak, "gold"),
        "gold_end": mean(end, "gold"),
        "gold_fall": mean(peak, "gold") - mean(end, "gold"),
        "peak_step": float(peak[last // 2]["step"]),
        "kl_peak": mean(peak, "kl"),
        "kl_end": mean(end, "kl"),
        "proxy_end": mean(end, "proxy"),
    }
