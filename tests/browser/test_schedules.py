"""A schedule that a person switches on in the page: the server makes its run, which starts and finishes."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from harness.browser import CHROMIUM, chromium
from harness.ui import AUTH, ROOT, start_ui, wait_for

pytestmark = [pytest.mark.browser, pytest.mark.prefect, pytest.mark.slow]
SECONDS = 60


def shipped(folder: Path) -> None:
    """The shipped deployment of the stage `world`, which takes seconds, with a schedule of seconds."""
    deployments = yaml.safe_load((ROOT / "prefect.yaml").read_text(encoding="utf-8"))["deployments"]
    [entry] = [e for e in deployments if e["entrypoint"].endswith(":world")]
    entry["name"] = "world-now"
    entry["schedules"] = [{"interval": 15, "timezone": "Europe/Vienna", "slug": "often", "active": False}]
    del entry["work_pool"]
    (folder / "prefect.yaml").write_text(yaml.safe_dump({"deployments": [entry]}))
    values = yaml.safe_load((ROOT / "configs" / "microworld.yaml").read_text(encoding="utf-8"))
    weights = ROOT / "microworld" / "weights"
    values["models"] = {"base": str(weights / "base"), "critic": str(weights / "feedback")}
    values["judge"] = {"model": str(weights / "feedback")}
    values["runs_dir"] = str(folder / "runs")
    (folder / "configs").mkdir()
    (folder / "configs" / "microworld.yaml").write_text(yaml.safe_dump(values))


def test_a_schedule_switched_on_in_the_page_fires(tmp_path, require):
    require("Chromium", Path(CHROMIUM).exists(), f"no {CHROMIUM}")
    shipped(tmp_path)
    ui = start_ui(tmp_path)
    try:
        with chromium() as browser:
            page = browser.new_context(viewport={"width": 1200, "height": 800}).new_page()
            page.set_default_timeout(1000 * SECONDS)
            found = ui.call("GET", "/deployments/name/world/world-now")
            page.goto(f"{ui.page}/v2/deployments")
            page.locator("input[type=password]").fill(AUTH)
            page.keyboard.press("Enter")
            page.get_by_text("world-now").first.wait_for()
            page.goto(f"{ui.page}/v2/deployments/deployment/{found['id']}")
            switch = page.locator("[role=switch]:visible").first
            switch.wait_for()
            assert switch.get_attribute("aria-checked") == "false"
            assert ui.call("POST", "/flow_runs/filter") == []
            switch.click()
            page.locator("[role=switch][aria-checked=true]:visible").first.wait_for()

            def finished() -> list[dict]:
                runs = ui.call("POST", "/flow_runs/filter")
                return [r for r in runs if r["auto_scheduled"] and r["state"]["type"] == "COMPLETED"]

            run = wait_for(finished, "a run of the schedule", 120)[0]
            page.goto(f"{ui.page}/v2/runs/flow-run/{run['id']}")
            page.get_by_text("Completed").first.wait_for()
            assert (tmp_path / "runs" / "microworld" / "run.json").exists()
    finally:
        ui.stop()
