"""Who may ask the server of `charter ui`, what its pages may ask for, and its password."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
from starlette.applications import Starlette
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from flows.errors import FlowError
from flows.orchestration.password import ASKED, SAID, ensure_password, share_password
from flows.orchestration.ui_app import ORIGINS, OwnLogos, OwnPagesOnly, mended

HOST = "127.0.0.1:4200"


def asked(
    *, host: str = HOST, origin: str | None = None, method: str = "POST", path: str = "/api/flow_runs/"
):
    """What an app behind the guard answers to one request."""

    async def answer(request):
        return PlainTextResponse(f"done for {request.method}")

    app = OwnPagesOnly(Starlette(routes=[Route("/{path:path}", answer, methods=["GET", "POST", "OPTIONS"])]))
    headers = {"host": host} | ({} if origin is None else {"origin": origin})
    return TestClient(app).request(method, path, headers=headers)


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        (HOST, None),
        (HOST, f"http://{HOST}"),
        ("localhost:4200", "http://localhost:4200"),
        ("[::1]:4200", "http://[::1]:4200"),
        ("LOCALHOST:8080", "http://localhost:8080"),
        ("10.1.2.3", "https://10.1.2.3"),
    ],
)
def test_programs_and_the_own_page_may_ask(host, origin):
    answer = asked(host=host, origin=origin)
    assert (answer.status_code, answer.text) == (200, "done for POST")


@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS"])
@pytest.mark.parametrize(
    "origin",
    [
        "http://other.example",
        "http://127.0.0.1:4201",
        "http://localhost:4200",
        "null",
        "",
        "file://",
        "http://[",
    ],
)
def test_pages_of_other_origins_are_refused_in_one_line(method, origin):
    answer = asked(origin=origin, method=method)
    assert answer.status_code == 403 and answer.text.count("\n") == 1 and answer.text.startswith("refused: ")
    assert "access-control-allow-origin" not in answer.headers and "done" not in answer.text


@pytest.mark.parametrize(
    "host", ["other.example", "other.example:4200", "127.0.0.1.other.example", "", "[::1"]
)
def test_a_name_that_somebody_else_resolved_to_this_machine_is_refused(host):
    for origin in (None, f"http://{host}"):
        answer = asked(host=host, origin=origin, method="GET")
        assert answer.status_code == 403 and answer.text.count("\n") == 1


def test_a_proxy_in_front_is_named(monkeypatch):
    monkeypatch.setenv(ORIGINS, "https://charter.example, https://other.example/")
    assert asked(host="charter.example", origin="https://charter.example").status_code == 200
    assert asked(host="third.example").status_code == 403


def test_a_websocket_of_another_origin_is_closed():
    from starlette.routing import WebSocketRoute
    from starlette.websockets import WebSocketDisconnect

    async def echo(socket):
        await socket.accept()
        await socket.send_text("hello")
        await socket.close()

    client = TestClient(OwnPagesOnly(Starlette(routes=[WebSocketRoute("/events", echo)])))
    with client.websocket_connect("/events", headers={"host": HOST}) as socket:
        assert socket.receive_text() == "hello"
    other = {"host": HOST, "origin": "http://other.example"}
    with pytest.raises(WebSocketDisconnect), client.websocket_connect("/events", headers=other):
        pass


def test_every_answer_keeps_the_page_to_its_own_origin():
    answer = asked(method="GET")
    policy = dict(part.split(" ", 1) for part in answer.headers["content-security-policy"].split("; "))
    assert policy["default-src"] == "'self'" and policy["connect-src"] == "'self'"
    assert not any("http" in sources or "*" in sources for sources in policy.values())
    assert policy["frame-ancestors"] == policy["base-uri"] == policy["object-src"] == "'none'"
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_logos_are_this_servers_own():
    async def types(_):
        logo = {
            "name": "aws",
            "logo_url": "https://images.example/aws.png",
            "documentation_url": "https://docs.example",
        }
        return JSONResponse([logo, logo | {"logo_url": None}])

    client = TestClient(
        OwnLogos(Starlette(routes=[Route("/api/block_types/filter", types, methods=["POST"])]))
    )
    answer = client.post("/api/block_types/filter", headers={"host": HOST})
    assert [one["logo_url"] for one in answer.json()] == [f"http://{HOST}/ico/favicon-32x32.png", None]
    assert answer.json()[0]["documentation_url"] == "https://docs.example"


def test_what_is_mended_is_still_in_the_pages_of_the_installed_prefect():
    import prefect

    changed = {
        f"{Path(folder).name}/{script.name.split('-')[0]}": (before, after)
        for folder in (prefect.__ui_v2_static_path__, prefect.__ui_static_path__)
        for script in sorted(Path(folder).glob("assets/*.js"))
        if (after := mended(before := script.read_text(encoding="utf-8"))) != before
    }
    assert set(changed) == {"ui-v2/index", "ui-v2/deployment_._id.run", "ui-v2/run", "ui/index"}
    assert all(mended(after) == after for _, after in changed.values())
    before, after = changed["ui-v2/index"]
    assert len(before) - len(after) == 32
    for logs in ("ui-v2/run", "ui/index"):
        before, after = changed[logs]
        assert after.count("location.origin.replaceAll") == 1 and "/artifacts)" in after
    before, after = changed["ui-v2/deployment_._id.run"]
    lost, new = "`/deployments/deployment/$id`", "`/runs/flow-run/$id`"
    assert after.count(new) == before.count(new) + 1 and after.count(lost) == before.count(lost) - 1


@pytest.fixture
def environment(monkeypatch):
    for name in (ASKED, SAID):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


def test_a_password_is_made_once_and_is_its_owners_alone(environment, monkeypatch, tmp_path):
    path = ensure_password(tmp_path / "home")
    kept = path.read_text(encoding="utf-8").strip()
    user, _, secret = kept.partition(":")
    assert user == "charter" and len(secret) >= 24
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert os.environ[ASKED] == os.environ[SAID] == kept
    monkeypatch.delenv(ASKED)
    monkeypatch.setenv(SAID, "of:another-server")
    assert ensure_password(tmp_path / "home") == path
    assert os.environ[ASKED] == os.environ[SAID] == kept


def test_the_environments_password_is_taken(environment, monkeypatch, tmp_path):
    monkeypatch.setenv(ASKED, "someone:something")
    assert ensure_password(tmp_path) is None and not list(tmp_path.iterdir())
    assert os.environ[SAID] == "someone:something"


@pytest.mark.parametrize("held", ["", "charter", ":", "charter:", ":x"])
def test_a_file_that_holds_no_password_is_said_in_one_line(environment, tmp_path, held):
    (tmp_path / "password").write_text(held)
    with pytest.raises(FlowError, match=r"expected name:password") as error:
        ensure_password(tmp_path)
    assert "\n" not in str(error.value) and ASKED not in os.environ


def test_another_terminal_reads_the_password_of_a_server_here_alone(environment, monkeypatch, tmp_path):
    from flows.orchestration.local import prepare

    monkeypatch.setenv("PREFECT_HOME", str(tmp_path))
    ensure_password(tmp_path / "runs" / ".prefect")
    kept = os.environ.pop(ASKED)
    for url, said in (("http://prefect.example:4200/api", None), ("http://127.0.0.1:4200/api", kept)):
        monkeypatch.delenv(SAID, raising=False)
        monkeypatch.setenv("PREFECT_API_URL", url)
        prepare(tmp_path / "runs")
        assert os.environ.get(SAID) == said
    os.environ.pop(SAID)
    share_password()
    assert SAID not in os.environ


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A server as `charter run` starts it, and its password."""
    from flows.orchestration import server as serving

    home = tmp_path_factory.mktemp("server")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("PREFECT_HOME", str(home))
        patched.setenv(ASKED, "someone:a-secret-of-the-test")
        patched.delenv("PREFECT_API_URL", raising=False)
        with serving.server(port=serving.free_port(0), log=home / "server.log", services=False) as started:
            started.wait()
            yield started


