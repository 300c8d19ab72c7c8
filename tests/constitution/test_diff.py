"""Diffs by principle, and their two views."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from constitution.diff import diff, summarize, word_diff
from constitution.loading import load
from constitution.model import ComparisonPrinciple, Constitution
from constitution.views import code, constitution_markdown, diff_markdown, diff_text, escape


def of(*principles: ComparisonPrinciple, **fields: object) -> Constitution:
    return Constitution(name="c", metadata={}, comparison=principles, **fields)  # type: ignore[arg-type]


A = ComparisonPrinciple(id="a", question="Choose the shorter answer.", dimension="concise")
B = ComparisonPrinciple(id="b", question="Choose the kinder answer.", dimension="polite", weight=2)
C = ComparisonPrinciple(id="c", question="Choose the truer answer.", dimension="honest")


def test_by_principle():
    old = of(A, B)
    new = of(C, replace(A, question="Choose the longer answer.", weight=3), description="x")
    assert summarize(old, new) == [
        "comparison c: added",
        "comparison a: question changed, weight 1 → 3",
        "comparison b: removed",
        "description changed",
    ]
    assert summarize(old, of(B, replace(A, enabled=False))) == ["comparison a: disabled"]
    assert summarize(of(replace(A, enabled=False)), of(A)) == ["comparison a: enabled"]
    assert not diff(old, of(B, A)) and summarize(old, old) == []


def test_words_are_marked():
    result = diff(of(A), of(replace(A, question="Choose the much longer answer.")))
    assert "Choose the [-shorter-] {+much longer+} answer." in diff_text(result, colour=False)
    assert "\x1b[31;9mshorter\x1b[0m \x1b[32mmuch longer\x1b[0m" in diff_text(result, colour=True)
    assert "Choose the <del>shorter</del> <ins>much longer</ins> answer." in diff_markdown(result)
    assert "No difference in meaning." in diff_text(diff(of(A), of(A)), colour=True)
    assert "No difference in meaning." in diff_markdown(diff(of(A), of(A)))


@given(st.text(max_size=60), st.text(max_size=60))
def test_word_diff_holds_both_texts(old: str, new: str):
    runs = word_diff(old, new)
    assert " ".join(run.text for run in runs if run.op != "added").split() == old.split()
    assert " ".join(run.text for run in runs if run.op != "removed").split() == new.split()


def test_texts_of_a_file_cannot_speak_markdown_or_move_the_cursor():
    hostile = "<script>alert(1)</script> [x](http://e) **b** | `c` \x1b[2J"
    result = diff(
        of(A), of(replace(A, question=hostile), ComparisonPrinciple(id="n", question=hostile, dimension="d"))
    )
    page = diff_markdown(result) + constitution_markdown(result.new)
    assert "<script>" not in page and "](http" not in page and "**b**" not in page and "`c`" not in page
    assert "\x1b" not in diff_text(result, colour=False)


@given(st.text())
def test_escape_leaves_one_line_without_html(text: str):
    shown = escape(text).replace("<!-- -->", "")  # what parts an address
    assert "\n" not in shown and "<" not in shown and ">" not in shown


def test_a_constitution_as_a_page():
    page = constitution_markdown(load("hhh@1.0.0"))
    assert (
        "# hhh@1.0.0" in page.replace("\\", "") and "| 10.0% |" in page and "16" not in page.splitlines()[0]
    )
    assert "| off |" in constitution_markdown(of(A, replace(B, enabled=False)))


def test_a_name_stays_code():
    assert code("a`b|c\n<d>") == "`a�b�c �d�`"
    assert escape("that's <b> & _it_") == "that's &lt;b&gt; &amp; \\_it\\_"
