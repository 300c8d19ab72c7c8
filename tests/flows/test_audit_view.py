"""What the audit shows: hostile text stays text, an artifact stays small, letters stand over the right responses."""

from __future__ import annotations

import re

import pytest

from constitution import ComparisonPrinciple, Constitution
from flows.orchestration.audit_page import given, next_pages
from flows.report.audit import card_markdown, card_rows, report_markdown
from flows.report.audit_pairs import LONGEST_BODY, block, page_markdown
from judges import Call, JudgeError, LabelSettings, Ledger, Pair, ScriptedJudge, label_pairs
from judges.audit import audit, record, report_card

HOSTILE = (
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "[click](javascript:alert(1))",
    "![x](https://evil.example/p.png)",
    "</details><h1>free</h1>",
    "| a | b |\n|---|---|\n```\n# heading\n- list",
    "\u202etxet\x1b[31m\x00",
    "https://evil.example www.evil.example",
    "x" * 100_000,
    "line\n" * 5000,
)


def write_ledger(path, *, pairs: int, text=lambda i: f"answer {i}"):
    """A ledger of pairs judged under two principles whose names and questions are hostile too; gives (url, set)."""
    principles = tuple(
        ComparisonPrinciple(id=name, question=f"Which {name}? <b>{HOSTILE[0]}</b>", dimension="helpful")
        for name in ("kind", "true")
    )
    c = Constitution(name="test", metadata={}, comparison=principles)
    made = [
        Pair(
            id=f"pair-{i:04d}",
            prompt=({"role": "user", "content": f"{text(i)} asked {i}"},),
            a=f"{text(i)} first {i}",
            b=f"{text(i + 1)} second {i}",
        )
        for i in range(pairs)
    ]

    def half_sure(call: Call) -> float:
        return 0.9 if len(call.messages[-1]["content"]) % 3 else 0.2

    with Ledger.open(str(path)) as ledger:
        judge = ScriptedJudge(half_sure, name=HOSTILE[0])
        settings = LabelSettings(principles=2)
        report = label_pairs(made, constitution=c, judge=judge, ledger=ledger, settings=settings)
    return report.label_set


@pytest.fixture
def hostile(tmp_path):
    path = tmp_path / "ledger.db"
    label_set = write_ledger(path, pairs=40, text=lambda i: HOSTILE[i % len(HOSTILE)])
    with Ledger.open(str(path)) as ledger:
        yield ledger, label_set


def assert_inert(markdown: str) -> None:
    """Only our own few tags, our own images, balanced folds; nothing of a text's syntax is left."""
    assert len(markdown.encode()) < 250_000
    tags = {tag.lower() for tag in re.findall(r"</?([a-zA-Z][a-zA-Z0-9]*)", markdown)}
    assert tags <= {"details", "summary", "br", "em", "b", "code", "table", "tr", "td"}
    assert markdown.count("<details>") == markdown.count("</details>")
    assert set(re.findall(r"\]\(([a-z]+):", markdown)) <= {"data"}
    for bad in ("javascript:", "onerror=", "http://", "https://", "www.", "\x1b", "\x00", "\u202e", "```"):
        assert bad not in markdown, bad
    # What a text would begin a line with is escaped; headings and tables are ours.
    for line in markdown.split("\n"):
        if line.startswith("#"):
            assert re.fullmatch(r"#{1,3} (?:[\w &#;]|\\[!-/:-@\[-`{-~])+", line), line[:80]


def test_no_text_of_a_model_a_user_or_a_reviewer_is_markup(hostile):
    ledger, label_set = hostile
    (page, *_) = next_pages(ledger, label_set, reviewer=HOSTILE[0], seed=0, per_page=10, pages=1)
    answers = {f"verdict_{n}": "A" for n in range(1, 11)} | {
        f"note_{n}": HOSTILE[n - 1][:4000] for n in range(1, 11)
    }
    record(ledger, given(page, answers), reviewer=HOSTILE[1])
    report = audit(ledger, label_set, sampled=40)
    assert any(sampled.verdicts for sampled in report.sampled)
    assert_inert(report_markdown(report, title=HOSTILE[4]))
    assert_inert(page_markdown(page.pairs, heading="# Page 1"))
    assert_inert(card_markdown(report_card(ledger, label_set), title=HOSTILE[2]))


