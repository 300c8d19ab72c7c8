"""SL-CAI: fine-tuning on revisions and on answers to harmless prompts (Bai et al. 2022, §3.1)."""

from __future__ import annotations

from flows.stages.contract import Artifact, Inputs, Result, Stage, Work
from flows.stages.trainer import settings_of, train, tuning_of


def run(work: Work) -> Result:
    """Train on the last turn of every example of critique and revision."""
    fields = {"model": work.inputs["model"], "data": [work.inputs["sft"]], "train_on": "last"}
    return Result(outputs={"model": "model"}, metrics=train(work, "sft", fields=fields))


def _inputs(inputs: Inputs) -> dict[str, Artifact]:
    return {
        "model": inputs.model(inputs.config.sl_cai.start_from),
        "sft": inputs.output("critique_revision", "sft"),
    }


STAGE = Stage(
    name="sl_cai",
    title="SL-CAI fine-tuning",
    inputs=_inputs,
    settings=lambda config: settings_of(config.sl_cai, without=("start_from",)),
    tuning=lambda config: tuning_of(config, config.sl_cai, without=("start_from",)),
    run=run,
)
