"""Texts that would be more than text, in every view of them: both of Prefect's pages, and report.html."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path

import pytest
from harness.audit_page import write_labels
from harness.browser import HOSTILE, PrefectScreen, Screen, phone_or_desk
from harness.ui import ENDED, wait_for

from common.text import escape_markdown
from constitution import ComparisonPrinciple, Constitution
from constitution.diff import diff
from constitution.views import diff_markdown
from flows.orchestration.artifacts import inert_cells
from flows.report.data import Example, ReportData, Revision
from flows.report.run import examples_markdown, result_markdown, write_html
from flows.report.summary import Summary

pytestmark = [pytest.mark.browser, pytest.mark.prefect, pytest.mark.slow, pytest.mark.timeout(900)]
LIMIT = 450
# What a form or a run's name may hold: no more than a reviewer's hundred characters.
NAME = f"{HOSTILE[1]} www.evil.example a@evil.example"


@pytest.fixture(scope="module", params=["/v2", ""], ids=["V2", "V1"])
def page(request, ui, browser, shots, prefect):
    """Each of Prefect's two pages, logged in."""
    if request.param:
        yield prefect
        return
    with phone_or_desk(browser, 1200, "light") as opened:
        older = PrefectScreen(opened, shots, ui=ui, base="")
        older.log_in()
        yield older
        assert older.alarms == []


@pytest.fixture(scope="module")
def hostile(ui, started) -> dict[str, str]:
    """Artifacts full of hostile texts, by their keys, and a run that waits for a verdict on such pairs."""
    data = hostile_report(started.folder)
    old = Constitution(name="test", metadata={}, comparison=())
    asked = [
        ComparisonPrinciple(id=f"p{i}", question=f"Which? {t}", dimension="kind")
        for i, t in enumerate(HOSTILE)
    ]
    bodies = {
        "walk-through": examples_markdown(data),
        "report": result_markdown(data),
        "constitution-diff": diff_markdown(diff(old, replace(old, comparison=tuple(asked)))),
    }
    shown = escape_markdown(" ".join(t for t in HOSTILE if len(t) < 200), limit=1000)
    for key, body in bodies.items():
        ui.call("POST", "/artifacts/", key=key, type="markdown", data=body, description=shown)
    cells = inert_cells([{"model": text, "helpful": "25 (10-65)"} for text in HOSTILE])
    ui.call("POST", "/artifacts/", key="results", type="table", data=json.dumps(cells), description=shown)
    logged = {"name": "prefect.flow_runs", "level": 30, "timestamp": "2026-12-01T00:00:00Z"}
    write_labels(ui.folder / "runs" / "hostile" / "ledger.db", HOSTILE, judge=NAME)
    request = {
        "run": str(ui.folder / "runs" / "hostile"),
        "reviewer": NAME,
        "per_page": len(HOSTILE),
        "pages": 2,
    }
    run = ui.start("audit-labels/audit-labels", request=request)
    wait_for(lambda: ui.state(run)["type"] in {"PAUSED", *ENDED}, "the page", LIMIT)
    ui.call(
        "POST", "/logs/", rows=[{**logged, "message": text[:500], "flow_run_id": run} for text in HOSTILE]
    )
    return {"run": run}


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("walk-through", "window.pwned=1"),
        ("report", "Constitution"),
        ("constitution-diff", "window.pwned=1"),
        ("results", "25 (10-65)"),
        ("audit-page", "Pair 8"),
    ],
)
def test_in_artifacts_and_their_lists_they_are_only_text(page, hostile, key, text):
    page.goto("/artifacts")
    page.page.locator(f"a[href$='/artifacts/key/{key}']").first.wait_for()
    page.harmless(seconds=0.2)
    page.goto(f"/artifacts/key/{key}")
    page.page.locator("a[href*='/artifacts/artifact/']").first.wait_for()
    page.harmless(seconds=0.2)
    page.page.locator("a[href*='/artifacts/artifact/']").first.click()
    page.sees(text)
    page.unfold()
    page.harmless()


def test_addresses_are_read_and_copied_as_they_were(page, hostile):
    page.artifact("walk-through")
    page.unfold()
    seen = page.page.evaluate("document.body.textContent")
    for text in HOSTILE[5:]:
        assert text in seen


def test_on_a_run_and_in_its_form_they_are_only_text(page, hostile):
    for tab, text in (("Logs", "xmpp:e@evil.example"), ("Details", "Run Count"), ("Parameters", "reviewer")):
        page.run(hostile["run"], tab=tab)
        page.sees(text)
        page.harmless()
    page.goto("/runs")
    page.sees("audit-labels of hostile")
    page.harmless(seconds=0.2)
    page.run(hostile["run"])
    if page.base:
        page.menu("Resume")
    else:
        page.click("button", "Resume")
    page.sees("Stop after this page")
    page.unfold()
    page.harmless()
    page.shot(f"hostile-form{page.base.strip('/')}")


def test_a_hostile_note_goes_through_the_form_and_comes_back_as_text(prefect, ui, hostile):
    prefect.run(hostile["run"])
    prefect.menu("Resume")
    prefect.choose("Pair 1", "A")
    prefect.field("Pair 1: why").fill(HOSTILE[0])
    prefect.field("Stop after this page").click()
    prefect.dialog.get_by_role("button", name="Resume").click()
    assert ui.ended(hostile["run"], LIMIT)["type"] == "COMPLETED"
    for key, text in (("label-audit", "Pairs worth a look"), ("principle-report-card", "Principles of test")):
        prefect.artifact(key)
        prefect.sees(text)
        prefect.unfold()
        prefect.harmless()


def hostile_report(finished: Path) -> ReportData:
    """The report of a run whose models answer with hostile texts."""
    summary = json.loads((finished / "summary.json").read_text(encoding="utf-8"))
    return ReportData(
        summary=Summary.from_json(summary),
        examples=[Example(prompt=t, family=t, answers={m: t for m in summary["models"]}) for t in HOSTILE],
        revisions=[Revision(prompt=t, response=t, steps=[(t, t, t)]) for t in HOSTILE],
        config_text=HOSTILE[0],
    )


@pytest.mark.parametrize("width", [390, 1200])
def test_in_report_html_they_are_only_text(browser, shots, started, tmp_path, width):
    path = write_html(hostile_report(started.folder), tmp_path / "report.html")
    with phone_or_desk(browser, width, "light") as opened:
        screen = Screen(opened, shots)
        opened.goto(path.as_uri())
        screen.unfold()
        screen.sees("window.pwned=1")
        screen.harmless()
        assert screen.alarms == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1200])
def test_the_report_opens_at_once_at_any_width(browser, shots, started, width, scheme):
    path = started.folder / "report.html"
    assert path.stat().st_size < 5_000_000
    with phone_or_desk(browser, width, scheme) as page:
        began = time.monotonic()
        page.goto(path.as_uri())
        assert page.evaluate("document.querySelectorAll('figure svg').length") > 0
        assert time.monotonic() - began < 2
        assert page.evaluate("document.scrollingElement.scrollWidth") <= width
        page.screenshot(path=shots / f"report-{width}-{scheme}.png", full_page=True)
