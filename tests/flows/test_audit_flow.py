"""The flow `audit-labels` on a real Prefect server: paused, resumed with a form's input, verdicts where they belong."""

from __future__ import annotations

import asyncio
import contextvars
import json
import re
import threading
import time
from pathlib import Path

import pytest

from common.rows import read_rows
from flows.errors import FlowError
from judges import Call, Ledger, Pair, ScriptedJudge
from judges.audit import agreement
from judges.ledger.reading import labelled_pairs

pytestmark = [pytest.mark.prefect, pytest.mark.slow]

PAIRS = [
    {"id": f"q{i}", "prompt": [{"role": "user", "content": f"Question {i}?"}], "a": f"good {i}", "b": f"bad {i}"}
    for i in range(8)
]  # fmt: skip


@pytest.fixture(scope="module")
def server():
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=120):
        yield


def knows(call: Call) -> float:
    first = re.search(r"^\(A\) (\w+)", call.messages[-1]["content"], re.MULTILINE).group(1)
    return 0.9 if first == "good" else 0.1


@pytest.fixture
def session(tmp_path, make_run, tiny_model, monkeypatch):
    """`session()`: the labels stage of a run, done or reused."""
    import flows.labelling.judge
    from flows.config.forms import RunRequest
    from flows.pipeline.launch import open_session
    from flows.runs.progress import Silent
    from flows.stages import labels
    from flows.stages.contract import Artifact

    monkeypatch.setattr(flows.labelling.judge, "make_judge", lambda settings, **_: ScriptedJudge(knows))
    path = make_run(tmp_path, tiny_model, labels={"templates": "microworld"})
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in PAIRS))

    def start():
        with open_session(RunRequest(config=str(path)), Silent()) as opened:
            opened.outputs["pairs", "pairs"] = Artifact(path=str(tmp_path / "pairs.jsonl"), digest="0" * 64)
            opened.execute(labels.STAGE)
        return opened

    return start


class Running:
    """The flow in a thread, and what a person does to it through the client API."""

    def __init__(self, **request) -> None:
        from flows.config.forms_judging import AuditRequest
        from flows.orchestration.audit import audit_labels

        self._done: list = []
        asked = AuditRequest(**request)
        # Which server to talk to is a context variable of the harness; a thread begins without it.
        context = contextvars.copy_context()
        self._thread = threading.Thread(
            target=lambda: self._done.append(context.run(audit_labels, asked, return_state=True)), daemon=True
        )
        self._thread.start()
        self._seen: set[str] = set()

    def paused(self):
        """The flow run, once it waits for a page that has not been answered yet."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            run = asyncio.run(self._paused())
            if run is not None:
                return run
            time.sleep(0.2)
        raise AssertionError(f"the flow did not pause; {self._done}")

    async def _paused(self):
        from prefect.client.orchestration import get_client

        async with get_client() as client:
            for run in await client.read_flow_runs():
                state = run.state
                if (
                    state is not None
                    and state.is_paused()
                    and state.state_details.pause_key not in self._seen
                ):
                    if state.state_details.run_input_keyset is None:
                        continue
                    schema = state.state_details.run_input_keyset["schema"]
                    try:
                        await client.read_flow_run_input(run.id, schema)
                    except Exception:  # the form follows the state a moment later
                        return None
                    return run
        return None

    def answer(self, **form):
        """Resumes the paused run with a form's input; gives what the server said."""
        from prefect.client.orchestration import get_client

        run = self.paused()

        async def resume():
            async with get_client() as client:
                return await client.resume_flow_run(run.id, run_input=form)

        result = asyncio.run(resume())
        if result.status.value == "ACCEPT":
            self._seen.add(run.state.state_details.pause_key)
        return result

    def description(self) -> str:
        from prefect.client.orchestration import get_client

        run = self.paused()

        async def read():
            async with get_client() as client:
                keyset = run.state.state_details.run_input_keyset
                return await client.read_flow_run_input(run.id, keyset["description"])

        return json.loads(asyncio.run(read()))

    def end(self):
        """The final state."""
        self._thread.join(90)
        assert self._done, "the flow has not ended"
        return self._done[0]


def artifacts() -> set[str]:
    from prefect.client.orchestration import get_client

    async def read():
        async with get_client() as client:
            return {artifact.key for artifact in await client.read_artifacts()}

    return asyncio.run(read())


