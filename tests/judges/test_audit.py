"""The audit: who is shown, what people's verdicts become, and the principle report card."""

from __future__ import annotations

import csv
import json
import re
from collections import Counter

import pytest

from common.errors import DataError
from common.statistics import with_interval
from judges import Call, JudgeError, LabelSettings, Pair, ScriptedJudge, export_preferences, label_pairs
from judges.agreement import alpha_of_counts, cohen_kappa, krippendorff_alpha
from judges.audit import (
    Given,
    agreement,
    audit,
    hardness,
    known_from_verdicts,
    read_sheet,
    record,
    report_card,
    sample,
    shown_order,
    verdicts_digest,
    write_sheet,
)
from judges.audit.verdicts import judged_by
from judges.ledger.reading import find_label_set, labelled_pairs
from judges.records import Label

FORMULA = "=HYPERLINK(1)"


def judge_of(call: Call) -> float:
    """Sure for even numbers, in doubt for odd ones; number 3 follows the slot, and "kind" likes b where 5 divides."""
    body = call.messages[-1]["content"]
    number = int(re.search(r"Question (\d+)", body).group(1))
    if number == 3:
        return 0.9
    texts = re.findall(r"<<response ([AB]) \w+>>\n(.)", body)
    a_first = dict(texts)["A"] == "A"
    p = 0.97 if number % 2 == 0 else 0.6
    if "kinder" in body and number % 5 == 0:
        p = 1 - p
    return p if a_first else 1 - p


@pytest.fixture
def labelled(ledger, make_constitution, make_pairs):
    """(ledger, label set, settings, constitution): forty pairs under two principles each."""
    c = make_constitution(kind="Which is kinder?", true="Which is truer?")
    settings = LabelSettings(principles=2)
    report = label_pairs(
        make_pairs(40), constitution=c, judge=ScriptedJudge(judge_of), ledger=ledger, settings=settings
    )
    return ledger, report.label_set, settings, c


def label(**changes) -> Label:
    values = {"p": 0.9, "p_ab": 0.9, "p_ba": 0.9, "p_raw": None, "spread": 0.0, "status": "ok", **changes}
    return Label(pair_id="x", principles=("p",), judgements=(), digest="0" * 64, **values)


def test_doubt_is_worth_a_look_and_certainty_a_little():
    sure, doubtful = hardness(label()), hardness(label(p=0.55, p_ab=0.55, p_ba=0.55))
    assert sure < doubtful < hardness(label(p=0.5, p_ab=0.9, p_ba=0.1, status="inconsistent")) == 1.0
    assert hardness(label(spread=0.4)) > sure
    assert hardness(label(p=None, p_ab=None, p_ba=None, status="error")) == pytest.approx(0.05)
    assert hardness(label(p=0.6, p_raw=0.97)) < hardness(label(p=0.6)), "a clamped label is not in doubt"


def test_the_sample_is_the_same_for_a_seed_and_leans_towards_doubt(labelled):
    ledger, label_set, *_ = labelled
    everything = list(labelled_pairs(ledger, label_set))
    drawn = sample(everything, 12, seed=4)
    assert drawn == sample(reversed(everything), 12, seed=4) != sample(everything, 12, seed=5)
    assert [x.pair.id for x in sample(everything, 5, seed=4)] == [x.pair.id for x in drawn[:5]]
    counts = Counter(x.pair.id for seed in range(60) for x in sample(everything, 10, seed=seed))
    even = [counts[f"pair-{i:05d}"] for i in range(0, 40, 2) if i % 5]
    odd = [counts[f"pair-{i:05d}"] for i in range(1, 40, 2)]
    assert sum(odd) / len(odd) > 2 * sum(even) / len(even) > 0
    assert "pair-00003" not in {x.pair.id for x in sample(everything, 39, seed=0, without={"pair-00003"})}
    assert sample(everything, 0, seed=0) == []


def test_the_report_counts_what_the_judge_did(labelled):
    ledger, label_set, *_ = labelled
    report = audit(ledger, label_set, sampled=6)
    overall = report.overall
    assert overall.labels == 40 and sum(overall.margins) == 40
    assert (overall.flips.hits, overall.flips.n) == (1, 40)
    assert overall.same_in_both_orders.hits == 39 and overall.flips_to_first.value == 1.0
    assert overall.statuses["inconsistent"] == 1
    # Response a is the longer one; multiples of five are a tie of the two principles.
    assert overall.chose_longer.value == 1.0 and overall.statuses["tie"] == 8
    assert set(report.by_principle) == {"kind", "true"} and report.by_principle["kind"].labels == 40
    assert report.judge.startswith("scripted (") and len(report.sampled) == 6
    assert {j.order for j in report.sampled[0].explanation.judgements} == {"ab", "ba"}
    assert audit(ledger, label_set, sampled=0).overall.labels == 40
    assert audit(ledger, label_set, sampled=3, pair_ids={"pair-00001"}).overall.labels == 1


