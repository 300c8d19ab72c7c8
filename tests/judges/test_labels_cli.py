"""`charter labels …` on a real ledger, through the command line."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys

import pytest

from flows.cli import main
from judges import LabelSettings, Ledger, Reading, ScriptedJudge, label_pairs
from judges.explain import explain
from judges.ledger import Verdict
from judges.records import Pair


def scripted(call):
    text = call.messages[-1]["content"]
    if "Question 2:" in text:
        return Reading(status="refused", detail="will not say")
    return 0.9 if text.split("\n(A) ")[1].startswith("A long") else 0.1


HOSTILE = "\x1b[31mred [bold]markup[/bold] \u202egnp.exe"


@pytest.fixture
def place(tmp_path, make_constitution, make_pairs):
    path = tmp_path / "ledger.db"
    pairs = make_pairs(4)
    pairs[0] = Pair(id="odd", prompt=({"role": "user", "content": HOSTILE},), a="A long one", b=HOSTILE)
    with Ledger.open(str(path)) as ledger:
        label_pairs(
            pairs,
            constitution=make_constitution(long="Which is longer?"),
            judge=ScriptedJudge(scripted),
            ledger=ledger,
            settings=LabelSettings(templates="microworld"),
        )
        verdict = Verdict(
            pair_id="odd", item=pairs[0].digest, winner="b", who="ann", why="shorter", created_at=1.0
        )
        ledger.add_verdicts([verdict])
    return path


def run(capsys, *arguments):
    with pytest.raises(SystemExit) as ended:
        main([str(a) for a in arguments])
        raise SystemExit(0)
    out, err = capsys.readouterr()
    return ended.value.code or 0, out, err


def test_show(place, capsys):
    code, out, _ = run(capsys, "labels", "show", "--ledger", place, "--json")
    rows = {row["id"]: row for row in map(json.loads, out.splitlines())}
    assert code == 0
    assert rows["odd"]["verdict"] == "b"
    assert rows["pair-00002"]["status"] == "refused"
    code, out, _ = run(capsys, "labels", "show", "--ledger", place.parent, "--status", "refused")
    assert "pair-00002" in out and "pair-00001" not in out


def test_hostile_text_is_shown_as_text(place, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    for command in (["show"], ["explain", "odd"]):
        code, out, _ = run(capsys, "labels", *command, "--ledger", place)
        assert code == 0
        assert "\x1b" not in out and "\u202e" not in out
        assert "\\x1b[31mred [bold]markup[/bold]" in out


def test_explain_tells_everything(place, capsys):
    code, out, _ = run(capsys, "labels", "explain", "odd", "--ledger", place)
    assert code == 0
    for piece in (
        "winner     a",
        "p          0.900",
        "principle  long: Which is longer?",
        "order      ab",
        "order      ba",
        "logprobs   -0.1054, -2.3026",
        "judge      scripted: scripted, revision 1",
        "as shown below",
        "person     ann",
        "b (shorter)",
        "(B) A long one",
    ):
        assert piece in out


def test_explain_finds_by_digest_and_renders_the_stored_template(place):
    with Ledger.open(str(place)) as ledger:
        story = explain(ledger, "odd")
        assert explain(ledger, story.label.digest[:10]) == story
    assert [j.call.digest for j in story.judgements] == [j.prompt_digest for j in story.judgements]


def test_export_import_stats(place, capsys, tmp_path):
    code, out, _ = run(capsys, "labels", "export", tmp_path / "out", "--ledger", place)
    assert (code, out.split()) == (0, ["3", "ok", "1", "refused", "(left", "out)"])
    command = ["labels", "import", tmp_path / "out.jsonl", "--who", "bob", "--ledger", place]
    code, out, _ = run(capsys, *command)
    assert (code, out) == (0, "3 new verdicts by bob, 0 known already, 0 rows left out\n")
    code, out, _ = run(capsys, "labels", "stats", "--ledger", place)
    assert code == 0
    assert "8 judgements, 0 calls lost" in out
    assert "People judged 3 pairs" in out
    code, out, _ = run(capsys, *command)
    assert (code, out) == (0, "0 new verdicts by bob, 3 known already, 0 rows left out\n")


def test_what_people_decided_goes_from_one_ledger_to_another(place, capsys, tmp_path):
    source, out, there = (tmp_path / name for name in ("hh.jsonl", "people.jsonl", "other.db"))
    source.write_text(json.dumps({"prompt": "Why?", "chosen": "very good", "rejected": "bad"}))
    code, _, _ = run(capsys, "labels", "import", source, "--who", "bob", "--ledger", place)
    assert code == 0
    code, said, _ = run(capsys, "labels", "export", "--people", out, "--ledger", place)
    assert (code, said) == (0, f"2 pairs that people decided in {out}\n")
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert {(row["chosen"], row["rejected"], row["who"]) for row in rows} == {
        (HOSTILE, "A long one", "ann"),
        ("very good", "bad", "bob"),
    }
    code, said, _ = run(capsys, "labels", "import", out, "--who", "both", "--ledger", there)
    assert (code, said) == (0, "2 new verdicts by both, 0 known already, 0 rows left out\n")
    again = tmp_path / "again.jsonl"
    run(capsys, "labels", "export", "--people", again, "--ledger", there)

    def preferences(path):
        return {(row["chosen"], row["rejected"]) for row in map(json.loads, path.read_text().splitlines())}

    assert preferences(again) == preferences(out)
    code, _, err = run(capsys, "labels", "export", "--people", out, "--status", "tie", "--ledger", place)
    assert code == 2 and "--people: takes every pair that people decided; leave out --set and --status" in err


def test_imported_pairs_can_be_labelled(tmp_path, capsys):
    source = tmp_path / "hh.jsonl"
    source.write_text(json.dumps({"prompt": "Why?", "chosen": "good", "rejected": "bad"}))
    code, _, _ = run(
        capsys,
        "labels",
        "import",
        source,
        "--who",
        "x",
        "--ledger",
        tmp_path / "new.db",
        "--pairs",
        tmp_path / "p",
    )
    assert code == 0
    assert {Pair.from_row(json.loads((tmp_path / "p").read_text())).a} <= {"good", "bad"}


def test_a_damaged_file_is_one_line(tmp_path, capsys):
    source = tmp_path / "hh.jsonl.gz"
    row = json.dumps({"prompt": "Why?", "chosen": "good", "rejected": "bad"})
    whole = gzip.compress(f"{row}\n".encode() * 50)
    for raw in (whole[:-10], whole[:20] + b"\xff" * 8 + whole[28:], b"no gzip", whole[:-8] + b"\0" * 8):
        source.write_bytes(raw)
        code, _, err = run(capsys, "labels", "import", source, "--who", "x", "--ledger", tmp_path / "new.db")
        assert code == 2 and err.startswith(f"error: {source}: ") and err.count("\n") == 1


def test_mistakes_are_one_line(tmp_path, place, capsys):
    for arguments, message in (
        (["show", "--ledger", tmp_path / "none.db"], "error: no ledger at"),
        (["explain", "zzz", "--ledger", place], "error: no label or pair 'zzz'"),
        (["explain", "00", "--ledger", place], "error: no label begins with '00'"),
        (["show", "--set", "ff00", "--ledger", place], "error: 0 label sets begin with 'ff00'"),
        (["export", tmp_path / "x.csv", "--ledger", place], "an export ends in .jsonl or .parquet"),
    ):
        code, _, err = run(capsys, "labels", *arguments)
        assert code == 2
        assert message in err
        assert err.count("\n") == 1


def test_the_command_imports_neither_torch_nor_prefect():
    code = "import sys, flows.cli.labels, flows.cli.judge, judges; print({'torch', 'prefect'} & set(sys.modules))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "set()"


def test_the_audit_goes_out_comes_back_and_becomes_an_exam(place, capsys, tmp_path):
    import csv

    sheet = tmp_path / "sheet.csv"
    code, out, _ = run(capsys, "labels", "audit", "export", sheet, "--ledger", place, "--who", "Ada")
    assert code == 0 and out.startswith("4 pairs of label set")
    with sheet.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    for row in rows:
        row["verdict"] = "tie" if row["pair_id"] == "odd" else "A" if row["shown"] == "ab" else "B"
    with sheet.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    code, out, _ = run(capsys, "labels", "audit", "import", sheet, "--ledger", place, "--who", "Ada")
    # One of the four was refused by the judge: nothing to agree with.
    assert (
        code == 0
        and out.startswith("4 new verdicts by Ada")
        and "People judged 3 pairs" in out
        and "kappa" in out
    )
    code, out, _ = run(capsys, "labels", "audit", "known", tmp_path / "known.jsonl", "--ledger", place)
    from judges.known import read_known_pairs

    assert code == 0 and len(read_known_pairs(tmp_path / "known.jsonl")) == 3
    code, out, _ = run(capsys, "labels", "card", "--ledger", place)
    print(out)
    assert code == 0 and "long" in out and "(100%)" in out and "…" not in out
    rows[0]["verdict"] = "perhaps"
    with sheet.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    code, _, err = run(capsys, "labels", "audit", "import", sheet, "--ledger", place, "--who", "Ada")
    assert code == 2 and "sheet.csv:2: verdict: 'perhaps'" in err and err.strip().count("\n") == 0
