"""Run directories at a URL: whole or not there, found again from another machine, one writer."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from flows.config import load_config
from flows.errors import FlowError, RunBusy
from flows.runs.directory import RunDirectory
from flows.runs.manifest import FileRecord
from flows.runs.store import LEASE_S, RunStore
from judges.ledger.claims import worker_name

CONSTITUTION = {"ref": "x@1.0.0", "digest": "0" * 64}
QUIET = lambda done, total, text: None  # noqa: E731


def finish(run: RunDirectory, *, text: str = "{}\n"):
    """A finished stage with a file and a model, as a session leaves it."""
    import hashlib

    from flows.runs.digests import digest_model
    from flows.runs.directory import utc_now
    from flows.runs.manifest import Manifest, PeakMemory, versions

    key = "a" * 64
    directory = run.stage_path("rl", key)
    (directory / "model" / "checkpoints").mkdir(parents=True)
    (directory / "samples.jsonl").write_text(text)
    (directory / "model" / "config.json").write_text("{}")
    (directory / "model" / "samples.jsonl").write_text(text)
    (directory / "model" / "checkpoints" / "big.bin").write_text("not copied")
    digest = hashlib.sha256(text.encode()).hexdigest()
    made = Manifest(
        stage="rl",
        key=key,
        code_version=1,
        created_at=utc_now(),
        seconds=1.0,
        config={"seed": 0},
        constitution=None,
        inputs={},
        outputs={
            "model": FileRecord(path="model", digest=digest_model(directory / "model")),
            "samples": FileRecord(path="model/samples.jsonl", digest=digest),
        },
        metrics={},
        peak_memory=PeakMemory(process_bytes=1, child_bytes=2, total_bytes=3),
        versions=versions(),
    )
    made.write(directory)
    return made


@pytest.fixture(params=["file", pytest.param("s3", marks=pytest.mark.slow)])
def url(request, tmp_path):
    """An empty place for runs: a folder by URL, and a bucket of a local S3 server."""
    if request.param == "file":
        return f"file://{tmp_path}/remote/runs/mine"
    import s3fs

    request.getfixturevalue("s3")
    bucket = f"b{time.time_ns()}"
    s3fs.S3FileSystem(skip_instance_cache=True).mkdir(bucket)
    return f"s3://{bucket}/runs/mine"


@pytest.fixture(scope="module")
def s3_server():
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                break
        time.sleep(0.1)
    yield f"http://127.0.0.1:{port}"
    server.terminate()
    server.wait(10)


@pytest.fixture
def s3(require, monkeypatch, request):
    """The environment of a local S3 server (moto): everything that a client needs to know."""
    try:
        import moto.server  # noqa: F401
        import s3fs  # noqa: F401
    except ImportError:
        require("a local S3 server", False, "pip install 'moto[server]' s3fs")
    settings = {
        "AWS_ENDPOINT_URL": request.getfixturevalue("s3_server"),
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing-secret",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    return settings


def test_another_machine_finds_what_is_finished_and_fetches_what_it_needs(url, tmp_path):
    here = RunDirectory(tmp_path / "here", RunStore(url))
    with here.working(CONSTITUTION) as attempt:
        made = finish(here)
        here.mirror("rl", made, QUIET)
        here.note_stage(attempt, "rl", made, reused=False)
    there = RunDirectory(tmp_path / "there", RunStore(url))
    with there.working(CONSTITUTION) as attempt:
        assert attempt.number == 2
        assert there.current() == {"rl": made.key[:12]}
        assert there.finished("rl", made.key) == made
        there.fetch("rl", made, models=False)
        folder = there.stage_path("rl", made.key)
        assert (folder / "model" / "samples.jsonl").exists() and not (
            folder / "model" / "config.json"
        ).exists()
        there.fetch("rl", made, models=True)
        assert (folder / "model" / "config.json").read_text() == "{}"
        assert not (folder / "model" / "checkpoints").exists()
    assert [a.status for a in here.attempts()] == ["finished"]
    assert [a.status for a in there.attempts()] == ["finished", "finished"]


def test_an_upload_cut_off_half_way_is_not_finished(url, tmp_path, monkeypatch):
    here = RunDirectory(tmp_path / "here", RunStore(url))
    made = finish(here)
    put, sent = here.store._fs.put_file, []

    def dying(path, target, **more):
        if sent:
            raise KeyboardInterrupt
        sent.append(path)
        put(path, target, **more)

    monkeypatch.setattr(here.store._fs, "put_file", dying)
    with pytest.raises(KeyboardInterrupt):
        here.mirror("rl", made, QUIET)
    assert sent, "nothing was sent before the cut"
    there = RunDirectory(tmp_path / "there", RunStore(url))
    assert there.finished("rl", made.key) is None
    monkeypatch.undo() if url.startswith("file") else monkeypatch.setattr(here.store._fs, "put_file", put)
    here.mirror("rl", made, QUIET)
    assert there.finished("rl", made.key) == made


def test_what_came_is_what_the_manifest_says(url, tmp_path):
    here = RunDirectory(tmp_path / "here", RunStore(url))
    made = finish(here)
    here.mirror("rl", made, QUIET)
    here.store.write(f"rl/{made.key[:12]}/model/samples.jsonl", b"damaged")
    there = RunDirectory(tmp_path / "there", RunStore(url))
    assert there.finished("rl", made.key) == made
    with pytest.raises(FlowError, match=r"samples\.jsonl: is not what its manifest says"):
        there.fetch("rl", made, models=False)


def test_a_forgotten_stage_is_forgotten_there_too(url, tmp_path):
    here = RunDirectory(tmp_path / "here", RunStore(url))
    made = finish(here)
    here.mirror("rl", made, QUIET)
    here.forget("rl", made.key)
    assert here.finished("rl", made.key) is None


def test_one_machine_at_a_time(url, tmp_path):
    def leave(holder: str, expires: float) -> None:
        RunStore(url).write(".lock", json.dumps({"holder": holder, "expires_at": expires}).encode())

    run = RunDirectory(tmp_path / "here", RunStore(url))
    leave("elsewhere:7:boot-1", time.time() + 100)
    with pytest.raises(RunBusy, match="process 7 on elsewhere works in this run directory"):
        run.working(CONSTITUTION).__enter__()
    # A lease that ran out, and one of a process of this machine that is gone.
    host = worker_name().split(":")[0]
    for holder, expires in (("elsewhere:7:boot-1", time.time() - 1), (f"{host}:999999:x", time.time() + 100)):
        leave(holder, expires)
        with run.working(CONSTITUTION):
            held = json.loads(RunStore(url).read(".lock"))
            assert held["holder"] == run.store._holder and held["expires_at"] > time.time() + LEASE_S - 60
        assert RunStore(url).read(".lock") is None


def test_a_run_taken_over_copies_nothing_more(url, tmp_path):
    here = RunDirectory(tmp_path / "here", RunStore(url))
    made = finish(here)
    lock = {"holder": "elsewhere:7:boot-1", "expires_at": time.time() + 100}
    here.store.write(".lock", json.dumps(lock).encode())
    with pytest.raises(RunBusy):
        here.mirror("rl", made, QUIET)
    assert not here.store.has_stage(f"rl/{made.key[:12]}")


@pytest.mark.slow
def test_a_missing_bucket_and_refused_credentials_are_one_line(s3, monkeypatch):
    with pytest.raises(FlowError, match="no bucket nobody-made-it"):
        RunStore("s3://nobody-made-it/runs/x").check()
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(FlowError) as caught:
        RunStore("s3://nobody-made-it/runs/x").check()
    assert "\n" not in str(caught.value) and "testing-secret" not in str(caught.value)


def test_without_s3fs_it_is_one_line(monkeypatch):
    import fsspec  # noqa: F401

    known = sys.modules["fsspec.registry"]._registry  # what an earlier test imported stays there
    monkeypatch.delitem(known, "s3", raising=False)
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(FlowError, match=r"pip install 'charter\[s3\]'"):
        RunStore("s3://bucket/runs/x")


def test_the_configuration_of_a_run_at_a_url(make_run, tiny_model, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = make_run(tmp_path, tiny_model)
    with pytest.raises(FlowError, match=r"labels\.ledger: is required with runs_dir s3://bucket/runs"):
        load_config(path, ["runs_dir=s3://bucket/runs/"])
    config = load_config(path, ["runs_dir=s3://bucket/runs", f"labels.ledger=sqlite:///{tmp_path}/l.db"])
    assert config.run_url == "s3://bucket/runs/tiny"
    assert config.run_directory.is_relative_to(tmp_path / "cache" / "charter" / "runs")
    for wrong, reason in (
        ("s3://key:secret@bucket/runs", "no credentials"),
        ("s3://bucket/x?key=1", "no credentials"),
        ("s3:///", "must name a bucket"),
    ):
        with pytest.raises(FlowError, match=reason) as caught:
            load_config(path, [f"runs_dir={wrong}"])
        assert "secret" not in str(caught.value)


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.prefect
def test_a_run_on_s3_goes_on_from_another_machine(s3, make_run, tiny_model, tmp_path):
    """`charter run` up to the pairs; then, with an empty cache, up to SL-CAI and the pairs again: all reused."""
    import s3fs

    s3fs.S3FileSystem(skip_instance_cache=True).mkdir("runs-of-mine")
    path = make_run(tmp_path / "files", tiny_model)
    places = ["runs_dir=s3://runs-of-mine/a", f"labels.ledger=sqlite:///{tmp_path}/ledger.db"]

    def run(cache: str, to_stage: str) -> str:
        command = [str(Path(sys.executable).with_name("charter")), "run", "--config", str(path)]
        command += ["--to-stage", to_stage, *(x for place in places for x in ("--set", place))]
        environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / cache)}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=280)
        assert done.returncode == 0, done.stderr
        return done.stdout

    run("one", "helpful_sft")
    second = run("two", "critique_revision")
    assert re.search(r"= helpful sft +unchanged, reused", second)
    assert re.search(r"✓ critique revision +\d", second)
    files = s3fs.S3FileSystem(skip_instance_cache=True).find("runs-of-mine/a/tiny")
    names = {name.removeprefix("runs-of-mine/a/tiny/").split("/")[0] for name in files}
    assert {"run.json", "history", "prompts", "helpful_sft", "critique_revision"} <= names
    assert not any("checkpoints" in name or name.endswith(".lock") for name in files)
