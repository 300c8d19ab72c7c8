"""The whole configuration of a run."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from flows.config.data import (
    CritiqueRevisionSection,
    DemonstrationsSection,
    EvaluateSection,
    LauncherSection,
    ModelsSection,
    PairsSection,
    PromptsSection,
    SamplingSection,
    WorldSection,
)
from flows.config.fields import ConstitutionRef, RunsDir, Section
from flows.config.judging import AuditSection, ExamSection, JudgeSection, LabelsSection, PricesSection
from flows.config.trainers import (
    HelpfulSFTSection,
    PPOSection,
    PreferenceSection,
    RewardModelSection,
    RLSection,
    SLCAISection,
)


class RunConfig(Section):
    """Everything that a run needs to know: what goes in, who judges, and every stage's knobs."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_.-]{0,63}$")
    """Name of the run and of its folder: lower-case letters, digits, dots, dashes, underscores."""

    seed: int = Field(default=0, ge=0, lt=2**31)
    """Seed of every draw in the run."""

    runs_dir: RunsDir = Field(default_factory=lambda: Path.cwd() / "runs")
    """Folder of all runs, or a URL such as s3://bucket/runs; by default `runs` in the working directory."""

    constitution: ConstitutionRef
    """A published version (name@1.2.0, name@^1.2), a working file's name, or a path."""

    allow_unpublished: bool = False
    """Train from a working file too; whatever comes of it is marked as unpublished."""

    gold: Literal["microworld"] | None = None
    """Who scores the answers at the end, outside of training: the microworld's oracle, or nobody."""

    world: WorldSection | None = None
    """The microworld's own prompts and demonstrations, instead of `prompts` and `demonstrations`."""

    models: ModelsSection
    """The models that the run starts from."""

    sampling: SamplingSection = SamplingSection()
    """Which engine draws the models' texts."""

    judge: JudgeSection
    """Who labels the pairs."""

    prompts: PromptsSection | None = None
    """The user's own prompts."""

    demonstrations: DemonstrationsSection | None = None
    """For helpful-only fine-tuning. Without it, the base model plays the helpful-only model."""

    launcher: LauncherSection = LauncherSection()
    """How training and sampling processes are started."""

    helpful_sft: HelpfulSFTSection = HelpfulSFTSection()
    """Fine-tuning on demonstrations of a helpful-only assistant."""

    critique_revision: CritiqueRevisionSection = CritiqueRevisionSection()
    """Critiques and revisions."""

    sl_cai: SLCAISection = SLCAISection()
    """Fine-tuning on the revisions."""

    pairs: PairsSection = PairsSection()
    """Pairs of answers."""

    exam: ExamSection = ExamSection()
    """The judge's exam, before it labels anything."""

    labels: LabelsSection = LabelsSection()
    """The judge's labels."""

    audit: AuditSection = AuditSection()
    """People's audit of the labels."""

    reward_model: RewardModelSection = RewardModelSection()
    """The reward model."""

    rl: RLSection = PPOSection()
    """The policy: reinforcement learning, or straight from the labels."""

    evaluate: EvaluateSection = EvaluateSection()
    """Answers of all models to held-out prompts."""

    prices: PricesSection = PricesSection()
    """Prices of labels, for the report."""

    @model_validator(mode="after")
    def _one_source_of_prompts(self) -> RunConfig:
        if self.world is None and self.prompts is None:
            raise ValueError("prompts: is required (or `world:` for the microworld's own)")
        if self.world is not None and self.prompts is not None:
            raise ValueError("prompts: the microworld brings its own (`world:`); remove one of the two")
        if self.world is not None and self.demonstrations is not None:
            raise ValueError(
                "demonstrations: the microworld brings its own (`world:`); remove one of the two"
            )
        return self

    @model_validator(mode="after")
    def _ray_reaches_everything(self) -> RunConfig:
        shards = self.launcher.shards
        if shards.runner != "ray":
            return self
        if self.judge.kind != "openai":
            raise ValueError(
                "launcher.shards.runner: ray needs a judge behind HTTP (judge.kind: openai), which its workers share"
            )
        if not (self.labels.ledger or "").startswith("postgresql"):
            raise ValueError(
                "labels.ledger: the workers of a Ray cluster need one that all of them reach: postgresql://user@host/name"
            )
        return self

    @model_validator(mode="after")
    def _servers_end_before_training(self) -> RunConfig:
        asked = (
            {
                "rl.reward.judge": self.judge if getattr(self.rl.reward, "judge", None) else None,
                "rl.early_stopping.judge": getattr(getattr(self.rl, "early_stopping", None), "judge", None),
            }
            if not isinstance(self.rl, PreferenceSection)
            else {}
        )
        for name, judge in asked.items():
            if judge is not None and judge.kind == "vllm":
                raise ValueError(
                    f"{name}: is asked while the policy trains, when servers of kind vllm have ended; serve it "
                    "yourself (charter judge serve) and set kind: openai"
                )
        return self

    @model_validator(mode="after")
    def _ensembles_are_combined(self) -> RunConfig:
        combined = not isinstance(self.rl, PreferenceSection) and self.rl.reward.combine != "mean"
        if combined and self.reward_model.ensemble == 1:
            raise ValueError(
                f"rl.reward.combine: {self.rl.reward.combine} needs reward_model.ensemble above 1"
            )
        return self

    @model_validator(mode="after")
    def _ledger_is_no_object(self) -> RunConfig:
        if isinstance(self.runs_dir, str) and self.labels.ledger is None:
            raise ValueError(
                f"labels.ledger: is required with runs_dir {self.runs_dir}: a database cannot lie there; give "
                "postgresql://user@host/name, or sqlite:///path to keep it on this machine"
            )
        return self

    @property
    def local_runs_dir(self) -> Path:
        """The folder of all runs on this machine; of a URL, the one in the user's cache that mirrors it."""
        if isinstance(self.runs_dir, Path):
            return self.runs_dir
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        return cache / "charter" / "runs" / hashlib.sha256(self.runs_dir.encode()).hexdigest()[:12]

    @property
    def run_directory(self) -> Path:
        """Where this run's record lies on this machine."""
        return self.local_runs_dir / self.name

    @property
    def run_url(self) -> str | None:
        """Where else it lies, when `runs_dir` is a URL."""
        return None if isinstance(self.runs_dir, Path) else f"{self.runs_dir}/{self.name}"

    @property
    def has_demonstrations(self) -> bool:
        """Whether a helpful-only model is trained."""
        return self.world is not None or self.demonstrations is not None
