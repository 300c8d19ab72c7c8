"""The audit's page over HTTP: who may open it, what it shows and keeps, and one line for every mistake."""

from __future__ import annotations

import re
import shutil
import sqlite3
from dataclasses import replace
from html import unescape
from pathlib import Path

import pytest
import sqlalchemy as sa
from fastapi import FastAPI
from fastapi.testclient import TestClient
from harness.audit_page import QUESTION, write_labels

from flows.errors import FlowError
from flows.orchestration.audit_web import audit_app
from judges import Ledger
from judges.audit import agreement, shown_order
from judges.explain import explain
from judges.ledger import schema
from judges.ledger.reading import labelled_pairs
from judges.ledger.rows import Batch, LabelRow

ROOT = "/charter/audit"
PASSWORD = "someone:a-secret-of-the-test"
RUN = "runs/microworld"


@pytest.fixture(scope="module")
def labelled(tmp_path_factory) -> tuple[Path, str]:
    """A run with twelve labels, and their label set."""
    folder = tmp_path_factory.mktemp("labelled")
    return folder, write_labels(folder / "ledger.db", [f"text {i}" for i in range(12)])


@pytest.fixture
def label_set(labelled, tmp_path, monkeypatch) -> str:
    """The label set of a run that is now in the working folder."""
    shutil.copytree(labelled[0], tmp_path / RUN)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "link").mkdir()
    (tmp_path / "runs" / "link" / "ledger.db").symlink_to("/etc/hostname")
    return labelled[1]


class Person:
    """What a browser does, without one."""

    def __init__(self, app: FastAPI, **where) -> None:
        whole = FastAPI()
        whole.mount(ROOT, app)
        self.http = TestClient(whole, base_url="http://127.0.0.1:4200", follow_redirects=True)
        self.where = {"run": RUN, **where}
        self.page = self.http.get(f"{ROOT}/", params=self.where)

    @property
    def text(self) -> str:
        """The page as it is read."""
        return " ".join(unescape(re.sub(r"<[^>]+>", " ", self.page.text)).split())

    def fields(self, form: str) -> dict[str, str]:
        body = re.search(rf'<form[^>]*action="{ROOT}/{form}".*?</form>', self.page.text, re.DOTALL).group()
        found = re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)"', body)
        return {name: unescape(value) for name, value in found}

    def send(self, form: str, *, origin: str | None = "http://127.0.0.1:4200", **changes):
        """Sends a form of the page that is open."""
        data = {**self.fields(form), **changes}
        headers = {} if origin is None else {"origin": origin}
        self.page = self.http.post(f"{ROOT}/{form}", data=data, headers=headers)
        return self.page

    def says(self, said: str, note: str = ""):
        return self.send("verdict", said=said, note=note)

    def follow(self, words: str) -> None:
        """A link of the page that is open."""
        href = re.search(rf'href="([^"]+)"[^>]*>{words}', self.page.text).group(1)
        self.page = self.http.get(unescape(href))


def verdicts(label_set: str) -> dict[str, list]:
    """All verdicts of the run by pair id, oldest first."""
    with Ledger.open(f"{RUN}/ledger.db") as ledger:
        found = {
            x.pair.id: explain(ledger, x.label.digest).verdicts for x in labelled_pairs(ledger, label_set)
        }
    return {pair: list(said) for pair, said in found.items() if said}


def pair_of(person: Person) -> str:
    """The id of the pair on the page."""
    number = re.search(r"asked (\d+)", person.text).group(1)
    return f"pair-{int(number):02d}"


