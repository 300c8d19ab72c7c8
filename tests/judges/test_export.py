from __future__ import annotations

import json

import pandas as pd
import pytest

from judges import JudgeError, LabelSettings, Reading, ScriptedJudge, export_preferences, label_pairs
from judges.ledger import Verdict

SETTINGS = LabelSettings(templates="microworld", batch_pairs=4)


def scripted(call):
    text = call.messages[-1]["content"]
    if "Question 1:" in text:
        return "A"  # follows the slot
    if "Question 2:" in text:
        return Reading(status="refused", detail="will not say")
    first = text.split("\n(A) ")[1]
    return 0.9 if first.startswith("A long") else 0.1


@pytest.fixture
def label_set(ledger, make_constitution, make_pairs):
    c = make_constitution(long="Which is longer?")
    pairs = make_pairs(4)
    pairs[3] = pairs[3].swap()
    return label_pairs(
        pairs, constitution=c, judge=ScriptedJudge(scripted), ledger=ledger, settings=SETTINGS
    ).label_set


def read(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_preferred_response_is_chosen(ledger, label_set, tmp_path):
    counts = export_preferences(ledger, label_set, tmp_path / "out")
    assert counts == {"ok": 2, "inconsistent": 1, "refused": 1}
    first, last = read(tmp_path / "out.jsonl")
    assert first == {
        "pair_id": "pair-00000",
        "prompt": [{"role": "user", "content": "Question 0: how?"}],
        "chosen": [{"role": "assistant", "content": "A long and patient answer to question 0."}],
        "rejected": [{"role": "assistant", "content": "No 0."}],
        "p": pytest.approx(0.9),
        "status": "ok",
        "principles": ["long"],
        "label_digest": first["label_digest"],
        "source": "judge",
    }
    assert last["chosen"][0]["content"].startswith("A long")
    assert pd.read_parquet(tmp_path / "out.parquet")["pair_id"].tolist() == ["pair-00000", "pair-00003"]
    assert not [p for p in tmp_path.iterdir() if p.name.endswith(".tmp")]


def test_statuses_with_a_mean_are_admitted_on_request(ledger, label_set, tmp_path):
    export_preferences(ledger, label_set, tmp_path / "out.jsonl", statuses=("ok", "inconsistent"))
    assert [row["status"] for row in read(tmp_path / "out.jsonl")] == ["ok", "inconsistent", "ok"]
    with pytest.raises(JudgeError, match="'refused' has no probability"):
        export_preferences(ledger, label_set, tmp_path / "out.jsonl", statuses=("refused",))


def test_only_the_pairs_asked_for(ledger, label_set, tmp_path):
    counts = export_preferences(
        ledger, label_set, tmp_path / "x.jsonl", pair_ids={"pair-00003", "pair-00001"}
    )
    assert counts == {"ok": 1, "inconsistent": 1}


def test_a_person_overrules_the_judge_whose_verdict_stays(ledger, label_set, make_pairs, tmp_path):
    from judges.ledger.reading import labelled_pairs

    pair = make_pairs(1)[0]
    for winner in ("tie", "b"):  # the latest counts
        ledger.add_verdicts(
            [
                Verdict(
                    pair_id=pair.id, item=pair.digest, winner=winner, who="ann", why="shorter", created_at=2.0
                )
            ]
        )
    export_preferences(ledger, label_set, tmp_path / "out.jsonl")
    row = read(tmp_path / "out.jsonl")[0]
    assert (row["chosen"][0]["content"], row["p"], row["source"]) == ("No 0.", 1.0, "human")
    labelled = next(labelled_pairs(ledger, label_set))
    assert (labelled.label.p, labelled.verdict.winner) == (pytest.approx(0.9), "b")


def test_an_unknown_suffix_is_an_error(ledger, label_set, tmp_path):
    with pytest.raises(JudgeError, match=r"\.jsonl or \.parquet"):
        export_preferences(ledger, label_set, tmp_path / "out.csv")
