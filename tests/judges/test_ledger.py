from __future__ import annotations

import random
import sqlite3
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from common.digest import digest
from judges import JudgeIdentity, Ledger, LedgerError, Reading
from judges.ledger import Batch, Judgement, Verdict, schema
from judges.ledger.connection import HEAD

IDENTITY = JudgeIdentity(kind="scripted", model="m", revision="1")


def judgement(name: str, **reading) -> Judgement:
    reading = {"status": "ok", "logprobs": (-0.1, -2.0)} | reading
    return Judgement(
        key=digest(name),
        item=digest("item"),
        principle_id="p",
        principle=digest("p"),
        shown="ab",
        prompt=digest("prompt"),
        judge=digest("judge"),
        method=digest("method"),
        reading=Reading(**reading),
        created_at=1.0,
    )


def count(ledger: Ledger, table: sa.Table) -> int:
    with ledger.read() as connection:
        return connection.execute(sa.select(sa.func.count()).select_from(table)).scalar_one()


def test_what_was_written_is_read_back(ledger):
    reading = Reading(
        status="ok",
        logprobs=(-0.125, float("-inf")),
        text="naïve – ответ",
        detail=None,
        prompt_tokens=7,
        completion_tokens=1,
        latency_s=0.25,
        cost=0.001,
    )
    written = judgement("one")
    ledger.add(Batch(label_set=digest("s"), judgements=[Judgement(**{**vars(written), "reading": reading})]))
    assert ledger.readings([written.key, digest("other")]) == {written.key: reading}


def test_the_same_key_twice_is_a_no_op(ledger):
    ledger.add(Batch(label_set=digest("s"), judgements=[judgement("one")]))
    ledger.add(
        Batch(label_set=digest("s"), judgements=[judgement("one", logprobs=(-3.0, -0.2)), judgement("two")])
    )
    assert ledger.readings([digest("one")])[digest("one")].logprobs == (-0.1, -2.0)
    assert count(ledger, schema.judgements) == 2


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(names=st.lists(st.text(max_size=3), max_size=30), cut=st.integers(0, 30))
def test_any_order_and_repetition_of_batches_gives_the_same_ledger(ledger, names, cut):
    wanted = [judgement(f"h{n!r}") for n in names]
    for part in (wanted[:cut], wanted[cut:], wanted):
        ledger.add(Batch(label_set=digest("s"), judgements=part))
    keys = {j.key for j in wanted}
    assert set(ledger.readings(keys)) == keys


def test_a_failed_transaction_writes_nothing(ledger):
    bad = judgement("bad", status=None)
    with pytest.raises(LedgerError):
        ledger.add(Batch(label_set=digest("s"), judgements=[judgement("good"), bad]))
    assert count(ledger, schema.judgements) == 0


def test_text_that_a_database_cannot_hold_is_mended(ledger):
    ledger.add(Batch(label_set=digest("s"), judgements=[judgement("x", text="a\x00b\ud800c")]))
    assert ledger.readings([digest("x")])[digest("x")].text == "a\ufffdb?c"


def test_claims_are_exclusive_until_released(ledger, ledger_url):
    keys = [digest(i) for i in range(5)]
    assert ledger.claim(keys[:3]) == set(keys[:3])
    with Ledger.open(ledger_url) as other:
        other.worker = f"elsewhere:1:{ledger.worker.rsplit(':', 1)[1]}"
        assert other.claim(keys) == set(keys[3:])
        ledger.release(keys)  # only its own
        assert other.claim(keys) == set(keys[:3])
        assert ledger.claim(keys) == set()


def test_a_claim_whose_lease_ran_out_is_free(ledger, monkeypatch):
    from judges.ledger import claims

    ledger.worker = "elsewhere:1:2"
    monkeypatch.setattr(claims, "LEASE_S", -1.0)
    ledger.claim([digest("x")])
    ledger.worker = claims.worker_name()
    assert ledger.claim([digest("x")]) == {digest("x")}


