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

import flows.gates
import flows.label_shards
from flows.cli import cli
from flows.costs import label_costs
from flows.digests import digest_json, digest_path
from flows.errors import FlowError
from flows.launch import open_session
from flows.lineage import lineage, lineage_of_run, trace
from flows.manifest import FileRecord, Manifest, PeakMemory
from flows.progress import Silent
from flows.report.cost_plot import cost_figure
from flows.report.costs import cost_rows, cost_sentences, price_words
from flows.report.figures import svg
from flows.report.lineage import lineage_sentences, principle_rows, step_rows
from flows.report.lineage_boxes import in_words, rows
from flows.report.lineage_facts import exam_words, fact_rows
from flows.report.lineage_picture import picture
from flows.request import RunRequest
from flows.runs import KEY_LENGTH
from flows.session import Session
from flows.stages import labels
from flows.stages.base import Artifact
from judges import Call, LabelSettings, Ledger, Reading, ScriptedJudge
from judges.audit import Given, record
from judges.exam import ExamSettings, examine, save_exam
from judges.known import KnownPair
from judges.ledger.reading import labelled_pairs
from judges.records import Pair
from training.data import read_rows

NUMBERS = range(30)


def reads(call: Call) -> Reading:
    """Likes what is called good; every third pair is a tie."""
    body = call.messages[-1]["content"]
    found = dict(re.findall(r"^\(([AB])\) (\w+ \d+)$", body, re.MULTILINE))
    good = found["A"].startswith("good")
    tie = int(found["A"].split()[1]) % 3 == 0
    logprobs = (-0.69, -0.69) if tie else (-0.1, -2.4) if good else (-2.4, -0.1)
    return Reading(status="ok", logprobs=logprobs, prompt_tokens=50, completion_tokens=1, latency_s=0.5)


@pytest.fixture(scope="module")
def built(tmp_path_factory, make_run, tiny_model):
    """(session, policy's key): labels and verdicts are real, the models around them are folders with a file."""
    folder = tmp_path_factory.mktemp("lineage")
    judge = ScriptedJudge(reads)
    with pytest.MonkeyPatch.context() as patch:
        for module in (flows.gates, flows.label_shards):
            patch.setattr(module, "make_judge", lambda settings: judge)
        path = make_run(
            folder,
            tiny_model,
            labels={"templates": "microworld", "statuses": ["ok", "tie"], "principles": 2},
            report={"price_per_million_tokens": 2.0, "price_per_human_label": 0.5},
        )
        with open_session(RunRequest(config=str(path)), Silent()) as session:
            key = _build(session, tiny_model, judge)
    return session, key


def _build(session: Session, base: Path, judge: ScriptedJudge) -> str:
    outside = {"model": Artifact(path=str(base), digest=digest_path(base))}
    made = make(session, "sl_cai", {"model": "model"}, outside)
    start = {"model": made["model"]}
    pairs = "".join(
        json.dumps(
            {
                "id": f"q{i:02d}",
                "prompt": [{"role": "user", "content": f"Question {i}?"}],
                "a": f"good {i}",
                "b": f"bad {i}",
            }
        )
        + "\n"
        for i in NUMBERS
    )
    found = make(session, "pairs", {"pairs": "pairs.jsonl"}, start, text=pairs)
    session.outputs["pairs", "pairs"] = found["pairs"]
    session.execute(labels.STAGE)
    verdicts(session, "aabt")
    session.execute(labels.STAGE)
    with Ledger.open(str(session.run.path / "ledger.db")) as ledger:
        known = [
            KnownPair(
                pair=Pair(
                    id=f"k{i}", prompt=({"role": "user", "content": "?"},), a=f"good {i}", b=f"bad {i}"
                ),
                winner="a",
            )
            for i in range(1, 60)
            if i % 3
        ]
        exam = ExamSettings(probe_pairs=2, min_lead=-1.0)
        settings = LabelSettings(**_asked(session))
        report = examine(
            judge, session.constitution, known, ledger=ledger, settings=settings, exam=exam, source="known"
        )
        save_exam(ledger, report)
    reward = make(
        session,
        "reward_model",
        {"model": "model"},
        {**start, "preferences": session.outputs["labels", "preferences"]},
        config={"knobs": {"targets": "soft", "held_out": 0.1}, "human_share": None},
        metrics={"eval_accuracy": 0.75},
    )
    make(
        session,
        "rl",
        {"model": "model"},
        {**start, "reward_model": reward["model"]},
        config={"method": "grpo", "knobs": {}, "reward": {"judge": None}},
    )
    return session.outcomes["rl"].manifest.key


