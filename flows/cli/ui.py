"""`charter ui`: the Prefect server with the flows, on this machine."""

from __future__ import annotations

from pathlib import Path

import click

PAGES = {"deployments": "{}/deployments", "artifacts": "{}/artifacts", "audit": "/charter/audit"}


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
    help="Address to listen on; another than this machine's own needs a password.",
)
@click.option(
    "--no-password", is_flag=True, help="Let whoever reaches the port in: every user of this machine."
)
@click.option("--no-browser", is_flag=True, help="Do not open the page.")
def ui(port: int, runs_dir: Path, host: str, no_password: bool, no_browser: bool) -> None:
    """Start the Prefect server and serve the flows on this machine, until Ctrl-C.

    Restart it as you like: what ran is remembered. It listens on 127.0.0.1 only, unless --host says otherwise. The
    page asks for a password, which is made on the first start and kept in the runs' folder;
    PREFECT_SERVER_API_AUTH_STRING sets another.
    """
    import asyncio
    import os
    import sys
    import webbrowser

    from flows.config.fences import ROOTS
    from flows.errors import FlowError
    from flows.orchestration import local as local_prefect
    from flows.orchestration import server as serving
    from flows.orchestration.password import ASKED, ensure_password
    from flows.runs.directory import only_one

    if no_password and os.environ.get(ASKED):
        raise FlowError(f"--no-password: {ASKED} holds one; unset it")
    if host not in serving.LOCAL and no_password:
        raise FlowError(f"--no-password: with --host {host} whoever reaches it could start runs")
    own = Path("prefect.yaml")
    deployments = serving.read_deployments(
        own if own.exists() else Path(__file__).parents[2] / "prefect.yaml"
    )
    port = serving.free_port(port, host)
    local_prefect.prepare(runs_dir)
    # Flows may read and write what this folder serves; the working directory is theirs anyway.
    os.environ[ROOTS] = os.pathsep.join(filter(None, (os.environ.get(ROOTS), str(runs_dir.resolve()))))
    home = runs_dir.resolve() / ".prefect"
    kept = None if no_password else ensure_password(home)
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
        pages = {name: page + path.format(serving.newer_pages()) for name, path in PAGES.items()}
        for name, address in pages.items():
            click.echo(f"  {name:<12} {address}")
        if kept is not None:
            # On a terminal for the person there; a file that catches the output is read by others.
            shown = kept.read_text(encoding="utf-8").strip() if sys.stdout.isatty() else f"in {kept}"
            click.echo(f"  {'password':<12} {shown}")
        click.echo("other terminals reach it with:")
        click.echo(f"  export PREFECT_API_URL={server.url}")
        if kept is not None:
            click.echo(f"  export PREFECT_API_AUTH_STRING=\"$(cat '{kept}')\"")
        if not no_browser:
            webbrowser.open(pages["deployments"])
        asyncio.run(serving.serve(deployments))
