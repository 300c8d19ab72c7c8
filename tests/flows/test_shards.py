"""Labelling past one process: threads, and a Ray cluster of two nodes with the ledger on PostgreSQL and two servers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from harness.prefect_client import client_of

ROOT = Path(__file__).parents[2]
PAIRS = 24


class Scripted:
    """An OpenAI-compatible judge that prefers a yes and remembers what it is asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                known = self.path == "/v1/models"
                self.reply(200 if known else 404, {"data": [{"id": "judge", "max_model_len": 4096}]})

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                asked = json.dumps(body["messages"])
                outer.asked.append(asked)
                liked, other = sorted("AB", reverse=asked.rindex("Yes ") > asked.rindex("No "))
                top = [{"token": liked, "logprob": -0.3}, {"token": other, "logprob": -1.5}]
                choice = {"message": {"content": liked}, "logprobs": {"content": [{"top_logprobs": top}]}}
                self.reply(200, {"choices": [{"index": 0, **choice}], "usage": {"prompt_tokens": 9}})

            def reply(self, status, value):
                data = json.dumps(value).encode()
                self.send_response(status)
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}/v1"
        threading.Thread(target=self.http.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self) -> None:
        self.http.shutdown()
        self.http.server_close()


@pytest.fixture
def judges():
    servers = [Scripted(), Scripted()]
    yield servers
    for server in servers:
        server.stop()


@pytest.fixture
def postgres(require):
    try:
        import pgserver
    except ImportError:
        require("PostgreSQL", False, "pip install pgserver")
    with tempfile.TemporaryDirectory(prefix="charter-pg-") as folder:
        server = pgserver.get_server(folder)
        # The ledger's URL holds no password, not even an empty one.
        yield server.get_uri().replace("postgres:@", "postgres@")
        server.cleanup()


@pytest.fixture
def work(tmp_path, make_run, tiny_model):
    """`work(endpoints, ledger, shards)`: what the labels stage gets, but for its shards."""
    from constitution import draw_comparison, load
    from flows.config import load_config
    from flows.stages.contract import StageInput
    from flows.stages.labels import STAGE

    def make(endpoints, ledger, shards, **judge):
        path = make_run(tmp_path / "files", tiny_model)
        rows = [
            {
                "id": f"p{i}",
                "prompt": [{"role": "user", "content": f"Q{i}"}],
                "a": f"Yes {i}.",
                "b": f"No {i}.",
            }
            for i in range(PAIRS)
        ]
        # The last pair says what the first one says and draws its principle: two shards need the same judgements.
        constitution = load(str(tmp_path / "files" / "tiny.yaml"))
        drawn = {f"twin{i}": draw_comparison(constitution, f"twin{i}", seed=0, n=1) for i in range(20)}
        wanted = draw_comparison(constitution, rows[0]["id"], seed=0, n=1)
        rows.append({**rows[0], "id": next(i for i, principles in drawn.items() if principles == wanted)})
        pairs = tmp_path / "pairs.jsonl"
        pairs.write_text("".join(json.dumps(row) + "\n" for row in rows))
        served = json.dumps({"kind": "openai", "model": "judge", "endpoints": endpoints, **judge})
        changes = [f"judge={served}", f"launcher.shards={json.dumps(shards)}", "labels.shard_pairs=2"]
        if ledger is not None:
            changes.append(f"labels.ledger={ledger}")
        config = load_config(path, changes)
        directory = tmp_path / "labels"
        directory.mkdir(exist_ok=True)
        return StageInput(
            stage="labels",
            directory=directory,
            run_directory=tmp_path,
            seed=0,
            settings=STAGE.settings(config),
            tuning=STAGE.tuning(config),
            inputs={"pairs": str(pairs)},
            digests={},
            constitution=load(config.constitution),
            progress=lambda done, total, text: None,
        )

    return make


def run_labels(work):
    """The stage under a Prefect server of its own, its shards as tasks; gives the result."""
    from dataclasses import replace

    from prefect import flow

    from flows.orchestration.shards import run_shards
    from flows.stages.labels import run

    @flow
    def labels():
        return run(replace(work, shards=run_shards))

    return labels()


@pytest.fixture(scope="module")
def prefect_server(tmp_path_factory):
    """A Prefect server, and settings that point this process at it."""
    from flows.orchestration import server as serving

    home = tmp_path_factory.mktemp("prefect")
    before = os.environ.get("PREFECT_HOME")
    os.environ["PREFECT_HOME"] = str(home)
    try:
        with serving.server(port=serving.free_port(0), log=home / "server.log", services=False) as server:
            server.wait()
            with client_of(server.url):
                yield server.url
    finally:
        if before is None:
            del os.environ["PREFECT_HOME"]
        else:
            os.environ["PREFECT_HOME"] = before


def judgements(ledger_url):
    import sqlalchemy as sa

    from judges import Ledger
    from judges.ledger import schema

    with Ledger.open(ledger_url) as ledger, ledger.read() as connection:
        count = lambda table: connection.execute(sa.select(sa.func.count()).select_from(table)).scalar_one()  # noqa: E731
        return count(schema.judgements), count(schema.judges), count(schema.claims)


def check(result, judges, ledger):
    asked = [prompt for judge in judges for prompt in judge.asked]
    assert len(asked) == len(set(asked)) == result.metrics["asked"] == 2 * PAIRS
    assert all(judge.asked for judge in judges), "one of the two servers was never asked"
    assert result.metrics["pairs"] == PAIRS + 1
    # Two servers of the same weights are one judge; nobody holds a claim any more.
    assert judgements(ledger) == (2 * PAIRS, 1, 0)