def _asked(session: Session) -> dict:
    return {**session.outcomes["labels"].manifest.config["asked"], "templates": "microworld"}


def make(session, stage, outputs, inputs, *, text="x", config=None, metrics=None) -> dict[str, Artifact]:
    """A finished stage with these outputs (folders are models), as a run would leave it."""
    from flows.session import Outcome

    key = digest_json([stage, {name: a.digest for name, a in inputs.items()}])
    directory = session.run.stage_path(stage, key)
    for path in outputs.values():
        file = directory / path if Path(path).suffix else directory / path / "config.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text if Path(path).suffix else f'{{"made": "{stage}"}}')
    manifest = Manifest(
        stage=stage,
        key=key,
        code_version=1,
        created_at="2026-01-02T03:04:05+00:00",
        seconds=1.0,
        config={"knobs": {}, **(config or {})},
        constitution=None,
        inputs={n: FileRecord(path=session._relative(a.path), digest=a.digest) for n, a in inputs.items()},
        outputs={n: FileRecord(path=p, digest=digest_path(directory / p)) for n, p in outputs.items()},
        metrics=metrics or {"pairs": len(NUMBERS)},
        peak_memory=PeakMemory(process_bytes=1, child_bytes=1, total_bytes=1),
        versions={},
    )
    manifest.write(directory)
    session.outcomes[stage] = Outcome(stage=stage, directory=directory, manifest=manifest, reused=False)
    session.run.note_stage(session.attempt, stage, manifest, reused=False)
    return {
        n: Artifact(path=str(directory / p), digest=manifest.outputs[n].digest) for n, p in outputs.items()
    }


def verdicts(session: Session, said: str) -> None:
    """A person's words on the first pairs: a, b, or t for a tie."""
    label_set = session.outcomes["labels"].manifest.metrics["label_set"]
    words = {"a": "A", "b": "B", "t": "tie"}
    with Ledger.open(str(session.run.path / "ledger.db")) as ledger:
        looked = list(labelled_pairs(ledger, label_set))[: len(said)]
        given = [Given(labelled=x, shown="ab", said=words[s]) for x, s in zip(looked, said, strict=True)]
        record(ledger, given, reviewer="Ada")


@pytest.fixture
def found(built):
    session, key = built
    with Ledger.open(str(session.run.path / "ledger.db")) as ledger:
        return lineage(session.run.path, "rl", key, ledger)


def test_it_is_followed_from_the_policy_to_what_came_from_outside(found, built, tiny_model):
    assert [step["stage"] for step in found["steps"]] == ["sl_cai", "pairs", "labels", "reward_model", "rl"]
    assert found["step"] == f"rl/{built[1][:KEY_LENGTH]}" and found["method"] == "grpo" and not found["gaps"]
    assert found["base"] == {"path": str(tiny_model), "digest": digest_path(tiny_model)}
    by_stage = {step["stage"]: step for step in found["steps"]}
    assert by_stage["rl"]["inputs"]["reward_model"]["step"] == by_stage["reward_model"]["id"]
    assert by_stage["labels"]["constitution"]["half"] == "comparison"
    assert by_stage["sl_cai"]["inputs"]["model"]["step"] is None


