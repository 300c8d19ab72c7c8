"""Where a policy comes from: followed by digest, counted from the labels themselves, and shown as text."""

from __future__ import annotations

import json
import re
import shutil
import xml.etree.ElementTree as ET
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from common.rows import read_rows
from common.sections import texts
from flows.cli import cli
from flows.errors import FlowError
from flows.report.lineage import lineage, lineage_of_run, trace
from flows.report.lineage.boxes import in_words, rows
from flows.report.lineage.facts import exam_words, facts
from flows.report.lineage.picture import picture
from flows.report.lineage.record import Lineage
from flows.report.lineage.view import lineage_page, lineage_sentences
from flows.runs.digests import digest_path
from flows.runs.directory import KEY_LENGTH
from flows.runs.manifest import FileRecord, Manifest


def test_it_is_followed_from_the_policy_to_what_came_from_outside(found, built, tiny_model):
    assert [step.stage for step in found.steps] == ["sl_cai", "pairs", "labels", "reward_model", "rl"]
    assert found.step == f"rl/{built[1][:KEY_LENGTH]}" and found.method == "grpo" and not found.gaps
    assert found.base.to_json() == {"path": str(tiny_model), "digest": digest_path(tiny_model)}
    by_stage = {step.stage: step for step in found.steps}
    assert by_stage["rl"].inputs["reward_model"].step == by_stage["reward_model"].id
    assert by_stage["labels"].constitution.principle_kind == "comparison"
    assert by_stage["sl_cai"].inputs["model"].step is None


def test_labels_are_counted_from_the_rows_that_trained(found, built):
    session, _ = built
    trained = [row for _, row in read_rows(Path(session.outputs["labels", "preferences"].path))]
    (counted,) = found.labels
    assert counted.trained.to_json() == {
        "labels": len(trained),
        "soft": len(trained) - 3,
        "hard": 3,
        "statuses": dict(Counter(row["status"] for row in trained).most_common()),
        "by_people": 4,
    }
    drawn = Counter(name for row in trained for name in row["principles"])
    assert {p.id: p.drawn for p in counted.principles} == drawn and drawn.total() == 2 * len(trained)
    assert counted.label_set == session.outcomes["labels"].manifest.metrics["label_set"]
    # q00 and q03 are the judge's ties: Ada decided the first and said tie to the other; she turned q02 round.
    assert counted.people.to_json() == {"confirmed": 2, "overridden": 2, "supplied": 0}


def test_judge_and_exam_come_from_the_ledger(found):
    ((judge,), *_) = [record.judges for record in found.labels]
    assert (judge.model, judge.revision, judge.kind) == ("scripted", "1", "scripted")
    assert judge.exam.accuracy.value == 1.0 and judge.exam.pairs == 40
    assert exam_words(judge.exam).startswith("passed: accuracy 100%")
    assert exam_words(None) == "not taken"
    assert exam_words(replace(judge.exam, passed=False, problems=("flips 0.9",))).startswith(
        "failed (flips 0.9)"
    )


def test_rounded_targets_make_every_label_hard_and_leave_halves_out(built, make_stage):
    session, _ = built
    start = {"preferences": session.outputs["labels", "preferences"]}
    before = session.outcomes["reward_model"]
    make_stage(session, "reward_model", {"model": "model"}, start, config={"knobs": {"targets": "hard"}})
    key = session.outcomes["reward_model"].manifest.key
    session.outcomes["reward_model"] = before
    counted = lineage(session.directory.path, "reward_model", key, None).labels[0].trained
    trained = [row for _, row in read_rows(Path(start["preferences"].path))]
    assert counted.soft == 0 and counted.hard == sum(row["p"] != 0.5 for row in trained) < len(trained)


def test_without_the_ledger_nobody_is_named(built):
    session, key = built
    found = lineage(session.directory.path, "rl", key, None)
    assert found.labels[0].judges is None
    assert ("judge", "unknown: the ledger is not here, or does not hold this label set") in facts(found)
    assert "Labels" in picture(found)


def test_what_was_replaced_since_is_a_gap_and_not_followed(built, tmp_path):
    session, key = built
    moved = tmp_path / "run"
    shutil.copytree(session.directory.path, moved)
    assert len(trace(moved, "rl", key).steps) == 5, "a run directory may be moved"
    id = f"reward_model/{session.outcomes['reward_model'].manifest.key[:KEY_LENGTH]}"
    manifest = Manifest.read(moved / id)
    changed = {"model": FileRecord(path="model", digest="0" * 64)}
    replace(manifest, outputs=changed).write(moved / id)
    left = lineage(moved, "rl", key, None)
    assert [step.stage for step in left.steps] == ["sl_cai", "rl"] and not left.labels
    assert len(left.gaps) == 1 and "which is not there any more" in left.gaps[0]
    assert lineage_sentences(left)[0].startswith("Warning: rl/")
    with pytest.raises(FlowError, match="stage rl is not finished there"):
        trace(moved, "rl", "0" * 64)


