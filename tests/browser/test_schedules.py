"""A schedule that a person switches on in the page: the server makes its run, which starts and finishes."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from harness.browser import PrefectScreen, phone_or_desk
from harness.ui import ROOT, start_ui, wait_for

pytestmark = [pytest.mark.browser, pytest.mark.prefect, pytest.mark.slow]


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


def test_a_schedule_switched_on_in_the_page_fires(browser, shots, tmp_path):
    shipped(tmp_path)
    ui = start_ui(tmp_path)
    try:
        with phone_or_desk(browser, 1200, "light") as page:
            screen = PrefectScreen(page, shots, ui=ui)
            screen.log_in()
            screen.deployment("world/world-now")
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
            screen.run(run["id"])
            screen.sees("Completed")
            assert (tmp_path / "runs" / "microworld" / "run.json").exists()
    finally:
        ui.stop()