def test_labels_are_counted_from_the_rows_that_trained(found, built):
    session, _ = built
    trained = [row for _, row in read_rows(Path(session.outputs["labels", "preferences"].path))]
    (counted,) = found["labels"]
    assert counted["trained"] == {
        "labels": len(trained),
        "soft": len(trained) - 3,
        "hard": 3,
        "statuses": dict(Counter(row["status"] for row in trained).most_common()),
        "by_people": 4,
    }
    drawn = Counter(name for row in trained for name in row["principles"])
    assert {p["id"]: p["drawn"] for p in counted["principles"]} == drawn and drawn.total() == 2 * len(trained)
    assert counted["label_set"] == session.outcomes["labels"].manifest.metrics["label_set"]
    # q00 and q03 are the judge's ties: Ada decided the first and said tie to the other; she turned q02 round.
    assert counted["people"] == {"confirmed": 2, "overridden": 2, "supplied": 0}


def test_judge_and_exam_come_from_the_ledger(found):
    ((judge,), *_) = [record["judges"] for record in found["labels"]]
    assert (judge["model"], judge["revision"], judge["kind"]) == ("scripted", "1", "scripted")
    assert judge["exam"]["accuracy"]["share"] == 1.0 and judge["exam"]["pairs"] == 39
    assert exam_words(judge["exam"]).startswith("passed: accuracy 100%")
    assert exam_words(None) == "not taken"
    assert exam_words({**judge["exam"], "passed": False, "problems": ["flips 0.9"]}).startswith(
        "failed (flips 0.9)"
    )


def test_rounded_targets_make_every_label_hard_and_leave_halves_out(built):
    session, _ = built
    start = {"preferences": session.outputs["labels", "preferences"]}
    before = session.outcomes["reward_model"]
    make(session, "reward_model", {"model": "model"}, start, config={"knobs": {"targets": "hard"}})
    key = session.outcomes["reward_model"].manifest.key
    session.outcomes["reward_model"] = before
    counted = lineage(session.run.path, "reward_model", key, None)["labels"][0]["trained"]
    trained = [row for _, row in read_rows(Path(start["preferences"].path))]
    assert counted["soft"] == 0 and counted["hard"] == sum(row["p"] != 0.5 for row in trained) < len(trained)


def test_without_the_ledger_nobody_is_named(built):
    session, key = built
    found = lineage(session.run.path, "rl", key, None)
    assert found["labels"][0]["judges"] is None
    assert ["judge", "unknown: the ledger is not here, or does not hold this label set"] in fact_rows(found)
    assert "Labels" in picture(found)


def test_what_was_replaced_since_is_a_gap_and_not_followed(built, tmp_path):
    session, key = built
    moved = tmp_path / "run"
    shutil.copytree(session.run.path, moved)
    assert len(trace(moved, "rl", key).steps) == 5, "a run directory may be moved"
    id = f"reward_model/{session.outcomes['reward_model'].manifest.key[:KEY_LENGTH]}"
    manifest = Manifest.read(moved / id)
    changed = {"model": FileRecord(path="model", digest="0" * 64)}
    replace(manifest, outputs=changed).write(moved / id)
    left = lineage(moved, "rl", key, None)
    assert [step["stage"] for step in left["steps"]] == ["sl_cai", "rl"] and not left["labels"]
    assert len(left["gaps"]) == 1 and "which is not there any more" in left["gaps"][0]
    assert lineage_sentences(left)[0].startswith("Warning: rl/")
    with pytest.raises(FlowError, match="stage rl is not finished there"):
        trace(moved, "rl", "0" * 64)


def test_tables_and_sentences_say_it(found):
    facts = dict(fact_rows(found))
    assert (
        facts["labels"].startswith("30 of 30 pairs trained:") and facts["soft and hard"] == "27 soft, 3 hard"
    )
    assert facts["people"] == "2 labels confirmed, 2 overridden"
    assert (
        facts["policy"].startswith("GRPO, rl/") and "right on 75% of held-out labels" in facts["reward model"]
    )
    assert facts["constitution"] == "tiny (working file)"
    assert lineage_sentences(found) == [
        "The policy comes from 30 labels under 3 principles; a person looked at 4 of them."
    ]
    heading, *principles = principle_rows(found)
    assert heading[0] == "principle" and sum(int(row[2]) for row in principles) == 60
    steps = {row[0].partition("/")[0]: row for row in step_rows(found)[1:]}
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
    changed = json.loads(json.dumps(found))
    for step in changed["steps"]:
        if step["constitution"]:
            step["constitution"]["ref"] = hostile
        for read in step["inputs"].values():
            if read["step"] is None:
                read["path"] = hostile
    changed["labels"][0]["judges"][0]["model"] = hostile
    text = str(picture(changed))
    assert "<script" not in text and "<h1" not in text and "\x00" not in text and "\u202e" not in text
    ET.fromstring(text)
    assert len(text) < 20_000


