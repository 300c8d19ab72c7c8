"""Which runs and models descend from what an edit changes, read from the runs' own manifests."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from constitution.model import Constitution


@dataclass(frozen=True, kw_only=True)
class AffectedRun:
    """A run made with the old constitution, and the stages (name → folder) that descend from what changed."""

    name: str
    half: str
    stages: Mapping[str, str]


def affected_runs(
    old: Constitution, new: Constitution, manifests: Iterable[Mapping[str, Any]]
) -> list[AffectedRun]:
    """Runs whose labels or critiques came from `old` where `new` differs.

    `manifests` are the dicts of run.json: "name", "constitution" with "critique_digest" and
    "comparison_digest", and "stages" in the order they ran. A manifest of another shape is passed over.
    """
    found = []
    for manifest in manifests:
        used, stages = manifest.get("constitution"), manifest.get("stages")
        if not isinstance(used, Mapping) or not isinstance(stages, Mapping):
            continue
        if old.critique_digest != new.critique_digest and used.get("critique_digest") == old.critique_digest:
            half, first = "critique", ("critique", "revis")
        elif (
            old.comparison_digest != new.comparison_digest
            and used.get("comparison_digest") == old.comparison_digest
        ):
            half, first = "comparison", ("label", "judg")
        else:
            continue
        names = list(stages)
        start = next((i for i, name in enumerate(names) if str(name).lower().startswith(first)), 0)
        descending = {
            str(name): str(stages[name].get("dir", "")) if isinstance(stages[name], Mapping) else ""
            for name in names[start:]
        }
        found.append(AffectedRun(name=str(manifest.get("name", "?")), half=half, stages=descending))
    return found