@pytest.mark.postgres
def test_a_lease_runs_by_the_clock_of_the_database(postgres_ledger, monkeypatch):
    with Ledger.open(postgres_ledger) as one, Ledger.open(postgres_ledger) as other:
        one.worker, other.worker = "here:1:2.0", "there:1:2.0"
        assert one.claim([digest("x")]) == {digest("x")}
        monkeypatch.setattr("time.time", lambda: 4e9)  # a machine whose clock is far ahead
        assert other.claim([digest("x")]) == set()


@pytest.mark.postgres
def test_workers_that_want_the_same_in_other_orders_do_not_wait_in_a_circle(postgres_ledger):
    keys = [digest(i) for i in range(1500)]
    orders = [keys, keys[::-1], random.Random(0).sample(keys, len(keys))]
    held: Counter[str] = Counter()
    lock = threading.Lock()

    def work(wanted):
        with Ledger.open(postgres_ledger) as ledger:
            for _ in range(4):
                taken = ledger.claim(wanted)
                with lock:
                    held.update(taken)
                    assert max(held.values(), default=0) <= 1
                    held.subtract(taken)
                    ledger.release(taken)
                found = [judgement(f"{n}") for n in range(200)]
                random.shuffle(found)
                ledger.add(Batch(label_set=digest("s"), judgements=found))

    with ThreadPoolExecutor(3) as pool:
        for done in [pool.submit(work, order) for order in orders]:
            done.result(timeout=120)


def test_what_a_closed_ledger_or_a_failed_write_claimed_is_free(ledger, ledger_url):
    keys = [digest(i) for i in range(2)]
    with Ledger.open(ledger_url) as other:
        other.claim(keys)
        assert ledger.claim(keys) == set()
    assert ledger.claim(keys[:1]) == set(keys[:1])
    with pytest.raises(LedgerError):
        ledger.add(
            Batch(label_set=digest("s"), judgements=[judgement("bad", status=None)], released=keys[:1])
        )
    assert ledger.claim(keys) == set(keys)


def test_what_is_written_already_is_not_claimed(ledger):
    ledger.add(Batch(label_set=digest("s"), judgements=[judgement("one")]))
    assert ledger.claim([digest("one"), digest("two")]) == {digest("two")}
    assert count(ledger, schema.claims) == 1


def test_writing_a_batch_releases_its_claims(ledger):
    ledger.claim([digest("one")])
    ledger.add(Batch(label_set=digest("s"), judgements=[judgement("one")], released=[digest("one")]))
    assert count(ledger, schema.claims) == 0


def test_verdicts_are_appended(ledger):
    verdict = Verdict(pair_id="p", item=digest("i"), winner="a", who="ann", why="kinder", created_at=1.0)
    ledger.add_verdicts([verdict])
    ledger.add_verdicts([verdict])
    assert count(ledger, schema.verdicts) == 2


def test_migrations_build_the_tables_that_the_code_expects(ledger):
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    with ledger.read() as connection:
        differences = compare_metadata(MigrationContext.configure(connection), schema.metadata)
        version = connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar()
    assert differences == []
    assert version == HEAD


def test_head_is_the_newest_migration():
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    from judges.ledger.connection import MIGRATIONS

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    assert ScriptDirectory.from_config(config).get_current_head() == HEAD


def test_a_ledger_opens_again_and_a_newer_one_is_refused(ledger, ledger_url):
    Ledger.open(ledger_url).close()
    with ledger.write() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(LedgerError, match="newer than"):
        Ledger.open(ledger_url)


def test_several_processes_may_create_the_same_ledger(ledger_url):
    import subprocess
    import sys

    code = "import sys; from judges import Ledger; Ledger.open(sys.argv[1]).close()"
    processes = [subprocess.Popen([sys.executable, "-c", code, ledger_url]) for _ in range(3)]
    assert [p.wait(60) for p in processes] == [0, 0, 0]


