"""What a run will need before it starts: calls, tokens and hours of the judge, training, memory, bytes on disk.

Stages whose result is there cost nothing. What hangs on a stage that has not run is counted from what that stage
can at most produce, and says so. Nothing is written, no model is loaded, and no judge is asked but for a probe.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from constitution import Constitution
from engines.fleet import check_devices
from flows.config import RunConfig
from flows.pipeline.forecast.judge import Speed
from flows.pipeline.forecast.needs import Forecaster, Needs
from flows.pipeline.session import Session
from flows.runs.directory import Attempt, RunDirectory
from flows.runs.store import RunStore
from flows.stages.contract import Artifact, Stage
from flows.stages.registry import active

State = Literal["reused", "runs"]


@dataclass(frozen=True, kw_only=True)
class Servers:
    """vLLM servers of one model, by its role, and the GPUs that they take; none on a CPU."""

    model: str
    replicas: int
    gpus: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class StageForecast(Needs):
    """One stage: what is reused needs nothing. `judge_hours` is known where the judge's speed is; `servers` are the
    vLLM servers that it starts, one group after the other, and ends."""

    stage: str
    state: State = "runs"
    judge_hours: float | None = None
    servers: tuple[Servers, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """All stages in order, and the judge's speed where it is known."""

    name: str
    constitution: str
    speed: Speed | None
    stages: tuple[StageForecast, ...]

    def total(self, field: str) -> float:
        """The sum of a field over the stages; what is unknown counts nothing."""
        return sum(getattr(stage, field) or 0 for stage in self.stages)

    def to_json(self) -> dict[str, Any]:
        """Plain data, for programs."""
        summed = (
            "judgements judge_prompt_tokens judge_completion_tokens judge_hours samples sampled_tokens steps"
        )
        names = [*summed.split(), "trained_tokens", "disk_bytes"]
        return {**asdict(self), "total": {name: self.total(name) for name in names}}


def plan_run(
    config: RunConfig,
    constitution: Constitution,
    *,
    judgements_per_second: float | None = None,
    measure: bool = False,
    force: frozenset[str] = frozenset(),
) -> Forecast:
    """The forecast of a run as it would start now; `measure` asks the judge a short probe.

    Raises FlowError or JudgeError for what the run itself would refuse.
    """
    store = RunStore(config.run_url) if config.run_url else None
    run = RunDirectory(config.run_directory, store)
    attempt = Attempt(number=0, started_at="", constitution={})
    session = Session(config=config, constitution=constitution, directory=run, attempt=attempt)
    forecaster = Forecaster(config, constitution, run)
    found: list[StageForecast] = []
    for stage in active(config):
        if (manifest := _finished(session, stage, force)) is not None:
            directory = run.stage_path(stage.name, manifest.key)
            for name, record in manifest.outputs.items():
                path = str(directory / record.path)
                session.outputs[(stage.name, name)] = Artifact(path=path, digest=record.digest)
            forecaster.finished(stage.name, manifest)
            found.append(StageForecast(stage=stage.name, state="reused"))
        else:
            needs = stage.forecast(forecaster)
            servers = tuple(_servers(config, needs))
            found.append(StageForecast(stage=stage.name, servers=servers, **vars(needs)))
    speed = forecaster.speed(judgements_per_second, measure=measure)
    if speed is not None:
        found = [replace(f, judge_hours=_hours(f, speed)) if f.judgements else f for f in found]
    return Forecast(name=config.name, constitution=constitution.ref, speed=speed, stages=tuple(found))


def _servers(config: RunConfig, needs: Needs) -> Iterator[Servers]:
    """The servers that a stage with these needs starts. Raises EngineError for what this machine cannot serve."""
    roles = [role for role in needs.models if role != "critic" or isinstance(config.models.critic, str)]
    if config.sampling.kind == "vllm":
        gpus = tuple(check_devices(config.sampling.vllm()))
        yield from (Servers(model=role, replicas=config.sampling.replicas, gpus=gpus) for role in roles)
    if config.judge.kind == "vllm" and needs.judgements:
        gpus = tuple(check_devices(config.judge.vllm()))
        yield Servers(model="judge", replicas=config.judge.replicas, gpus=gpus)


def _hours(stage: StageForecast, speed: Speed) -> float:
    return stage.judgements / speed.per_second / 3600


def _finished(session: Session, stage: Stage, force: frozenset[str]) -> Any:
    """The manifest of a stage that would be reused, or None; a stage behind one that will run is not looked for."""
    if stage.name in force:
        return None
    try:
        key, _, _ = session.plan(stage)
    except KeyError:  # an output of a stage that has not run
        return None
    return session.directory.finished(stage.name, key)
