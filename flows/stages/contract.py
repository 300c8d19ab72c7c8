"""What a stage is: a plain function from input paths and settings to a folder of outputs.

`settings` decide the result and are part of the stage's key; `tuning` (checkpoint intervals, processes, batch
sizes that only cost time) is not. A stage function sees nothing else of the configuration, so a key cannot
miss what a stage reads.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from common.files import replacing
from constitution import Constitution
from flows.config import RunConfig
from flows.config.data import CriticEndpoints, ShardsSection
from flows.pipeline.forecast.needs import Forecaster, Needs
from flows.runs.digests import digest_json, model_digest
from flows.runs.progress import Progress, Reporter
from flows.runs.record import RunRecord

PrincipleKind = Literal["critique", "comparison"]


Json = dict[str, Any]
"""A JSON object as keys, manifests and job files keep it: a stage's settings, its tuning, its figures."""

WITHOUT = "without_"
"""How the names of inputs begin whose content a stage leaves out of its result."""

Done = Callable[[int, Any], None]
"""`done(number, result)`: shard `number`, from 0, has come back."""


def ignore(number: int, result: Any) -> None:
    """For callers that need no word of each shard."""


class Shards(Protocol):
    """How a stage's shards are worked through: here, or as an orchestrator's tasks.

    `work` and its items must be picklable: they may run on another machine. `how` is the configuration's
    `launcher.shards`. The results come in the items' order; `done` is called in this thread as each arrives.
    """

    def __call__(
        self,
        name: str,
        items: Sequence[Any],
        work: Callable[[Any], Any],
        *,
        how: ShardsSection,
        done: Done = ignore,
    ) -> list[Any]: ...


def in_turn(
    name: str,
    items: Sequence[Any],
    work: Callable[[Any], Any],
    *,
    how: ShardsSection,
    done: Done = ignore,
) -> list[Any]:
    """Shard after shard, in this process, without an orchestrator; `how` is for those."""
    results = []
    for number, item in enumerate(items):
        results.append(work(item))
        done(number, results[-1])
    return results


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """An input: a local path or a hub id, and the digest of its content."""

    path: str
    digest: str


@dataclass(frozen=True, kw_only=True)
class Result:
    """What a stage function returns: output names with paths inside its folder, and numbers."""

    outputs: Mapping[str, str]
    metrics: Json = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class StageInput:
    """Everything that a stage function gets.

    `inputs` are paths (or hub ids), `digests` those of their content. Of `world` processes that run the same
    isolated stage, this is number `rank`. `provenance` goes into the card of a model and decides nothing.
    """

    stage: str
    directory: Path
    run_directory: Path
    seed: int
    settings: Json
    tuning: Json
    inputs: Mapping[str, str]
    digests: Mapping[str, str]
    constitution: Constitution | None
    progress: Progress
    provenance: Json = field(default_factory=dict)
    note_child: Callable[[int], None] = lambda ru_maxrss: None
    shards: Shards = in_turn
    rank: int = 0
    world: int = 1

    def input(self, name: str) -> Path:
        """An input that is a local file or folder."""
        return Path(self.inputs[name])

    def once(self, name: str, make: Callable[[Path], None]) -> Path:
        """The file of that name, which holds the digest of what it depends on: from the stage's folder, from an earlier
        result of this run, or made now."""
        path = self.directory / name
        if not path.exists():
            earlier = next(iter(path.parent.parent.glob(f"*/{name}")), None)
            if earlier is None:
                make(path)
            else:
                with replacing(path) as beside:
                    shutil.copyfile(earlier, beside)
        return path


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One stage of the pipeline.

    `role` is that of the model which it makes, for stages that come after it and for people who name a model of a run.
    `version` is raised when its code gives other results from the same inputs. `isolated` stages run in a child
    process of their own, so that a model's memory is given back and a crash is an exit code; those that
    `samples` may do so in several processes. The `gate` is asked at every start, before a result is reused too; it
    raises FlowError for what must not go on. `principle_kind` says which principles it reads, `forecast` what it will
    need.
    """

    name: str
    title: str
    role: str | None = None
    version: int = 1
    principle_kind: PrincipleKind | None = None
    isolated: bool = False
    samples: bool = False
    inputs: Callable[[Inputs], Mapping[str, Artifact]]
    settings: Callable[[RunConfig], Json]
    tuning: Callable[[RunConfig], Json] = lambda config: {}
    run: Callable[[StageInput], Result]
    forecast: Callable[[Forecaster], Needs] = lambda ahead: Needs()
    active: Callable[[RunConfig], bool] = lambda config: True
    summary: Callable[[Json], str] = lambda metrics: ""
    gate: Callable[[RunRecord, Reporter], None] = lambda record, reporter: None

    def key(
        self,
        *,
        seed: int,
        settings: Json,
        inputs: Mapping[str, Artifact],
        principles: str | None,
    ) -> str:
        """The digest of all that decides the stage's result; paths are not part of it. `principles` is a digest too."""
        return digest_json(
            {
                "stage": self.name,
                "version": self.version,
                "seed": seed,
                "settings": settings,
                "inputs": {name: artifact.digest for name, artifact in inputs.items()},
                "constitution": principles,
            }
        )


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """Where a stage finds what it reads: outputs of earlier stages, and what the config points at.

    `makers` names the stage that makes the model of each role.
    """

    config: RunConfig
    outputs: Mapping[tuple[str, str], Artifact]
    makers: Mapping[str, str]

    def output(self, stage: str, name: str) -> Artifact:
        """An output of an earlier stage of this run."""
        return self.outputs[(stage, name)]

    def model(self, role: str) -> Artifact:
        """A model by its role: base, helpful_only, critic, sl_cai, rl_cai or reward_model.

        Without demonstrations the base model plays the helpful-only model; without a critic of its own the
        helpful-only model criticises.
        """
        if role == "critic":
            critic = self.config.models.critic
            if isinstance(critic, CriticEndpoints):
                served = {"model": critic.model, "revision": critic.revision}
                return Artifact(path=critic.endpoints[0], digest=digest_json({"served": served}))
            return self.external(critic) if critic else self.model("helpful_only")
        if role == "helpful_only" and (self.makers[role], "model") not in self.outputs:
            role = "base"
        if role == "base":
            return self.external(self.config.models.base)
        return self.output(self.makers[role], "model")

    def judge(self) -> dict[str, Artifact]:
        """`{"judge": …}`: the judge's own folder, or the one of its tokenizer; nothing for a server alone."""
        judge = self.config.judge
        folder = judge.tokenizer if judge.kind == "openai" else judge.model
        return {} if folder is None else {"judge": self.external(str(folder))}

    def external(self, ref: str) -> Artifact:
        """A model that the config names: a local directory, or a hub id."""
        return Artifact(path=ref, digest=model_digest(ref))
