"""`charter ui` as a process: what it makes, what a cancellation and kills leave, and that everything goes on."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import yaml
from harness.prefect_client import client_of
from harness.ui import AUTH, CHARTER, ENDED, ROOT, UI, server_of, start_ui, wait_for

from flows.runs.directory import RunDirectory

pytestmark = [pytest.mark.long, pytest.mark.slow, pytest.mark.prefect]

STEPS = 300


@pytest.fixture(scope="module")
def ui(tmp_path_factory, make_run, tiny_model) -> Iterator[UI]:
    """One `charter ui` for the whole file; a test that kills it puts the next one in its place."""
    folder = tmp_path_factory.mktemp("ui")
    path = make_run(folder, tiny_model)
    values = yaml.safe_load(path.read_text())
    values["helpful_sft"]["epochs"] = STEPS
    path.write_text(yaml.safe_dump(values))
    shutil.copytree(ROOT / "constitution" / "library", folder / "constitutions")
    (folder / "configs").mkdir()
    microworld = {**values, "constitution": "microworld", "name": "micro", "runs_dir": str(folder / "runs")}
    for name in ("models", "prompts", "demonstrations"):
        microworld[name] = json.loads(json.dumps(values[name]).replace('"path": "', f'"path": "{folder}/'))
    (folder / "configs" / "microworld.yaml").write_text(yaml.safe_dump(microworld))
    running = start_ui(folder)
    yield running
    running.stop()


def training(ui: UI, seed: int) -> dict[str, Any]:
    """Parameters of a run whose training takes about a quarter of a minute."""
    changes = [f"seed={seed}", f"name=run-{seed}"]
    return {"config": str(ui.folder / "run.yaml"), "changes": changes, "to_stage": "helpful_sft"}


def rows(ui: UI, seed: int) -> list[str]:
    """The rows of the training's metrics, one a step, as they are written."""
    files = (ui.folder / "runs" / f"run-{seed}").glob("helpful_sft/*/model/metrics.jsonl")
    return [line for file in files for line in file.read_text().splitlines()]


def steps(ui: UI, seed: int) -> list[int]:
    """The training steps that the metrics have."""
    return [json.loads(line)["step"] for line in rows(ui, seed)]


def started(ui: UI, seed: int, deployment: str = "rlaif/rlaif") -> str:
    """A run in the middle of its training."""
    run = ui.start(deployment, request=training(ui, seed))
    wait_for(lambda: len(steps(ui, seed)) > 5 or ui.state(run)["type"] in ENDED, "training")
    assert ui.state(run)["type"] == "RUNNING", ui.state(run)
    return run


def goes_on(ui: UI, seed: int, kept: list[str], deployment: str = "rlaif/rlaif") -> None:
    """The same run, started again, ends well; the steps whose rows are in `kept` are not trained again."""
    run = ui.start(deployment, request=training(ui, seed))
    assert ui.ended(run, 240)["type"] == "COMPLETED", ui.state(run)
    done = steps(ui, seed)
    assert done == list(range(1, len(done) + 1)) and done[-1] == STEPS
    # The last row may be newer than the last checkpoint.
    assert rows(ui, seed)[: len(kept) - 1] == kept[:-1]


def gone(processes: list[psutil.Process], seconds: float) -> bool:
    _, alive = psutil.wait_procs(processes, timeout=seconds)
    return not [p for p in alive if p.status() != psutil.STATUS_ZOMBIE]


def is_free(run: Path) -> bool:
    """Whether no process works in a run's directory."""
    with (run / ".lock").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


def test_the_page_knows_its_server_and_everything_is_there_once(ui):
    settings = httpx.get(f"{ui.page}/ui-settings", trust_env=False).json()
    assert settings["api_url"] == f"{ui.page}/api"
    deployed = {d["name"]: d for d in ui.call("POST", "/deployments/filter")}
    shipped = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
    assert set(deployed) == {entry["name"] for entry in shipped}
    active = [schedule["active"] for found in deployed.values() for schedule in found["schedules"]]
    assert active and not any(active)
    assert ui.call("GET", "/v2/concurrency_limits/gpu")["limit"] == 1
    automations = {a["name"]: a["enabled"] for a in ui.call("POST", "/automations/filter")}
    assert automations == {"charter-relabel": True, "charter-exam-or-audit-failed": False}


def test_it_listens_here_alone_and_asks_for_the_secret(ui):
    port = int(ui.page.rpartition(":")[2])
    listening = [c.laddr for c in ui.server_process().net_connections() if c.status == psutil.CONN_LISTEN]
    assert listening and {address.ip for address in listening} == {"127.0.0.1"} and listening[0].port == port
    assert httpx.post(f"{ui.page}/api/flow_runs/filter", json={}, trust_env=False).status_code == 401
    secret = AUTH.partition(":")[2]
    for process in [psutil.Process(ui.process.pid), *psutil.Process(ui.process.pid).children(recursive=True)]:
        assert secret not in " ".join(process.cmdline())
    written = [ui.folder / "ui.log", ui.folder / "runs" / ".prefect" / "server.log"]
    assert all(secret not in path.read_text() for path in written)


