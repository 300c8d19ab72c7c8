"""Stages whose texts and labels come from servers that the run starts; a scripted server stands in vLLM's place."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import yaml
from harness.model_server import ModelServer
from harness.scripted_vllm import environment

from constitution import load
from flows.config import load_config
from flows.config.forms import RunRequest
from flows.errors import FlowError
from flows.pipeline.forecast.plan import plan_run
from flows.pipeline.launch import open_session, run_stages
from flows.runs.progress import Silent

SERVED = ("sampling.kind=vllm", "judge.kind=vllm")


@pytest.fixture
def served_run(tmp_path, make_run, make_model) -> Path:
    """A run's configuration whose texts and labels are served by a scripted server."""
    model = make_model(tmp_path / "model")
    path = make_run(tmp_path, model)
    values = yaml.safe_load(path.read_text())
    place = str(environment(tmp_path / "environment"))
    values["sampling"] = {"kind": "vllm", "replicas": 2, "vllm_environment": place}
    values["judge"] |= {"kind": "vllm", "vllm_environment": place}
    path.write_text(yaml.safe_dump(values))
    return path


class Listening(Silent):
    def __init__(self):
        self.said: list[str] = []

    def progress(self, stage, done, total, text):
        self.said.append(f"{stage}: {text}")


def servers(folder: Path) -> list[int]:
    """Scripted servers of any model below a folder, with what they started, that still live."""
    listed = [pid for file in folder.rglob("workers") for pid in file.read_text().split()]
    return [int(pid) for pid in listed if psutil.pid_exists(int(pid)) and not _zombie(int(pid))]


def _zombie(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def wait_until_gone(folder: Path, seconds: float = 10.0) -> list[int]:
    deadline = time.monotonic() + seconds
    while (left := servers(folder)) and time.monotonic() < deadline:
        time.sleep(0.1)
    return left


@pytest.mark.slow
def test_a_run_starts_its_servers_stage_by_stage_and_ends_them(served_run, tmp_path):
    heard = Listening()
    with open_session(RunRequest(config=str(served_run)), heard) as session:

        def execute(stage):
            outcome = session.execute(stage)
            assert servers(tmp_path) == [], stage.name  # before the next stage wants the machine
            return outcome

        run_stages(session, to_stage="labels", execute=execute)
        outcomes = dict(session.outcomes)
    assert any("starting 2 vLLM servers of model" in line for line in heard.said)
    assert any(line.startswith("labels: starting a vLLM server") for line in heard.said)
    for name in ("critique_revision", "pairs"):
        assert outcomes[name].manifest.config["engine"] == "served"
        assert len(list(outcomes[name].directory.glob("vllm-model-?.log"))) == 2
        assert not list(outcomes[name].directory.rglob("*.begun"))
    assert list(outcomes["labels"].directory.glob("vllm-model-0.log"))
    assert outcomes["labels"].manifest.metrics["asked"] > 0
    again = Listening()
    with open_session(RunRequest(config=str(served_run)), again) as session:
        run_stages(session, to_stage="labels")
        assert all(outcome.reused for outcome in session.outcomes.values())
    assert not any("starting" in line for line in again.said)


@pytest.mark.slow
def test_a_run_that_is_killed_leaves_no_server_and_keeps_what_was_drawn(served_run, tmp_path):
    (tmp_path / "model" / "behave.json").write_text('{"token_s": 0.2}')
    changes = ["demonstrations=null", "critique_revision.response.batch_size=2"]
    command = [
        sys.executable,
        "-c",
        "from flows.pipeline.launch import *; from flows.runs.progress import *; ",
    ]
    request = RunRequest(config=str(served_run), changes=tuple(changes)).model_dump_json()
    command[-1] += (
        f"request = RunRequest.model_validate_json({request!r})\n"
        "with open_session(request, Silent()) as session: run_stages(session, to_stage='critique_revision')"
    )
    run = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])})
    begun: list[Path] = []
    deadline = time.monotonic() + 240
    while not begun and run.poll() is None and time.monotonic() < deadline:
        begun = list((tmp_path / "runs").rglob("response-000000.begun"))
        time.sleep(0.05)
    assert begun and servers(tmp_path)
    run.send_signal(signal.SIGKILL)
    run.wait(10)
    assert wait_until_gone(tmp_path) == []
    kept = [json.loads(line) for line in begun[0].read_text().split("\n")[:-1]]
    assert kept
    (tmp_path / "model" / "behave.json").write_text("{}")
    with open_session(RunRequest(config=str(served_run), changes=tuple(changes)), Silent()) as session:
        run_stages(session, to_stage="critique_revision")
        part = session.outcomes["critique_revision"].directory / "parts" / "response-000000.jsonl"
    rows = [json.loads(line) for line in part.read_text().split("\n") if line]
    assert len(rows) == 10 and all(rows[row["row"]]["text"] == row["text"] for row in kept)


