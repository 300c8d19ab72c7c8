"""People's verdicts as gold of early stopping: which pairs count, when they are no gold, and a run that has one."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from flows.config import load_config
from flows.config.forms import RoundsRules, RunRequest
from flows.errors import FlowError
from flows.pipeline.forecast.plan import plan_run
from flows.pipeline.launch import open_session, run_stages
from flows.pipeline.rounds import Round, _later_round
from flows.report.data import ReportData
from flows.report.findings import findings
from flows.report.lineage.boxes import in_words
from flows.runs.progress import Silent
from flows.stages import gold_model
from flows.stages.contract import Artifact, Inputs
from flows.stages.registry import MADE_BY
from judges import Ledger, Pair
from judges.ledger import Verdict
from judges.records import Message


def pair(n: int) -> Pair:
    """Two answers of which one ends well."""
    prompt: tuple[Message, ...] = ({"role": "user", "content": f"Question {n}?"},)
    return Pair(id=f"p{n}", prompt=prompt, a=f"{n} is it!", b=f"{n} is not.")


def say(ledger: Path, pairs: list[Pair], winner: str = "a", who: str = "ada") -> None:
    """One more verdict on each pair."""
    verdicts = [
        Verdict(pair_id=p.id, item=p.digest, winner=winner, who=who, why="", created_at=1.0) for p in pairs
    ]
    with Ledger.open(str(ledger)) as opened:
        opened.add_verdicts(verdicts, pairs)


@pytest.fixture
def work(tmp_path, monkeypatch):
    """`work(accuracy, **inputs)`: what the stage gets, with a trainer that comes to this accuracy."""

    def made(accuracy: float = 0.9, **inputs: Path) -> SimpleNamespace:
        def train(work, trainer, *, fields, shown):
            n = round(0.2 * len(Path(fields["data"][0]).read_text().splitlines()))
            return {"eval_accuracy": round(accuracy * n) / n, "held_out_pairs": float(n)}

        monkeypatch.setattr(gold_model, "train", train)
        (tmp_path / "stage").mkdir(exist_ok=True)
        (tmp_path / "pairs.jsonl").touch()
        paths = {"model": tmp_path, "without_pairs": tmp_path / "pairs.jsonl", **inputs}
        return SimpleNamespace(
            directory=tmp_path / "stage",
            run_directory=tmp_path,
            tuning={"ledger": None},
            inputs={name: str(path) for name, path in paths.items()},
            input=lambda name: paths[name],
        )

    return made


def lines(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_what_the_run_trains_on_is_left_out_either_way_round(work, tmp_path):
    pairs = [pair(n) for n in range(130)]
    say(tmp_path / "ledger.db", pairs)
    say(tmp_path / "ledger.db", pairs[:5], "b", "bob")
    say(tmp_path / "ledger.db", [p.swap() for p in pairs[5:8]], "a", "eve")
    say(tmp_path / "ledger.db", pairs[8:10], "tie", "bob")
    own = [pairs[20].to_row(), {**pairs[21].swap().to_row(), "id": "of its own"}]
    found = gold_model.run(
        work(
            without_pairs=lines(tmp_path / "pairs.jsonl", own),
            without_pairs_1=lines(tmp_path / "earlier.jsonl", [pairs[22].to_row()]),
            without_rewrites=lines(
                tmp_path / "rewrites.jsonl",
                [{"prompt": pairs[23].prompt, "chosen": pairs[23].b, "rejected": pairs[23].a}],
            ),
            # As people bring them: the trainer and the import read these turns from the transcript.
            without_human=lines(
                tmp_path / "human.jsonl",
                [
                    {
                        side: f"\n\nHuman: Question 24?\n\nAssistant: {text}"
                        for side, text in (("chosen", pairs[24].a), ("rejected", pairs[24].b))
                    }
                ],
            ),
        )
    )
    kept = [json.loads(line) for line in (tmp_path / "stage/people.jsonl").read_text().splitlines()]
    better = {row["prompt"][0]["content"]: row["chosen"] for row in kept}
    assert len(kept) == len(better) == 123
    assert not {f"Question {n}?" for n in (8, 9, 20, 21, 22, 23, 24)} & better.keys()
    assert [better[f"Question {n}?"] for n in (4, 7, 10)] == ["4 is not.", "7 is not.", "10 is it!"]
    accuracy = found.metrics["accuracy"]
    assert {**found.metrics, "accuracy": None} == {
        "pairs": 123,
        "trained_on": 5,
        "ties": 2,
        "people": 3,
        "names": {"ada": 115, "bob": 5, "eve": 3},
        "accuracy": None,
    }
    assert (accuracy["n"], accuracy["value"]) == (25, pytest.approx(22 / 25))
    assert 0.5 < accuracy["low"] < accuracy["value"] < accuracy["high"] < 1
    assert gold_model.worth(found.metrics) == (
        "123 pairs by 3 people, right about 88% (70 to 96) of 25 held-out ones"
    )


def test_too_few_pairs_are_refused(work, tmp_path):
    pairs = [pair(n) for n in range(105)]
    say(tmp_path / "ledger.db", pairs)
    own = lines(tmp_path / "own.jsonl", [p.to_row() for p in pairs[:6]])
    with pytest.raises(FlowError) as refused:
        gold_model.run(work(without_pairs=own))
    ledger = f"sqlite:///{tmp_path}/ledger.db"
    assert str(refused.value) == (
        f"rl.early_stopping.people: 99 pairs in {ledger} that people decided and this run does not train on; 100 are "
        f"needed; charter labels import FILE --who NAME --ledger {ledger} brings in people's preferences"
    )


def test_a_gold_that_cannot_tell_is_none(work, tmp_path):
    say(tmp_path / "ledger.db", [pair(n) for n in range(100)])
    with pytest.raises(FlowError) as refused:
        gold_model.run(work(0.75))
    assert str(refused.value) == (
        "rl.early_stopping.people: a model of 100 pairs by one person, right about 75% (53 to 89) of 20 held-out "
        "ones, which is too near chance to stop a run by (the interval must lie above 55%); bring in more verdicts, or "
        "name another gold"
    )
    gold_model.run(work(0.8))


def test_the_knobs_are_the_reward_models_with_a_fifth_held_out(tmp_path, make_run):
    path = make_run(tmp_path, tmp_path / "model")
    asked = ["rl.early_stopping.people=true", "reward_model.ensemble=2", "reward_model.epochs=3"]
    few = gold_model.STAGE.settings(load_config(path, [*asked, "reward_model.held_out=0.1"]))
    many = gold_model.STAGE.settings(load_config(path, [*asked, "reward_model.held_out=0.3"]))
    assert (few["knobs"]["held_out"], many["knobs"]["held_out"]) == (0.2, 0.3)
    assert few["knobs"]["epochs"] == 3 and "ensemble" not in few["knobs"] and list(few) == ["knobs"]
    assert gold_model.STAGE.active(load_config(path, asked))
    for other in ("rl.early_stopping.microworld=true", "rl={method: dpo}"):
        assert not gold_model.STAGE.active(load_config(path, [other]))


def test_the_key_follows_the_verdicts_and_reading_makes_no_ledger(tmp_path, make_run):
    config = load_config(make_run(tmp_path, tmp_path / "model"), ["rl.early_stopping.people=true"])
    outputs = {name: Artifact(path="x", digest="d") for name in (("sl_cai", "model"), ("pairs", "pairs"))}

    def verdicts() -> Artifact:
        return gold_model.STAGE.inputs(Inputs(config=config, outputs=outputs, makers=MADE_BY))["verdicts"]

    empty = verdicts()
    assert not config.run_directory.exists() and empty.path == "ledger"
    ledger = config.run_directory / "ledger.db"
    say(ledger, [pair(1)])
    first = verdicts()
    say(ledger, [pair(1)], "a", "bob")
    assert verdicts() == first != empty
    say(ledger, [pair(1).swap()], "a", "bob")
    assert verdicts() != first


def test_later_rounds_leave_out_the_pairs_of_all_rounds(tmp_path, make_run):
    config = load_config(make_run(tmp_path, tmp_path / "model"), ["rl.early_stopping.people=true"])

    def outputs(n: int) -> dict:
        names = (("sl_cai", "model"), ("pairs", "pairs"), ("labels", "preferences"))
        return {name: Artifact(path=f"{name[0]}{n}", digest=str(n)) for name in names}

    done = [
        Round(number=n, outcomes={}, outputs=outputs(n), measure="gold", gain=1.0, kl=0.0) for n in (1, 2)
    ]
    stage = next(s for s in _later_round(done, RoundsRules()) if s.name == "gold_model")
    read = stage.inputs(Inputs(config=config, outputs=outputs(3), makers=MADE_BY))
    assert {name: a.path for name, a in read.items() if name.startswith("without_")} == {
        "without_pairs": "pairs3",
        "without_pairs_1": "pairs1",
        "without_pairs_2": "pairs2",
    }


@pytest.fixture(scope="module")
def peopled(tmp_path_factory, make_run, tiny_model):
    """A run whose ledger has people's verdicts on 160 other pairs, up to its pairs: (config, ledger)."""
    folder = tmp_path_factory.mktemp("people")
    path = make_run(folder, tiny_model, demonstrations=None)
    values = yaml.safe_load(path.read_text())
    ledger = folder / "people.db"
    values["labels"]["ledger"] = f"sqlite:///{ledger}"
    values["rl"]["early_stopping"] = {"people": True, "every": 1}
    values["reward_model"] |= {"epochs": 5, "optimizer": {"learning_rate": 5e-3}}
    path.write_text(yaml.safe_dump(values))
    say(ledger, [pair(n) for n in range(160)])
    go(path, to_stage="pairs")
    return path, ledger


