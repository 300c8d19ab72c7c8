"""The audit's form in Prefect's newer page: *Resume* in the menu (⋮) of the run."""

from __future__ import annotations

import pytest
from harness.ui import ENDED, wait_for

from common.rows import read_rows
from judges import Ledger
from judges.audit import agreement
from judges.ledger.reading import find_label_set, labelled_pairs

pytestmark = [pytest.mark.browser, pytest.mark.prefect, pytest.mark.slow, pytest.mark.timeout(900)]
LIMIT = 450


def test_a_verdict_given_in_the_form_is_in_the_ledger_in_kappa_and_in_the_next_training_set(
    ui, prefect, started
):
    finished = started.folder
    with Ledger.open(str(finished / "ledger.db")) as ledger:
        label_set = find_label_set(ledger, None)
    prefect.custom_run("audit-labels/audit-labels")
    # The form has the run's folder already: runs/microworld.
    prefect.field("Reviewer").fill("Ada")
    prefect.field("Pairs on a page").fill("2")
    prefect.shot("audit-start")
    run = prefect.submitted()
    wait_for(lambda: ui.state(run)["type"] in {"PAUSED", *ENDED}, "the page", LIMIT)
    prefect.artifact("audit-page")
    prefect.sees("Pair 2")
    prefect.shot("audit-page")
    prefect.page.get_by_text("What the judge says, for afterwards").first.click()
    # The judge's view of the first pair says which response it prefers, and which letter that one has.
    seen = prefect.page.locator("details").first.inner_text()
    a_first = "A is response a" in seen
    prefect.run(run)
    prefect.menu("Resume")
    prefect.sees("Stop after this page (Optional)")
    with Ledger.open(str(finished / "ledger.db")) as ledger:
        labels = {x.label.digest[:12]: x for x in labelled_pairs(ledger, label_set)}
    [judged] = [x for digest, x in labels.items() if digest in seen]
    against = "b" if (judged.label.p or 0.5) >= 0.5 else "a"
    prefect.choose("Pair 1", "A" if (against == "a") is a_first else "B")
    prefect.field("Pair 1: why").fill("The judge has it wrong.")
    prefect.field("Stop after this page").click()
    prefect.shot("audit-form")
    prefect.dialog.get_by_role("button", name="Resume").click()
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
    request = {
        "config": "configs/microworld.yaml",
        "constitution": "microworld@^1",
        "changes": ["rl.steps=1", "seed=3"],
        "to_stage": "labels",
    }
    state = ui.ended(ui.start("rlaif/microworld", request=request), LIMIT)
    assert state["type"] == "COMPLETED", state
    newest = max(finished.glob("labels/*/preferences.jsonl"), key=lambda path: path.stat().st_mtime)
    assert len(list(finished.glob("labels/*/preferences.jsonl"))) == 2
    rows = {row["pair_id"]: row for _, row in read_rows(newest)}
    row = rows[kept.pair.id]
    assert row["source"] == "human" and row["p"] == 1.0
    assert row["chosen"][0]["content"] == {"a": kept.pair.a, "b": kept.pair.b}[against]