def test_a_second_one_on_the_same_folder_is_told_so(ui):
    done = subprocess.run(
        [*CHARTER, "ui", "--port", "0", "--no-browser"],
        cwd=ui.folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2 and "another `charter ui` serves runs" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_the_world_is_let_in_only_with_a_secret(tmp_path):
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    done = subprocess.run(
        [*CHARTER, "ui", "--host", "0.0.0.0", "--no-browser", "--no-password"],
        cwd=tmp_path,
        env={**kept, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2 and "--no-password: with --host 0.0.0.0 whoever reaches it" in done.stderr


def test_publishing_a_constitution_starts_relabel(ui):
    working = ui.folder / "constitutions" / "microworld.yaml"
    working.write_text(working.read_text().replace("question: ", "question: Now, ", 1))
    command = ["constitution", "publish", "microworld", "--bump", "minor", "-m", "a test"]
    environment = {"PREFECT_API_URL": f"{ui.page}/api", "PREFECT_API_AUTH_STRING": AUTH}
    done = subprocess.run(
        [*CHARTER, *command],
        cwd=ui.folder,
        env={**os.environ, **environment, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0 and not done.stderr, done.stderr
    ref = done.stdout.split()[0]

    def relabels() -> list[dict[str, Any]]:
        return ui.call("POST", "/flow_runs/filter", flows={"name": {"any_": ["relabel"]}})

    [run] = wait_for(relabels, "the automation")
    assert run["parameters"]["request"]["constitution"] == ref
    assert ui.ended(run["id"])["type"] == "COMPLETED"
    found = f"{ref}: micro has no labels yet, so none is stale"
    wait_for(lambda: found in ui.logs(), "the line in the log")
    assert ui.call("GET", f"/flow_runs/{run['id']}")["name"] == f"relabel of microworld under {ref}"


def test_publishing_does_not_depend_on_a_server(tmp_path):
    shutil.copytree(ROOT / "constitution" / "library", tmp_path / "constitutions")
    working = tmp_path / "constitutions" / "hhh.yaml"
    working.write_text(working.read_text().replace("question: ", "question: Now, ", 1))
    command = ["constitution", "publish", "hhh", "--bump", "minor", "-m", "a test"]
    environment = {"PREFECT_API_URL": "http://127.0.0.1:9/api", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [*CHARTER, *command],
        cwd=tmp_path,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0
    assert done.stderr.startswith("note: published, but the Prefect server was not told: ")
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_failed_gate_is_failed_with_its_reason_and_no_traceback(ui):
    request = {**training(ui, 1), "changes": ["helpful_sft.max_length=8", "name=short"]}
    run = ui.start("rlaif/rlaif", request=request)
    state = ui.ended(run)
    assert state["type"] == "FAILED"
    assert state["message"].startswith(
        "stage helpful_sft failed with exit code 2: max_length 8: every example"
    )
    assert "\n" not in state["message"]
    wait_for(lambda: state["message"] in ui.logs(), "the line in the log")
    assert not [line for line in ui.logs() if "Traceback" in line]


def test_only_a_judge_that_is_away_is_asked_again(ui, monkeypatch):
    from prefect import flow

    from flows.orchestration import shards
    from judges import JudgeError, JudgeUnavailable

    monkeypatch.setattr(shards, "RETRY_SECONDS", (0.1, 0.1))
    calls: list[str] = []

    def work(item: str) -> str:
        calls.append(item)
        if item == "wrong key":
            raise JudgeError("refuses the key")
        if calls.count(item) < 3:
            raise JudgeUnavailable("no connection")
        return item

    from flows.config.data import ShardsSection

    @flow
    def labelling(items: list[str]) -> list[str]:
        return shards.run_shards("shards", items, work, how=ShardsSection())

    with client_of(f"{ui.page}/api", AUTH):
        assert labelling(["away"]) == ["away"] and calls == ["away"] * 3
        with pytest.raises(JudgeError, match="refuses the key"):
            labelling(["wrong key"])
    assert calls.count("wrong key") == 1


def test_a_cancelled_training_stops_in_seconds_and_goes_on_later(ui):
    run = started(ui, 2)
    flow = ui.flow_process()
    processes = [flow, *flow.children(recursive=True)]
    assert len(processes) > 1, "the training is a process of its own"
    ui.call("POST", f"/flow_runs/{run}/set_state", state={"type": "CANCELLING"}, force=False)
    assert gone(processes, 25)
    assert ui.ended(run, 30)["type"] == "CANCELLED"
    under_way = {"state": {"type": {"any_": ["RUNNING", "CANCELLING"]}}}
    assert ui.call("POST", "/flow_runs/filter", flow_runs=under_way) == [], (
        "nor does a part of it seem to run"
    )
    assert [a.status for a in RunDirectory(ui.folder / "runs" / "run-2").attempts()] == ["cancelled"]
    goes_on(ui, 2, kept=rows(ui, 2))


def nobody_waits(ui: UI) -> None:
    """Without the limit: the GPU's slot of a killed run is free after a minute, which no test needs to sit out."""
    ui.call("DELETE", "/v2/concurrency_limits/gpu")


def test_a_killed_flow_is_crashed_and_goes_on_later(ui):
    nobody_waits(ui)
    run = started(ui, 3)
    flow = ui.flow_process()
    children = flow.children(recursive=True)
    flow.kill()
    assert gone(children, 30), "its training does not go on without it"
    assert ui.ended(run)["type"] == "CRASHED"
    goes_on(ui, 3, kept=rows(ui, 3))


def start_worker(ui: UI) -> subprocess.Popen[bytes]:
    environment = {
        "PREFECT_API_URL": f"{ui.page}/api",
        "PREFECT_API_AUTH_STRING": AUTH,
        "OMP_NUM_THREADS": "1",
    }
    with (ui.folder / "worker.log").open("a") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "prefect", "worker", "start", "--pool", "charter", "--type", "process"],
            cwd=ui.folder,
            env={**os.environ, **environment, "PYTHONPATH": str(ROOT)},
            stdout=log,
            stderr=log,
        )


def test_a_killed_worker_of_a_pool_takes_its_run_along_and_the_next_one_goes_on(ui):
    ui.call("POST", "/work_pools/", name="charter", type="process", concurrency_limit=1)
    served = ui.call("GET", "/deployments/name/rlaif/rlaif")
    ui.call(
        "POST",
        "/deployments/",
        name="pooled",
        flow_id=served["flow_id"],
        work_pool_name="charter",
        # What `prefect deploy` writes; without it the worker would copy all that lies in the deployment's path.
        pull_steps=[{"prefect.deployments.steps.set_working_directory": {"directory": str(ui.folder)}}],
        entrypoint="flows.orchestration.rlaif.rlaif",
        parameter_openapi_schema=served["parameter_openapi_schema"],
    )
    worker = start_worker(ui)
    try:
        run = started(ui, 7, "rlaif/pooled")
        children = psutil.Process(worker.pid).children(recursive=True)
        assert children
        worker.kill()
        worker.wait()
        assert gone(children, 90), "flow and training end with the worker"
        assert ui.ended(run)["type"] == "CRASHED"
        worker = start_worker(ui)
        goes_on(ui, 7, rows(ui, 7), "rlaif/pooled")
    finally:
        worker.kill()


def server_pid(ui: UI) -> int | None:
    """The server's process id; None between two servers."""
    try:
        return ui.server_process().pid
    except StopIteration:
        return None


def test_a_killed_server_comes_back_and_the_run_does_not_notice(ui):
    run = started(ui, 4)
    killed = ui.server_process()
    killed.kill()
    wait_for(lambda: server_pid(ui) not in (None, killed.pid), "another server")
    wait_for(lambda: _answers(ui), "its answer")
    assert ui.ended(run)["type"] == "COMPLETED"
    assert steps(ui, 4)[-1] == STEPS
    assert [a.status for a in RunDirectory(ui.folder / "runs" / "run-4").attempts()] == ["finished"]


def test_everything_killed_at_once_goes_on_from_what_was_done(ui):
    run = started(ui, 5)
    flow, server = ui.flow_process(), ui.server_process()
    trainings = flow.children(recursive=True)
    ui.process.kill()
    ui.process.wait()
    assert gone([server, *trainings], 60), "they end with what started them"
    again = start_ui(ui.folder)
    ui.process, ui.page = again.process, again.page
    # The page answers before the new `charter ui` has looked for what the old one left.
    state = ui.ended(run)
    assert state["type"] == "CRASHED" and "goes on from what was done" in state["message"]
    # On a busy machine the killed flow's process may still be letting go of the run's directory.
    wait_for(lambda: is_free(ui.folder / "runs" / "run-5"), "the run's directory")
    goes_on(ui, 5, kept=rows(ui, 5))
    names = [d["name"] for d in ui.call("POST", "/deployments/filter")]
    assert len(names) == len(set(names)) and len(ui.call("POST", "/automations/filter")) == 2


def test_a_run_without_a_ui_outlives_its_own_server(ui):
    values = yaml.safe_load((ui.folder / "run.yaml").read_text())
    (ui.folder / "alone.yaml").write_text(yaml.safe_dump({**values, "name": "run-6", "runs_dir": "alone"}))
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    process = subprocess.Popen(
        [*CHARTER, "run", "--config", "alone.yaml", "--to-stage", "helpful_sft"],
        cwd=ui.folder,
        env={**kept, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    metrics = "alone/run-6/helpful_sft/*/model/metrics.jsonl"
    wait_for(lambda: list(ui.folder.glob(metrics)) or process.poll() is not None, "training")
    server_of(process.pid).kill()
    _, errors = process.communicate(timeout=200)
    assert process.returncode == 0 and "Traceback" not in errors, errors
    assert [a.status for a in RunDirectory(ui.folder / "alone" / "run-6").attempts()] == ["finished"]


def _answers(ui: UI) -> bool:
    try:
        return httpx.get(f"{ui.page}/api/health", timeout=2, trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False
