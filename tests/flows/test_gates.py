"""The exam and the audit as gates: what stops a run before anything is trained on labels, and what lets it go on."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

import flows.labelling.exam
import flows.labelling.gates
import flows.labelling.judge
import flows.stages.judge_exam as judge_exam
from common.rows import read_rows
from constitution import Constitution
from flows.config import RunConfig
from flows.config.forms import RunRequest
from flows.config.forms_judging import ExamRequest
from flows.errors import FlowError
from flows.labelling.exam import Exam, exam_pairs, read_all, take
from flows.labelling.gates import audit_gate, audit_problem, exam_gate, training_gate
from flows.labelling.known_pairs import generated_pairs
from flows.labelling.provenance import exam_record
from flows.pipeline.launch import finish, open_session, resolve, run_stages
from flows.pipeline.session import Session
from flows.report.findings import findings
from flows.runs.progress import Silent
from flows.stages import labels
from flows.stages.contract import Artifact
from judges import Call, Ledger, ScriptedJudge
from judges.audit import Given, record
from judges.ledger.reading import labelled_pairs

# The longer one is right in every other pair, and the responses say which is good.
KNOWN = [
    {
        "prompt": f"Question {i}?",
        "chosen": f"good {i}" + " indeed" * (i % 2),
        "rejected": f"bad {i}" + " indeed" * (1 - i % 2),
    }
    for i in range(40)
]


def texts(call: Call) -> dict[str, str]:
    body = call.messages[-1]["content"]
    return dict(re.findall(r"^\(([AB])\) (.*)$", body, re.MULTILINE))


def knows(call: Call) -> float:
    return 0.9 if texts(call)["A"].startswith("good") else 0.1


def longer(call: Call) -> str:
    return max("AB", key=lambda letter: len(texts(call)[letter]))


def obeys(call: Call) -> float:
    found = texts(call)
    told = next((letter for letter in "AB" if "Choose it" in found[letter]), None)
    return knows(call) if told is None else {"A": 0.9, "B": 0.1}[told]


@pytest.fixture
def examined(tmp_path, make_run, tiny_model, monkeypatch):
    """`examined(judge function, **exam section)`: a run up to its exam, with its known pairs; gives the session."""

    def start(answer, *, to_stage="judge_exam", **section) -> Session:
        (tmp_path / "known.jsonl").write_text("".join(json.dumps(row) + "\n" for row in KNOWN))
        exam = {"pairs": ["known.jsonl"], "probe_pairs": 8, **section}
        path = make_run(tmp_path, tiny_model, exam=exam, labels={"templates": "microworld"})
        judge = ScriptedJudge(answer, name=getattr(answer, "__name__", "always A"))
        for module in (judge_exam, flows.labelling.gates):
            monkeypatch.setattr(module, "make_judge", lambda settings, **_: judge)
        with open_session(RunRequest(config=str(path)), Silent()) as session:
            run_stages(session, to_stage=to_stage)
        return session

    return start


def stages_done(tmp_path) -> set[str]:
    return {path.parent.parent.name for path in tmp_path.glob("runs/tiny/*/*/manifest.json")}


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (lambda call: "A", r"decided 0\.000 < 0\.600"),
        (longer, r"accuracy 0\.\d+ < 0\.700"),
        (obeys, r"turned by injection 1\.000 > 0\.150"),
    ],
)
def test_a_judge_that_only_seems_to_judge_stops_the_run_before_training(examined, tmp_path, answer, reason):
    with pytest.raises(
        FlowError, match=rf"failed its exam under .*{reason}.*exam\.require: false"
    ) as stopped:
        examined(answer, to_stage="reward_model")
    assert "\n" not in str(stopped.value)
    assert stages_done(tmp_path) == {"prompts"}
    (page,) = tmp_path.glob("runs/tiny/judge_exam/*/exam.html")
    assert "Failed" in page.read_text() or "FAILED" in page.read_text()
    record = json.loads((tmp_path / "runs" / "tiny" / "run.json").read_text())
    assert record["attempts"][-1]["status"] == "failed"


def test_a_judge_that_knows_passes_and_is_not_examined_twice(examined):
    first = examined(knows)
    metrics = first.outcomes["judge_exam"].manifest.metrics
    assert metrics["passed"] and metrics["accuracy"] == 1.0 and metrics["source"] == "known.jsonl"
    assert examined(knows).outcomes["judge_exam"].reused
    exam_gate(first.config, first.constitution)
    assert not examined(knows, min_accuracy=0.9).outcomes["judge_exam"].reused, (
        "other thresholds, another exam"
    )


def test_without_require_a_failed_exam_is_a_warning_and_with_it_training_asks_again(examined):
    session = examined(longer, require=False)
    metrics = session.outcomes["judge_exam"].manifest.metrics
    assert metrics["taken"] and not metrics["passed"]
    exam_gate(session.config, session.constitution)
    summary = json.loads((session.directory.path / "summary.json").read_text())
    assert summary["judge_exam"]["problems"] == metrics["problems"]
    report = (session.directory.path / "report.html").read_text()
    assert "the judge failed its exam" in report
    required = session.config.model_copy(
        update={"exam": session.config.exam.model_copy(update={"require": True})}
    )
    with pytest.raises(FlowError, match="failed its exam"):
        exam_gate(required, session.constitution)


def test_without_pairs_and_world_there_is_no_exam(tmp_path, make_run, tiny_model):
    path = make_run(tmp_path, tiny_model)
    with open_session(RunRequest(config=str(path)), Silent()) as session:
        run_stages(session, to_stage="prompts")
        assert "judge_exam" not in session.outcomes
        exam_gate(session.config, session.constitution)
        audit_gate(session)


def test_generated_pairs_are_known_under_the_principles_that_they_draw():
    from constitution import load

    c = load("microworld@1.0.0")
    pairs = generated_pairs(c, n=30, seed=1, principles=2)
    assert len({k.pair.id for k in pairs}) == 30 and pairs == generated_pairs(c, n=30, seed=1, principles=2)
    assert 5 < sum(k.winner == "a" for k in pairs) < 25
    assert generated_pairs(load("hhh@1.0.0"), n=20, seed=1, principles=1) == []


@pytest.mark.parametrize(
    ("constitution", "templates", "source", "count"),
    [
        ("microworld@1.0.0", "microworld", "generated pairs on held-out topics", 25),
        ("microworld@1.0.0", "default", "our own pairs", 25),
        ("hhh@1.0.0", "microworld", "our own pairs", 25),
    ],
)
def test_without_files_the_microworlds_judge_is_asked_about_its_world(constitution, templates, source, count):
    request = ExamRequest(constitution=constitution, templates=templates, limit=count)
    known, skipped, found = exam_pairs(Exam.of_request(request))
    assert (len(known), skipped, found) == (count, [], source)


def test_a_limit_is_one_of_all_files_together(tmp_path):
    for name in "ab":
        rows = [{**row, "prompt": f"{name} {row['prompt']}"} for row in KNOWN]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    files = [tmp_path / "a.jsonl", tmp_path / "b.jsonl"]
    assert [len(read_all(files, limit=n)[0]) for n in (10, 40, 55, None)] == [10, 40, 55, 80]


@pytest.fixture
def outside(tmp_path, make_run, tiny_model, monkeypatch):
    """`outside(judge function, ledger=…, **sections)`: a run that has no exam of its own, and one taken beside it."""
    (tmp_path / "known.jsonl").write_text("".join(json.dumps(row) + "\n" for row in KNOWN))
    monkeypatch.chdir(tmp_path)

    def start(answer, *, ledger=None, other=(), **sections) -> tuple[RunConfig, Constitution]:
        judge = ScriptedJudge(answer)
        for module in (flows.labelling.gates, flows.labelling.exam, flows.labelling.judge):
            monkeypatch.setattr(module, "make_judge", lambda settings, **_: judge)
        path = make_run(tmp_path, tiny_model, **{"labels": {"templates": "microworld"}, **sections})
        examined = resolve(RunRequest(config=str(path), changes=other))
        take(Exam.of_run(*examined, files=(tmp_path / "known.jsonl",), ledger=ledger))
        return resolve(RunRequest(config=str(path)))

    return start


@pytest.mark.parametrize("ledger", [None, "runs/exams.db"])
def test_a_failed_exam_blocks_whichever_way_it_was_taken(outside, ledger):
    config, constitution = outside(longer, ledger=ledger)
    with pytest.raises(FlowError, match="failed its exam"):
        exam_gate(config, constitution)


def test_the_default_place_of_exams_is_looked_at_from_any_folder(outside, tmp_path, monkeypatch):
    config, constitution = outside(longer, ledger="runs/exams.db")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    with pytest.raises(FlowError, match="failed its exam"):
        exam_gate(config, constitution)


def test_an_exam_in_another_way_of_asking_counts_for_nothing(outside):
    config, constitution = outside(longer, other=("labels.tie_margin=0.2",))
    assert exam_gate(config, constitution) is None
    config, constitution = outside(longer, other=("seed=9", "labels.batch_pairs=8"))
    with pytest.raises(FlowError, match="failed its exam"):
        exam_gate(config, constitution)


def test_the_runs_thresholds_hold_outside_of_the_run(outside):
    config, constitution = outside(knows, exam={"max_calibration_error": 0.01})
    with pytest.raises(FlowError, match=r"calibration error 0\.100 > 0\.010"):
        exam_gate(config, constitution)


class _Heard(Silent):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def warned(self, text: str) -> None:
        self.lines.append(text)


def _labelled(path: Path, folder: Path) -> tuple[Session, list[str]]:
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in PAIRS))
    heard = _Heard()
    with open_session(RunRequest(config=str(path)), heard) as session:
        session.outputs["pairs", "pairs"] = Artifact(path=str(folder / "pairs.jsonl"), digest="0" * 64)
        session.execute(labels.STAGE)
        training_gate(session, heard)
        finish(session)
    return session, heard.lines


def test_a_judge_without_an_exam_is_named_in_log_summary_and_report(outside, tmp_path):
    outside(longer, other=("labels.tie_margin=0.2",))
    session, lines = _labelled(tmp_path / "run.yaml", tmp_path)
    (line,) = lines
    named = re.search(r"charter judge exam --config (\S+/config\.yaml) --pairs FILE", line)
    assert line.startswith("the judge was not examined: ") and named
    summary = json.loads((session.directory.path / "summary.json").read_text())
    assert summary["judge_exam"]["taken"] is False
    assert "the judge was not examined" in (session.directory.path / "report.html").read_text()
    # The command that it names takes the exam that was missing.
    take(Exam.of_run(*resolve(RunRequest(config=named[1])), files=(tmp_path / "known.jsonl",)))
    with pytest.raises(FlowError, match="failed its exam"):
        exam_gate(session.config, session.constitution)


def test_an_exam_taken_beside_the_run_enters_its_record_and_its_ledger(outside, tmp_path):
    outside(knows, ledger="runs/exams.db")
    session, lines = _labelled(tmp_path / "run.yaml", tmp_path)
    assert lines == []
    assert exam_record(session).passed and exam_record(session).source == "known.jsonl"
    with Ledger.open(str(session.directory.path / "ledger.db")) as ledger, ledger.read() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM exams").scalar() == 1
    training_gate(session, _Heard())
    with Ledger.open(str(session.directory.path / "ledger.db")) as ledger, ledger.read() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM exams").scalar() == 1


PAIRS = [
    {"id": f"q{i:02d}", "prompt": [{"role": "user", "content": f"Question {i}?"}], "a": f"good {i}", "b": f"bad {i}"}
    for i in range(30)
]  # fmt: skip


@pytest.fixture
def labelled_run(tmp_path, make_run, tiny_model, monkeypatch):
    """`labelled_run(**audit section)`: a session whose labels stage is done, by a judge that knows half of the time."""
    import flows.labelling.judge

    judge = ScriptedJudge(lambda call: knows(call))
    for module in (flows.labelling.gates, flows.labelling.judge):
        monkeypatch.setattr(module, "make_judge", lambda settings, **_: judge)

    def start(**section) -> Session:
        path = make_run(tmp_path, tiny_model, audit=section, labels={"templates": "microworld"})
        (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in PAIRS))
        with open_session(RunRequest(config=str(path)), Silent()) as session:
            session.outputs["pairs", "pairs"] = Artifact(path=str(tmp_path / "pairs.jsonl"), digest="0" * 64)
            session.execute(labels.STAGE)
        return session

    return start


def say(session: Session, said, n: int, *, who: str = "Ada") -> None:
    label_set = session.outcomes["labels"].manifest.metrics["label_set"]
    with Ledger.open(str(session.directory.path / "ledger.db")) as ledger:
        pairs = list(labelled_pairs(ledger, label_set))[:n]
        record(
            ledger, [Given(labelled=x, shown="ab", said=said(i)) for i, x in enumerate(pairs)], reviewer=who
        )


def preferences(session: Session) -> dict[str, dict]:
    rows = read_rows(Path(session.outputs["labels", "preferences"].path))
    return {row["pair_id"]: row for _, row in rows}


def test_labels_that_people_do_not_share_are_refused(labelled_run):
    session = labelled_run(min_verdicts=10)
    audit_gate(session)
    say(session, lambda i: "AB"[i % 2], 9)
    audit_gate(session)  # too few to say anything
    say(session, lambda i: "AB"[i % 2], 24)
    with pytest.raises(
        FlowError, match=r"kappa 0\.000 < 0\.200 \(audit.min_kappa\) on 24 pairs.*audit.override: true"
    ):
        audit_gate(session)
    waived = labelled_run(min_verdicts=10, override=True)
    audit_gate(waived)
    problem = audit_problem(waived)
    assert problem is not None
    warned = findings(
        _data(
            audit={
                "problem": problem,
                "pairs": 24,
                "failed": 0,
                "same": {"hits": 12, "of": 24, "share": 0.5, "low": 0.3, "high": 0.7},
                "kappa": {"value": 0, "n": 24, "low": 0, "high": 0},
                "alpha": None,
                "reviewers": {"Ada": 24},
            }
        )
    )
    assert warned[0].startswith("Warning: people and the judge agree at kappa")


def test_a_required_audit_waits_for_people(labelled_run):
    session = labelled_run(min_verdicts=4, require=True)
    with pytest.raises(FlowError, match="people judged 0 of the pairs that may train, fewer than"):
        audit_gate(session)
    say(session, lambda i: "A", 4)
    audit_gate(session)


def test_a_verdict_overrides_and_makes_another_training_set(labelled_run):
    first = labelled_run()
    before = preferences(first)
    assert before["q00"]["source"] == "judge" and before["q00"]["chosen"][0]["content"] == "good 0"
    assert labelled_run().outcomes["labels"].reused
    say(first, lambda i: ("B", "tie", "A")[i], 3)
    after = labelled_run()
    assert not after.outcomes["labels"].reused
    rows = preferences(after)
    assert (rows["q00"]["chosen"][0]["content"], rows["q00"]["p"], rows["q00"]["source"]) == (
        "bad 0",
        1.0,
        "human",
    )
    assert "q01" not in rows, "a tie trains only where the configuration admits ties"
    assert rows["q02"]["source"] == "human" and rows["q03"] == before["q03"]
    labels_file = [row for _, row in read_rows(Path(after.outputs["labels", "labels"].path))]
    assert (labels_file[0]["person"], labels_file[0]["p"] > 0.5) == ("b", True), "the judge's verdict stays"
    assert after.outcomes["labels"].manifest.metrics["asked"] == 0
    say(first, lambda i: "B", 1, who="Bob")
    assert labelled_run().outcomes["labels"].reused, "Bob says what Ada said: nothing is made again"


def _data(**summary):
    from flows.report.data import ReportData
    from flows.report.summary import Summary

    made = {
        "name": "x",
        "seed": 0,
        "seconds": 1.0,
        "peak_memory_bytes": 1,
        "models": {},
        "judge": {},
        "revision": {},
        "reward_model": {},
        "constitution": {"published": True, "ref": "x", "digest": "0"},
        "judge_exam": {},
        "rl": {},
        "stages": {},
        **summary,
    }
    return ReportData(summary=Summary.from_json(made))
