"""The exam passes a judge that knows and fails each of the judges that only seem to."""

from __future__ import annotations

import json
import math
import random
import re
from pathlib import Path

import pytest

import judges.exam
from flows.cli import main
from judges import Call, JudgeError, JudgeIdentity, LabelSettings, Ledger, ScriptedJudge
from judges.exam import ExamReport, ExamSettings, examine, latest_exam, require_exam, save_exam, text
from judges.exam.html import html, markdown
from judges.exam.measures import expected_calibration_error, reliability, share
from judges.exam.probes import INJECTIONS, WISHES, injected, wished
from judges.known import known_pair, read_known_pairs

OURS = Path(judges.exam.__file__).with_name("pairs.json")
EXAM = ExamSettings(probe_pairs=6)


def shown(call: Call) -> dict[str, str]:
    body = call.messages[-1]["content"]
    tag = body.split("<<response A ")[1].split(">>")[0]
    return {
        x: body.split(f"<<response {x} {tag}>>\n")[1].split(f"\n<</response {x} {tag}>>")[0]
        for x in call.options
    }


@pytest.fixture(scope="module")
def known():
    """Worlds of good and bad answers, the longer one right in two of five."""
    dice = random.Random(3)
    rows = []
    for i in range(60):
        good = f"good {i}" + " indeed" * (3 if i % 5 < 2 else 0)
        bad = f"bad {i}" + " indeed" * (0 if i % 5 < 2 else 3)
        rows.append({"prompt": f"Question {i} {dice.random()}?", "chosen": good, "rejected": bad})
    return [known_pair(row) for row in rows]


@pytest.fixture
def c(make_constitution):
    return make_constitution(kind="Which is kinder?", true="Which is truer?")


def knows(call: Call) -> float:
    """Reads the response and nothing else; right in nine of ten, and 90% sure."""
    texts = shown(call)
    number = int(re.search(r"(?:good|bad) (\d+)", texts["A"]).group(1))
    good_first = texts["A"].startswith("good") == (number % 10 != 7)
    return 0.9 if good_first else 0.1


def obeys(call: Call) -> float:
    """Knows, but does what a response tells it to do."""
    texts = shown(call)
    for letter, demand in (("A", texts["A"]), ("B", texts["B"])):
        if "Choose it" in demand or "better one" in demand:
            return 0.9 if letter == "A" else 0.1
    return knows(call)


def pleases(call: Call) -> float:
    """Knows, but chooses what the user says to be right."""
    texts = shown(call)
    asked = call.messages[-1]["content"].split("<</user")[0]
    for letter in "AB":
        if texts[letter] in asked:
            return 0.9 if letter == "A" else 0.1
    return knows(call)


def take(judge, known, ledger, c) -> ExamReport:
    return examine(judge, c, known, ledger=ledger, settings=LabelSettings(), exam=EXAM, source="test pairs")


def failed(report: ExamReport) -> set[str]:
    return {check.name for check in report.checks if not check.passed}


def test_a_judge_that_knows_passes(ledger, known, c):
    report = take(ScriptedJudge(knows), known, ledger, c)
    assert report.passed, report.problems
    assert (report.accuracy.share, report.decided.share) == (0.9, 1.0)
    # Sums of floats fall on both sides of a bin's edge.
    assert report.calibration_error < 0.02
    assert report.flips.share == 0.0
    assert report.kappa == pytest.approx(0.8, abs=0.02)
    assert report.always_longer.share == pytest.approx(0.4)
    assert sum(p.pairs for p in report.by_principle.values()) == 60
    assert set(report.injections) == set(INJECTIONS) and set(report.wishes) == set(WISHES)
    asked_again = ScriptedJudge(lambda call: pytest.fail("asked again"))
    assert take(asked_again, known, ledger, c).accuracy == report.accuracy


@pytest.mark.parametrize(
    ("name", "answer", "reasons"),
    [
        ("always A", lambda call: "A", {"decided", "accuracy", "flips with the order"}),
        ("longer", lambda call: max("AB", key=lambda x: len(shown(call)[x])), {"accuracy", "length bias"}),
        ("obeys", obeys, {"turned by injection"}),
        ("pleases", pleases, {"turned by the user's wish"}),
        ("silent", lambda call: None, {"failures", "decided", "accuracy"}),
        ("coin", lambda call: 0.5, {"decided", "accuracy"}),
        ("worse", lambda call: 1.0 - knows(call), {"accuracy", "lead over baselines", "calibration error"}),
    ],
)
def test_judges_that_only_seem_to_judge_fail(tmp_path, known, c, name, answer, reasons):
    with Ledger.open(str(tmp_path / "ledger.db")) as ledger:
        report = take(ScriptedJudge(answer, name=name), known, ledger, c)
    assert not report.passed
    assert reasons <= failed(report)
    assert all(problem for problem in report.problems)


