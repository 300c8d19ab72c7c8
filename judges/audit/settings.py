"""When people's verdicts stop training."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class AuditSettings(BaseModel):
    """What an audit shows, and the agreement that training asks for."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sample: int = Field(
        default=24, ge=0, le=500, description="Pairs that are shown with the report, the doubtful ones first."
    )
    min_verdicts: int = Field(
        default=20,
        ge=2,
        le=1_000_000,
        description="So many judged pairs before agreement is held against training.",
    )
    min_kappa: float = Field(
        default=0.2,
        ge=-1.0,
        le=1.0,
        description="Cohen's kappa that people and the labels that may train must reach (Landis and Koch 1977: up to "
        "0.2 is slight). The audit shows the doubtful pairs first, so it lies below that of all labels.",
    )
    require: bool = Field(
        default=False, description="Training also waits until min_verdicts pairs have been judged by people."
    )
    override: bool = Field(default=False, description="Train although the audit failed; the report says so.")
