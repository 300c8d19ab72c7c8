"""Prefect's own server on PostgreSQL: the database is named in the environment, like every secret."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

FLOW = "from prefect import flow\n@flow(name='kept')\ndef kept():\n    return 1\nkept()"
COUNT = "SELECT f.name, r.state_type FROM flow f JOIN flow_run r ON r.flow_id = f.id"


@pytest.fixture
def postgres(require):
    """A PostgreSQL with its contributed modules: Prefect wants pg_trgm, which pgserver's does not have."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl"))
    require("PostgreSQL with pg_trgm", bool(found), "apt-get install postgresql")
    programs = found[-1].parent
    # PostgreSQL refuses to run as root.
    user = {"user": "postgres", "group": "postgres"} if os.geteuid() == 0 else {}

    def run(program, *arguments, **more):
        command = [str(programs / program), *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True, cwd=folder, **user, **more)

    with tempfile.TemporaryDirectory(prefix="charter-pg-") as folder:
        if user:
            shutil.chown(folder, **user)
        run("initdb", "-D", f"{folder}/data", "-U", "postgres", "--auth=trust", "--no-sync")
        options = f"-k {folder} -c listen_addresses= -c fsync=off"
        run("pg_ctl", "-D", f"{folder}/data", "-l", f"{folder}/log", "-o", options, "-w", "start")
        try:
            run("createdb", "-h", folder, "-U", "postgres", "prefect")
            yield (
                folder,
                lambda query: run("psql", "-h", folder, "-U", "postgres", "prefect", "-Atc", query).stdout,
            )
        finally:
            run("pg_ctl", "-D", f"{folder}/data", "-m", "immediate", "-w", "stop")


@pytest.mark.slow
@pytest.mark.prefect
@pytest.mark.postgres
def test_runs_are_kept_in_postgresql(postgres, tmp_path, monkeypatch):
    from flows.orchestration import server as serving

    folder, ask = postgres
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path))
    url = f"postgresql+asyncpg://postgres@/prefect?host={folder}"
    monkeypatch.setenv("PREFECT_SERVER_DATABASE_CONNECTION_URL", url)
    with serving.server(port=serving.free_port(0), log=tmp_path / "server.log", services=True) as server:
        server.wait()
        environment = {**os.environ, "PREFECT_API_URL": server.url}
        subprocess.run([sys.executable, "-c", FLOW], env=environment, check=True, timeout=200)
        assert ask(COUNT).split() == ["kept|COMPLETED"]
    assert not (tmp_path / "prefect.db").exists()