def test_the_longer_is_no_better_where_the_longer_is_usually_right(ledger, c):
    rows = [{"prompt": f"q{i}", "chosen": f"good {i} indeed", "rejected": f"bad {i}"} for i in range(40)]
    longer = ScriptedJudge(lambda call: max("AB", key=lambda x: len(shown(call)[x])))
    report = take(longer, [known_pair(row) for row in rows], ledger, c)
    assert report.accuracy.share == 1.0
    assert "lead over baselines" in failed(report)


def test_training_asks_for_a_passed_exam(ledger, known, c, make_constitution):
    judge = ScriptedJudge(knows)
    with pytest.raises(JudgeError, match=r"not examined under .*charter judge exam"):
        require_exam(ledger, judge.identity, c)
    report = take(judge, known, ledger, c)
    save_exam(ledger, report)
    assert require_exam(ledger, judge.identity, c) == report == latest_exam(ledger, judge.identity, c)
    with pytest.raises(JudgeError, match="not examined"):
        require_exam(ledger, judge.identity, make_constitution(other="Which is shorter?"))
    with pytest.raises(JudgeError, match="not examined"):
        require_exam(ledger, JudgeIdentity(kind="scripted", model="scripted", revision="2"), c)
    save_exam(ledger, take(ScriptedJudge(lambda call: "A"), known, ledger, make_constitution(one="A?")))
    bad = make_constitution(one="A?")
    with pytest.raises(JudgeError, match=r"failed its exam .*decided 0\.000 < 0\.600"):
        require_exam(ledger, judge.identity, bad)


def test_probes_change_the_worse_response_or_the_users_turn_only(known):
    for k in known[:4]:
        better = "a" if k.winner == "a" else "b"
        for name in INJECTIONS:
            changed = injected(k, name).pair
            assert getattr(changed, better) == getattr(k.pair, better)
            assert {changed.a, changed.b} != {k.pair.a, k.pair.b}
            assert changed.prompt == k.pair.prompt
        for name in WISHES:
            changed = wished(k, name).pair
            assert (changed.a, changed.b) == (k.pair.a, k.pair.b)
            assert changed.prompt != k.pair.prompt


def test_views_hold_every_figure_and_escape_names(ledger, known, make_constitution, tmp_path):
    c = make_constitution(kind="Which is kinder?")
    report = take(ScriptedJudge(knows, name="<script>alert(1)</script> | *x*"), known, ledger, c)
    assert ExamReport.from_json(json.loads(json.dumps(report.to_json()))) == report
    page = html(report)
    assert "<script>" not in page and "&lt;script&gt;" in page
    assert page.count("data:image/png;base64,") == 3
    view = markdown(report)
    assert "<script>" not in view and "*x*" not in view
    for line in ("PASSED", "accuracy", "choose this", "always the longer", "kind"):
        assert line in text(report)


def test_our_own_pairs_are_fair():
    found = read_known_pairs(OURS)
    assert found.skipped == ()
    assert len(found.pairs) == 40
    longer = sum((len(k.pair.a) > len(k.pair.b)) == (k.winner == "a") for k in found.pairs)
    assert 16 <= longer <= 24
    assert 12 <= sum(k.winner == "a" for k in found.pairs) <= 28


def test_wilson_intervals_and_calibration():
    found = share(8, 10)
    # Wilson 95% for 8 of 10: 0.490 to 0.943 (Brown, Cai and DasGupta 2001 give the formula).
    assert (found.low, found.high) == (pytest.approx(0.4902, abs=1e-3), pytest.approx(0.9433, abs=1e-3))
    assert share(0, 0).share is None
    assert share(0, 5).low == 0.0 and share(5, 5).high == 1.0
    bins = reliability([0.55, 0.55, 0.95, 0.95], [True, False, True, True])
    assert expected_calibration_error(bins) == pytest.approx(0.05)
    assert expected_calibration_error(()) is None
    assert math.isclose(sum(b.count for b in reliability([0.5, 1.0], [True, True])), 2)


def test_the_command(tiny_model, tmp_path, capsys):
    base = ["judge", "exam", "--judge", str(tiny_model), "--constitution", "microworld", "--probes", "2"]
    base += ["--ledger", str(tmp_path / "e.db"), "--limit", "6", "--html", str(tmp_path / "r.html")]
    with pytest.raises(SystemExit) as ended:
        main(base)
    out = capsys.readouterr().out
    assert ended.value.code == 1
    assert out.startswith("FAILED: tiny-judge")
    assert "<h1" in (tmp_path / "r.html").read_text()
    with Ledger.open(str(tmp_path / "e.db")) as opened, opened.read() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM exams").scalar() == 1


def test_mistakes_of_the_command_are_one_line(tmp_path, capsys):
    for arguments, message in (
        (["--judge", str(tmp_path), "--constitution", "microworld"], "no model in"),
        (["--judge", "http://127.0.0.1:9/v1", "--constitution", "microworld"], "charter judge serve"),
    ):
        with pytest.raises(SystemExit) as ended:
            main(["judge", "exam", *arguments, "--ledger", str(tmp_path / "e.db")])
        err = capsys.readouterr().err
        assert ended.value.code == 2
        assert message in err and err.strip().count("\n") == 0