def test_verdicts_are_written_one_by_one_as_the_form_writes_them(label_set):
    ada = Person(audit_app(), reviewer="Ada", pairs=4, seed=3)
    assert ada.page.status_code == 200 and "Pair 1 of 4" in ada.text and QUESTION in ada.text
    seen = []
    for said, note in (("A", "clear"), ("B", ""), ("tie", "both\r\nbad"), ("skip", "")):
        pair = pair_of(ada)
        order = shown_order(pair, "Ada", seed=3)
        # The letter A stands over the response that the drawn order names first.
        first = re.search(r"\bA text \d+ (first|second)", ada.text).group(1)
        assert first == ("first" if order == "ab" else "second")
        ada.says(said, note)
        seen.append(pair)
        if said != "skip":
            [kept] = verdicts(label_set)[pair]
            winner = "tie" if said == "tie" else order["AB".index(said)]
            assert (kept.winner, kept.who, kept.shown) == (winner, "Ada", order)
            assert kept.why == note.replace("\r\n", "\n") and kept.label
    assert len(set(seen)) == 4 and set(verdicts(label_set)) == set(seen[:3])
    assert "All 4 pairs are done" in ada.text
    with Ledger.open(f"{RUN}/ledger.db") as ledger:
        people = agreement(ledger, label_set, seed=3)
        judge = {x.pair.id: x.label for x in labelled_pairs(ledger, label_set)}
    k = people.kappa
    assert f"Cohen's kappa {k.value:.2f} [{k.low:.2f}, {k.high:.2f}]" in ada.text
    # Verdicts beside the judge's, in the letters that Ada saw.
    rows = re.findall(
        r'<th scope="row"><span[^>]*>[^<]* asked (\d+)</span></th><td>(\w+)</td><td>(\w+)</td>', ada.page.text
    )
    assert len(rows) == 3 and [row[1] for row in rows] == ["A", "B", "tie"]
    for number, _, of_judge in rows:
        pair = f"pair-{int(number):02d}"
        label, order = judge[pair], shown_order(pair, "Ada", seed=3)
        expected = "AB"[order.index(label.winner)] if label.status == "ok" else "tie"
        assert of_judge == expected
    for total in (8, 12):
        ada.send("more")
        assert f"Pair {total - 3} of {total}" in ada.text and pair_of(ada) not in seen
        for _ in range(4):
            seen.append(pair_of(ada))
            ada.says("tie")
    assert len(set(seen)) == 12
    ada.send("more")
    assert "judged or skipped every pair" in ada.text and "more pairs" not in ada.text


def test_the_judges_verdict_is_nowhere_before_the_persons(label_set):
    ada = Person(audit_app(), reviewer="Ada")
    with Ledger.open(f"{RUN}/ledger.db") as ledger:
        shown = {x.pair.id: x.label for x in labelled_pairs(ledger, label_set)}[pair_of(ada)]
    for told in ("judge</", f"{shown.p:.2f}", f"{shown.p_ab:.2f}", "inconsistent"):
        assert told not in ada.page.text
    # The same page whatever the judge said: only addresses name the label.
    assert shown.digest in ada.page.text


def test_the_doubtful_come_first_and_no_pair_twice(label_set):
    from judges.audit import sample

    with Ledger.open(f"{RUN}/ledger.db") as ledger:
        expected = [x.pair.id for x in sample(labelled_pairs(ledger, label_set), 12, seed=0)]
    app = audit_app()
    ada, bob = Person(app, reviewer="Ada", pairs=5), Person(app, reviewer="Bob", pairs=5)
    seen = []
    for _ in range(5):
        seen.append(pair_of(ada))
        assert pair_of(Person(app, reviewer="Ada", pairs=5)) == seen[-1], "a reload shows the same pair"
        ada.says("A")
        bob.says("B")
    assert seen == expected[:5]
    # Another process knows nothing of what was drawn here, and asks none of it again.
    again = Person(audit_app(), reviewer="Ada", pairs=20)
    assert "Pair 1 of 7" in again.text and pair_of(again) == expected[5]
    by_who = [sorted(v.who for v in said) for said in verdicts(label_set).values()]
    assert by_who == [["Ada", "Bob"]] * 5
    # A pair that was judged in another window is not asked for here.
    other = Person(audit_app(), reviewer="Ada", pairs=20)
    other.says("tie")
    again.page = again.http.get(f"{ROOT}/", params=again.where)
    assert pair_of(again) == expected[6]


def test_undo_shows_the_last_pair_and_its_new_verdict_counts(label_set):
    ada = Person(audit_app(), reviewer="Ada", pairs=3)
    first = pair_of(ada)
    assert "Undo" not in ada.text
    ada.says("A", "too fast")
    second = pair_of(ada)
    ada.says("skip")
    ada.follow("Undo")
    assert pair_of(ada) == second and "You said" not in ada.text
    ada.follow("Undo")
    assert pair_of(ada) == first and "You said A." in ada.text and "too fast" in ada.page.text
    assert "Pair 1 of 3" in ada.text and "Undo" not in ada.text
    ada.says("B", "on reflection")
    order = shown_order(first, "Ada", seed=0)
    assert [v.winner for v in verdicts(label_set)[first]] == [order[0], order[1]], "nothing is erased"
    assert pair_of(ada) not in (first, second) and "Pair 3 of 3" in ada.text
    # The same words again add nothing.
    ada.follow("Undo")
    ada.follow("Undo")
    ada.says("B", "on reflection")
    assert len(verdicts(label_set)[first]) == 2


