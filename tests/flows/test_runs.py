"""Run directories and manifests: one writer, a true record, nothing half-finished taken for finished."""

from __future__ import annotations

import json
import multiprocessing
from pathlib import Path

import pytest

from flows.errors import FlowError, RunBusy
from flows.runs.directory import RunDirectory, utc_now
from flows.runs.manifest import FileRecord, Manifest, PeakMemory, versions

CONSTITUTION = {"ref": "x@1.0.0", "digest": "0" * 64}


def manifest(stage: str = "pairs", key: str = "a" * 64, **changes) -> Manifest:
    values = dict(
        stage=stage,
        key=key,
        code_version=1,
        created_at=utc_now(),
        seconds=1.5,
        config={"seed": 0},
        constitution=None,
        inputs={"model": FileRecord(path="sl_cai/x/model", digest="b" * 64)},
        outputs={"pairs": FileRecord(path="pairs.jsonl", digest="c" * 64)},
        metrics={"pairs": 3},
        peak_memory=PeakMemory(process_bytes=1, child_bytes=2, total_bytes=3),
        versions=versions(),
    )
    return Manifest(**{**values, **changes})


def finish(run: RunDirectory, made: Manifest) -> Path:
    directory = run.stage_path(made.stage, made.key)
    directory.mkdir(parents=True)
    (directory / "pairs.jsonl").write_text("{}\n")
    made.write(directory)
    return directory


def test_a_manifest_comes_back_as_it_was_written(tmp_path):
    made = manifest()
    made.write(tmp_path)
    assert Manifest.read(tmp_path) == made


def test_no_manifest_is_unfinished_work(tmp_path):
    assert Manifest.read(tmp_path) is None


@pytest.mark.parametrize(
    ("change", "message"),
    [({"key": "short"}, "key: 'short' does not match"), ({"metrics": 3}, "metrics: 3 is not of type")],
)
def test_a_manifest_that_breaks_the_schema_is_named(tmp_path, change, message):
    made = manifest()
    made.write(tmp_path)
    path = tmp_path / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(FlowError) as caught:
        Manifest.read(tmp_path)
    assert str(path) in str(caught.value) and message in str(caught.value)


def test_a_stage_is_finished_only_with_its_outputs(tmp_path):
    run = RunDirectory(tmp_path / "run")
    made = manifest()
    assert run.finished("pairs", made.key) is None
    directory = finish(run, made)
    assert run.finished("pairs", made.key) == made
    assert run.finished("pairs", made.key[:12] + "0" * 52) is None
    (directory / "pairs.jsonl").unlink()
    assert run.finished("pairs", made.key) is None


def test_attempts_are_kept_with_their_stages(tmp_path):
    run = RunDirectory(tmp_path / "run")
    made = manifest()
    with run.working(CONSTITUTION) as attempt:
        run.note_stage(attempt, "pairs", made, reused=False)
    with run.working(CONSTITUTION) as attempt:
        run.note_stage(attempt, "pairs", made, reused=True)
    first, second = run.attempts()
    assert (first.status, second.status, second.number) == ("finished", "finished", 2)
    assert second.stages["pairs"]["reused"] is True
    assert run.current() == {"pairs": made.key[:12]}


def test_a_failed_and_a_cancelled_attempt_say_so(tmp_path):
    run = RunDirectory(tmp_path / "run")
    with pytest.raises(FlowError), run.working(CONSTITUTION):
        raise FlowError("stage rl failed")
    with pytest.raises(KeyboardInterrupt), run.working(CONSTITUTION):
        raise KeyboardInterrupt
    first, second = run.attempts()
    assert (first.status, first.error) == ("failed", "stage rl failed")
    assert second.status == "cancelled"


def _hold(path: Path, ready, release) -> None:
    with RunDirectory(path).working(CONSTITUTION):
        ready.set()
        release.wait(30)


def test_two_processes_never_work_in_one_run_directory(tmp_path):
    context = multiprocessing.get_context("fork")
    ready, release = context.Event(), context.Event()
    holder = context.Process(target=_hold, args=(tmp_path / "run", ready, release))
    holder.start()
    assert ready.wait(30)
    busy = pytest.raises(RunBusy, match=f"process {holder.pid} works in this run directory")
    with busy, RunDirectory(tmp_path / "run").working(CONSTITUTION):
        pass
    holder.kill()
    holder.join()
    run = RunDirectory(tmp_path / "run")
    with run.working(CONSTITUTION) as attempt:
        assert attempt.number == 2
    assert run.attempts()[0].status == "failed"


def test_a_damaged_record_is_named(tmp_path):
    run = RunDirectory(tmp_path)
    run.record_path.write_text("{")
    with pytest.raises(FlowError, match=r"run\.json: not a run record"):
        run.current()