def test_the_report_card_by_hand(labelled):
    ledger, label_set, *_ = labelled
    card = {row.principle: row for row in report_card(ledger, label_set).rows}
    assert (card["kind"].drawn, card["true"].drawn) == (40, 40)
    assert card["kind"].flips.hits == card["true"].flips.hits == 1
    assert card["kind"].sole == 0 and card["kind"].changed.n == 40
    # Without either, the eight ties have a winner.
    assert card["kind"].changed.hits == card["true"].changed.hits == 8
    (overlap,) = card["kind"].overlaps
    # Number 3 comes to one half exactly under both; the eight multiples of five are opposite.
    assert (overlap.other, overlap.same.hits, overlap.same.n) == ("true", 32, 40)
    assert -1 < overlap.correlation < 1
    assert card["kind"].with_people.n == 0


def test_one_principle_a_pair_has_no_others_to_leave_out(ledger, make_constitution, make_pairs):
    c = make_constitution(kind="Which is kinder?", true="Which is truer?")
    report = label_pairs(
        make_pairs(20), constitution=c, judge=ScriptedJudge(judge_of), ledger=ledger, settings=LabelSettings()
    )
    rows = report_card(ledger, report.label_set).rows
    assert sum(row.sole for row in rows) == 20 == sum(row.drawn for row in rows)
    assert all(row.changed.n == 0 and row.overlaps == () for row in rows)


def test_letters_go_back_to_the_responses_behind_them(labelled):
    ledger, label_set, *_ = labelled
    one = next(labelled_pairs(ledger, label_set))
    said = {(order, letter): Given(labelled=one, shown=order, said=letter).winner
            for order in ("ab", "ba") for letter in ("A", "B", "tie", "skip")}  # fmt: skip
    assert said["ab", "A"] == said["ba", "B"] == "a" and said["ab", "B"] == said["ba", "A"] == "b"
    assert said["ba", "tie"] == "tie" and said["ab", "skip"] is None
    orders = Counter(shown_order(f"pair-{i}", "Ada", seed=1) for i in range(400))
    assert 150 < orders["ab"] < 250
    assert shown_order("x", "Ada", seed=1) == shown_order("x", "Ada", seed=1)


def test_verdicts_override_and_change_the_digest_but_repeat_for_nothing(labelled, tmp_path):
    ledger, label_set, *_ = labelled
    one = list(labelled_pairs(ledger, label_set))[2]  # the judge is sure of a
    assert verdicts_digest(ledger) is None
    given = Given(labelled=one, shown="ba", said="A", note="b is true")
    assert record(ledger, [given, Given(labelled=one, shown="ab", said="skip")], reviewer="Ada") == 1
    first = verdicts_digest(ledger)
    assert record(ledger, [given], reviewer="Ada") == 0 and judged_by(ledger, "Ada") == {one.pair.id}
    again = next(labelled_pairs(ledger, label_set, pair_ids=[one.pair.id]))
    assert (again.verdict.winner, again.verdict.shown, again.verdict.why) == ("b", "ba", "b is true")
    assert again.label == one.label, "the judge's label stays beside it"
    export_preferences(ledger, label_set, tmp_path / "p.jsonl", pair_ids=[one.pair.id])
    row = json.loads((tmp_path / "p.jsonl").read_text())
    assert (row["chosen"][0]["content"], row["p"], row["source"]) == (one.pair.b, 1.0, "human")
    assert record(ledger, [Given(labelled=one, shown="ab", said="B")], reviewer="Bob") == 1
    assert verdicts_digest(ledger) == first, "Bob says the same as Ada"
    record(ledger, [Given(labelled=one, shown="ab", said="tie")], reviewer="Bob")
    assert verdicts_digest(ledger) != first
    with pytest.raises(JudgeError, match="reviewer"):
        record(ledger, [given], reviewer=" ")


def test_agreement_with_people_and_its_intervals(labelled):
    ledger, label_set, *_ = labelled
    assert agreement(ledger, label_set).kappa is None
    everything = list(labelled_pairs(ledger, label_set))
    sure = [x for x in everything if x.label.status == "ok"][:24]
    given = [Given(labelled=x, shown="ab", said="B" if n < 6 else "A") for n, x in enumerate(sure)]
    record(ledger, given, reviewer="Ada")
    record(ledger, [Given(labelled=x.labelled, shown="ab", said="B") for x in given[:6]], reviewer="Bob")
    found = agreement(ledger, label_set)
    assert (found.same.hits, found.same.n, found.failed) == (18, 24, 0)
    assert found.reviewers == {"Ada": 24, "Bob": 6}
    # The judge always says a: nothing beyond chance.
    assert found.kappa.value == pytest.approx(0.0) and found.kappa.low <= 0 <= found.kappa.high
    assert found.alpha.low < found.alpha.value < found.alpha.high
    assert agreement(ledger, label_set, statuses=("tie",)).same.n == 0
    known = known_from_verdicts(ledger, label_set)
    assert Counter(k.winner for k in known) == {"a": 18, "b": 6}


