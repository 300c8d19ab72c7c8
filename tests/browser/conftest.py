"""One `charter ui`, one browser and one finished run of the microworld for all of Prefect's pages."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from harness.browser import CHROMIUM, Elsewhere, PrefectScreen, chromium, pictures
from harness.ui import ROOT, UI, start_ui

# The microworld's own models with hardly any work to do: its labels are real, its training teaches nothing.
SMALL = {
    "world": {"demonstrations": 32, "sl": 24, "rl": 24, "eval": 10},
    "exam": {"generated": 20, "probe_pairs": 2, "require": False},
    "helpful_sft": {"epochs": 1},
    "sl_cai": {"epochs": 1},
    "critique_revision": {"revisions": 1},
    "reward_model": {"epochs": 1},
    "rl": {"steps": 2, "batch_size": 8, "log_samples": 8, "epochs": 1, "minibatches": 1},
    "evaluate": {"exam_pairs": 20},
}
WEIGHTS = ROOT / "microworld" / "weights"
LIMIT = 450


def write_config(folder: Path) -> None:
    """configs/microworld.yaml as it ships, with less to do."""
    values = yaml.safe_load((ROOT / "configs" / "microworld.yaml").read_text(encoding="utf-8"))
    for section, changes in SMALL.items():
        values[section] = {**values.get(section, {}), **changes}
    values["runs_dir"] = str(folder / "runs")
    values["models"] = {"base": str(WEIGHTS / "base"), "critic": str(WEIGHTS / "feedback")}
    values["judge"] = {"kind": "in_process", "model": str(WEIGHTS / "feedback"), "dtype": "float32"}
    (folder / "configs").mkdir(parents=True)
    (folder / "configs" / "microworld.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
    shutil.copytree(ROOT / "constitution" / "library", folder / "constitutions")


@pytest.fixture(scope="package")
def ui(tmp_path_factory, require) -> Iterator[UI]:
    require("Chromium", Path(CHROMIUM).exists(), f"no {CHROMIUM}")
    folder = tmp_path_factory.mktemp("browser")
    write_config(folder)
    running = start_ui(folder)
    yield running
    running.stop()


@pytest.fixture(scope="package")
def elsewhere() -> Elsewhere:
    return Elsewhere()


@pytest.fixture(scope="package")
def browser(require, elsewhere) -> Iterator:
    require("Chromium", Path(CHROMIUM).exists(), f"no {CHROMIUM}")
    with chromium(elsewhere) as opened:
        yield opened


@pytest.fixture(scope="package")
def shots(tmp_path_factory) -> Path:
    return pictures(tmp_path_factory.getbasetemp() / "screenshots")


@pytest.fixture(scope="package")
def prefect(ui, browser, shots) -> Iterator[PrefectScreen]:
    """One window for all, logged in through the page that asks for the secret."""
    # Without motion: what turns while it waits is drawn by this machine's processor.
    page = browser.new_context(
        viewport={"width": 1200, "height": 800}, color_scheme="light", reduced_motion="reduce"
    ).new_page()
    screen = PrefectScreen(page, shots, ui=ui)
    screen.log_in()
    yield screen
    assert screen.alarms == []


@dataclass(frozen=True, kw_only=True)
class Started:
    """A run that was started from its form: its folder, its id, how many clicks it took from the first page, and its
    summary as it stood when it ended; later tests run a part of it again."""

    folder: Path
    run: str
    clicks: int
    summary: dict[str, Any]


@pytest.fixture(scope="package")
def started(ui, prefect) -> Started:
    """The microworld under a constitution, from the page that `charter ui` opens, with changes; it has finished."""
    prefect.deployments()
    prefect.shot("schedule-deployments")
    prefect.clicks = 0
    prefect.click("link", "microworld")
    prefect.click("button", "Run")
    prefect.click("menuitem", "Custom run")
    prefect.field("Constitution").click()
    prefect.clicks += 1
    prefect.page.keyboard.type("microworld@^1")
    clicks = prefect.clicks + 1  # Submit; what else is changed here is for the test's sake
    prefect.change("rl.steps=1", "seed=3")
    prefect.shot("schedule-form", full=True)
    run = prefect.submitted()
    prefect.page.get_by_role("tab", name="Logs").wait_for()
    state = ui.ended(run, LIMIT)
    assert state["type"] == "COMPLETED", state
    folder = ui.folder / "runs" / "microworld"
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    return Started(folder=folder, run=run, clicks=clicks, summary=summary)
