"""Digests, files, statistics, escapes, snapshots, memory: the parts that everything else stands on."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.files import write_atomically, write_jsonl
from common.statistics import mean, rate, wilson
from common.text import clip, escape_html, escape_markdown
from constitution import load, loads
from constitution.snapshot import from_json, to_json
from flows.errors import FlowError
from flows.runs.digests import digest_file, digest_json, digest_model, note_digests, remember_digests
from flows.runs.memory import MemoryWatch
from flows.runs.progress import Terminal


@given(st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=5), st.integers(), min_size=2))
def test_a_digest_does_not_depend_on_order(value):
    backwards = dict(reversed(list(value.items())))
    assert digest_json(value) == digest_json(backwards)


def test_digests_tell_types_apart():
    assert len({digest_json(value) for value in (1, "1", [1], {"1": 1}, True, None)}) == 6


def test_a_digest_takes_no_nan():
    with pytest.raises(ValueError):
        digest_json({"x": float("nan")})


def test_a_model_digest_ignores_what_does_not_speak(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"1")
    before = digest_model(tmp_path)
    (tmp_path / "metrics.jsonl").write_text("{}")
    (tmp_path / "README.md").write_text("card")
    assert digest_model(tmp_path) == before
    (tmp_path / "model.safetensors").write_bytes(b"22")
    assert digest_model(tmp_path) != before


def test_no_model_has_no_digest(tmp_path):
    with pytest.raises(FlowError, match="holds no model"):
        digest_model(tmp_path)


def test_digests_of_large_files_are_remembered_until_they_change(tmp_path):
    big = tmp_path / "big"
    big.write_bytes(b"0" * 2_000_000)
    digest = digest_file(big)
    note = tmp_path / "digests.json"
    note_digests(note)
    rows = json.loads(note.read_text())
    assert next(row for row in rows if row[0] == str(big))[3] == digest
    forged = [[*row[:3], "f" * 64] if row[0] == str(big) else row for row in rows]
    note.write_text(json.dumps(forged))
    remember_digests(note)
    assert digest_file(big) == "f" * 64
    big.write_bytes(b"1" * 2_000_000)
    assert digest_file(big) not in (digest, "f" * 64)


def test_a_write_that_fails_leaves_the_old_file(tmp_path):
    path = tmp_path / "x.json"
    write_atomically(path, "old")
    with pytest.raises(TypeError):
        write_jsonl(path, [{"new": 1}, {"new": object()}])
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


@given(st.lists(st.text(st.characters(codec="utf-8"))))
def test_rows_come_back_as_they_were_written(tmp_path_factory, texts):
    from common.rows import read_rows

    path = tmp_path_factory.mktemp("rows") / "x.jsonl"
    rows = [{"text": text} for text in texts]
    assert write_jsonl(path, rows) == len(rows)
    if rows:
        assert [row for _, row in read_rows(path)] == rows


def test_wilson_matches_the_table():
    low, high = wilson(8, 10)
    assert (round(low, 3), round(high, 3)) == (0.490, 0.943)
    assert wilson(0, 0) == (0.0, 1.0)


@given(st.lists(st.booleans()))
def test_a_rate_lies_in_its_interval(outcomes):
    found = rate(outcomes)
    assert found.n == len(outcomes)
    if outcomes:
        assert 0 <= found.low <= found.value <= found.high <= 1


def test_a_mean_is_the_same_every_time():
    assert mean([0.0, 1.0, 1.0], seed=3) == mean([0.0, 1.0, 1.0], seed=3)
    assert mean([]).value is None


HOSTILE = (
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "[click](javascript:alert(1))",
    "![x](https://evil.example/pixel.png)",
    "| a | b |\n|---|---|",
    "</details>**bold** `code`\n\n# heading",
    "&lt;script&gt;",
)


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_keeps_no_syntax(text):
    import html

    one_line = " ".join(text.split())
    shown = escape_markdown(text).replace("<!-- -->", "")  # what parts an address
    assert not re.search(r"[<>\n]|(?<!\\)[\[\]()`*|!]", shown)
    assert html.unescape(re.sub(r"\\([!-/:-@\[-`{-~])", r"\1", shown)) == one_line
    inside = escape_html(text).replace("<!-- -->", "")
    assert not re.search(r"[<>\[\]()`*|!\n\\]", inside) and html.unescape(inside) == one_line


# What GitHub's Markdown takes for an address in plain text, after every escape was undone.
LINKED = re.compile(
    r"(?:https?://|ftp://|www\.)[-.\w]+|[-.\w+]+@[-\w]+(?:\.[-\w]+)*\.[-\w]*[A-Za-z]",
    re.IGNORECASE,
)


@pytest.mark.parametrize(
    "text",
    [
        "http://evil.example",
        "HTTPS://EVIL.EXAMPLE/a?b=c.",
        "see www.evil.example, or WWW.evil.example",
        "ftp://evil.example/x",
        "http://[::1]:80/x",
        "mailto:me@evil.example",
        "xmpp:me@evil.example/chat",
        "(me.and+you@evil.example)",
        "http://www.evil.example/@me",
        "a@b@evil.example",
    ],
)
def test_no_address_in_a_text_can_become_a_link(text):
    import html

    shown = re.sub(r"\\([!-/:-@\[-`{-~])", r"\1", escape_markdown(text))
    for view in (html.unescape(shown), html.unescape(escape_html(text))):
        assert not LINKED.search(view) and view.replace("<!-- -->", "") == text


def test_a_version_s_name_can_be_copied():
    assert "<!--" not in escape_markdown("microworld@1.0.0 and hhh@1.0.1")


def test_long_text_is_clipped_before_it_is_escaped():
    assert escape_markdown("*" * 10_000, limit=100).count("\\*") == 99
    assert clip("a\nb   c") == "a b c"


def test_a_constitution_comes_back_as_it_was(tmp_path):
    for constitution in (load("hhh@1.0.0"), load("microworld")):
        again = from_json(json.loads(json.dumps(to_json(constitution))))
        assert again == constitution
        assert again.digest == constitution.digest
        assert again.comparison_digest == constitution.comparison_digest


def test_a_snapshot_keeps_what_a_working_file_loses(tmp_path):
    text = (
        "name: x\ncomparison:\n  principles:\n"
        "    - {id: a, question: Which is better?, dimension: helpful, weight: 2, enabled: true}\n"
        "    - {id: b, question: Which is worse?, dimension: helpful, enabled: false}\n"
    )
    constitution = loads(text)
    assert from_json(to_json(constitution)).comparison[1].enabled is False


def test_memory_is_watched():
    with MemoryWatch(interval=0.01) as watch:
        block = bytearray(30_000_000)
    peak = watch.peak()
    assert peak.process_bytes > len(block)
    assert peak.total_bytes >= peak.process_bytes


def test_a_childs_peak_counts_where_it_is_not_its_parents():
    with MemoryWatch() as watch:
        own = watch.peak().process_bytes
        # The kernel starts a child's peak at its parent's, whatever the child needs.
        child = subprocess.Popen(["true"])  # held: one that is collected reaps its process itself
        _, child.returncode, usage = os.wait4(child.pid, 0)
        watch.note_child(usage.ru_maxrss)
        assert watch.peak().child_bytes < own
        watch.note_child(10 * usage.ru_maxrss + own)
    assert watch.peak().child_bytes > own


def test_the_terminal_shows_one_line_a_stage():
    stream = io.StringIO()
    terminal = Terminal(stream)
    terminal.started("rl")
    terminal.progress("rl", 1, 2, "reward 0.3")
    terminal.finished("rl", 12.34, "done")
    terminal.reused("evaluate", "a" * 64)
    assert stream.getvalue().splitlines() == [
        "✓ rl                      12.3 s  done",
        "= evaluate              unchanged, reused (aaaaaaaaaaaa)",
    ]
