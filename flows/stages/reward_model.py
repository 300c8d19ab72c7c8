"""A reward model from the judge's soft labels."""

from __future__ import annotations

from flows.stages.base import Artifact, Inputs, Result, Stage, Work
from flows.stages.training import settings_of, train, tuning_of


def run(work: Work) -> Result:
    """Train on the exported preferences: those whose status may train, and enough of them (labels.min_usable)."""
    fields = {
        "model": work.inputs["model"],
        "data": [work.inputs["preferences"]],
        "statuses": work.settings["statuses"],
        "max_not_ok": 1.0,
    }
    metrics = train(work, "reward_model", fields=fields, shown=("loss", "accuracy"))
    return Result(outputs={"model": "model"}, metrics=metrics)


def _inputs(inputs: Inputs) -> dict[str, Artifact]:
    return {
        "model": inputs.model(inputs.config.reward_model.start_from),
        "preferences": inputs.output("labels", "preferences"),
    }


STAGE = Stage(
    name="reward_model",
    title="Reward model",
    inputs=_inputs,
    settings=lambda config: settings_of(
        config.reward_model, without=("start_from",), statuses=list(config.labels.statuses)
    ),
    tuning=lambda config: tuning_of(config, config.reward_model, without=("start_from",)),
    run=run,
)
