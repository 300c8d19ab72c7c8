"""The section of where things run: training and sampling processes, and the shards of labelling."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from flows.config.fields import ConfigPath, Section


class ShardsSection(Section):
    """Where the shards of labelling run."""

    runner: Literal["in_turn", "threads", "ray"] = "in_turn"
    """in_turn labels shard after shard; threads several at a time in this process, for a judge behind HTTP; ray
    sends them to the workers of a Ray cluster (charter[ray])."""

    at_once: int = Field(default=4, ge=1, le=10_000)
    """Shards under way at the same time, with threads and ray."""

    address: str | None = Field(default=None, pattern=r"^(auto|(ray://)?[^@:/\s]+:\d+)$")
    """A Ray cluster: ray://host:10001, host:6379, or auto for the one that this machine belongs to. None is started
    here: Ray would listen on every interface."""

    @model_validator(mode="after")
    def _address_is_rays(self) -> ShardsSection:
        if self.address is not None and self.runner != "ray":
            raise ValueError(f"address: is for runner ray, not for {self.runner}")
        if self.address is None and self.runner == "ray":
            raise ValueError("address: runner ray needs that of a cluster, such as ray://host:10001, or auto")
        return self


class LauncherSection(Section):
    """How training and sampling processes are started, and where labels are made."""

    processes: int = Field(default=1, ge=1, le=1024)
    """Processes on this machine, started by `accelerate launch` when more than one."""

    samplers: int = Field(default=1, ge=1, le=1024)
    """Processes that sample side by side, with one GPU each where there are GPUs."""

    accelerate_config: ConfigPath | None = None
    """An accelerate configuration (FSDP, several machines); `processes` is then its business."""

    shards: ShardsSection = ShardsSection()
    """Where the shards of labelling run."""
