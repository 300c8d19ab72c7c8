"""What people preferred elsewhere, into the ledger and onto the pairs that it has labelled."""

from __future__ import annotations

import json

import pytest
import sqlalchemy as sa
from harness.rows import known_pairs

from judges import JudgeError, LabelSettings, ScriptedJudge, export_preferences, label_pairs
from judges.audit.preferences import match_labelled, record_preferences
from judges.known import read_known_pairs
from judges.ledger import schema
from judges.ledger.reading import labelled_pairs


def stored(ledger):
    with ledger.read() as connection:
        return connection.execute(sa.select(sa.func.count()).select_from(schema.verdicts)).scalar_one()


def read_in(ledger, path, *, who="bob"):
    known = match_labelled(ledger, read_known_pairs(path)).known
    return record_preferences(ledger, known, who=who, source=path.name)


def winners(ledger, label_set):
    return [x.verdict and x.verdict.winner for x in labelled_pairs(ledger, label_set)]


@pytest.fixture
def label_set(ledger, make_constitution, make_pairs):
    pairs = [pair.swap() if i % 3 == 0 else pair for i, pair in enumerate(make_pairs(12))]
    judge = ScriptedJudge(lambda call: 0.9 if call.messages[-1]["content"].count("(A) A long") else 0.1)
    constitution = make_constitution(long="Which is longer?")
    settings = LabelSettings(templates="microworld")
    return label_pairs(
        pairs, constitution=constitution, judge=judge, ledger=ledger, settings=settings
    ).label_set


def test_an_export_comes_back_onto_its_pairs(ledger, label_set, tmp_path):
    path = tmp_path / "out.jsonl"
    export_preferences(ledger, label_set, path)
    assert read_in(ledger, path) == 12
    judged = ["b" if i % 3 == 0 else "a" for i in range(12)]
    assert winners(ledger, label_set) == judged
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows[::2]:
        row["chosen"], row["rejected"] = row["rejected"], row["chosen"]
    path.write_text("\n".join(map(json.dumps, rows)))
    assert read_in(ledger, path) == 6
    edited = [{"a": "b", "b": "a"}[w] if i % 2 == 0 else w for i, w in enumerate(judged)]
    assert winners(ledger, label_set) == edited
    assert read_in(ledger, path) == 0
    export_preferences(ledger, label_set, path)
    assert [json.loads(line)["chosen"] for line in path.read_text().splitlines()] == [
        row["chosen"] for row in rows
    ]


def test_reading_a_file_again_adds_nothing(ledger, tmp_path):
    path = tmp_path / "people.jsonl"
    row = {"prompt": "Why?", "chosen": "good", "rejected": "bad"}
    other = {"prompt": "Why?", "chosen": "bad", "rejected": "good"}
    path.write_text("\n".join(map(json.dumps, [row, row, other])))
    assert [read_in(ledger, path) for _ in range(3)] == [1, 0, 0]
    assert stored(ledger) == 1
    # Another person, another source and another opinion are verdicts of their own.
    assert read_in(ledger, path, who="eve") == 1
    path.write_text(json.dumps(row))
    assert [read_in(ledger, path) for _ in range(2)] == [1, 0]
    assert read_in(ledger, path.rename(tmp_path / "elsewhere.jsonl")) == 1
    assert stored(ledger) == 4


def test_a_verdict_needs_a_name(ledger):
    known = known_pairs([{"prompt": "Why?", "chosen": "good", "rejected": "bad"}])
    with pytest.raises(JudgeError, match="who: a verdict needs the name"):
        record_preferences(ledger, known, who=" ", source="x")


def edited(path, change):
    """The export's rows with every answer changed."""
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows:
        for side in ("chosen", "rejected"):
            row[side][0]["content"] = change(row[side][0]["content"])
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_an_export_whose_white_space_changed_finds_its_pairs(ledger, label_set, tmp_path):
    path = tmp_path / "out.jsonl"
    export_preferences(ledger, label_set, path)
    edited(path, lambda text: text.replace(" ", "  \n") + "\n")
    assert read_in(ledger, path) == 12
    assert winners(ledger, label_set) == ["b" if i % 3 == 0 else "a" for i in range(12)]
    assert read_in(ledger, path) == 0


def test_an_export_whose_words_changed_is_missed_and_named(ledger, label_set, tmp_path):
    path = tmp_path / "out.jsonl"
    export_preferences(ledger, label_set, path)
    edited(path, lambda text: f"{text} indeed")
    known = read_known_pairs(path)
    matched = match_labelled(ledger, known)
    assert matched.known == () and [m.place for m in matched.missed] == [f"{path}:{n}" for n in range(1, 13)]
    assert {m.reason for m in matched.missed} == {"the ledger has other texts under this pair_id"}
    # An `id` is anybody's; rows of other files are verdicts on pairs of their own.
    path.write_text(path.read_text().replace('"pair_id"', '"id"'))
    assert len(match_labelled(ledger, read_known_pairs(path)).known) == 12
