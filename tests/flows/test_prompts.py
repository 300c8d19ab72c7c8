"""Prompts files: our own, strings, dialogues, hh-rlhf transcripts, and what is wrong with them in one line."""

from __future__ import annotations

import gzip
import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.errors import FlowError
from flows.prompts import parse_transcript, read_prompts


def write(path, rows):
    text = "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows)
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text, encoding="utf-8")
    return path


def test_reads_every_form(tmp_path):
    rows = [
        {"id": "one", "prompt": [{"role": "user", "content": "Hi?"}], "meta": {"family": "howto"}},
        {"prompt": "A plain string: with a colon"},
        {"messages": [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}]},
        {"chosen": "\n\nHuman: First\n\nAssistant: Yes\n\nHuman: Second\n\nAssistant: No", "rejected": "…"},
    ]
    one, two, three, four = read_prompts(write(tmp_path / "p.jsonl.gz", rows))
    assert (one.id, one.meta) == ("one", {"family": "howto"})
    assert two.prompt == [{"role": "user", "content": "A plain string: with a colon"}]
    assert three.prompt == [{"role": "user", "content": "Q"}]
    assert [turn["role"] for turn in four.prompt] == ["user", "assistant", "user"]
    assert four.prompt[-1]["content"] == "Second"


def test_limit_counts_distinct_prompts(tmp_path):
    path = write(tmp_path / "p.jsonl", [{"prompt": text} for text in ("a", "a", "b", "c")])
    assert [p.prompt[0]["content"] for p in read_prompts(path, limit=2)] == ["a", "b"]


def test_ids_come_from_the_text_and_stay(tmp_path):
    first = read_prompts(write(tmp_path / "a.jsonl", [{"prompt": "x"}, {"prompt": "y"}]))
    second = read_prompts(write(tmp_path / "b.jsonl", [{"prompt": "y"}, {"prompt": "x"}]))
    assert {p.id for p in first} == {p.id for p in second}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("{", ":1: "),
        ("[1]", ":1: "),
        ({"text": "hm"}, ":1: expected a field prompt, messages or chosen, got text"),
        ({"prompt": []}, ":1: prompt: must hold a user turn"),
        ({"prompt": [{"role": "bot", "content": "x"}]}, "prompt[0].role: 'bot' is not allowed"),
        ({"prompt": [{"role": "user"}]}, "prompt[0]: expected an object with role and content"),
        ({"prompt": "  "}, ":1: prompt: the last user turn is empty"),
        ({"prompt": 3}, ":1: prompt: expected a list of messages or a string"),
        ({"chosen": "no turns here"}, ':1: chosen: no "Human:" turn'),
        ({"prompt": "x", "id": 4}, ":1: id: 4 is not allowed"),
        ({"prompt": "x", "meta": []}, ":1: meta: expected an object"),
        ('{"prompt": "\\ud800"}', ":1: holds a lone surrogate"),
    ],
)
def test_a_bad_line_is_named(tmp_path, row, message):
    path = write(tmp_path / "p.jsonl", [row])
    with pytest.raises(ValueError) as caught:
        read_prompts(path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_id_used_twice_is_named(tmp_path):
    path = write(tmp_path / "p.jsonl", [{"id": "x", "prompt": "a"}, {"id": "x", "prompt": "b"}])
    with pytest.raises(FlowError, match=":2: id: 'x' was already used"):
        read_prompts(path)


@pytest.mark.parametrize("content", ["", "\n\n"])
def test_an_empty_file_is_named(tmp_path, content):
    path = tmp_path / "p.jsonl"
    path.write_text(content)
    with pytest.raises(FlowError, match=r"p\.jsonl: holds no prompts"):
        read_prompts(path)


def test_other_scripts_arrive_whole(tmp_path):
    text = "Wie baue ich… 如何 कैसे \u202eabc\u2028 { } \n\n: end"
    [prompt] = read_prompts(write(tmp_path / "p.jsonl", [{"prompt": text}]))
    assert prompt.prompt[0]["content"] == text


turns = st.lists(st.text(st.characters(codec="utf-8"), min_size=1), min_size=1, max_size=5)


@given(turns)
def test_transcripts_end_in_a_user_turn(texts):
    names = ["Human", "Assistant"]
    transcript = "".join(f"\n\n{names[i % 2]}: {text}" for i, text in enumerate(texts))
    parsed = parse_transcript(transcript)
    assert parsed[-1]["role"] == "user"
    roles = [turn["role"] for turn in parsed]
    assert all(first != second for first, second in pairwise(roles))
