"""Fine-tuning on demonstrations of a helpful-only assistant. Without demonstrations the base model plays it."""

from __future__ import annotations

from flows.runs.digests import digest_file
from flows.stages.contract import Artifact, Inputs, Result, Stage, Work
from flows.stages.trainer import settings_of, train, tuning_of


def run(work: Work) -> Result:
    """Train on the assistant's turns of the demonstrations."""
    fields = {"model": work.inputs["model"], "data": [work.inputs["demonstrations"]]}
    return Result(outputs={"model": "model"}, metrics=train(work, "sft", fields=fields))


def _inputs(inputs: Inputs) -> dict[str, Artifact]:
    own = inputs.config.demonstrations
    if own is None:
        demonstrations = inputs.output("world", "demonstrations")
    else:
        demonstrations = Artifact(path=str(own.path), digest=digest_file(own.path))
    return {"model": inputs.model("base"), "demonstrations": demonstrations}


STAGE = Stage(
    name="helpful_sft",
    title="Helpful-only fine-tuning",
    inputs=_inputs,
    settings=lambda config: settings_of(config.helpful_sft),
    tuning=lambda config: tuning_of(config, config.helpful_sft),
    run=run,
    active=lambda config: config.has_demonstrations,
)
