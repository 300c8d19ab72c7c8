"""`charter ui`: the Prefect server with the flows, on this machine."""

from __future__ import annotations

from pathlib import Path

import click


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
@click.option("--no-browser", is_flag=True, help="Do not open the page.")
def ui(port: int, runs_dir: Path, no_browser: bool) -> None:
    """Start the Prefect server and serve the flows on this machine, until Ctrl-C.

    Restart it as you like: what ran is remembered. It listens on 127.0.0.1 only.
    """
    import os
    import webbrowser

    from flows import local_prefect, serving

    own = Path("prefect.yaml")
    deployments = serving.read_deployments(
        own if own.exists() else Path(__file__).parents[2] / "prefect.yaml"
    )
    port = serving.free_port(port)
    local_prefect.prepare(runs_dir)
    with serving.server(port=port, log=runs_dir / ".prefect" / "server.log", services=True) as server:
        server.wait()
        os.environ["PREFECT_API_URL"] = server.url
        page = server.url.removesuffix("/api")
        click.echo(f"{page}  (Ctrl-C stops it)")
        if not no_browser:
            webbrowser.open(page)
        serving.serve(deployments)
