"""Configs of the trainers that pass over a data set: SFT, reward models, DPO and its relatives.

Imports no torch, so that a config can be checked before anything heavy is loaded.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from training.config.base import SupervisedConfig


class SftConfig(SupervisedConfig):
    """Supervised fine-tuning on `messages`."""

    train_on: Literal["all", "last"] = "all"
    """Which assistant turns carry loss: all of them, or the last."""

    prompt_weight: float = Field(default=0.0, ge=0, le=1)
    """Loss weight of the tokens that no assistant wrote; models trained from scratch like 0.1."""


class PairsConfig(SupervisedConfig):
    """The fields of trainers that learn from preference pairs."""

    shares: tuple[float, ...] | None = None
    """Share of each data file in the mixture (human pairs beside AI labels, say); by default all rows of all."""

    statuses: tuple[str, ...] = ("ok",)
    """Labels with these statuses are trained on, the others left out."""

    max_not_ok: float = Field(default=0.5, ge=0, le=1)
    """Refuse to train when a larger share of a file's labels has a status other than ok."""

    targets: Literal["soft", "hard"] = "soft"
    """soft uses the labels' probabilities; hard rounds them to 0 or 1, and leaves out those of one half."""

    exam: Path | None = None
    """The report of the exam that the labels' judge took (JSON); labels of a judge that failed are refused."""

    @model_validator(mode="after")
    def _shares_fit(self) -> PairsConfig:
        if self.shares is not None:
            if len(self.shares) != len(self.data):
                raise ValueError(f"shares has {len(self.shares)} numbers for {len(self.data)} data files")
            if min(self.shares) <= 0 or abs(sum(self.shares) - 1) > 1e-6:
                raise ValueError(f"shares {self.shares} must be above 0 and add up to 1")
        return self


class RewardModelConfig(PairsConfig):
    """A reward model from `prompt`, `chosen`, `rejected` and `p`."""

    held_out: float = Field(default=0.1, ge=0, le=0.5)
    """Share of the pairs kept out of training, for accuracy, calibration and normalisation."""

    centring: float = Field(default=0.01, ge=0, le=10)
    """Weight of the squared sum of a pair's scores, which keeps scores around zero."""

    @model_validator(mode="after")
    def _adapters_are_merged(self) -> RewardModelConfig:
        if self.lora and not self.lora.merge:
            raise ValueError(
                "lora.merge must be true: an adapter alone has no place for the scores' mean and deviation"
            )
        return self


PreferenceLoss = Literal["dpo", "robust", "ipo", "kto", "orpo", "simpo"]
WITHOUT_REFERENCE = frozenset({"orpo", "simpo"})
# The fields that only one loss reads.
_OWN = {
    "flip_rate": "robust",
    "margin": "simpo",
    "desirable_weight": "kto",
    "undesirable_weight": "kto",
}


class DpoConfig(PairsConfig):
    """A policy from `prompt`, `chosen`, `rejected` and `p`; kto also from `prompt`, `completion` and `label`."""

    loss: PreferenceLoss = "dpo"
    """Which loss; with soft targets dpo is soft-label DPO, and conservative DPO where all labels are alike."""

    beta: float | None = Field(default=None, gt=0, le=100)
    """The strength of the tie to the reference (orpo: weight of the odds ratio); by default the paper's."""

    reference: str | None = None
    """The reference model; by default the model that training starts from."""

    flip_rate: float = Field(default=0.1, ge=0, lt=0.5)
    """robust: the share of labels believed to be flipped."""

    margin: float = Field(default=1.0, ge=0)
    """simpo: the margin gamma by which the better answer shall win."""

    desirable_weight: float | None = Field(default=None, gt=0)
    """kto: weight of desirable answers; by default 1, or where they are the rarer kind what balances the kinds."""

    undesirable_weight: float | None = Field(default=None, gt=0)
    """kto: weight of undesirable answers, likewise."""

    @model_validator(mode="after")
    def _fields_are_of_the_loss(self) -> DpoConfig:
        if self.reference and self.loss in WITHOUT_REFERENCE:
            raise ValueError(f"reference is set, but loss {self.loss} has none")
        for name, loss in _OWN.items():
            if self.loss != loss and getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"{name} belongs to loss {loss}, not to {self.loss}")
        return self
