"""Where the weights moved, from stage to stage and from the base to the policy: a part of the evaluation."""

from __future__ import annotations

import json
import time
from pathlib import Path

from common.files import write_json
from flows.errors import FlowError
from flows.evaluation.movement import movement
from flows.runs.digests import digest_json
from flows.stages.contract import Json, StageInput

_POLL_SECONDS = 0.2


def moved_weights(work: StageInput) -> list[Json]:
    """One record a step: `from` and `to` are roles, the rest is what `movement` says, or `problem` why it says nothing.

    SL-CAI is compared with the model that it started from. The last record is the whole way, from the base to the
    policy. Of several processes each measures some of the steps.
    """
    steps = _steps(work)
    names = [f"weights-{digest_json([work.digests[a], work.digests[b]])[:12]}.json" for a, b in steps]
    for index in range(work.rank, len(steps), work.world):
        before, after = steps[index]
        work.once(names[index], lambda path, a=before, b=after: _measure(work, path, a, b))  # type: ignore[misc]
    found = []
    for (before, after), name in zip(steps, names, strict=True):
        path = work.directory / name
        while not path.exists():  # another process is at it
            time.sleep(_POLL_SECONDS)
        found.append({"from": before, "to": after, **json.loads(path.read_text(encoding="utf-8"))})
    return found


def _steps(work: StageInput) -> list[tuple[str, str]]:
    helpful = "helpful_only" in work.inputs
    start = work.settings["sl_cai_from"] if helpful else "base"
    steps = [("base", "helpful_only")] if helpful else []
    return [*steps, (start, "sl_cai"), ("sl_cai", "rl_cai"), ("base", "rl_cai")]


def _measure(work: StageInput, path: Path, before: str, after: str) -> None:
    def progress(done: int, total: int, text: str) -> None:
        work.progress(done, total, f"{text}, {before} to {after}".replace("_", " "))

    try:
        found = movement(work.inputs[before], work.inputs[after], progress).to_json()
    except FlowError as error:
        found = {"problem": str(error)}
    write_json(path, found)
