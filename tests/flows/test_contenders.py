"""Models of a run: the latest result of a role, and what an earlier attempt made."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from common.files import write_json
from constitution import loads
from constitution.snapshot import to_json
from flows.comparison.contestants import resolve
from flows.comparison.models import find_model
from flows.config.forms_judging import CompareRequest
from flows.errors import FlowError
from flows.runs.digests import digest_path
from flows.runs.directory import RunDirectory, utc_now
from flows.runs.manifest import FileRecord, Manifest, PeakMemory, versions


@pytest.fixture(scope="module")
def run(make_run, make_model, tiny_model, tmp_path_factory) -> Path:
    """Two attempts that made a policy each, under two constitutions, and a third that stopped before it made any."""
    folder = tmp_path_factory.mktemp("attempts")
    config = make_run(folder, tiny_model)
    directory = RunDirectory(folder / "runs" / "tiny")
    text = (folder / "tiny.yaml").read_text()
    for number in (1, 2, 3):
        constitution = loads(text.replace("Which is shorter?", f"Which is shorter? {number}"))
        with directory.working({"ref": constitution.ref, "digest": constitution.digest}) as attempt:
            history = directory.history(attempt)
            (history / "config.yaml").write_text(
                config.read_text().replace("./tiny.yaml", str(folder / "tiny.yaml"))
            )
            write_json(history / "constitution.json", to_json(constitution))
            if number < 3:
                made_policy(directory, attempt, number, make_model)
    return directory.path


def made_policy(directory: RunDirectory, attempt, number: int, make_model) -> None:
    stage = directory.stage_path("rl", f"{number}" * 64)
    make_model(stage / "model", seed=number)
    manifest = Manifest(
        stage="rl",
        key=f"{number}" * 64,
        code_version=1,
        created_at=utc_now(),
        seconds=1.0,
        config={},
        constitution=None,
        inputs={},
        outputs={"model": FileRecord(path="model", digest=digest_path(stage / "model"))},
        metrics={},
        peak_memory=PeakMemory(process_bytes=1, child_bytes=1, total_bytes=1),
        versions=versions(),
    )
    manifest.write(stage)
    directory.note_stage(attempt, "rl", manifest, reused=False)


def shorter(constitution) -> str:
    return next(p.question for p in constitution.comparison if p.id == "shorter")


def test_a_role_is_the_latest_result_or_that_of_the_attempt_named(run):
    first, second, latest = (find_model(f"{run}:rl_cai{at}") for at in ("@1", "@2", ""))
    assert Path(first.path).parent.name == "1" * 12
    assert Path(second.path) == Path(latest.path) and Path(latest.path).parent.name == "2" * 12
    assert (first.short, first.long) == ("rl_cai@1", "tiny:rl_cai@1")
    assert shorter(first.constitution) == "Which is shorter? 1"
    # The third attempt began under another constitution, but the policy is the second one's.
    assert shorter(latest.constitution) == shorter(second.constitution) == "Which is shorter? 2"


def test_two_attempts_at_a_run_bring_both_versions_of_the_constitution(run, tmp_path):
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text('{"prompt": "Why?"}\n')
    models = (f"{run}:rl_cai@1", f"{run}:rl_cai")
    resolved = resolve(CompareRequest(models=models, prompts=str(prompts), by_principle=True))
    assert [c.name for c in resolved.models] == ["rl_cai@1", "rl_cai"]
    assert (shorter(resolved.before), shorter(resolved.constitution)) == (
        "Which is shorter? 1",
        "Which is shorter? 2",
    )
    given = resolve(
        CompareRequest(
            models=models,
            prompts=str(prompts),
            by_principle=True,
            constitution="microworld-detailed",
            before="microworld@1.0.0",
        )
    )
    assert (given.before.name, given.constitution.name) == ("microworld", "microworld-detailed")
    assert resolve(CompareRequest(models=models, prompts=str(prompts))).before is None


def test_mistakes_are_one_line(run, tiny_model):
    with pytest.raises(FlowError, match="has no attempt 9; the latest is 3"):
        find_model(f"{run}:rl_cai@9")
    with pytest.raises(FlowError, match="rl_cai@3: stage rl of this run is not finished"):
        find_model(f"{run}:rl_cai@3")
    with pytest.raises(FlowError, match="'rl_cai@0' is not a role of a run"):
        find_model(f"{run}:rl_cai@0")
    three = (f"{run}:rl_cai@1", f"{run}:rl_cai@2", str(tiny_model))
    prompts = str(run.parent.parent / "prompts.jsonl")
    with pytest.raises(FlowError, match="by_principle: compares two models, not 3"):
        resolve(CompareRequest(models=three, prompts=prompts, by_principle=True))
    with pytest.raises(FlowError, match="before: only a comparison by principle"):
        resolve(CompareRequest(models=three, prompts=prompts, before="microworld"))
    assert json.loads((run / "run.json").read_text())["current"]["rl"] == "2" * 12