def test_a_new_ledger_waits_for_the_process_that_is_creating_it(tmp_path, monkeypatch):
    """SQLite refuses the step to WAL mode at once while another holds the lock: no timeout of its own applies."""
    import threading

    path = tmp_path / "ledger.db"
    other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    other.execute("CREATE TABLE other (x)")
    other.execute("BEGIN IMMEDIATE")
    with monkeypatch.context() as patched, pytest.raises(LedgerError, match="another process has held it"):
        patched.setattr("judges.ledger.connection.BUSY_TIMEOUT_S", 0.1)
        Ledger.open(str(path))
    release = threading.Timer(0.3, other.execute, ["ROLLBACK"])
    release.start()
    Ledger.open(str(path)).close()
    release.join()
    other.close()


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("mysql://u:secret@host/db", "no ledger on 'mysql'"),
        ("sqlite://", "a ledger needs a file"),
        ("postgresql://u:secret@127.0.0.1:1/db", r"postgresql\+psycopg://u:\*\*\*@127.0.0.1:1/db: "),
        ("://", "not a database URL"),
    ],
)
def test_a_bad_url_is_one_line_without_the_password(url, message):
    with pytest.raises(LedgerError, match=message) as caught:
        Ledger.open(url)
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_folder_or_another_file_is_one_line(tmp_path):
    (tmp_path / "notes.db").write_text("not a database, only a text that is longer than a header " * 20)
    for path in (tmp_path, tmp_path / "notes.db"):
        with pytest.raises(LedgerError) as caught:
            Ledger.open(f"sqlite:///{path}")
        assert "\n" not in str(caught.value)


def test_a_locked_ledger_stops_with_one_line_and_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr("judges.ledger.connection.BUSY_TIMEOUT_S", 0.2)
    path = tmp_path / "ledger.db"
    with Ledger.open(str(path)) as ledger:
        blocker = sqlite3.connect(path, isolation_level=None)
        blocker.execute("BEGIN IMMEDIATE")
        with pytest.raises(LedgerError, match="another process has held it"):
            ledger.add(Batch(label_set=digest("s"), judgements=[judgement("one")]))
        blocker.execute("ROLLBACK")
        blocker.close()
        assert count(ledger, schema.judgements) == 0


def test_a_full_disk_stops_with_one_line_and_writes_nothing(tmp_path):
    with Ledger.open(str(tmp_path / "ledger.db")) as ledger:
        ledger.add(Batch(label_set=digest("s"), judgements=[judgement("before")]))
        # SQLite's own limit raises the very error of a full disk.
        with ledger.write() as connection:
            pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
            connection.exec_driver_sql(f"PRAGMA max_page_count={pages}")
        many = [judgement(f"n{i}", text="x" * 500) for i in range(500)]
        with pytest.raises(LedgerError, match="no space is left"):
            ledger.add(Batch(label_set=digest("s"), judgements=many))
        assert count(ledger, schema.judgements) == 1


def test_a_ledger_of_the_first_version_is_brought_up_to_date_with_its_labels(ledger_url):
    from alembic import command
    from alembic.config import Config

    from judges.ledger.connection import MIGRATIONS, make_engine, make_url

    engine = make_engine(make_url(ledger_url))
    with engine.connect().execution_options(ledger_writes=True) as connection, connection.begin():
        config = Config()
        config.set_main_option("script_location", str(MIGRATIONS))
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        columns = [c for c in schema.labels.columns if c.name not in ("p_raw", "made_with")]
        old = sa.Table("labels", sa.MetaData(), *(sa.Column(c.name, c.type) for c in columns))
        old.append_column(sa.Column("label_set", schema.Digest))
        values = {
            "seq": 1,
            "digest": digest("l"),
            "pair_id": "p",
            "item": digest("i"),
            "status": "ok",
            "p": 0.8,
        }
        values |= {"principles": "[]", "judgements": "[]", "label_set": digest("s"), "created_at": 1.0}
        connection.execute(sa.insert(old), values)
    engine.dispose()
    with Ledger.open(ledger_url) as ledger:
        label = ledger.labels([digest("l")])[digest("l")]
        assert (label.p, label.p_raw) == (0.8, 0.8)
        assert count(ledger, schema.exams) == 0
