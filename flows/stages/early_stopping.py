"""Early stopping of reinforcement learning in a run: who is gold, and which prompts are held out for it."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from common.files import write_jsonl
from common.rows import read_rows
from flows.evaluation import gold
from flows.labelling.reward import judge_term
from flows.stages.contract import Artifact, Inputs, Json, StageInput
from judges import TemplateSet

if TYPE_CHECKING:
    from flows.config import RunConfig
    from flows.config.trainers import EarlyStoppingSection

KEY = "brake"
"""Its name in the settings of the stage, which are part of the stage's key: another name would train again."""
_GOLDS = ("microworld", "model", "judge", "people")


def stopping_settings(section: EarlyStoppingSection | None) -> Json:
    """What of early stopping decides the stage's result; nothing without it."""
    if section is None:
        return {}
    judge = section.judge
    settings = {
        "knobs": section.model_dump(mode="json", exclude={*_GOLDS, "templates"}),
        "gold": next(name for name in _GOLDS if getattr(section, name)),
    }
    if judge is not None:
        settings["judge"] = {"model": judge.model, "revision": judge.revision, "dtype": judge.dtype}
        templates = TemplateSet(section.templates)
        # Before the run starts: a set that cannot mark a single answer says so here.
        templates.pointwise([{"role": "user", "content": "?"}], "", "")
        settings["templates"] = templates.digest
    return {KEY: settings}


def stopping_judge(config: RunConfig) -> Json | None:
    """How to reach the gold judge, and its templates; None where gold is something else."""
    section = getattr(config.rl, "early_stopping", None)
    if section is None or section.judge is None:
        return None
    return {"judge": section.judge.model_dump(mode="json"), "templates": section.templates}


def stopping_inputs(inputs: Inputs) -> dict[str, Artifact]:
    """The held-out prompts, and what the gold judge reads."""
    section = getattr(inputs.config.rl, "early_stopping", None)
    if section is None:
        return {}
    found = {"held_out": inputs.output("prompts", "sl")}
    if ("prompts", "sl_benign") in inputs.outputs:
        found["held_out_benign"] = inputs.output("prompts", "sl_benign")
    if section.model is not None:
        found["gold"] = inputs.external(section.model)
    if section.people:
        found["gold"] = inputs.output("gold_model", "model")
    if section.judge is not None:
        found["constitution"] = inputs.output("labels", "constitution")
    return found


def stopping_fields(work: StageInput) -> Json:
    """The `early_stopping` of the trainer's config; the held-out prompts go into `held_out.jsonl`."""
    settings = work.settings[KEY]
    files = [work.input(name) for name in ("held_out", "held_out_benign") if name in work.inputs]
    rows = [row for file in files for _, row in read_rows(file)]
    # In turns at random, so that the first ones are of every kind.
    random.Random(f"{work.seed}/brake").shuffle(rows)
    path = work.directory / "held_out.jsonl"
    write_jsonl(path, rows[: settings["knobs"]["limit"]])
    return {"gold": _gold(work, settings["gold"]), "prompts": [str(path)], **settings["knobs"]}


def _gold(work: StageInput, who: str) -> Json:
    if who == "microworld":
        return {"kind": "function", "name": "gold", "function": f"{__name__}:microworld"}
    if who in ("model", "people"):
        return {"kind": "model", "name": "gold", "path": work.inputs["gold"]}
    return judge_term(work, "gold_judge.json", **work.tuning["gold_judge"])


def microworld(conversations: Sequence[Sequence[Mapping[str, str]]], responses: Sequence[str]) -> list[float]:
    """The oracle's overall score in [0, 1] of each answer."""
    return [
        gold.overall(gold.score_answer(conversation, response))
        for conversation, response in zip(conversations, responses, strict=True)
    ]
