"""Prefect's pages as a person sees them in Chromium: where things are, what they ask for, and screenshots."""

from __future__ import annotations

import os
import re
import socketserver
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from harness.ui import AUTH, UI

CHROMIUM = "/usr/bin/chromium"
ARGUMENTS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
).split()
SECONDS = 90

# What a text of a model must not have made of a page: something that ran, a picture, a heading, a link.
HARM = """() => ({
    ran: window.pwned !== undefined,
    images: document.querySelectorAll('img[src="x"]').length,
    links: [...document.querySelectorAll('a, area, form')].map(a => a.getAttribute('href') ?? a.action ?? '')
        .filter(to => /pwned|evil|javascript:|mailto:|xmpp:|ftp:/.test(to)),
    headings: [...document.querySelectorAll('h1')].filter(h => h.innerText === 'free').length,
    wider: document.scrollingElement.scrollWidth - window.innerWidth,
})"""
HARMLESS = {"ran": False, "images": 0, "links": [], "headings": 0}
# Texts that a page shows letter by letter. Their markers do nothing but leave a trace.
HOSTILE = (
    "<script>window.pwned=1</script>",
    "<img src=x onerror=window.pwned=1>",
    "[x](javascript:window.pwned=1) ![x](x)",
    "</details></div><h1>free</h1>",
    "y" * 20_000,
    "see http://evil.example/a, https://evil.example:8/?b=c#d. www.evil.example/e",
    "a.b+c@evil.example mailto:d@evil.example xmpp:e@evil.example/f ftp://evil.example",
    "<http://evil.example/g> [h]: http://evil.example/h 'i' (http://[2001:db8::1]/evil)",
)


_NAME = re.compile(rb"[a-z0-9-]+(?:\.[a-z0-9-]+)*\.[a-z]{2,}")
# The browser itself looks for updates and for its maker.
_BROWSERS_OWN = re.compile(rb"\.(google|googleapis|gstatic)\.com$")


def names_in(said: bytes) -> list[bytes]:
    """The names that a request asks for: in the clear, or in the greeting of an encrypted one (RFC 6066), where a zero
    and two bytes of length stand before the name and other bytes may look like names by chance."""
    if said[:1] != b"\x16":
        return _NAME.findall(said)
    found = []
    for at in range(3, len(said)):
        length = int.from_bytes(said[at - 2 : at], "big")
        if said[at - 3] == 0 and _NAME.fullmatch(said[at : at + length]) and length >= 4:
            found.append(said[at : at + length])
    return found


class Elsewhere(socketserver.ThreadingTCPServer):
    """Where every other host is for the browser: here. `heard` is which were asked, the browser's own left out."""

    daemon_threads = True

    def __init__(self) -> None:
        self.heard: list[bytes] = []

        class Hear(socketserver.BaseRequestHandler):
            def handle(hear) -> None:
                said = hear.request.recv(4000)
                self.heard += [name for name in names_in(said) if not _BROWSERS_OWN.search(name)]

        super().__init__(("127.0.0.1", 0), Hear)


@contextmanager
def chromium(elsewhere: Elsewhere | None = None) -> Iterator[Any]:
    """A browser of Playwright, for which `elsewhere` is every host but this machine's own."""
    from playwright.sync_api import sync_playwright

    more = []
    if elsewhere is not None:
        threading.Thread(target=elsewhere.serve_forever, daemon=True).start()
        there = f"127.0.0.1:{elsewhere.server_address[1]}"
        more = [f"--host-resolver-rules=MAP * {there}, EXCLUDE 127.0.0.1, EXCLUDE localhost"]
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=[*ARGUMENTS, *more])
        try:
            yield browser
        finally:
            browser.close()
            if elsewhere is not None:
                elsewhere.shutdown()
                elsewhere.server_close()


@contextmanager
def phone_or_desk(browser: Any, width: int, scheme: str, *, height: int = 800, **more: Any) -> Iterator[Any]:
    """A page of a width in a light or dark scheme."""
    context = browser.new_context(
        viewport={"width": width, "height": height}, color_scheme=scheme, reduced_motion="reduce", **more
    )
    try:
        yield context.new_page()
    finally:
        context.close()


def pictures(other: Path) -> Path:
    """Where screenshots go: the folder that CHARTER_SCREENSHOTS names, or another."""
    folder = Path(os.environ.get("CHARTER_SCREENSHOTS") or other)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@dataclass
class Screen:
    """One page of a browser.

    `alarms` fills when a page opens a dialog, which none of ours does, `asked` with what pages asked for, blocked or
    not, `errors` with what their scripts failed at; `clicks` counts.
    """

    page: Any
    pictures: Path
    alarms: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    clicks: int = 0

    def __post_init__(self) -> None:
        self.page.set_default_timeout(1000 * SECONDS)
        self.page.on("dialog", self._alarm)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.context.on("request", lambda request: self.asked.append(request.url))

    def _alarm(self, dialog: Any) -> None:
        self.alarms.append(dialog.message)
        dialog.dismiss()

    def asked_elsewhere(self) -> list[str]:
        """What was asked of another host than this machine's own, at any time, whether or not it was let out."""
        return [url for url in self.asked if urlsplit(url).hostname not in (None, "127.0.0.1")]

    def shot(self, name: str, *, full: bool = False) -> None:
        """Keep what is seen now as `name`.png."""
        self.page.screenshot(path=self.pictures / f"{name}.png", full_page=full)

    def sees(self, text: str, *, exact: bool = False) -> Any:
        """Wait until a text can be seen."""
        found = self.page.get_by_text(text, exact=exact).locator("visible=true").first
        found.wait_for()
        return found

    def click(self, role: str, name: str) -> None:
        """One click on what is called so, as a screen reader tells it."""
        self.page.get_by_role(role, name=name, exact=True).locator("visible=true").first.click()
        self.clicks += 1

    def unfold(self) -> None:
        self.page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")

    def harmless(self, *, seconds: float = 0.5) -> None:
        """Nothing of a text ran or became markup, now or a moment later; the page is no wider than its window."""
        deadline = time.monotonic() + seconds
        while True:
            found = self.page.evaluate(HARM)
            assert found.pop("wider") <= 1 and found == HARMLESS, found
            if time.monotonic() > deadline:
                return


