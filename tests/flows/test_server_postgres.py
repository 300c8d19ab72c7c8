"""Prefect's own server on PostgreSQL: the database is named in the environment, like every secret."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile

import pytest

FLOW = "from prefect import flow\n@flow(name='kept')\ndef kept():\n    return 1\nkept()"


@pytest.mark.slow
@pytest.mark.prefect
@pytest.mark.postgres
def test_runs_are_kept_in_postgresql(require, tmp_path, monkeypatch):
    try:
        import pgserver
    except ImportError:
        require("PostgreSQL", False, "pip install pgserver")
    from flows import serving

    with tempfile.TemporaryDirectory(prefix="charter-pg-") as folder:
        database = pgserver.get_server(folder)
        database.psql("CREATE DATABASE prefect")
        url = f"postgresql+asyncpg://postgres@/prefect?host={folder}"
        monkeypatch.setenv("PREFECT_HOME", str(tmp_path))
        monkeypatch.setenv("PREFECT_SERVER_DATABASE_CONNECTION_URL", url)
        log = tmp_path / "server.log"
        with serving.server(port=serving.free_port(0), log=log, services=True) as server:
            server.wait()
            environment = {**os.environ, "PREFECT_API_URL": server.url}
            subprocess.run([sys.executable, "-c", FLOW], env=environment, check=True, timeout=120)
        found = database.psql(
            "\\connect prefect\nSELECT f.name, r.state_type FROM flow f JOIN flow_run r ON r.flow_id = f.id"
        )
        database.cleanup()
    assert "kept" in found and "COMPLETED" in found
    assert not (tmp_path / "prefect.db").exists()
