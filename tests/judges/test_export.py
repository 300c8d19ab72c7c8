from __future__ import annotations

import json
import resource

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


def test_a_disk_that_takes_no_more_leaves_the_old_export(ledger, label_set, tmp_path):
    export_preferences(ledger, label_set, tmp_path / "out")
    before = {path.name: path.read_bytes() for path in tmp_path.glob("out.*")}
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (600, hard))
    try:
        with pytest.raises(JudgeError, match=r"out: .*; nothing was exported") as caught:
            export_preferences(ledger, label_set, tmp_path / "out", statuses=("ok", "inconsistent"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "\n" not in str(caught.value)
    assert before == {path.name: path.read_bytes() for path in tmp_path.glob("*out*")}


@pytest.mark.slow
def test_pandas_datasets_and_trl_read_an_export(ledger, label_set, tmp_path, tiny_model, require):
    from importlib.util import find_spec

    export_preferences(ledger, label_set, tmp_path / "out", statuses=("ok", "inconsistent"))
    rows = read(tmp_path / "out.jsonl")
    for frame in (
        pd.read_json(tmp_path / "out.jsonl", lines=True),
        pd.read_parquet(tmp_path / "out.parquet"),
    ):
        assert frame["pair_id"].tolist() == [row["pair_id"] for row in rows]
        assert frame["p"].tolist() == pytest.approx([row["p"] for row in rows])
    require("TRL", find_spec("trl") is not None, "pip install trl")
    from datasets import load_dataset
    from trl import DPOConfig, DPOTrainer, RewardConfig, RewardTrainer

    loaded = {
        kind: load_dataset(kind, data_files=str(path), split="train", cache_dir=str(tmp_path / "cache"))
        for kind, path in (("json", tmp_path / "out.jsonl"), ("parquet", tmp_path / "out.parquet"))
    }
    assert loaded["json"].to_list() == loaded["parquet"].to_list() == rows
    common = {"max_steps": 1, "report_to": "none", "use_cpu": True, "per_device_train_batch_size": 2}
    for dataset in loaded.values():
        for trainer, config in ((RewardTrainer, RewardConfig), (DPOTrainer, DPOConfig)):
            name = f"{trainer.__name__}-{dataset.builder_name}"
            made = trainer(
                model=str(tiny_model),
                args=config(output_dir=str(tmp_path / name), bf16=False, save_strategy="no", **common),
                train_dataset=dataset,
            )
            assert made.train().training_loss > 0
