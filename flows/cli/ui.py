"""`charter ui`: the Prefect server with the flows, on this machine."""

from __future__ import annotations

from pathlib import Path

import click

LOCAL = ("127.0.0.1", "localhost", "::1")


@click.command()
@click.option(
    "--port", default=4200, show_default=True, type=click.IntRange(0, 65535), help="0 takes any free port."
)
@click.option(
    "--runs-dir",
    default="runs",
    show_default=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of all runs; the server's database lies in it, so past runs are shown too.",
)
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="Address to listen on; another than this machine's own needs PREFECT_SERVER_API_AUTH_STRING.",
)
@click.option("--no-browser", is_flag=True, help="Do not open the page.")
def ui(port: int, runs_dir: Path, host: str, no_browser: bool) -> None:
    """Start the Prefect server and serve the flows on this machine, until Ctrl-C.

    Restart it as you like: what ran is remembered. It listens on 127.0.0.1 only, unless --host says otherwise.
    """
    import asyncio
    import os
    import webbrowser

    from flows.errors import FlowError
    from flows.orchestration import local as local_prefect
    from flows.orchestration import server as serving
    from flows.runs.locks import only_one

    if host not in LOCAL and not os.environ.get("PREFECT_SERVER_API_AUTH_STRING"):
        raise FlowError(
            f"--host {host}: whoever reaches it could start runs; set PREFECT_SERVER_API_AUTH_STRING=user:password"
        )
    own = Path("prefect.yaml")
    deployments = serving.read_deployments(
        own if own.exists() else Path(__file__).parents[2] / "prefect.yaml"
    )
    port = serving.free_port(port, host)
    local_prefect.prepare(runs_dir)
    with (
        only_one(runs_dir / ".prefect" / "ui.lock", f"another `charter ui` serves {runs_dir}"),
        serving.server(
            port=port, log=runs_dir / ".prefect" / "server.log", services=True, host=host
        ) as server,
    ):
        server.wait()
        os.environ["PREFECT_API_URL"] = server.url
        page = server.url.removesuffix("/api")
        click.echo(f"{page}  (Ctrl-C stops it)")
        click.echo(f"other terminals reach it with: export PREFECT_API_URL={server.url}")
        if not no_browser:
            webbrowser.open(page)
        asyncio.run(serving.serve(deployments))