def test_a_verdict_in_the_form_reaches_ledger_kappa_and_the_next_training_set(server, session):
    first = session()
    label_set = first.outcomes["labels"].manifest.metrics["label_set"]
    running = Running(run=str(first.directory.path), reviewer="Ada", per_page=2, pages=3, seed=1)
    assert "Pair 1" in running.description() and "audit-page" in running.description()
    refused = running.answer(verdict_1="C")
    assert refused.status.value == "REJECT", "the server holds the answer against the form"
    assert running.answer(verdict_1="A", note_1="clear", verdict_2="skip").status.value == "ACCEPT"
    running.answer(verdict_1="B", verdict_2="tie", note_2="both are bad", stop=True)
    state = running.end()
    assert state.is_completed() and "3 verdicts kept" in asyncio.run(_result(state))
    with Ledger.open(str(first.directory.path / "ledger.db")) as ledger:
        people = agreement(ledger, label_set)
        judged = {x.pair.id: x for x in labelled_pairs(ledger, label_set) if x.verdict is not None}
    assert people.pairs == 3 == len(judged) and people.kappa is not None and people.reviewers == {"Ada": 3}
    by_note = {x.verdict.why: x.verdict for x in judged.values()}
    assert by_note["clear"].winner == by_note["clear"].shown[0]
    assert by_note[""].winner == by_note[""].shown[1]
    assert by_note["both are bad"].winner == "tie"
    assert all(x.label.winner == "a" for x in judged.values()), "the judge's own labels stay"
    again = session()
    assert not again.outcomes["labels"].reused
    rows = {row["pair_id"]: row for _, row in read_rows(Path(again.outputs["labels", "preferences"].path))}
    for pair_id, x in judged.items():
        if x.verdict.winner == "tie":
            assert pair_id not in rows
        else:
            chosen = {"a": x.pair.a, "b": x.pair.b}[x.verdict.winner]
            assert rows[pair_id]["chosen"][0]["content"] == chosen and rows[pair_id]["source"] == "human"
    assert {"audit-page", "label-audit", "principle-report-card"} <= artifacts()


async def _result(state) -> str:
    return await state.aresult()


def test_nobody_answers_and_what_was_given_stays(server, session):
    first = session()
    running = Running(run=str(first.directory.path), reviewer="Bob", per_page=1, pages=4, patience_s=4)
    running.answer(verdict_1="A")
    state = running.end()
    assert state.is_completed() and "1 verdicts kept" in asyncio.run(_result(state))


def test_an_answer_that_is_no_answer_is_asked_for_again_with_the_rest_filled_in(monkeypatch):
    """The server checks a form itself; this is what happens when something slips through it."""
    import flows.orchestration.audit as audit_flow
    from flows.orchestration.audit_page import Page

    forms, given = [], {"verdict_1": "C", "note_1": "clear", "stop": True}
    page = Page(number=1, of=1, pairs=())
    monkeypatch.setattr(Page, "form", _one_pair_form(Page.form))
    monkeypatch.setattr(audit_flow, "create_markdown_artifact", lambda **artifact: None)
    monkeypatch.setattr(audit_flow, "_run_name", lambda: "audit")
    monkeypatch.setattr(audit_flow, "read_flow_run_input", lambda key: given)

    def pause(wait_for_input, timeout, poll_interval, key):
        forms.append((wait_for_input, key))
        return wait_for_input(**(given if len(forms) == 1 else {"verdict_1": "A"}))

    monkeypatch.setattr(audit_flow, "pause_flow_run", pause)
    request = audit_flow.AuditRequest(reviewer="Ada")
    answers = audit_flow._asked(page, request)
    assert [key for _, key in forms] == ["page-1-1", "page-1-2"]
    again = forms[1][0]
    assert "look again at pair 1" in again._description
    # The verdict's own field says which pair it is about, in the letters of the form.
    assert again.model_fields["verdict_1"].description == "Asked: Question 3? — A: bad 3 — B: good 3"
    assert (
        again.model_fields["note_1"].default == "clear" and again.model_fields["verdict_1"].default == "skip"
    )
    assert answers == {"verdict_1": "A", "note_1": "clear", "stop": True}


def _one_pair_form(real):
    """The real form as if the page had one pair, which this test needs no ledger for."""
    from dataclasses import replace
    from types import SimpleNamespace

    sampled = SimpleNamespace(labelled=SimpleNamespace(pair=Pair.from_row(PAIRS[3])))
    return lambda page, base, filled=None: real(replace(page, pairs=((sampled, "ba"),)), base, filled)


def test_a_mistake_is_failed_in_one_line(server, tmp_path):
    from flows.config.forms_judging import AuditRequest, ExamRequest
    from flows.orchestration.audit import audit_labels
    from flows.orchestration.judging import judge_exam

    state = audit_labels(AuditRequest(run=str(tmp_path / "nothing"), reviewer="Ada"), return_state=True)
    assert state.is_failed() and state.message == f"no ledger at {tmp_path / 'nothing'}"
    request = ExamRequest(judge=str(tmp_path), ledger=str(tmp_path / "e.db"), page=None)
    state = judge_exam(request, return_state=True)
    assert state.is_failed() and "no model in" in state.message and "\n" not in state.message


def test_a_failed_exam_is_a_failed_run_with_its_artifact(server, tmp_path, tiny_model):
    from flows.config.forms_judging import ExamRequest
    from flows.orchestration.judging import judge_exam

    request = ExamRequest(
        judge=str(tiny_model), templates="microworld", ledger=str(tmp_path / "e.db"), limit=6,
        page=str(tmp_path / "page.html"), thresholds={"probe_pairs": 2},
    )  # fmt: skip
    with pytest.raises(FlowError, match="failed its exam"):
        judge_exam(request)
    assert "judge-exam" in artifacts()
    assert "<h1" in (tmp_path / "page.html").read_text()