def test_the_plan_says_which_servers_start_when(served_run):
    config = load_config(served_run, [f"models.critic={served_run.parent}/model", "pairs.contrast=base"])
    found = plan_run(config, load(config.constitution))
    by_stage = {s.stage: [(v.model, v.replicas) for v in s.servers] for s in found.stages}
    assert by_stage["critique_revision"] == [("helpful_only", 2), ("critic", 2)]
    assert by_stage["pairs"] == [("sl_cai", 2), ("base", 2)]
    assert by_stage["labels"] == [("judge", 1)]
    assert [model for model, _ in by_stage["evaluate"]] == ["base", "helpful_only", "sl_cai", "rl_cai"]
    assert by_stage["rl"] == by_stage["sl_cai"] == []
    shown = subprocess.run(
        [str(Path(sys.executable).with_name("charter")), "plan", "--config", str(served_run)],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    ).stdout
    assert "pairs: starts 2 vLLM servers of sl cai; they end with the stage" in shown


MISTAKES = [
    ("sampling.tensor_parallel=2", "sampling: tensor_parallel: 2: vLLM's build here is for the CPU"),
    ("sampling.vllm_environment=/nowhere", "sampling: no vLLM environment in /nowhere"),
    ("sampling.kind=in_process", "replicas: belongs to kind vllm, not to in_process"),
    (
        "sampling={kind: endpoints}",
        "sampling: endpoints: kind endpoints needs at least one|needs at least one",
    ),
    ("sampling={kind: endpoints, endpoints: ['http://127.0.0.1:9/v1']}", "sampling.endpoints: .*no answer"),
    ("sampling.vllm_arguments=[--host=0.0.0.0]", "--host is not for vllm_arguments"),
    ("judge.endpoints=['http://a/v1']", "endpoints: kind vllm asks no server of yours"),
    ("rl.reward.judge={}", "rl.reward.judge: is asked while the policy trains"),
    ("models.critic={endpoints: ['http://127.0.0.1:9/v1']}", "revision"),
    (
        "models.critic={endpoints: ['http://127.0.0.1:9/v1'], revision: r}",
        "models.critic.endpoints: .*no answer",
    ),
]


@pytest.mark.parametrize(("change", "message"), MISTAKES)
def test_what_cannot_be_served_is_refused_in_one_line(served_run, change, message):
    with (
        pytest.raises(FlowError, match=message),
        open_session(RunRequest(config=str(served_run), changes=(change,)), Silent()),
    ):
        pass


@pytest.mark.parametrize("as_ids", [False, True])
def test_a_critic_may_be_a_server_of_the_users(served_run, tmp_path, as_ids):
    def says(path, body, n):
        if path.endswith("chat/completions"):
            assert body["messages"][-1]["content"]
            choice = {"index": 0, "message": {"content": "Better."}, "finish_reason": "stop"}
        else:
            assert isinstance(body["prompt"][0][0], int) and body["stop_token_ids"]
            choice = {"index": 0, "text": "Better.", "finish_reason": "stop"}
        return 200, json.dumps({"choices": [choice], "usage": {"prompt_tokens": 9, "completion_tokens": 2}})

    server = ModelServer(behave=says, max_model_len=4096)
    critic = {"endpoints": [server.url], "revision": "1"}
    if as_ids:
        critic["tokenizer"] = str(tmp_path / "model")
    changes = ("sampling={kind: in_process}", "demonstrations=null", f"models.critic={json.dumps(critic)}")
    try:
        with open_session(RunRequest(config=str(served_run), changes=changes), Silent()) as session:
            run_stages(session, to_stage="critique_revision")
            outcome = session.outcomes["critique_revision"]
    finally:
        server.stop()
    chains = [json.loads(line) for line in (outcome.directory / "chains.jsonl").read_text().splitlines()]
    revised = [chain for chain in chains if chain["steps"]]
    assert len(revised) == 8 and all(s["revision"] == "Better." for c in revised for s in c["steps"])
    assert len(server.requests) == 2 * 2 * 8