@pytest.mark.prefect
def test_threads_label_several_shards_at_once(judges, work, prefect_server, tmp_path):
    urls = [judge.url for judge in judges]
    shards = {"runner": "threads", "at_once": 3}
    result = run_labels(work(urls, None, shards, concurrency=2))
    check(result, judges, f"sqlite:///{tmp_path}/ledger.db")


@pytest.mark.prefect
def test_a_dead_judge_ends_the_threads_with_its_line(judges, work, prefect_server):
    from judges import JudgeError

    urls = [judge.url for judge in judges]
    waiting = work(urls, None, {"runner": "threads", "at_once": 2}, model="another")
    with pytest.raises(JudgeError, match="does not serve 'another'"):
        run_labels(waiting)


@pytest.fixture(scope="module")
def ray_cluster():
    """Two Ray nodes on this machine, one shard at a time each; gives the cluster's address."""
    try:
        from ray.cluster_utils import Cluster
    except ImportError:
        message = "Ray is missing: pip install 'charter[ray]'"
        (pytest.fail if os.environ.get("CHARTER_REQUIRE_ALL") == "1" else pytest.skip)(message)
    node = {"num_cpus": 1, "object_store_memory": 80 * 2**20, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=node)
    del node["include_dashboard"]
    cluster.add_node(**node)
    cluster.wait_for_nodes()
    yield cluster.address
    import ray

    ray.shutdown()
    cluster.shutdown()


@pytest.mark.slow
@pytest.mark.prefect
@pytest.mark.postgres
def test_a_ray_cluster_of_two_nodes_asks_nothing_twice(ray_cluster, judges, work, postgres, prefect_server):
    shards = {"runner": "ray", "at_once": 2, "address": ray_cluster}
    result = run_labels(work([judge.url for judge in judges], postgres, shards, concurrency=2))
    check(result, judges, postgres)


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.vllm
@pytest.mark.prefect
@pytest.mark.postgres
@pytest.mark.timeout(900)
def test_two_vllm_servers_behind_a_ray_cluster(
    ray_cluster, work, postgres, prefect_server, require, tmp_path
):
    """The microworld's judge on two real servers: prompts as token ids, one identity, nothing asked twice."""
    from engines import VllmServer

    environment, weights = ROOT / ".venv-vllm", ROOT / "microworld" / "weights" / "feedback"
    require("vLLM", (environment / "bin" / "python").is_file(), "run `make vllm`")
    servers = [VllmServer(weights, environment=environment, log=tmp_path / f"vllm-{n}.log") for n in (1, 2)]
    try:
        for server in servers:
            server.start()
        for server in servers:
            server.wait_until_ready(400)

        def answers():
            return [server.log.read_text().count("POST /v1/completions") for server in servers]

        asked_to_see_that_they_are_ready = answers()
        shards = {"runner": "ray", "at_once": 2, "address": ray_cluster}
        served = {"model": "feedback", "tokenizer": str(weights), "concurrency": 1, "prompts_per_request": 1}
        result = run_labels(work([server.url for server in servers], postgres, shards, **served))
        answered = [now - then for now, then in zip(answers(), asked_to_see_that_they_are_ready, strict=True)]
    finally:
        for server in servers:
            server.stop()
    assert result.metrics["asked"] == 2 * PAIRS and judgements(postgres) == (2 * PAIRS, 1, 0)
    assert all(answered) and sum(answered) == 2 * PAIRS


@pytest.mark.slow
@pytest.mark.prefect
def test_shards_land_on_both_nodes(ray_cluster, prefect_server):
    from prefect import flow

    from flows.config.data import ShardsSection
    from flows.orchestration.shards import run_shards

    def where(number):
        import time

        import ray

        time.sleep(1.0)
        return number, ray.get_runtime_context().get_node_id()

    heard = []

    @flow
    def asking():
        how = ShardsSection(runner="ray", at_once=2, address=ray_cluster)
        return run_shards("where", range(4), where, how=how, done=lambda n, result: heard.append((n, result)))

    found = asking()
    assert [number for number, _ in found] == [0, 1, 2, 3]
    assert len({node for _, node in found}) == 2
    assert sorted(heard) == list(enumerate(found))


def test_ray_needs_what_its_workers_reach(make_run, tiny_model, tmp_path):
    from flows.config import load_config
    from flows.errors import FlowError

    path = make_run(tmp_path, tiny_model)
    ray = "launcher.shards={runner: ray, address: 'ray://head:10001'}"
    with pytest.raises(FlowError, match="ray needs a judge behind HTTP"):
        load_config(path, [ray])
    served = "judge={kind: openai, model: m, endpoints: ['http://h/v1']}"
    with pytest.raises(FlowError, match=r"labels\.ledger: the workers of a Ray cluster need one"):
        load_config(path, [ray, served])
    config = load_config(path, [ray, served, "labels.ledger=postgresql://u@h/db"])
    assert config.launcher.shards.address == "ray://head:10001"
    with pytest.raises(FlowError, match="address: is for runner ray, not for threads"):
        load_config(path, ["launcher.shards={runner: threads, address: auto}"])
    with pytest.raises(FlowError, match="address: runner ray needs that of a cluster"):
        load_config(path, ["launcher.shards.runner=ray"])


def test_without_ray_it_is_one_line(tmp_path):
    """In a process that cannot import prefect_ray."""
    code = (
        "import sys; sys.modules['prefect_ray'] = None\n"
        "from flows.orchestration.shards import run_shards\n"
        "from flows.config.data import ShardsSection\n"
        "how = ShardsSection(runner='ray', at_once=1, address='auto')\n"
        "try: run_shards('x', [1], str, how=how)\n"
        "except ValueError as error: print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT, timeout=120
    )
    assert "needs Ray and prefect-ray: pip install 'charter[ray]'" in done.stdout