def go(path: Path, **request):
    made = RunRequest(config=str(path), **request)
    with open_session(made, Silent()) as session:
        return session, run_stages(session, to_stage=made.to_stage)


@pytest.mark.slow
def test_a_run_is_stopped_by_what_people_said(peopled, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    path, ledger = peopled
    planned = plan_run(*_resolved(path))
    assert next(s for s in planned.stages if s.stage == "gold_model").steps == 5 * 120 // 8
    directory = path.parent / "runs" / "tiny"
    own = [Pair.from_row(json.loads(r)) for f in directory.glob("pairs/*/pairs.jsonl") for r in f.open()]
    say(ledger, [p if n % 2 else p.swap() for n, p in enumerate(own)])

    session, data = go(path)
    gold, policy = session.outcomes["gold_model"], session.outcomes["rl"]
    metrics = gold.manifest.metrics
    assert (metrics["pairs"], metrics["trained_on"], metrics["people"]) == (160, len(own), 1)
    assert metrics["accuracy"]["n"] == 40 and metrics["accuracy"]["low"] > 0.5
    assert str(path.parent) not in json.dumps([gold.manifest.config, metrics])
    assert policy.manifest.inputs["gold"].digest == gold.manifest.outputs["model"].digest
    trainer = yaml.safe_load((policy.directory / "trainer.yaml").read_text())
    assert trainer["early_stopping"]["gold"] == {
        "kind": "model",
        "name": "gold",
        "path": str(gold.directory / "model"),
    }
    seen = [json.loads(row) for row in (policy.directory / "model" / "early_stopping.jsonl").open()]
    assert [row["n"] for row in seen] == [10, 10, 10]
    said = f"Gold is a model of people's verdicts: {gold_model.worth(metrics)}."
    assert said in findings(ReportData(summary=data.summary))
    page = (directory / "report.html").read_text()
    assert "model of people" in page and "gold of early stopping" in page
    assert "Gold model of early stopping from" in in_words(data.summary.lineage)
    card = (gold.directory / "model" / "README.md").read_text()
    assert "label set" not in card and "verdicts digest" in card

    # A repeated last word changes nothing; a new one makes the gold model and the policy anew.
    say(ledger, [pair(0)], "a", "bob")
    assert all(o.reused for o in go(path)[0].outcomes.values())
    say(ledger, [pair(0)], "b", "bob")
    again = go(path, to_stage="rl")[0].outcomes
    assert {name for name, o in again.items() if not o.reused} == {"labels", "gold_model", "rl"}
    assert again["labels"].manifest.metrics["asked"] == 0
    assert again["gold_model"].manifest.metrics["names"] == {"ada": 159, "bob": 1}


def _resolved(path: Path):
    from flows.pipeline.launch import resolve

    return resolve(RunRequest(config=str(path)))
