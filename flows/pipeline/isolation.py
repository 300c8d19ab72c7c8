"""Running a stage function in a child process: `python -m flows.pipeline.isolation job.json`.

The job file holds the same `StageInput` that the function would get in this process; progress comes back through
`progress.json`, the result through `result.json`.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from common.files import write_atomically, write_json
from flows.errors import is_ours
from flows.runs.processes import Command, run_children
from flows.stages.contract import Result, StageInput

JOB, PROGRESS, RESULT = "job.json", "progress.json", "result.json"
_PROGRESS_SECONDS = 0.2


def run_isolated(work: StageInput, *, workers: int = 1) -> Result:
    """Run the stage that `work` names in a child process, or in several that share its sampling.

    All workers run the same function; each draws its share of the parts and reads the others' from disk, so all
    of them come to the same result. Each has one GPU, where there are GPUs.

    Raises StageFailed with the child's error line and its log.
    """
    from constitution.snapshot import to_json

    directory = work.directory
    job = {
        "stage": work.stage,
        "directory": str(directory),
        "run_directory": str(work.run_directory),
        "seed": work.seed,
        "settings": work.settings,
        "tuning": work.tuning,
        "inputs": work.inputs,
        "digests": work.digests,
        "constitution": to_json(work.constitution) if work.constitution else None,
    }
    write_json(directory / JOB, job)
    (directory / RESULT).unlink(missing_ok=True)
    run_children(
        [_command(directory, rank, workers) for rank in range(workers)],
        what=f"stage {work.stage}",
        on_poll=lambda: _relay(work),
        on_exit=work.note_child,
    )
    result = json.loads((directory / RESULT).read_text(encoding="utf-8"))
    for name in (JOB, PROGRESS, RESULT):
        (directory / name).unlink(missing_ok=True)
    return Result(outputs=result["outputs"], metrics=result["metrics"])


def _command(directory: Path, rank: int, workers: int) -> Command:
    env = {"CHARTER_RANK": str(rank), "CHARTER_WORLD": str(workers)}
    if workers > 1:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
        env["CUDA_VISIBLE_DEVICES"] = visible[rank] if rank < len(visible) and visible[rank] else str(rank)
    return Command(
        arguments=[sys.executable, "-m", "flows.pipeline.isolation", str(directory / JOB)],
        log=directory / ("log.txt" if rank == 0 else f"log-{rank}.txt"),
        env=env,
    )


def _relay(work: StageInput) -> None:
    try:
        done, total, text = json.loads((work.directory / PROGRESS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return  # nothing said yet
    work.progress(done, total, text)


class _ToFile:
    def __init__(self, path: Path) -> None:
        self._path, self._last = path, 0.0

    def __call__(self, done: int, total: int, text: str) -> None:
        now = time.monotonic()
        if now - self._last >= _PROGRESS_SECONDS:
            self._last = now
            write_atomically(self._path, json.dumps([done, total, text]))


def _main(job_path: Path) -> int:
    from constitution.snapshot import from_json
    from flows.stages.registry import by_name

    job: dict[str, Any] = json.loads(job_path.read_text(encoding="utf-8"))
    constitution, rank = job.pop("constitution"), int(os.environ["CHARTER_RANK"])
    directory = Path(job.pop("directory"))
    work = StageInput(
        **{**job, "run_directory": Path(job["run_directory"])},
        directory=directory,
        constitution=from_json(constitution) if constitution else None,
        progress=_ToFile(directory / PROGRESS) if rank == 0 else lambda done, total, text: None,
        rank=rank,
        world=int(os.environ["CHARTER_WORLD"]),
    )
    try:
        result = by_name(work.stage).run(work)
    except ValueError as error:
        if not is_ours(error):
            raise
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    write_json(directory / RESULT, {"outputs": result.outputs, "metrics": result.metrics})
    return 0


if __name__ == "__main__":
    sys.exit(_main(Path(sys.argv[1])))
