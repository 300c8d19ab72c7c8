"""Reward models from the judge's soft labels: one, an ensemble of several seeds, or one for each dimension."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from common.files import write_jsonl
from common.rows import read_rows
from constitution.snapshot import from_json
from flows.errors import FlowError
from flows.labelling.gates import training_gate
from flows.pipeline.forecast.needs import Forecaster, Needs
from flows.runs.digests import digest_file
from flows.stages.contract import Artifact, Inputs, Json, Result, Stage, StageInput
from flows.stages.trainer import settings_of, train, tuning_of

if TYPE_CHECKING:
    from flows.config import RunConfig

OWN = ("start_from", "ensemble", "dimensions", "human", "rewrites")
"""What of the section is not the trainer's."""


@dataclass(frozen=True, kw_only=True)
class Member:
    """One reward model: where it lands in the stage's folder, the labels it learns from, and its number among those
    that differ in their seed alone."""

    name: str
    dimension: str | None
    number: int


def members(dimensions: Collection[str], ensemble: int) -> list[Member]:
    """All models of a run; the first is called `model`."""
    found = [
        Member(
            name="_".join(filter(None, ("model", dimension, str(number + 1)))),
            dimension=dimension,
            number=number,
        )
        for dimension in (*sorted(dimensions),) or (None,)
        for number in range(ensemble)
    ]
    first = found[0]
    return [Member(name="model", dimension=first.dimension, number=0), *found[1:]]


def run(work: StageInput) -> Result:
    """Train on the exported preferences: those whose status may train, and enough of them (labels.min_usable).

    Raises FlowError when no label is of one of the dimensions alone.
    """
    wanted = members(work.settings["dimensions"], work.settings["ensemble"])
    metrics: Json = {}
    for member in wanted:
        fields = {
            "model": work.inputs["model"],
            **_data(work, member.dimension),
            "statuses": work.settings["statuses"],
            "max_not_ok": 1.0,
        }
        found = train(
            work,
            "reward_model",
            fields=fields,
            shown=("loss", "accuracy"),
            name=member.name,
            seed=work.seed + member.number,
        )
        metrics |= found if member.name == "model" else {f"{member.name}.{n}": v for n, v in found.items()}
    return Result(outputs={member.name: member.name for member in wanted}, metrics=metrics)


def _data(work: StageInput, dimension: str | None) -> Json:
    """The data files and their shares."""
    labels = [work.inputs[name] for name in _names(work)]
    if dimension is not None:
        return {"data": [_of_dimension(work, dimension)]}
    if "human" not in work.inputs:
        return {"data": labels}
    share = work.settings["human_share"]
    sizes = [sum(1 for _ in read_rows(path)) for path in map(work.input, _names(work))]
    if not all(sizes):
        raise FlowError(f"labels: no preference to mix with reward_model.human in {labels[sizes.index(0)]}")
    shares = [(1 - share) * size / sum(sizes) for size in sizes]
    return {"data": [*labels, work.inputs["human"]], "shares": [*shares, share]}


def _names(work: StageInput) -> list[str]:
    return [name for name in work.inputs if name.startswith("preferences")]


def _of_dimension(work: StageInput, dimension: str) -> str:
    """The labels whose principles are all of this dimension, in a file of their own."""
    constitution = from_json(json.loads(work.input("constitution").read_text(encoding="utf-8")))
    known = {principle.id: principle.dimension for principle in constitution.comparison}
    rows = [row for name in _names(work) for _, row in read_rows(work.input(name))]
    own = [row for row in rows if {known.get(principle) for principle in row["principles"]} == {dimension}]
    if not own:
        raise FlowError(
            f"reward_model.dimensions: none of {len(rows)} labels is of dimension {dimension} alone; the constitution "
            f"has {', '.join(sorted(set(known.values())))}, and labels.principles above 1 mixes them"
        )
    path = work.directory / f"preferences-{dimension}.jsonl"
    write_jsonl(path, own)
    return str(path)


def _inputs(inputs: Inputs) -> dict[str, Artifact]:
    section = inputs.config.reward_model
    found = {
        "model": inputs.model(section.start_from),
        "preferences": inputs.output("labels", "preferences"),
    }
    if section.dimensions:
        found["constitution"] = inputs.output("labels", "constitution")
    if section.rewrites:
        found["preferences_rewrites"] = inputs.output("critique_revision", "rewrites")
    if section.human:
        path = section.human.path
        found["human"] = Artifact(path=str(path), digest=digest_file(path))
    return found


def _settings(config: RunConfig) -> Json:
    section = config.reward_model
    return settings_of(
        section,
        without=OWN,
        statuses=list(config.labels.statuses),
        ensemble=section.ensemble,
        dimensions=sorted(section.dimensions),
        human_share=section.human.share if section.human else None,
    )


def _forecast(ahead: Forecaster) -> Needs:
    """As many models as the section asks for, from the labels that may train."""
    section = ahead.config.reward_model
    usable, most = ahead.usable()
    items = max(1, round(usable * (1 - section.held_out)))
    models = section.ensemble * max(1, len(section.dimensions))
    tokens = ahead.inputs.prompt_tokens + 2 * ahead.config.pairs.sampling.max_new_tokens
    source = f"{most}{items:,} pairs, answers as long as they may be"
    one = ahead.training(section, items, tokens, source=source, logits=False)
    several = {name: models * getattr(one, name) for name in ("steps", "trained_tokens", "disk_bytes")}
    return replace(one, **several)


STAGE = Stage(
    name="reward_model",
    role="reward_model",
    gate=training_gate,
    title="Reward model",
    version=2,
    inputs=_inputs,
    settings=_settings,
    tuning=lambda config: tuning_of(config, config.reward_model, without=OWN),
    run=run,
    forecast=_forecast,
)
