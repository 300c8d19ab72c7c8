"""What a label says of itself stays true: its version, its lost calls, its judge's builds; and who asks what."""

from __future__ import annotations

import threading
import time
from dataclasses import replace

import pytest
import sqlalchemy as sa

from common.digest import digest
from flows.cli import main
from flows.cli.explain import story
from judges import JudgeIdentity, LabelSettings, Ledger, LedgerError, Reading, ScriptedJudge, label_pairs
from judges.explain import explain
from judges.ledger import claims, schema
from judges.ledger.reading import find_label_set

SETTINGS = LabelSettings(templates="microworld", batch_pairs=4)


class Built(ScriptedJudge):
    """A sure judge behind a server of some build."""

    def __init__(self, build: str) -> None:
        super().__init__(lambda call: Reading(status="ok", logprobs=(-0.1, -2.4), prompt_tokens=9))
        self._identity = JudgeIdentity(kind="openai", model="m", revision="1", build=build)


def run(pairs, judge, ledger, constitution):
    return label_pairs(pairs, constitution=constitution, judge=judge, ledger=ledger, settings=SETTINGS)


def url_of(ledger: Ledger) -> str:
    return ledger._engine.url.render_as_string(hide_password=False)


@pytest.fixture
def versions(make_constitution):
    """Two published versions with the same comparison principles."""
    first = replace(make_constitution(kind="Which is kinder?"), version="1.0.0", published=True)
    return first, replace(first, version="2.0.0", description="with another preamble")


def test_two_workers_never_ask_the_same_however_slow_they_are(
    ledger, ledger_url, make_constitution, make_pairs, monkeypatch
):
    monkeypatch.setattr(claims, "LEASE_S", 0.9)
    asked, entered = [], threading.Event()

    def slow(call):
        asked.append(call.digest)
        entered.set()
        time.sleep(0.3)  # 2.4 s a batch, and the next one waits claimed for as long
        return 0.9

    c = make_constitution(kind="Which is kinder?")

    def other():
        with Ledger.open(ledger_url) as mine:
            run(make_pairs(8), ScriptedJudge(slow), mine, c)

    thread = threading.Thread(target=other)
    thread.start()
    assert entered.wait(20)
    report = run(make_pairs(8), ScriptedJudge(slow), ledger, c)
    thread.join()
    assert sum(report.statuses.values()) == 8
    assert len(asked) == len(set(asked)) == 16


def test_a_renewal_keeps_ones_own_claims_and_no_others(ledger, monkeypatch):
    monkeypatch.setattr(claims, "LEASE_S", 100.0)
    ledger.claim([digest("mine")])
    with ledger.write() as connection:
        claims.take(connection, [digest("other")], "elsewhere:1:2")
    monkeypatch.setattr(claims, "LEASE_S", 1000.0)
    with ledger.write() as connection:
        claims.renew(connection, ledger.worker)
    with ledger.read() as connection:
        found = connection.execute(sa.select(schema.claims)).all()
    left = {row.key: row.expires_at - time.time() for row in found}
    assert left[digest("mine")] > 500 > left[digest("other")]


def test_a_renewal_that_fails_is_tried_again(ledger, monkeypatch):
    monkeypatch.setattr(claims, "LEASE_S", 0.3)
    tries = threading.Semaphore(0)

    def renew(connection, worker):
        tries.release()
        raise LedgerError("locked")

    monkeypatch.setattr(claims, "renew", renew)
    with ledger.renewing():
        assert tries.acquire(timeout=20) and tries.acquire(timeout=20)


def test_a_label_explains_under_the_version_that_made_it(ledger, versions, make_pairs):
    first, second = versions
    run(make_pairs(2), ScriptedJudge(lambda call: 0.9), ledger, first)
    report = run(make_pairs(4), ScriptedJudge(lambda call: 0.9), ledger, second)
    run(make_pairs(6), ScriptedJudge(lambda call: 0.9), ledger, first)
    assert report.reused == 2
    for pair, ref, other in (
        ("pair-00000", "test@1.0.0", "test@2.0.0"),
        ("pair-00003", "test@2.0.0", "test@1.0.0"),
        ("pair-00005", "test@1.0.0", "test@2.0.0"),
    ):
        told = explain(ledger, pair)
        assert told.made_with["constitution"]["ref"] == ref
        assert told.same_text == (other,)
        lines = [line for line in story(told) if ref in line or other in line]
        assert len(lines) == 2 and f"under {ref}, label set" in lines[0]
        assert lines[1] == f"same text  {other}"


def test_what_a_label_set_was_made_with_is_never_overwritten(ledger, versions, make_pairs):
    for constitution in (*versions, *versions):
        run(make_pairs(1), ScriptedJudge(lambda call: 0.9), ledger, constitution)
    with ledger.read() as connection:
        assert len(connection.execute(sa.select(schema.label_sets)).all()) == 2