@pytest.mark.prefect
def test_prefects_server_answers_its_own_page_and_those_with_the_password(server):
    def ask(path: str, *, method: str = "GET", auth=("someone", "a-secret-of-the-test"), **headers: str):
        return httpx.request(
            method,
            f"{server.url}{path}",
            auth=auth,
            headers=headers,
            json={} if method == "POST" else None,
            trust_env=False,
        )

    assert ask("/admin/version").status_code == 200
    assert ask("/admin/version", auth=None).status_code == 401
    assert ask("/flow_runs/filter", method="POST", origin="http://other.example").status_code == 403
    own = ask("/flow_runs/filter", method="POST", origin=server.url.removesuffix("/api"))
    assert own.status_code == 200
    assert ask("/admin/version", host="other.example").status_code == 403
    for path in ("/docs", "/redoc", "/docs/oauth2-redirect"):
        assert "https://" not in ask(path).text
    # The list of workers is asked of nobody; what the server comes with is there at once.
    began = time.monotonic()
    workers = ask("/collections/views/aggregate-worker-metadata")
    assert workers.status_code == 200 and time.monotonic() - began < 5
    assert '"logo_url":"https' not in workers.text and "favicon" in workers.text


@pytest.mark.prefect
def test_the_password_is_in_no_command_line_and_no_log(server):
    commands = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    assert "uvicorn" in commands and "a-secret-of-the-test" not in commands.replace(" ".join(sys.argv), "")
    assert "a-secret-of-the-test" not in server.log.read_text()
