"""Prefect's UI as a person sees it in Chromium: where things are on its pages, and screenshots of them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.ui import AUTH, UI

CHROMIUM = "/usr/bin/chromium"
ARGUMENTS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
).split()
SECONDS = 90


@contextmanager
def chromium() -> Iterator[Any]:
    """A browser of Playwright."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        try:
            yield browser
        finally:
            browser.close()


@dataclass
class Screen:
    """One page of a browser. `alarms` fills when a page opens a dialog, which none of ours does."""

    page: Any
    pictures: Path
    alarms: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.set_default_timeout(1000 * SECONDS)
        self.page.on("dialog", self._alarm)

    def _alarm(self, dialog: Any) -> None:
        self.alarms.append(dialog.message)
        dialog.dismiss()

    def shot(self, name: str) -> None:
        """Keep what is seen now as `name`.png."""
        self.page.screenshot(path=self.pictures / f"{name}.png")

    def sees(self, text: str, *, exact: bool = False) -> Any:
        """Wait until a text can be seen."""
        found = self.page.get_by_text(text, exact=exact).first
        found.wait_for()
        return found

    def press(self, name: str) -> None:
        self.page.get_by_role("button", name=name, exact=True).locator("visible=true").first.click()


@dataclass
class PrefectScreen(Screen):
    """Prefect's UI."""

    ui: UI = field(kw_only=True)

    def log_in(self) -> None:
        """Through the page that asks for the secret."""
        self.page.goto(f"{self.ui.page}/deployments")
        self.page.locator("input[type=password]").fill(AUTH)
        self.page.keyboard.press("Enter")
        self.sees("audit-labels")
        # What was refused before stays on the page as messages until it is loaded anew.
        self.deployments()

    def deployments(self) -> None:
        self.page.goto(f"{self.ui.page}/deployments")
        self.sees("audit-labels")

    def deployment(self, name: str) -> None:
        found = self.ui.call("GET", f"/deployments/name/{name}")
        self.page.goto(f"{self.ui.page}/deployments/deployment/{found['id']}")
        self.sees("Entrypoint")

    def custom_run(self, name: str) -> None:
        """The form of a deployment."""
        self.deployment(name)
        self.press("Run")
        self.sees("Custom run").click()
        self.sees("Validate parameters")

    def run(self, run: str) -> None:
        self.page.goto(f"{self.ui.page}/runs/flow-run/{run}")
        self.sees("Subflow Runs")

    def artifact(self, key: str) -> None:
        """The latest version of an artifact, as the list of artifacts leads to it."""
        self.page.goto(f"{self.ui.page}/artifacts")
        self.page.locator(f"a[href$='/artifacts/key/{key}']").first.click()
        self.page.locator("a[href*='/artifacts/artifact/']").first.click()
        self.page.wait_for_url("**/artifacts/artifact/**")

    def field(self, title: str) -> Any:
        """What a form asks under a title: the innermost labelled part."""
        return self.page.locator(".p-label").filter(has_text=title).last

    def change(self, *changes: str) -> None:
        """Fill the list of changes to the configuration."""
        items = self.page.locator(".p-draggable-list__item textarea")
        for number, change in enumerate(changes):
            self.press("Add item")
            items.nth(number).fill(change)

    @property
    def modal(self) -> Any:
        return self.page.locator(".p-modal")

    def choose(self, number: int, option: str) -> None:
        """Choose an option of a drop-down in the dialog that is open; its place there from 0."""
        self.modal.locator("button.p-select-button__control").nth(number).press("ArrowDown")
        self.page.get_by_role("option", name=option, exact=True).click()

    def submitted(self, flow: str) -> str:
        """Submit the form that is open; gives the flow run that it made."""
        before = self._runs(flow)
        self.press("Submit")
        self.page.wait_for_url(lambda url: not url.split("?")[0].endswith("/run"))
        [made] = self._runs(flow) - before
        return made

    def _runs(self, flow: str) -> set[str]:
        found = self.ui.call("POST", "/flow_runs/filter", flows={"name": {"any_": [flow]}})
        return {run["id"] for run in found}


@contextmanager
def phone_or_desk(browser: Any, width: int, scheme: str, *, height: int = 800) -> Iterator[Any]:
    """A page of a width in a light or dark scheme."""
    context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
    try:
        yield context.new_page()
    finally:
        context.close()


def pictures(other: Path) -> Path:
    """Where screenshots go: the folder that CHARTER_SCREENSHOTS names, or another."""
    folder = Path(os.environ.get("CHARTER_SCREENSHOTS") or other)
    folder.mkdir(parents=True, exist_ok=True)
    return folder
