"""How labels are made: the settings of a labelling run, as a form and as a checked file."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from judges.combine import Margins


class LabelSettings(BaseModel):
    """What a labelling run asks and when a mean counts as a preference."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    templates: str = Field(
        default="default", description="Template set: default, microworld, or a folder with pairwise.j2."
    )
    seed: int = Field(default=0, ge=0, description="Seed of the draw of principles.")
    principles: int = Field(
        default=1, ge=1, le=64, description="Principles drawn per pair; their answers are averaged."
    )
    mass_threshold: float = Field(
        default=0.5,
        ge=0.0,
        le=1.0,
        description="Less probability than this on the two options together is no_answer.",
    )
    tie_margin: float = Field(
        default=0.05, ge=0.0, lt=0.5, description="A mean closer to one half than this is a tie."
    )
    flip_margin: float = Field(
        default=0.1,
        ge=0.0,
        le=1.0,
        description="Orders that name different winners and differ by more than this are inconsistent.",
    )
    batch_pairs: int = Field(
        default=64,
        ge=1,
        le=4096,
        description="Pairs asked and committed together; at most these are asked again.",
    )

    @property
    def margins(self) -> Margins:
        """The thresholds that turn readings into a status."""
        return Margins(mass=self.mass_threshold, tie=self.tie_margin, flip=self.flip_margin)

    def key(self) -> dict[str, Any]:
        """What of the settings determines a label, given its templates and principles."""
        return {"mass": self.mass_threshold, "tie": self.tie_margin, "flip": self.flip_margin}
