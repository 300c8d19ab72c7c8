"""A run in Prefect's newer pages, from the form to the artifacts; a schedule; a cancellation; a phone and the dark."""

from __future__ import annotations

import pytest
from harness.browser import PrefectScreen, phone_or_desk
from harness.ui import ENDED, wait_for

pytestmark = [
    pytest.mark.browser,
    pytest.mark.prefect,
    pytest.mark.slow,
    # The whole loop of the microworld, however busy the machine is.
    pytest.mark.timeout(900),
]
LIMIT = 450
FIRST = ["audit-labels", "microworld", "relabel", "rlaif"]
PUBLISHED = {"results", "report", "walk-through", "judge-exam", "label-audit", "principle-report-card"}


def test_what_most_people_start_stands_first_and_takes_five_clicks(prefect, started):
    prefect.deployments()
    names = prefect.page.locator("tbody a[href*='/deployments/deployment/']").all_inner_texts()
    assert names[: len(FIRST)] == FIRST
    assert started.clicks == 5
    summary = started.summary
    assert summary["seed"] == 3 and len({p["step"] for p in summary["rl"]["curve"]}) == 1
    assert summary["constitution"]["ref"].startswith("microworld@1.")


def test_the_page_of_a_run_shows_its_stages_and_leads_to_what_it_published(ui, prefect, started):
    prefect.errors.clear()
    prefect.run(started.run, tab="Subflow Runs")
    # The stages' bars above are drawn on a canvas; their names can be read in the list.
    prefect.sees("evaluate of microworld under microworld@^1")
    canvas = prefect.page.locator("canvas")
    canvas.wait_for()
    wait_for(lambda: canvas.evaluate("c => c.width * c.height") > 0, "the graph", 30)
    prefect.shot("schedule-run")
    assert prefect.errors == []
    prefect.click("tab", "Artifacts")
    for key in ("results", "report", "walk-through"):
        prefect.sees(key, exact=True)
    prefect.page.get_by_role("link", name="results").first.click()
    for name in ("base", "helpful-only", "SL-CAI", "RL-CAI"):
        prefect.sees(name, exact=True)


def test_artifacts_are_two_clicks_from_a_deployment_and_progress_is_one_of_them(ui, prefect, started):
    prefect.deployment("rlaif/microworld")
    prefect.click("tab", "Description")
    prefect.click("link", "artifacts")
    prefect.page.wait_for_url("**/v2/artifacts")
    prefect.sees("label-audit")
    keys = {one["key"] for one in ui.call("POST", "/artifacts/latest/filter")}
    assert keys >= PUBLISHED and {key for key in keys if "progress" in key} == {"progress"}


def test_tables_folds_and_pictures_of_artifacts_are_shown(prefect, started):
    prefect.artifact("label-audit")
    prefect.sees("same winner in both orders")
    prefect.sees("By principle")
    prefect.page.wait_for_function(
        "[...document.images].some(i => i.src.startsWith('data:') && i.naturalWidth)"
    )
    prefect.shot("audit-artifact")
    pair = prefect.page.locator("details").first
    pair.locator("summary").click()
    pair.get_by_text("response a").first.wait_for()
    pair.scroll_into_view_if_needed()
    prefect.shot("audit-pair")
    prefect.artifact("principle-report-card")
    prefect.sees("changes the label")
    prefect.sees("Overlap")
    prefect.shot("audit-card")


def test_a_required_field_is_not_called_optional(prefect, started):
    prefect.custom_run("audit-labels/audit-labels")
    prefect.sees("Seconds that a page waits (Optional)")
    labels = prefect.page.locator("label").all_inner_texts()
    assert "Reviewer" in labels and "Pairs on a page (Optional)" in labels
    prefect.click("button", "Submit")
    prefect.sees("'reviewer' is a required property")
    prefect.custom_run("relabel/relabel")
    prefect.sees("Changes to the configuration (Optional)")
    assert "New constitution" in prefect.page.locator("label").all_inner_texts()


def test_a_schedule_is_switched_on_with_a_click(ui, prefect, started):
    prefect.deployment("rlaif/microworld")
    switch = prefect.page.locator("[role=switch]:visible").first
    assert switch.get_attribute("aria-checked") == "false"
    switch.click()

    def active() -> bool:
        [schedule] = ui.call("GET", "/deployments/name/rlaif/microworld")["schedules"]
        return schedule["active"]

    wait_for(active, "the schedule")
    prefect.page.locator("[role=switch][aria-checked=true]:visible").first.wait_for()
    prefect.shot("schedule-switch")
    switch.click()
    wait_for(lambda: not active(), "the schedule's end")


def test_a_training_is_cancelled_on_its_page(ui, prefect):
    request = {
        "config": "configs/microworld.yaml",
        "changes": ["name=long", "helpful_sft.epochs=1000"],
        "to_stage": "helpful_sft",
    }
    run = ui.start("rlaif/rlaif", request=request)
    metrics = "runs/long/helpful_sft/*/model/metrics.jsonl"

    def trains() -> bool:
        assert ui.state(run)["type"] not in ENDED, ui.state(run)
        return any(p.stat().st_size for p in ui.folder.glob(metrics))

    wait_for(trains, "training", LIMIT)
    training = ui.flow_process().children(recursive=True)
    assert training
    prefect.run(run)
    prefect.menu("Cancel")
    prefect.dialog.get_by_role("button", name="Cancel Flow Run").click()
    state = ui.ended(run, LIMIT)
    assert state["type"] == "CANCELLED", state
    prefect.run(run)
    prefect.sees("Cancelled", exact=True)
    prefect.shot("schedule-cancelled")
    wait_for(lambda: not any(p.is_running() for p in training), "the training's end", 30)


@pytest.mark.parametrize(("width", "scheme"), [(390, "light"), (390, "dark"), (1200, "dark")])
def test_on_a_phone_and_in_the_dark(ui, browser, shots, prefect, started, width, scheme):
    state = prefect.page.context.storage_state()
    with phone_or_desk(browser, width, scheme, storage_state=state) as page:
        screen = PrefectScreen(page, shots, ui=ui)
        screen.deployments()
        assert narrow(screen, f"deployments-{width}-{scheme}")
        screen.custom_run("rlaif/microworld")
        assert narrow(screen, f"form-{width}-{scheme}")
        screen.run(started.run, tab="Artifacts")
        screen.sees("results", exact=True)
        assert narrow(screen, f"run-{width}-{scheme}")
        screen.artifact("label-audit")
        screen.sees("same winner in both orders")
        assert narrow(screen, f"artifact-{width}-{scheme}")
        dark = "document.documentElement.classList.contains('dark')"
        assert page.evaluate(dark) == (scheme == "dark")
        assert screen.errors == []


def narrow(screen: PrefectScreen, name: str) -> bool:
    """Whether the page is no wider than its window."""
    screen.shot(name)
    return screen.page.evaluate("document.scrollingElement.scrollWidth <= window.innerWidth + 1")