def test_the_password_is_asked_for_once_and_leads_to_where_the_link_led(label_set):
    app = audit_app(password=PASSWORD)
    ada = Person(app, reviewer="Ada")
    assert ada.page.status_code == 401 and "asked" not in ada.text and 'name="password"' in ada.page.text
    assert (
        ada.http.post(f"{ROOT}/verdict", data={}, headers={"origin": "http://127.0.0.1:4200"}).status_code
        == 401
    )
    assert ada.send("login", password="someone:else").status_code == 401 and "not the password" in ada.text
    assert ada.send("login", origin="http://evil.example", password=PASSWORD).status_code == 403
    ada.page = ada.http.get(f"{ROOT}/", params=ada.where)
    answer = ada.http.post(
        f"{ROOT}/login",
        data={**ada.fields("login"), "password": PASSWORD},
        headers={"origin": "http://127.0.0.1:4200"},
        follow_redirects=False,
    )
    assert answer.headers["location"].startswith(f"{ROOT}/?run=")
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie and "SameSite=strict" in cookie and f"Path={ROOT}" in cookie
    assert PASSWORD not in cookie
    ada.page = ada.http.get(answer.headers["location"])
    assert ada.page.status_code == 200 and "Pair 1 of 12" in ada.text
    ada.http.cookies.set("charter-audit-4200", "0" * 32 + "." + "0" * 64, path=ROOT)
    assert Person(app, reviewer="Ada").page.status_code == 401


@pytest.mark.parametrize(
    ("changes", "status", "line"),
    [
        ({"csrf": "0" * 64}, 403, "this form is not of your session: load the page again"),
        ({"csrf": "ü"}, 403, "this form is not of your session: load the page again"),
        ({"origin": "http://evil.example"}, 403, "origin: http://evil.example is not this page"),
        ({"origin": "http://127.0.0.1:4201"}, 403, "origin: http://127.0.0.1:4201 is not this page"),
        ({"origin": "http://[x"}, 403, "origin: http://[x is not this page"),
        ({"origin": "null"}, 403, "origin: null is not this page"),
        ({"origin": None}, 403, "origin: none is not this page"),
        ({"label": "0" * 64}, 404, "no label 000000000000 in label set"),
        ({"label": "x"}, 422, "label: String should match pattern"),
        ({"label_set": "f" * 16}, 404, "0 label sets begin with"),
        ({"note": "x" * 4001}, 422, "note: String should have at most 4000 characters"),
        ({"note": "x" * 70_000}, 413, "a form of more than 64,000 bytes"),
        ({"said": "C"}, 422, "said: Input should be 'A', 'B', 'tie' or 'skip'"),
        ({"reviewer": " "}, 422, "reviewer: give a name; a reviewer's is kept with each verdict"),
        ({"reviewer": "A\x07"}, 422, "reviewer: a name has no control characters"),
        ({"reviewer": "x" * 101}, 422, "reviewer: String should have at most 100 characters"),
        ({"run": "runs/other"}, 404, "no ledger at"),
        ({"run": "../elsewhere"}, 403, "is not allowed: it lies outside"),
        ({"run": "x" * 300}, 404, "run: no ledger at xxx"),
        ({"run": "runs/a\0b"}, 422, "run: a name has no control characters"),
        ({"run": "runs/link"}, 403, "is not allowed: it lies outside"),
        ({"run": "/etc/passwd"}, 403, "is not allowed: it lies outside"),
        ({"run": "postgresql://evil.example/x"}, 403, "databases are not opened here"),
    ],
)  # fmt: skip
def test_what_a_form_may_not_say_is_refused_in_one_line_and_nothing_is_written(
    label_set, changes, status, line
):
    ada = Person(audit_app(), reviewer="Ada")
    answer = ada.send("verdict", **{"said": "A", **changes})
    assert answer.status_code == status and line in ada.text, ada.text
    assert len(re.findall("<p role=.alert", answer.text)) == 1
    assert verdicts(label_set) == {}


@pytest.mark.parametrize(
    ("query", "status", "line"),
    [
        ({"reviewer": " "}, 422, "reviewer: give a name"),
        ({"reviewer": "Ada", "run": "../x"}, 403, "lies outside"),
        ({"reviewer": "Ada", "run": "runs/none"}, 404, "no ledger at"),
        ({"reviewer": "Ada", "label_set": "ffff"}, 404, "0 label sets begin with"),
        ({"reviewer": "Ada", "pair": "pair-99"}, 404, "pair: no 'pair-99' in label set"),
        ({"reviewer": "Ada", "pairs": "0"}, 422, "pairs: "),
        ({"reviewer": "Ada", "seed": "x"}, 422, "seed: "),
        ({}, 200, "Your name"),
    ],
)
def test_a_link_that_leads_nowhere_says_so_in_one_line(label_set, query, status, line):
    ada = Person(audit_app(), **query)
    assert ada.page.status_code == status and line in ada.text