def test_a_lost_call_tells_what_was_asked(ledger, make_constitution, make_pairs):
    def stumbles(call):
        raise RuntimeError("out of memory")

    run(make_pairs(1), ScriptedJudge(stumbles, revision="r7"), ledger, make_constitution(kind="Kinder?"))
    told = explain(ledger, "pair-00000")
    assert told.judgements == ()
    assert [(x.order, x.principle_id, x.question, x.judge.revision) for x in told.failures] == [
        ("ab", "kind", "Kinder?", "r7"),
        ("ba", "kind", "Kinder?", "r7"),
    ]
    assert all(x.call is not None and x.call.digest == x.prompt_digest for x in told.failures)
    shown = "\n".join(story(told))
    for piece in (
        "lost call  ",
        "error (RuntimeError: out of memory)",
        "principle  kind: Kinder?",
        "order      ba",
        "judge      scripted: scripted, revision r7",
        "as shown below",
        "(B) A long and patient answer",
    ):
        assert piece in shown


def test_a_prompt_is_shown_once_however_often_its_call_was_lost(ledger, make_constitution, make_pairs):
    c = make_constitution(kind="Kinder?")
    for answer in (Reading(status="timeout"), Reading(status="timeout"), 0.5):
        run(make_pairs(1), ScriptedJudge(lambda call, answer=answer: answer), ledger, c)
    told = explain(ledger, "pair-00000")
    assert (told.label.status, len(told.judgements), len(told.failures)) == ("tie", 2, 4)
    shown = "\n".join(story(told))
    assert shown.count("(B) A long and patient answer") == 1
    assert shown.count("as shown above") == 4


def test_statistics_count_every_build_of_the_judge(tmp_path, make_constitution, make_pairs, capsys):
    path, c = tmp_path / "ledger.db", make_constitution(kind="Kinder?")
    with Ledger.open(str(path)) as ledger:
        run(make_pairs(3), Built("vllm 0.32"), ledger, c)
        run(make_pairs(3), Built("vllm 0.33"), ledger, c)
        run(make_pairs(5), ScriptedJudge(lambda call: 0.9), ledger, c)
        mine = find_label_set(ledger)
    with pytest.raises(SystemExit):
        main(["labels", "stats", "--ledger", str(path)])
        raise SystemExit(0)
    assert "10 judgements, 0 calls lost, 0 tokens" in capsys.readouterr().out
    with Ledger.open(str(path)) as ledger, ledger.read() as connection:
        others = connection.execute(
            sa.select(schema.label_sets.c.digest).where(schema.label_sets.c.digest != mine)
        )
        other = others.scalars().first()
    with pytest.raises(SystemExit):
        main(["labels", "stats", "--ledger", str(path), "--set", other])
        raise SystemExit(0)
    assert "6 judgements, 0 calls lost, 54 tokens" in capsys.readouterr().out


@pytest.mark.parametrize("form", ["sqlite:///{}", "{}"])
@pytest.mark.parametrize("command", [["stats"], ["show"], ["explain", "x"], ["card"]])
def test_reading_makes_no_ledger(tmp_path, capsys, command, form):
    path = tmp_path / "folder" / "none.db"
    with pytest.raises(SystemExit) as ended:
        main(["labels", *command, "--ledger", form.format(path)])
    _, err = capsys.readouterr()
    assert ended.value.code == 2
    assert err.startswith("error: no ledger at ") and err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_reading_makes_no_tables_in_a_database(ledger_url, tmp_path):
    if ledger_url.startswith("sqlite"):
        (tmp_path / "ledger.db").touch()
    with pytest.raises(LedgerError, match="no ledger at "):
        Ledger.open(ledger_url, create=False)
    assert [path.stat().st_size for path in tmp_path.iterdir()] in ([], [0])
    Ledger.open(ledger_url).close()
    Ledger.open(ledger_url, create=False).close()


def test_labels_of_an_older_ledger_keep_their_constitution(ledger_url):
    from alembic import command
    from alembic.config import Config

    from judges.ledger.connection import MIGRATIONS, make_engine, make_url

    engine = make_engine(make_url(ledger_url))
    with engine.connect().execution_options(ledger_writes=True) as connection, connection.begin():
        config = Config()
        config.set_main_option("script_location", str(MIGRATIONS))
        config.attributes["connection"] = connection
        command.upgrade(config, "0004")
        old = sa.MetaData()
        old.reflect(connection)

        def put(table, **values):
            connection.execute(sa.insert(old.tables[table]), values)

        raw = {name: bytes.fromhex(digest(name)) for name in ("set", "label", "lone", "item", "key", "judge")}
        put("label_sets", digest=raw["set"], content='{"constitution": {"ref": "t@1.0.0"}}', created_at=1.0)
        put("items", digest=raw["item"], prompt="[]", responses='["x", "y"]')
        put("failures", key=raw["key"], judge=raw["judge"], status="error", latency_s=0.0, created_at=1.0)
        label = {"item": raw["item"], "status": "ok", "p": 0.8, "principles": "[]", "created_at": 1.0}
        label |= {"judgements": f'["{digest("key")}"]'}
        put("labels", digest=raw["label"], pair_id="p", label_set=raw["set"], **label)
        put("labels", digest=raw["lone"], pair_id="q", label_set=raw["item"], **label)
    engine.dispose()
    with Ledger.open(ledger_url) as ledger:
        told = explain(ledger, "p")
        assert (told.label_set, told.made_with["constitution"]["ref"]) == (digest("set"), "t@1.0.0")
        assert (told.same_text, told.failures) == ((), ())
        with pytest.raises(LedgerError, match="no label set"):
            explain(ledger, "q")
