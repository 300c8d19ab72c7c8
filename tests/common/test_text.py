"""Model text in Markdown: letter by letter, and no address in it is a link for a renderer."""

from __future__ import annotations

import html
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.text import escape_html, escape_markdown, plain
from constitution.views import escape as constitution_escape

# What Prefect's newer page (remark-gfm) looks for in a text once Markdown is parsed, and its older one (marked) in the
# source. Both see a comment as the end of a text.
IN_TEXT = (
    re.compile(r"(https?://|www(?=\.))([-.\w]+)([^ \t\r\n]*)", re.IGNORECASE),
    re.compile(r"(?:^|(?<=[\s\W_]))([-.\w+]+)@([-\w]+(?:\.[-\w]+)+)(?<![-\d_])"),
)
IN_SOURCE = re.compile(
    r"(ftp|https?)://|www\.[a-z0-9-]+|[a-z0-9._+-]+@[a-z0-9_-]+(\.[a-z0-9_-]*[a-z0-9])+(?![-_])",
    re.IGNORECASE,
)
ADDRESSES = (
    "http://evil.example",
    "HTTPS://evil.example:8/a?b=c#d",
    "http://[2001:db8::1]/a",
    "http://user:pass@evil.example/",
    "www.evil.example",
    "WWW.EVIL.EXAMPLE/a_(b)",
    "ftp://evil.example",
    "a@evil.example",
    "a.b+c-d@e.f-g.example",
    "mailto:a@evil.example",
    "xmpp:a@evil.example/b",
    "http://http://evil.example",
    "wwwww.evil.example",
    "a@1.2.3.example",
    "http://evil.example/name@1.2.0",
)
AROUND = (
    "{}",
    "see {}.",
    "({})",
    "<{}>",
    "[x]({})",
    "[{}]: {}",
    "'{}',",
    "**{}**",
    "|{}|{}|",
    "a{}",
    "{}{}",
    "`{}`",
)

words = st.text(st.sampled_from("aw@:/.htpsHWT+-_[]()<>!*|`\\ \n0é"), max_size=40)
texts = st.one_of(
    words,
    st.builds("".join, st.lists(st.sampled_from(ADDRESSES) | words, max_size=5)),
)


def seen(escaped: str) -> str:
    """What a person reads."""
    plain = re.sub(r"\\([!-/:-@\[-`{-~])", r"\1", escaped.replace("<!-- -->", ""))
    return html.unescape(plain)


def assert_no_links(escaped: str) -> None:
    for part in escaped.split("<!-- -->"):
        assert not any(pattern.search(seen(part)) for pattern in IN_TEXT), part
    assert not IN_SOURCE.search(escaped), escaped


@pytest.mark.parametrize("around", AROUND)
@pytest.mark.parametrize("address", ADDRESSES)
def test_an_address_is_no_link_and_reads_as_it_was(address, around):
    text = around.format(*[address] * around.count("{}"))
    for escape in (escape_markdown, escape_html):
        assert_no_links(escape(text))
        assert seen(escape(text)) == text
    assert_no_links(constitution_escape(text))


@given(texts)
def test_whatever_the_text_no_renderer_finds_an_address(text):
    for escape in (escape_markdown, escape_html, constitution_escape):
        shown = escape(text)
        assert_no_links(shown)
        rest = shown.replace("<!-- -->", "")
        assert "\n" not in rest and "<" not in rest and ">" not in rest


@given(texts)
def test_plain_text_is_no_markup_for_anyone(text):
    shown = plain(text)
    assert not any(pattern.search(shown) for pattern in (*IN_TEXT, IN_SOURCE))
    assert not re.search(r"[<>\[\]*_`|\\@\n]|//|\S{41}", shown)


@pytest.mark.parametrize("cell", ["25 (10-65)", "0.85", "+0.018", "94.5%", "1/3", "SL-CAI", "a = 0.5", "-"])
def test_a_cell_of_figures_stays_as_it_is(cell):
    assert plain(cell) == cell


@given(texts)
def test_a_person_reads_every_letter(text):
    one_line = " ".join(text.split())
    assert seen(escape_markdown(text)) == one_line and seen(escape_html(text)) == one_line


def test_a_version_is_copied_whole():
    assert seen("hhh@1.0.0") in seen(escape_markdown("hhh@1.0.0")) and "<" not in escape_markdown("hhh@1.0.0")