def test_what_does_not_fit_is_said(tmp_path):
    label_set = write_ledger(tmp_path / "l.db", pairs=20, text=lambda i: ("*" * 600 + "\n") * 60)
    with Ledger.open(str(tmp_path / "l.db")) as ledger:
        markdown = report_markdown(audit(ledger, label_set, sampled=20), title="run")
        (page,) = next_pages(ledger, label_set, reviewer="Ada", seed=0, per_page=10, pages=1)
    assert len(markdown.encode()) < LONGEST_BODY + 200
    assert re.search(r"\d+ more do not fit here", markdown)
    shown = page_markdown(page.pairs, heading="# Page")
    assert len(shown.encode()) < LONGEST_BODY and shown.count("### Pair") == 10, (
        "no pair of a page is left out"
    )
    assert "4960 more lines" in block("line\n" * 5000) and len(block("x" * 100_000)) < 700
    assert block("") == "<em>nothing</em>"


def test_the_report_shows_every_figure_and_folds_every_pair(tmp_path):
    label_set = write_ledger(tmp_path / "l.db", pairs=12)
    with Ledger.open(str(tmp_path / "l.db")) as ledger:
        markdown = report_markdown(audit(ledger, label_set, sampled=5), title="run")
        card = card_rows(report_card(ledger, label_set))
    assert markdown.count("<details>") == 5 and markdown.count("data:image/png;base64,") == 2
    for said in (
        "same winner in both orders",
        "flips with the order",
        "chose the longer",
        "By principle",
        "No person has",
    ):
        assert said in markdown
    assert [row[0] for row in card[1:]] == ["kind", "true"] and card[1][1] == "12 (100%)"


def test_a_page_maps_letters_to_responses_and_hides_the_judge(tmp_path):
    label_set = write_ledger(tmp_path / "l.db", pairs=30)
    with Ledger.open(str(tmp_path / "l.db")) as ledger:
        first, second = next_pages(ledger, label_set, reviewer="Ada", seed=3, per_page=4, pages=2)
        assert {shown for _, shown in (*first.pairs, *second.pairs)} == {"ab", "ba"}
        markdown = page_markdown(first.pairs, heading="# Page")
        letters = [re.search(r"\w+ \d+$", x).group() for x in re.findall(r"\*\*[AB]\*\*<br>(.*)", markdown)]
        expected = []
        for sampled, shown in first.pairs:
            pair = sampled.labelled.pair
            texts = {"a": pair.a, "b": pair.b}
            expected += [" ".join(texts[name].split()[-2:]) for name in shown]
        assert letters == expected
        before_folds = re.sub(r"<details>.*?</details>", "", markdown, flags=re.DOTALL)
        assert "P(a)" in markdown and "P(a)" not in before_folds and "status" not in before_folds
        answers = {f"verdict_{n}": "A" for n in range(1, 5)} | {f"note_{n}": "" for n in range(1, 5)}
        said = given(first, answers)
        assert [g.winner for g in said] == [shown[0] for _, shown in first.pairs]
        assert record(ledger, said, reviewer="Ada") == 4
        again = next_pages(ledger, label_set, reviewer="Ada", seed=3, per_page=4, pages=8)
        judged = {g.labelled.pair.id for g in said}
        left = [s.labelled.pair.id for page in again for s, _ in page.pairs]
        assert len(left) == 26 and not judged & set(left)
        assert left[:4] == [s.labelled.pair.id for s, _ in second.pairs]
        for reviewer in ("", "  "):
            with pytest.raises(JudgeError, match="give your name"):
                next_pages(ledger, label_set, reviewer=reviewer, seed=3, per_page=4, pages=1)


def test_the_form_has_a_verdict_and_a_note_for_each_pair_and_a_way_out(tmp_path):
    from pydantic import BaseModel, ValidationError

    label_set = write_ledger(tmp_path / "l.db", pairs=3)
    with Ledger.open(str(tmp_path / "l.db")) as ledger:
        (page,) = next_pages(ledger, label_set, reviewer="Ada", seed=0, per_page=5, pages=1)
    form = page.form(BaseModel)
    schema = form.model_json_schema()["properties"]
    order = sorted(schema, key=lambda name: schema[name]["position"])
    assert order == ["verdict_1", "note_1", "verdict_2", "note_2", "verdict_3", "note_3", "stop"]
    assert (
        schema["verdict_2"]["enum"] == ["A", "B", "tie", "skip"] and schema["verdict_2"]["default"] == "skip"
    )
    assert form().model_dump() == {
        **{f"verdict_{n}": "skip" for n in (1, 2, 3)}, **{f"note_{n}": "" for n in (1, 2, 3)}, "stop": False,
    }  # fmt: skip
    with pytest.raises(ValidationError):
        form(verdict_1="C")
