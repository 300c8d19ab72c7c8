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
    help="Address to listen on; another than this machine's own lets others reach the page.",
)
@click.option(
    "--name",
    "names",
    multiple=True,
    help="A further name by which browsers reach the page, such as a proxy's; may be repeated.",
)
@click.option("--no-password", is_flag=True, help="Ask for no password; on this machine's own address only.")
@click.option("--no-browser", is_flag=True, help="Do not open the page.")
def ui(
    port: int, runs_dir: Path, host: str, names: tuple[str, ...], no_password: bool, no_browser: bool
) -> None:
    """Start the Prefect server and serve the flows on this machine, until Ctrl-C.

    Restart it as you like: what ran is remembered. It listens on 127.0.0.1 only, unless --host says otherwise, and
    asks for a password: the one in PREFECT_SERVER_API_AUTH_STRING (user:password), or one that it makes and keeps.
    """
    import asyncio
    import os
    import sys
    import webbrowser

    from flows.errors import FlowError
    from flows.orchestration import local as local_prefect
    from flows.orchestration import server as serving
    from flows.orchestration.password import ASKED, ask_for_password
    from flows.runs.locks import only_one

    if no_password and host not in LOCAL:
        raise FlowError(f"--no-password: with --host {host}, whoever reaches it could start runs")
    if no_password and os.environ.get(ASKED):
        raise FlowError(f"--no-password: {ASKED} holds one; unset it")
    own = Path("prefect.yaml")
    deployments = serving.read_deployments(
        own if own.exists() else Path(__file__).parents[2] / "prefect.yaml"
    )
    port = serving.free_port(port, host)
    local_prefect.prepare(runs_dir)
    kept, log = Path(os.environ["PREFECT_HOME"]), runs_dir / ".prefect" / "server.log"
    with only_one(runs_dir / ".prefect" / "ui.lock", f"another `charter ui` serves {runs_dir}"):
        login = None if no_password else ask_for_password(kept)
        with serving.server(port=port, log=log, services=True, host=host, names=names) as server:
            server.wait()
            os.environ["PREFECT_API_URL"] = server.url
            page = serving.page_of(server.url)
            click.echo(f"{server.url.removesuffix('/api')}  (Ctrl-C stops it)")
            if login is not None:
                click.echo(f"  log in       {page}/login with {login.how(person=sys.stdout.isatty())}")
            click.echo(f"  deployments  {page}/deployments")
            click.echo(f"  artifacts    {page}/artifacts")
            click.echo(f"  audit        {page}/deployments?flowOrDeploymentName=audit-labels")
            export = f"export PREFECT_API_URL={server.url} {login.export() if login else ''}"
            click.echo(f"other terminals reach it with: {export.rstrip()}")
            if not no_browser:
                webbrowser.open(f"{page}/deployments")
            asyncio.run(serving.serve(deployments))