def test_intervals_are_those_of_statsmodels_within_sampling_error():
    """kappa's large-sample standard error is that of Fleiss, Cohen and Everitt (1969)."""
    from statsmodels.stats.inter_rater import cohens_kappa

    table = [[60, 8, 4], [10, 50, 6], [5, 7, 50]]
    counts = {("abt"[i], "abt"[j]): n for i, row in enumerate(table) for j, n in enumerate(row)}
    found, theirs = with_interval(counts, cohen_kappa), cohens_kappa(table)
    assert found.value == pytest.approx(theirs.kappa)
    assert found.n == 200
    assert (found.high - found.low) / 2 == pytest.approx(1.96 * theirs.std_kappa, rel=0.1)
    units = [unit for unit, n in counts.items() for _ in range(n)]
    assert alpha_of_counts(counts) == pytest.approx(krippendorff_alpha(units))


def test_the_sheet_goes_out_and_comes_back(labelled, tmp_path):
    ledger, label_set, *_ = labelled
    rows = list(labelled_pairs(ledger, label_set))[:4]
    out = tmp_path / "sheet.csv"
    assert write_sheet(rows, out, reviewer="Ada") == 4
    with out.open(newline="") as stream:
        sheet = list(csv.DictReader(stream))
    for row, one in zip(sheet, rows, strict=True):
        texts = {"a": one.pair.a, "b": one.pair.b}
        assert [row["A"], row["B"]] == [texts[x] for x in row["shown"]]
        assert not {"p", "status"} & row.keys(), "the judge's view would sway the person"
    for row, said in zip(sheet, ["A", " tie ", "", "b"], strict=True):
        row |= {"verdict": said, "note": "two\nlines"}
    fill(out, sheet)
    given = read_sheet(ledger, label_set, out)
    assert [g.said for g in given] == ["A", "tie", "B"]
    assert given[0].winner == sheet[0]["shown"][0] and given[0].note == "two\nlines"
    assert record(ledger, given, reviewer="Ada") == 3 and record(ledger, given, reviewer="Ada") == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"verdict": "C"}, r":3: verdict: 'C' is not allowed: allowed are A, B, tie, skip"),
        ({"shown": "AB"}, r":3: shown: 'AB' is not allowed"),
        ({"pair_id": "nobody"}, r":3: pair_id: 'nobody' is not allowed: no such pair"),
        ({"label": "ff" * 32}, r":3: label: .* another label now"),
    ],
)
def test_a_bad_row_is_one_line_and_nothing_is_read(labelled, tmp_path, change, message):
    ledger, label_set, *_ = labelled
    out = tmp_path / "sheet.csv"
    write_sheet(list(labelled_pairs(ledger, label_set))[:3], out, reviewer="Ada")
    with out.open(newline="") as stream:
        sheet = [row | {"verdict": "A"} for row in csv.DictReader(stream)]
    sheet[1] |= change
    # The first row's prompt is one line, so the second row stands on line 3.
    fill(out, sheet)
    with pytest.raises(JudgeError, match=message) as raised:
        read_sheet(ledger, label_set, out)
    assert "\n" not in str(raised.value)


def test_other_files_are_refused_in_one_line(labelled, tmp_path):
    ledger, label_set, *_ = labelled
    bad = tmp_path / "bad.csv"
    bad.write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match=r"bad.csv:1: no column pair_id"):
        read_sheet(ledger, label_set, bad)
    bad.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match=r"bad.csv: is not UTF-8"):
        read_sheet(ledger, label_set, bad)
    with pytest.raises(DataError, match="No such file"):
        read_sheet(ledger, label_set, tmp_path / "none.csv")


def test_a_sheet_runs_no_formula(ledger, make_constitution, tmp_path):
    c = make_constitution(kind="Which is kinder?")
    pair = Pair(id="x", prompt=({"role": "user", "content": "Question 2"},), a=FORMULA, b="@b\x1b[2J")
    settings = LabelSettings()
    judge = ScriptedJudge(lambda call: 0.9)
    report = label_pairs([pair], constitution=c, judge=judge, ledger=ledger, settings=settings)
    write_sheet(labelled_pairs(ledger, report.label_set), tmp_path / "s.csv", reviewer="Ada")
    with (tmp_path / "s.csv").open(newline="") as stream:
        (row,) = csv.DictReader(stream)
    assert {row["A"], row["B"]} == {"'" + FORMULA, "'@b\\x1b[2J"}


def test_exams_leave_the_runs_labels_alone(labelled, make_pairs):
    ledger, label_set, settings, c = labelled
    report = label_pairs(
        make_pairs(3, "exam"), constitution=c, judge=ScriptedJudge(judge_of), ledger=ledger,
        settings=settings, purpose="exam",
    )  # fmt: skip
    assert report.label_set != label_set == find_label_set(ledger)
    assert audit(ledger, label_set, sampled=0).overall.labels == 40


def fill(path, rows):
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
