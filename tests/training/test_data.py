"""Readers: what they take, and one line naming file, row and column for what they do not."""

from __future__ import annotations

import gzip
import json

import pandas as pd
import pytest

from training.data.datasets import read_examples, read_preferences, read_prompts
from training.errors import TrainingError

USER = {"role": "user", "content": "Hi"}
ANSWER = {"role": "assistant", "content": "Hello: a {b}\n\nc"}


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_examples_prompts_and_preferences_read(tmp_path):
    examples = read_examples([write(tmp_path / "a.jsonl", [{"id": "x", "messages": [USER, ANSWER]}])])
    assert examples[0].id == "x"
    assert examples[0].messages == [USER, ANSWER]
    prompts = read_prompts([write(tmp_path / "b.jsonl", [{"id": "y", "prompt": [USER], "meta": {"k": 1}}])])
    assert prompts[0].meta == {"k": 1}
    row = {
        "pair_id": "z",
        "prompt": [USER],
        "chosen": [ANSWER],
        "rejected": [ANSWER],
        "p": 0.7,
        "status": "tie",
    }
    pair = read_preferences([write(tmp_path / "c.jsonl", [row])])[0]
    assert (pair.id, pair.chosen, pair.p, pair.status) == ("z", ANSWER["content"], 0.7, "tie")


def test_parquet_and_gzip_hold_the_same_rows(tmp_path):
    rows = [
        {
            "pair_id": str(i),
            "prompt": [USER],
            "chosen": [ANSWER],
            "rejected": [USER | {"role": "assistant"}],
            "p": 0.5 + i / 8,
        }
        for i in range(3)
    ]
    plain = write(tmp_path / "rows.jsonl", rows)
    pd.DataFrame(rows).to_parquet(tmp_path / "rows.parquet")
    with gzip.open(tmp_path / "rows.jsonl.gz", "wb") as file:
        file.write(plain.read_bytes())
    expected = [(p.id, p.prompt, p.chosen, p.rejected, p.p) for p in read_preferences([plain])]
    for name in ("rows.parquet", "rows.jsonl.gz"):
        assert [
            (p.id, p.prompt, p.chosen, p.rejected, p.p) for p in read_preferences([tmp_path / name])
        ] == expected


def test_whole_conversations_share_their_turns_as_the_prompt(tmp_path):
    other = {"role": "assistant", "content": "No"}
    pair = read_preferences(
        [write(tmp_path / "a.jsonl", [{"chosen": [USER, ANSWER], "rejected": [USER, other]}])]
    )[0]
    assert (pair.prompt, pair.rejected, pair.p) == ([USER], "No", 1.0)


def test_plain_transcripts_split_where_they_part(tmp_path):
    start = "\n\nHuman: one: two\n\nmore\n\nAssistant: yes\n\nHuman: and?\n\nAssistant:"
    pair = read_preferences(
        [write(tmp_path / "a.jsonl", [{"chosen": start + " good", "rejected": start + " bad"}])]
    )[0]
    assert [m["role"] for m in pair.prompt] == ["user", "assistant", "user"]
    assert pair.prompt[0]["content"] == "one: two\n\nmore"
    assert (pair.chosen, pair.rejected) == ("good", "bad")


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"id": 1}, ":2: column messages is missing; found id"),
        ({"messages": []}, ":2: messages: expected a list of messages, got an empty list"),
        ({"messages": [USER]}, ":2: messages: the last message is the user's, not the assistant's"),
        (
            {"messages": [{"role": "bot", "content": ""}]},
            ":2: messages: role 'bot' is not one of system, user, assistant",
        ),
        ({"messages": [{"role": "user"}]}, ":2: messages: each message needs role and content"),
        ({"messages": [{"role": "user", "content": 3}]}, ":2: messages: content must be text, got int"),
    ],
)
def test_a_bad_row_is_named(tmp_path, row, expected):
    path = write(tmp_path / "bad.jsonl", [{"messages": [USER, ANSWER]}, row])
    with pytest.raises(TrainingError) as caught:
        read_examples([path])
    assert str(caught.value) == f"{path}{expected}"


def test_a_bad_probability_file_or_line_is_named(tmp_path):
    row = {"prompt": [USER], "chosen": [ANSWER], "rejected": [ANSWER], "p": 1.5}
    with pytest.raises(TrainingError, match=r":1: p: 1\.5 is not a probability"):
        read_preferences([write(tmp_path / "p.jsonl", [row])])
    (tmp_path / "broken.jsonl").write_text('{"a": 1')
    with pytest.raises(TrainingError, match=":1: is not JSON"):
        read_examples([tmp_path / "broken.jsonl"])
    (tmp_path / "fake.parquet").write_text("no")
    with pytest.raises(TrainingError, match="is not Parquet"):
        read_examples([tmp_path / "fake.parquet"])
    for name, expected in (
        ("none.jsonl", "no such file"),
        ("empty.jsonl", "no rows"),
        ("a.csv", "unknown kind"),
    ):
        if name != "none.jsonl":
            (tmp_path / name).write_text("")
        with pytest.raises(TrainingError, match=expected):
            read_examples([tmp_path / name])
