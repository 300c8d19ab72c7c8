"""A run whose labels, verdicts and exam are real, with folders for models around them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

import flows.labelling.gates
import flows.labelling.judge
from flows.config.forms import RunRequest
from flows.pipeline.launch import open_session
from flows.pipeline.session import Session
from flows.report.lineage import lineage
from flows.runs.digests import digest_json, digest_path
from flows.runs.manifest import FileRecord, Manifest, PeakMemory
from flows.runs.progress import Silent
from flows.runs.record import Outcome
from flows.stages import labels
from flows.stages.contract import Artifact
from judges import Call, LabelSettings, Ledger, Reading, ScriptedJudge
from judges.audit import Given, record
from judges.exam import ExamSettings, examine, save_exam
from judges.known import KnownPair
from judges.ledger.reading import labelled_pairs
from judges.records import Pair

NUMBERS = range(30)


def reads(call: Call) -> Reading:
    """Likes what is called good; every third pair is a tie."""
    body = call.messages[-1]["content"]
    found = dict(re.findall(r"^\(([AB])\) (\w+ \d+)$", body, re.MULTILINE))
    good = found["A"].startswith("good")
    tie = int(found["A"].split()[1]) % 3 == 0
    logprobs = (-0.69, -0.69) if tie else (-0.1, -2.4) if good else (-2.4, -0.1)
    return Reading(status="ok", logprobs=logprobs, prompt_tokens=50, completion_tokens=1, latency_s=0.5)


@pytest.fixture(scope="session")
def built(tmp_path_factory, make_run, tiny_model):
    """(session, policy's key): labels and verdicts are real, the models around them are folders with a file."""
    folder = tmp_path_factory.mktemp("lineage")
    judge = ScriptedJudge(reads)
    with pytest.MonkeyPatch.context() as patch:
        for module in (flows.labelling.gates, flows.labelling.judge):
            patch.setattr(module, "make_judge", lambda settings, **_: judge)
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
    with Ledger.open(str(session.directory.path / "ledger.db")) as ledger:
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
        exam = ExamSettings(probe_pairs=2, min_lead=-1.0, max_undecided=1.0)
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
    key = digest_json([stage, {name: a.digest for name, a in inputs.items()}])
    directory = session.directory.stage_path(stage, key)
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
    session.directory.note_stage(session.attempt, stage, manifest, reused=False)
    return {
        n: Artifact(path=str(directory / p), digest=manifest.outputs[n].digest) for n, p in outputs.items()
    }


def verdicts(session: Session, said: str) -> None:
    """A person's words on the first pairs: a, b, or t for a tie."""
    label_set = session.outcomes["labels"].manifest.metrics["label_set"]
    words = {"a": "A", "b": "B", "t": "tie"}
    with Ledger.open(str(session.directory.path / "ledger.db")) as ledger:
        looked = list(labelled_pairs(ledger, label_set))[: len(said)]
        given = [Given(labelled=x, shown="ab", said=words[s]) for x, s in zip(looked, said, strict=True)]
        record(ledger, given, reviewer="Ada")


@pytest.fixture
def found(built):
    session, key = built
    with Ledger.open(str(session.directory.path / "ledger.db")) as ledger:
        return lineage(session.directory.path, "rl", key, ledger)


@pytest.fixture
def make_stage():
    """`make_stage(session, stage, outputs, inputs, …)`: a finished stage, as a run would leave it."""
    return make


@pytest.fixture
def labels_folder(built) -> str:
    """The labelling stage's folder in the run directory."""
    session, _ = built
    return session.outcomes["labels"].directory.relative_to(session.directory.path).as_posix()
