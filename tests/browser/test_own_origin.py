"""What Prefect's pages ask for, seen from the browser: this server, and nobody else. V2 and V1."""

from __future__ import annotations

import httpx
import pytest
from harness.browser import PrefectScreen, Screen, phone_or_desk, walk
from harness.ui import AUTH, wait_for

pytestmark = [pytest.mark.browser, pytest.mark.prefect, pytest.mark.slow, pytest.mark.timeout(900)]
KEYS = ("results", "report", "label-audit", "walk-through")


def steps(screen: PrefectScreen, ui) -> None:
    """Every page, each until it is quiet."""
    for path in walk(ui, KEYS):
        screen.goto(path)
        screen.page.wait_for_function("document.body.innerText.length > 150")
        screen.page.wait_for_load_state("networkidle")


@pytest.mark.parametrize("base", ["/v2", ""], ids=["V2", "V1"])
def test_over_every_page_no_other_host_is_asked_and_no_cookie_set(
    ui, browser, shots, started, elsewhere, base
):
    before = len(elsewhere.heard)
    with phone_or_desk(browser, 1200, "light") as page:
        screen = PrefectScreen(page, shots, ui=ui, base=base)
        screen.log_in()
        steps(screen, ui)
        assert len(screen.asked) > 500
        assert screen.asked_elsewhere() == []
        assert [c["name"] for c in page.context.cookies() if c["name"] != "prefect_ui_version"] == []
        assert screen.errors == []
    assert elsewhere.heard[before:] == []


def test_the_recorder_hears_what_a_page_asks_of_others(browser, elsewhere, shots):
    """The check of the check: what is found empty above would not be."""
    with phone_or_desk(browser, 600, "light") as page:
        screen = Screen(page, shots)
        for scheme in ("http", "https"):
            with pytest.raises(Exception, match="ERR_"):
                page.goto(f"{scheme}://{scheme}.elsewhere.example/x")
        assert len(screen.asked_elsewhere()) == 2
    found = {b"http.elsewhere.example", b"https.elsewhere.example"}
    wait_for(lambda: found <= set(elsewhere.heard), "the requests", 30)


def test_a_page_of_another_origin_gets_nothing(ui, browser, started):
    """From a page of this machine under another port: neither answers to read nor runs to start."""
    found = ui.call("GET", "/deployments/name/rlaif/microworld")
    ask = """async ([url, method, auth]) => {
        try {
            const answer = await fetch(url, {method, headers: {Authorization: auth, 'Content-Type': 'text/plain'}});
            return [answer.status, await answer.text()];
        } catch (error) { return String(error); }
    }"""
    before = len(ui.call("POST", "/flow_runs/filter"))
    auth = httpx.BasicAuth(*AUTH.split(":"))._auth_header
    with phone_or_desk(browser, 600, "light") as page:
        page.goto(ui.page.replace("127.0.0.1", "localhost") + "/v2/login")
        for path, method in (
            ("/admin/version", "GET"),
            (f"/deployments/{found['id']}/create_flow_run", "POST"),
        ):
            said = page.evaluate(ask, [f"{ui.page}/api{path}", method, auth])
            assert "Failed to fetch" in said
    assert len(ui.call("POST", "/flow_runs/filter")) == before