def test_tables_and_sentences_say_it(found):
    said, principles, steps = (texts(section.rows) for section in lineage_page(found).sections)
    told = dict(said)
    assert told["labels"].startswith("30 of 30 pairs trained:") and told["soft and hard"] == "27 soft, 3 hard"
    assert told["people"] == "2 labels confirmed, 2 overridden"
    assert (
        told["policy"].startswith("GRPO, rl/") and "right on 75% of held-out labels" in told["reward model"]
    )
    assert told["constitution"].startswith("tiny (working file ")
    assert lineage_sentences(found) == [
        "The policy comes from 30 labels under 3 principles; a person looked at 4 of them."
    ]
    heading, *principles = principles
    assert heading[0] == "principle" and sum(int(row[2]) for row in principles) == 60
    steps = {row[0].partition("/")[0]: row for row in steps[1:]}
    assert steps["rl"][2] == "sl_cai, reward_model" and steps["labels"][1].endswith("(comparison)")


def test_the_picture_has_a_box_for_each_and_no_line_through_one(found):
    boxes = rows(found)
    # The base model, the judge (a folder for this configuration), people and the constitution, beside five steps.
    assert Counter(box.kind for box in boxes) == {
        "model": 3,
        "data": 2,
        "outside": 1,
        "people": 1,
        "constitution": 1,
    }
    assert all(target > number for number, box in enumerate(boxes) for target in box.feeds)
    assert in_words(found).endswith("Policy (RL-CAI) from SL-CAI model, Reward model.")
    drawn = ET.fromstring(str(picture(found)))
    edges = [rect for rect in drawn.iter("rect") if rect.get("stroke")]
    left, right = float(edges[0].get("x")), float(edges[0].get("x")) + float(edges[0].get("width"))
    lanes = [float(m) for p in drawn.iter("path") for m in re.findall(r"Q([\d.]+) ", p.get("d"))]
    assert len(edges) == len(boxes) and lanes and all(x < left or x > right for x in lanes)
    assert max(lanes) < float(drawn.get("width")) and min(lanes) > 0


@pytest.mark.parametrize(
    "hostile", ["<script>alert(1)</script>", "</svg><h1>x", "\u202eab\x00", "y" * 5000, '"><g']
)
def test_hostile_names_are_text_in_the_picture(found, hostile):
    changed = found.to_json()
    for step in changed["steps"]:
        if step["constitution"]:
            step["constitution"]["ref"] = hostile
        for read in step["inputs"].values():
            if read["step"] is None:
                read["path"] = hostile
    changed["labels"][0]["judges"][0]["model"] = hostile
    text = str(picture(Lineage.from_json(changed)))
    assert "<script" not in text and "<h1" not in text and "\x00" not in text and "\u202e" not in text
    ET.fromstring(text)
    assert len(text) < 20_000


def test_the_command_reads_a_runs_folder(built, found, tmp_path):
    session, _ = built
    path = str(session.directory.path)
    told = CliRunner().invoke(cli, ["lineage", path])
    assert told.exit_code == 0 and "2 labels confirmed, 2 overridden" in told.output
    as_json = CliRunner().invoke(cli, ["lineage", path, "--json"])
    assert Lineage.from_json(json.loads(as_json.output)) == found == lineage_of_run(session.directory.path)
    with pytest.raises(FlowError, match="is not a run's folder"):
        lineage_of_run(tmp_path)


def test_straight_from_the_labels_there_is_no_reward_model(built, make_stage, found):
    session, _ = built
    before = session.outcomes["rl"]
    own = {"preferences": session.outputs["labels", "preferences"]}
    make_stage(session, "rl", {"model": "model"}, own, config={"method": "dpo", "knobs": {"targets": "soft"}})
    key = session.outcomes["rl"].manifest.key
    session.directory.note_stage(session.attempt, "rl", before.manifest, reused=False)
    session.outcomes["rl"] = before
    direct = lineage(session.directory.path, "rl", key, None)
    assert direct.labels[0].trained == found.labels[0].trained and direct.base is None
    told = dict(facts(direct))
    assert told["policy"].startswith("DPO, rl/") and "reward model" not in told


def test_a_judge_behind_a_server_has_a_box_too(found):
    changed = found.to_json()
    (step,) = [step for step in changed["steps"] if step["stage"] == "labels"]
    del step["inputs"]["judge"]
    assert [box.detail for box in rows(Lineage.from_json(changed)) if box.title == "scripted"] == [
        "judge; exam passed"
    ]