def test_the_command_reads_a_runs_folder(built, found, tmp_path):
    session, _ = built
    path = str(session.run.path)
    told = CliRunner().invoke(cli, ["lineage", path])
    assert told.exit_code == 0 and "2 labels confirmed, 2 overridden" in told.output
    as_json = CliRunner().invoke(cli, ["lineage", path, "--json"])
    assert json.loads(as_json.output) == found == lineage_of_run(session.run.path)
    with pytest.raises(FlowError, match="is not a run's folder"):
        lineage_of_run(tmp_path)


def test_costs_are_the_ledgers_and_money_only_at_stated_prices(built):
    session, _ = built
    stage = session.outcomes["labels"].directory.relative_to(session.run.path).as_posix()
    costs = label_costs(session, [stage])
    assert costs["labels"] == 30 and costs["judge"] == costs["attempt"]
    assert costs["judge"] == {
        "judgements": 120,
        "prompt_tokens": 6000,
        "completion_tokens": 120,
        "seconds": pytest.approx(60.0),
        "charged": None,
    }
    assert costs["money"] == {"judge": pytest.approx(6120 * 2.0 / 1e6), "people": 15.0}
    (said,) = cost_sentences(costs)
    assert "6,120 tokens and 60 s of the judge, 0.012 at the stated price" in said
    assert said.endswith("labels by people would have cost 15.00, 1,225 times as much.")
    assert (
        price_words(costs)
        == "At the prices that the configuration states: 2 a million tokens, 0.5 a label by a person."
    )
    assert ["money, labels by people", "15.00", "", "0.50"] in cost_rows(costs)
    text, draw = cost_figure(costs)
    assert text == said and svg(draw).count("money at the stated prices") == 1

    free = session.config.model_copy(update={"report": type(session.config.report)()})
    unpriced = label_costs(replace(session, config=free), [stage])
    assert "money" not in unpriced and "prices" not in unpriced and price_words(unpriced) == ""
    assert "price" not in cost_sentences(unpriced)[0] and not any(
        "money" in row[0] for row in cost_rows(unpriced)
    )
    assert "money" not in svg(cost_figure(unpriced)[1])
    assert (
        label_costs(session, []) == {}
        and cost_rows({}) == [] == cost_sentences({})
        and cost_figure({}) is None
    )


def test_written_tokens_may_have_a_price_of_their_own(built):
    session, _ = built
    prices = type(session.config.report)(price_per_million_tokens=1.0, price_per_million_written_tokens=100.0)
    config = session.config.model_copy(update={"report": prices})
    stage = session.outcomes["labels"].directory.relative_to(session.run.path).as_posix()
    costs = label_costs(replace(session, config=config), [stage])
    assert costs["money"] == {"judge": pytest.approx((6000 + 120 * 100) / 1e6)}
    assert (
        price_words(costs)
        == "At the prices that the configuration states: 1 a million tokens read, 100 written."
    )


def test_a_later_attempt_paid_nothing_for_labels_that_were_there(built):
    session, _ = built
    later = replace(session.attempt, started_at="2999-01-01T00:00:00+00:00")
    stage = session.outcomes["labels"].directory.relative_to(session.run.path).as_posix()
    costs = label_costs(replace(session, attempt=later), [stage])
    assert costs["attempt"]["judgements"] == 0 < costs["judge"]["judgements"]
    assert "0 and 0 s of it in this attempt" in cost_sentences(costs)[0]
