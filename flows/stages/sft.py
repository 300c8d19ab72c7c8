"""Supervised fine-tuning: the helpful-only assistant from demonstrations, and SL-CAI from revisions.

Without demonstrations the base model plays the helpful-only assistant. SL-CAI learns from revisions and from answers to
harmless prompts (Bai et al. 2022, arXiv 2212.08073, section 3.1).
"""

from __future__ import annotations

from flows.runs.digests import digest_file
from flows.stages.contract import Artifact, Inputs, Result, Stage, StageInput
from flows.stages.trainer import settings_of, train, tuning_of


def train_helpful(work: StageInput) -> Result:
    """Train on the assistant's turns of the demonstrations."""
    fields = {"model": work.inputs["model"], "data": [work.inputs["demonstrations"]]}
    return Result(outputs={"model": "model"}, metrics=train(work, "sft", fields=fields))


def train_sl_cai(work: StageInput) -> Result:
    """Train on the last turn of every example of critique and revision."""
    fields = {"model": work.inputs["model"], "data": [work.inputs["sft"]], "train_on": "last"}
    return Result(outputs={"model": "model"}, metrics=train(work, "sft", fields=fields))


def _demonstrations(inputs: Inputs) -> dict[str, Artifact]:
    own = inputs.config.demonstrations
    if own is None:
        demonstrations = inputs.output("world", "demonstrations")
    else:
        demonstrations = Artifact(path=str(own.path), digest=digest_file(own.path))
    return {"model": inputs.model("base"), "demonstrations": demonstrations}


def _revisions(inputs: Inputs) -> dict[str, Artifact]:
    return {
        "model": inputs.model(inputs.config.sl_cai.start_from),
        "sft": inputs.output("critique_revision", "sft"),
    }


HELPFUL_SFT = Stage(
    name="helpful_sft",
    title="Helpful-only fine-tuning",
    role="helpful_only",
    inputs=_demonstrations,
    settings=lambda config: settings_of(config.helpful_sft),
    tuning=lambda config: tuning_of(config, config.helpful_sft),
    run=train_helpful,
    active=lambda config: config.has_demonstrations,
)

SL_CAI = Stage(
    name="sl_cai",
    title="SL-CAI fine-tuning",
    role="sl_cai",
    inputs=_revisions,
    settings=lambda config: settings_of(config.sl_cai, without=("start_from",)),
    tuning=lambda config: tuning_of(config, config.sl_cai, without=("start_from",)),
    run=train_sl_cai,
)