def test_a_place_that_the_server_does_not_allow_is_refused_with_its_own_words(label_set):
    def place(run: str) -> str:
        raise FlowError(f"{run} is fenced off")

    ada = Person(audit_app(place=place), reviewer="Ada")
    assert ada.page.status_code == 403 and f"{RUN} is fenced off" in ada.text


def test_a_file_that_is_no_ledger_and_one_that_is_locked_are_one_line(label_set, monkeypatch):
    import judges.ledger.connection

    (ada := Person(audit_app(), reviewer="Ada")).says("A")
    with open("notes.db", "w") as file:
        file.write("not a database, but long enough to look like one " * 40)
    answer = ada.http.get(f"{ROOT}/", params={"run": "notes.db", "reviewer": "Ada"})
    assert answer.status_code == 503 and "file is not a database" in unescape(answer.text)
    monkeypatch.setattr(judges.ledger.connection, "BUSY_TIMEOUT_S", 0.2)
    other = sqlite3.connect(f"{RUN}/ledger.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    answer = ada.says("B")
    assert (
        answer.status_code == 503 and "database is locked" in ada.text and "nothing was written" in ada.text
    )
    other.execute("ROLLBACK")
    assert len(verdicts(label_set)) == 1


def test_every_answer_keeps_scripts_and_frames_of_others_out(label_set):
    ada = Person(audit_app(), reviewer="Ada")
    missing = ada.http.get(f"{ROOT}/nothing")
    assert missing.status_code == 404
    for answer in (ada.page, missing, ada.http.get(f"{ROOT}/static/audit.js")):
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
    assert not re.search(r"<script>|<style|\son\w+=|style=", ada.page.text)
    for address in re.findall(r'(?:src|href|action)="([^"]+)"', ada.page.text):
        assert address.startswith(f"{ROOT}/")
        if "/static/" in address:
            assert ada.http.get(address).status_code == 200


@pytest.mark.slow
def test_publishing_without_a_server_is_one_line(label_set, monkeypatch):
    from prefect.settings import PREFECT_API_URL, temporary_settings

    ada = Person(audit_app(), reviewer="Ada", end="seen")
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}):
        answer = ada.send("publish")
    assert answer.status_code == 503 and "took no artifact" in ada.text
    with temporary_settings(restore_defaults={PREFECT_API_URL}):
        ada.page = ada.http.get(f"{ROOT}/", params={**ada.where, "end": "seen"})
        assert ada.send("publish").status_code == 503


def test_a_pair_that_is_labelled_anew_meanwhile_is_shown_with_its_new_label(label_set):
    ada = Person(audit_app(), reviewer="Ada")
    pair = pair_of(ada)
    with Ledger.open(f"{RUN}/ledger.db") as ledger:
        [one] = labelled_pairs(ledger, label_set, pair_ids=[pair])
        with ledger.read() as connection:
            version = connection.execute(sa.select(schema.label_sets.c.version)).scalar_one()
        new = replace(one.label, digest="e" * 64, p=0.5)
        row = LabelRow(
            label=new, item=one.pair.digest, made_with=version, principle_digests=("0" * 64,), created_at=1.0
        )
        ledger.add(Batch(label_set=label_set, labels=[row], members={pair: new.digest}))
    assert ada.says("A").status_code == 404 and "the pair may have another one now" in ada.text
    ada.page = ada.http.get(f"{ROOT}/", params=ada.where)
    assert pair_of(ada) == pair and ada.fields("verdict")["label"] == new.digest
    ada.says("A")
    assert verdicts(label_set)[pair][0].label == new.digest


@pytest.mark.prefect
@pytest.mark.slow
def test_the_report_is_published_and_leads_back_here(label_set):
    from prefect.client.orchestration import get_client
    from prefect.testing.utilities import prefect_test_harness

    ada = Person(audit_app(), reviewer="Ada")
    ada.says("A")
    ada.follow("Stop here")
    with prefect_test_harness(server_startup_timeout=120):
        assert ada.send("publish").status_code == 200 and "Published: label-audit" in ada.text
        with get_client(sync_client=True) as client:
            found = {artifact.key: artifact.data for artifact in client.read_artifacts()}
    assert set(found) == {"label-audit", "principle-report-card"}
    assert r"People judged 1 pairs \(Ada 1\)" in found["label-audit"]
    [back] = re.findall(rf"\]\(({ROOT}/\?[^)]+)\)", found["label-audit"])
    assert back == f"{ROOT}/?run=runs%2Fmicroworld"
    ada.page = ada.http.get(back)
    assert ada.page.status_code == 200 and "Your name" in ada.text
    ada.page = ada.http.get(f"{back}&reviewer=Ada")
    assert "Pair 2 of 12" in ada.text
