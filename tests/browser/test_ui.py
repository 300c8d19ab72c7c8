"""Prefect's UI in Chromium as a person uses it, and report.html: what is started, seen, judged and cancelled there.

CHARTER_SCREENSHOTS names a folder that keeps what the browser showed; docs/images holds such pictures.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from harness.browser import CHROMIUM, PrefectScreen, Screen, chromium, phone_or_desk, pictures
from harness.ui import ENDED, ROOT, UI, start_ui, wait_for

from common.rows import read_rows
from constitution import ComparisonPrinciple, Constitution
from flows.report.data import Example, ReportData, Revision
from flows.report.run import examples_markdown, write_html
from flows.report.summary import Summary
from judges import Call, LabelSettings, Ledger, Pair, ScriptedJudge, label_pairs
from judges.audit import agreement
from judges.ledger.reading import find_label_set, labelled_pairs

pytestmark = [
    pytest.mark.browser,
    pytest.mark.prefect,
    pytest.mark.slow,
    # The whole loop of the microworld, however busy the machine is.
    pytest.mark.timeout(900),
]

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
HOSTILE = (
    "<script>window.pwned=1</script>",
    "<img src=x onerror=window.pwned=1>",
    "[x](javascript:window.pwned=1) ![x](x)",
    "</details></div><h1>free</h1>",
    "y" * 20_000,
)
HARM = """() => ({
    ran: window.pwned !== undefined,
    images: document.querySelectorAll('img[src="x"]').length,
    links: document.querySelectorAll('a[href^="javascript"]').length,
    headings: [...document.querySelectorAll('h1')].filter(h => h.innerText === 'free').length,
    wider: document.scrollingElement.scrollWidth - window.innerWidth,
})"""
NONE = {"ran": False, "images": 0, "links": 0, "headings": 0}


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


@pytest.fixture(scope="module")
def ui(tmp_path_factory, require) -> Iterator[UI]:
    require("Chromium", Path(CHROMIUM).exists(), f"no {CHROMIUM}")
    folder = tmp_path_factory.mktemp("browser")
    write_config(folder)
    running = start_ui(folder)
    yield running
    running.stop()


@pytest.fixture(scope="module")
def browser(require) -> Iterator:
    require("Chromium", Path(CHROMIUM).exists(), f"no {CHROMIUM}")
    with chromium() as opened:
        yield opened


@pytest.fixture(scope="module")
def shots(tmp_path_factory) -> Path:
    return pictures(tmp_path_factory.getbasetemp() / "screenshots")


@pytest.fixture(scope="module")
def prefect(ui, browser, shots) -> Iterator[PrefectScreen]:
    """One window for the whole file, logged in through the page that asks for the secret."""
    page = browser.new_context(viewport={"width": 1200, "height": 800}).new_page()
    screen = PrefectScreen(page, shots, ui=ui)
    screen.log_in()
    yield screen
    assert screen.alarms == []


@pytest.fixture(scope="module")
def finished(ui, prefect) -> Path:
    """The folder of a run of the microworld that was started from its form, with changes."""
    prefect.deployments()
    prefect.sees("gold-model")  # the list loads further ones as it is scrolled
    prefect.shot("schedule-deployments")
    prefect.custom_run("rlaif/microworld")
    prefect.change("rl.steps=1", "seed=3")
    prefect.shot("schedule-form")
    run = prefect.submitted("rlaif")
    state = ui.ended(run, LIMIT)
    assert state["type"] == "COMPLETED", state
    prefect.run(run)
    # The stages' bars above are drawn on a canvas; their names can be read in the list.
    prefect.sees("Subflow Runs").click()
    prefect.sees("evaluate of microworld")
    prefect.shot("schedule-run")
    return ui.folder / "runs" / "microworld"


def test_a_run_from_the_form_keeps_its_changes_and_its_results_can_be_seen(ui, prefect, finished):
    summary = json.loads((finished / "summary.json").read_text(encoding="utf-8"))
    assert summary["seed"] == 3 and len({p["step"] for p in summary["rl"]["curve"]}) == 1
    prefect.artifact("results")
    for name in ("base", "helpful-only", "SL-CAI", "RL-CAI"):
        prefect.sees(name, exact=True)
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
    prefect.page.mouse.wheel(0, 200)
    prefect.shot("audit-pair")
    prefect.artifact("principle-report-card")
    prefect.sees("changes the label")
    prefect.sees("Overlap")
    prefect.shot("audit-card")


def test_a_schedule_is_switched_on_with_a_click(ui, prefect):
    prefect.deployment("rlaif/microworld")
    prefect.sees("weekly")
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


def test_a_verdict_given_in_the_form_is_in_the_ledger_in_kappa_and_in_the_next_training_set(
    ui, prefect, finished
):
    with Ledger.open(str(finished / "ledger.db")) as ledger:
        label_set = find_label_set(ledger, None)
    prefect.custom_run("audit-labels/audit-labels")
    # The form has the run's folder already: runs/microworld.
    prefect.field("Reviewer").locator("textarea").fill("Ada")
    prefect.field("Pairs on a page").locator("input").fill("2")
    prefect.shot("audit-start")
    run = prefect.submitted("audit-labels")
    wait_for(lambda: ui.state(run)["type"] in {"PAUSED", *ENDED}, "the page", LIMIT)
    prefect.artifact("audit-page")
    prefect.sees("Pair 2")
    prefect.shot("audit-page")
    prefect.page.get_by_text("What the judge says, for afterwards").first.click()
    # The judge's view of the first pair says which response it prefers, and which letter that one has.
    seen = prefect.page.locator("details").first.inner_text()
    a_first = "A is response a" in seen
    prefect.run(run)
    prefect.press("Resume")
    with Ledger.open(str(finished / "ledger.db")) as ledger:
        labels = {x.label.digest[:12]: x for x in labelled_pairs(ledger, label_set)}
    [judged] = [x for digest, x in labels.items() if digest in seen]
    against = "b" if (judged.label.p or 0.5) >= 0.5 else "a"
    prefect.choose(0, "A" if (against == "a") is a_first else "B")
    prefect.modal.locator("textarea").first.fill("The judge has it wrong.")
    prefect.modal.get_by_role("switch").or_(prefect.modal.locator(".p-toggle__control")).first.click()
    prefect.shot("audit-form")
    prefect.modal.get_by_role("button", name="Submit").click()
    state = ui.ended(run, LIMIT)
    assert state["type"] == "COMPLETED", state
    with Ledger.open(str(finished / "ledger.db")) as ledger:
        people = agreement(ledger, label_set)
        [kept] = [x for x in labelled_pairs(ledger, label_set) if x.verdict is not None]
    assert people.pairs == 1 and people.reviewers == {"Ada": 1} and people.kappa is not None
    assert kept.pair.id == judged.pair.id and kept.label == judged.label, "the judge's label stays"
    assert (kept.verdict.winner, kept.verdict.why) == (against, "The judge has it wrong.")
    prefect.artifact("label-audit")
    prefect.sees("People judged 1 pairs (Ada 1)")
    request = {"config": "configs/microworld.yaml", "changes": ["rl.steps=1", "seed=3"], "to_stage": "labels"}
    state = ui.ended(ui.start("rlaif/microworld", request=request), LIMIT)
    assert state["type"] == "COMPLETED", state
    newest = max(finished.glob("labels/*/preferences.jsonl"), key=lambda path: path.stat().st_mtime)
    assert len(list(finished.glob("labels/*/preferences.jsonl"))) == 2
    rows = {row["pair_id"]: row for _, row in read_rows(newest)}
    row = rows[kept.pair.id]
    assert row["source"] == "human" and row["p"] == 1.0
    assert row["chosen"][0]["content"] == {"a": kept.pair.a, "b": kept.pair.b}[against]


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
    prefect.press("Cancel")
    prefect.modal.get_by_role("button", name="Confirm").click()
    state = ui.ended(run, LIMIT)
    assert state["type"] == "CANCELLED", state
    prefect.page.locator(".state-badge").get_by_text("Cancelled").first.wait_for()
    prefect.shot("schedule-cancelled")
    wait_for(lambda: not any(p.is_running() for p in training), "the training's end", 30)


def write_hostile_ledger(path: Path) -> None:
    """Pairs whose prompts, responses, principles and judge are hostile, labelled as any others."""
    pairs = [
        Pair(
            id=f"pair-{i}",
            prompt=({"role": "user", "content": f"{HOSTILE[i % 5]} asked {i}"},),
            a=f"{HOSTILE[i % 5]} first {i}",
            b=f"{HOSTILE[(i + 1) % 5]} second {i}",
        )
        for i in range(10)
    ]
    principle = ComparisonPrinciple(id="kind", question=f"Which is kind? {HOSTILE[0]}", dimension="helpful")
    constitution = Constitution(name="test", metadata={}, comparison=(principle,))

    def half_sure(call: Call) -> float:
        return 0.9 if len(call.messages[-1]["content"]) % 3 else 0.2

    with Ledger.open(str(path)) as ledger:
        judge = ScriptedJudge(half_sure, name=HOSTILE[1])
        label_pairs(pairs, constitution=constitution, judge=judge, ledger=ledger, settings=LabelSettings())


def assert_harmless(page, *, seconds: float = 0.5) -> None:
    """Nothing of a text ran or became markup, now or a moment later, and the page is no wider than its window."""
    deadline = time.monotonic() + seconds
    while True:
        found = page.evaluate(HARM)
        assert found.pop("wider") <= 1 and found == NONE, found
        if time.monotonic() > deadline:
            return


def test_hostile_text_in_artifacts_and_forms_is_only_text(ui, prefect):
    write_hostile_ledger(ui.folder / "hostile.db")
    name = HOSTILE[1]
    request = {"run": str(ui.folder / "hostile.db"), "reviewer": name, "per_page": 10, "pages": 1}
    run = ui.start("audit-labels/audit-labels", request=request)
    wait_for(lambda: ui.state(run)["type"] in {"PAUSED", *ENDED}, "the page", LIMIT)
    prefect.artifact("audit-page")
    prefect.sees("Pair 10")
    prefect.page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    prefect.sees("window.pwned=1")
    assert_harmless(prefect.page)
    prefect.run(run)
    assert_harmless(prefect.page)
    prefect.press("Resume")
    prefect.sees("Stop after this page")
    assert_harmless(prefect.page)
    prefect.choose(0, "A")
    prefect.modal.locator("textarea").first.fill(HOSTILE[0])
    prefect.modal.get_by_role("button", name="Submit").click()
    assert ui.ended(run, LIMIT)["type"] == "COMPLETED"
    for key in ("label-audit", "principle-report-card"):
        prefect.artifact(key)
        prefect.sees("Principles of test" if key == "principle-report-card" else "Pairs worth a look")
        prefect.page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
        assert_harmless(prefect.page)


def hostile_report(finished: Path) -> ReportData:
    """The report of a run whose models answer with hostile texts."""
    summary = json.loads((finished / "summary.json").read_text(encoding="utf-8"))
    return ReportData(
        summary=Summary.from_json(summary),
        examples=[Example(prompt=t, family=t, answers={m: t for m in summary["models"]}) for t in HOSTILE],
        revisions=[Revision(prompt=t, response=t, steps=[(t, t, t)]) for t in HOSTILE],
        config_text=HOSTILE[0],
    )


def test_hostile_answers_in_the_walk_through_and_in_report_html_are_only_text(
    ui, prefect, browser, shots, finished, tmp_path
):
    data = hostile_report(finished)
    markdown = examples_markdown(data)
    ui.call("POST", "/artifacts/", key="walk-through", type="markdown", data=markdown, description="hostile")
    prefect.artifact("walk-through")
    prefect.sees("window.pwned=1")
    assert_harmless(prefect.page)
    path = write_html(data, tmp_path / "report.html")
    for width in (390, 1200):
        with phone_or_desk(browser, width, "light") as page:
            screen = Screen(page, shots)
            page.goto(path.as_uri())
            page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
            screen.sees("window.pwned=1")
            assert_harmless(page)
            assert screen.alarms == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1200])
def test_the_report_opens_at_once_at_any_width(browser, shots, finished, width, scheme):
    path = finished / "report.html"
    assert path.stat().st_size < 5_000_000
    with phone_or_desk(browser, width, scheme) as page:
        began = time.monotonic()
        page.goto(path.as_uri())
        assert page.evaluate("document.querySelectorAll('figure svg').length") > 0
        assert time.monotonic() - began < 2
        assert page.evaluate("document.scrollingElement.scrollWidth") <= width
        page.screenshot(path=shots / f"report-{width}-{scheme}.png", full_page=True)