@dataclass
class PrefectScreen(Screen):
    """Prefect's pages: the newer ones (V2), or with `base=""` the older ones."""

    ui: UI = field(kw_only=True)
    base: str = field(default="/v2", kw_only=True)

    def log_in(self) -> None:
        """Through the page that asks for the secret."""
        if not self.base:
            cookie = {"name": "prefect_ui_version", "value": "v1", "url": self.ui.page}
            self.page.context.add_cookies([cookie])
        # An answer to what was asked before the login would log out again.
        self.page.goto(f"{self.ui.page}{self.base}/login", wait_until="networkidle")
        self.page.locator("input[type=password]").fill(AUTH)
        self.page.keyboard.press("Enter")
        self.sees("Dashboard", exact=True)
        self.page.wait_for_load_state("networkidle")

    def goto(self, path: str) -> None:
        self.page.goto(f"{self.ui.page}{self.base}{path}")

    def deployments(self) -> None:
        self.goto("/deployments")
        self.sees("audit-labels")

    def deployment(self, name: str, *, tab: str = "Runs") -> None:
        found = self.ui.call("GET", f"/deployments/name/{name}")
        self.goto(f"/deployments/deployment/{found['id']}?tab={tab}")
        self.page.get_by_role("button", name="Run", exact=True).first.wait_for()

    def custom_run(self, name: str) -> None:
        """The form of a deployment."""
        self.deployment(name)
        self.click("button", "Run")
        self.click("menuitem", "Custom run")
        self.sees("Enforce Parameter Schema")

    def run(self, run: str, *, tab: str = "Logs") -> None:
        self.goto(f"/runs/flow-run/{run}")
        found = (
            self.page.get_by_role("tab", name=tab) if self.base else self.page.get_by_text(tab, exact=True)
        )
        found.first.click()

    def menu(self, entry: str) -> None:
        """An entry of the menu (⋮) of the page."""
        self.page.locator("button[aria-haspopup=menu]:visible").first.click()
        self.clicks += 1
        self.click("menuitem", entry)

    def artifact(self, key: str) -> None:
        """The latest version of an artifact, as the list of artifacts leads to it."""
        self.goto("/artifacts")
        self.page.locator(f"a[href$='/artifacts/key/{key}']").first.click()
        self.page.locator("a[href*='/artifacts/artifact/']").first.click()
        self.page.wait_for_url("**/artifacts/artifact/**")

    def field(self, title: str) -> Any:
        """What a form asks under a title, whether or not it may be left out."""
        return self.page.get_by_label(title, exact=True).or_(
            self.page.get_by_label(f"{title} (Optional)", exact=True)
        )

    def change(self, *changes: str) -> None:
        """Fill the list of changes to the configuration."""
        items = self.page.locator("[aria-roledescription=sortable] + div textarea")
        for number, change in enumerate(changes):
            self.click("button", "Add item")
            items.nth(number).fill(change)

    @property
    def dialog(self) -> Any:
        return self.page.get_by_role("dialog").or_(self.page.get_by_role("alertdialog"))

    def choose(self, title: str, option: str) -> None:
        """Choose an option of a drop-down."""
        self.page.get_by_label(f"Select {title}", exact=True).click()
        self.page.get_by_role("option", name=option, exact=True).click()
        self.clicks += 2

    def submitted(self) -> str:
        """Submit the form that is open; gives the flow run that it made, whose page then opens."""
        self.click("button", "Submit")
        self.page.wait_for_url("**/runs/flow-run/**")
        return urlsplit(self.page.url).path.rpartition("/")[2]


def walk(ui: UI, artifacts: Sequence[str]) -> list[str]:
    """The paths of Prefect's pages on what there is: lists, forms, and one of each kind of thing."""

    def first(kind: str) -> str:
        return ui.call("POST", f"/{kind}/filter")[0]["id"]

    deployment = ui.call("GET", "/deployments/name/rlaif/microworld")
    one_of_each = [
        f"/deployments/deployment/{deployment['id']}",
        f"/deployments/deployment/{deployment['id']}/run",
        f"/deployments/deployment/{deployment['id']}/edit",
        f"/flows/flow/{deployment['flow_id']}",
        f"/automations/automation/{first('automations')}",
        f"/blocks/block/{first('block_documents')}",
        f"/runs/flow-run/{first('flow_runs')}",
        f"/runs/task-run/{first('task_runs')}",
    ]
    kept = ui.call("POST", "/artifacts/filter", artifacts={"key": {"any_": list(artifacts)}})
    one_of_each += [f"/artifacts/artifact/{one['id']}" for one in kept]
    lists = "dashboard runs flows deployments work-pools work-pools/create blocks blocks/catalog variables automations "
    lists += "automations/create events concurrency-limits settings artifacts"
    return [*(f"/{name}" for name in lists.split()), *one_of_each]
