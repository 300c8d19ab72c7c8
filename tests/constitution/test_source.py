"""Reading hostile YAML: whatever the bytes, the answer is data or a ConstitutionError."""

from __future__ import annotations

import re
import time

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from constitution.model import ConstitutionError
from constitution.source import parse_source

NUMBER = re.compile(r"[-+]?[0-9.]+([eE][-+]?[0-9]+)?")


def texts(max_size: int) -> st.SearchStrategy[str]:
    """Texts but for 0E0 and 08, which PyYAML writes without quotes (YAML 1.1) and 1.2 calls numbers."""
    return st.text(max_size=max_size).filter(lambda text: not NUMBER.fullmatch(text))


plain = st.recursive(
    st.booleans() | st.none() | st.integers(-(10**9), 10**9) | texts(20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts(8), inner, max_size=4),
    max_leaves=12,
)


@given(st.binary(max_size=300))
def test_any_bytes_are_data_or_one_error(raw: bytes):
    try:
        parse_source(raw, file="f")
    except ConstitutionError as error:
        assert all(problem.line is not None and problem.line >= 1 for problem in error.problems)


@given(st.text(alphabet="ab:-#[]{}&*!|>'\"%@`,? \n\t~0.", max_size=120))
@settings(max_examples=300)
def test_any_yaml_like_text_is_data_or_one_error(text: str):
    try:
        source = parse_source(text.encode(), file="f")
    except ConstitutionError as error:
        lines = text.count("\n") + 1
        assert all(1 <= problem.line <= lines for problem in error.problems if problem.line is not None)
    else:
        assert all(line >= 1 for line in source.lines.values())


@given(st.dictionaries(texts(8), plain, max_size=4))
def test_reads_what_a_yaml_writer_writes(data: dict):
    # Escapes, because a bare U+0085 counts as a line end in YAML and is folded.
    text = yaml.safe_dump(data, allow_unicode=False)
    assert parse_source(text.encode(), file="f").data == data


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("no", "no"),
        ("yes", "yes"),
        ("on", "on"),
        ("true", True),
        ("False", False),
        ("~", None),
        ("null", None),
        ("12:30", "12:30"),
        ("2026-11-21", "2026-11-21"),
        ("0x10", "0x10"),
        ("1_000", "1_000"),
        ("1e3", 1000.0),
        ("-.5", -0.5),
        ("'5'", "5"),
        ("1.2.0", "1.2.0"),
    ],
)
def test_scalars_are_those_of_yaml_1_2(text: str, value: object):
    assert parse_source(f"a: {text}\n".encode(), file="f").data == {"a": value}


def test_lines_are_those_of_an_editor():
    # YAML counts U+2028 and U+0085 as line ends, editors do not; CR LF is one line end.
    raw = 'a: "one\u2028two\u0085"\r\nb:\r\n  - c\r\n  - d: 1\r\n'.encode()
    lines = parse_source(b"\xef\xbb\xbf" + raw, file="f").lines
    assert (lines[("a",)], lines[("b",)], lines[("b", 0)], lines[("b", 1, "d")]) == (1, 2, 3, 4)


def test_hostile_sizes_are_quick():
    started = time.perf_counter()
    for text in (
        "[" * 900_000,
        "a: " * 300_000,
        "- " * 400_000,
        "? " * 400_000,
        "{a: " * 200_000,
        "!" * 900_000,
    ):
        with pytest.raises(ConstitutionError):
            parse_source(text.encode(), file="f")
    assert time.perf_counter() - started < 5
