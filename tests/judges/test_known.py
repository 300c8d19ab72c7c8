from __future__ import annotations

import gzip
import json

import pytest

from judges import JudgeError
from judges.known import known_pair, read_known_pairs, transcript_messages

HH = "\n\nHuman: Hello\n\nAssistant: Hi\n\nHuman: A joke: please?\n\nAssistant:"


def best(known):
    return known.pair.a if known.winner == "a" else known.pair.b


def user(text):
    return ({"role": "user", "content": text},)


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "Why?", "chosen": "good", "rejected": "bad"},
        {"prompt": [*user("Why?")], "chosen": "good", "rejected": "bad"},
        {
            "prompt": [*user("Why?")],
            "chosen": [{"role": "assistant", "content": "good"}],
            "rejected": [{"role": "assistant", "content": "bad"}],
        },
        {
            "chosen": [*user("Why?"), {"role": "assistant", "content": "good"}],
            "rejected": [*user("Why?"), {"role": "assistant", "content": "bad"}],
        },
        {"chosen": "\n\nHuman: Why?\n\nAssistant: good", "rejected": "\n\nHuman: Why?\n\nAssistant: bad"},
        {"input": "Why?", "output_1": "bad", "output_2": "good", "label": 2},
        {"instruction": "Why?", "input": "", "output_1": "good", "output_2": "bad", "label": 1},
    ],
)
def test_every_format_reads_the_same(row):
    known = known_pair(row)
    assert known.pair.prompt == user("Why?")
    assert best(known) == "good"
    assert {known.pair.a, known.pair.b} == {"good", "bad"}


def test_multiple_choice_with_a_conversation_in_the_prompt():
    prompt = (
        "\n\nHuman: Consider the following conversation between a human and an assistant:\n\n"
        "Human: How do I pick a lock?\nAssistant: Whose?\nHuman: My own.\n\n"
        "Which of these responses is less harmful?\nOptions:\n (A) Like this: (1) push\n (B) Call a locksmith.\n\n"
        "Assistant: The answer is:"
    )
    row = {"prompt": prompt, "corrects": [" (B)"], "incorrects": [" (A)"]}
    known = known_pair(row)
    assert [m["content"] for m in known.pair.prompt] == ["How do I pick a lock?", "Whose?", "My own."]
    assert best(known) == "Call a locksmith."
    assert {known.pair.a, known.pair.b} == {"Like this: (1) push", "Call a locksmith."}
    told = known_pair(row | {"text_correct": "Better call somebody.", "text_incorrect": "Push."})
    assert best(told) == "Better call somebody."


def test_transcripts_keep_their_inner_text():
    turns = transcript_messages("\n\nHuman: Note: Human: is a word\nAssistant: too\n\nAssistant: a\n\nb: c")
    assert [m["content"] for m in turns] == ["Note: Human: is a word\nAssistant: too", "a\n\nb: c"]


def test_an_empty_answer_is_an_answer():
    known = known_pair({"chosen": f"{HH} ", "rejected": f"{HH} Knock knock"})
    assert best(known) == ""


def test_a_row_may_name_its_pair():
    row = {"prompt": "Why?", "chosen": "good", "rejected": "bad"}
    assert known_pair(row | {"pair_id": "x", "id": "y"}).pair.id == "x"
    assert known_pair(row | {"id": 0}).pair.id == "0"
    assert known_pair(row).pair.id.startswith("known-")


def test_who_disagrees_speaks_of_the_same_pair():
    for i in range(20):
        row = {"prompt": f"q{i}", "chosen": "good", "rejected": "bad"}
        one, other = known_pair(row), known_pair(row | {"chosen": "bad", "rejected": "good"})
        assert one.pair == other.pair and one.winner != other.winner


def test_the_winner_is_a_about_half_of_the_time():
    rows = [{"prompt": f"q{i}", "chosen": "good", "rejected": "bad"} for i in range(400)]
    assert 150 < sum(known_pair(row).winner == "a" for row in rows) < 250


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ([1], "expected an object, found list"),
        ({"question": "x"}, "fields question are none of"),
        ({"input": "x", "output_1": "a", "output_2": "b", "label": 3}, "label: 3 is not 1 or 2"),
        ({"prompt": "x", "chosen": 1, "rejected": "b"}, "chosen: expected a string or a list"),
        ({"prompt": "x", "chosen": "a", "rejected": "a"}, "both answers are the same"),
        ({"prompt": [{"role": "robot"}], "chosen": "a", "rejected": "b"}, "prompt: a message needs a role"),
        ({"chosen": "hello", "rejected": "bye"}, "expected turns that begin with"),
        ({"prompt": "no options", "corrects": [" (A)"], "incorrects": [" (B)"]}, "prompt: no options"),
        ({"prompt": "x\n(A) a\n(B) b", "corrects": [" (C)"], "incorrects": ["A"]}, "names no option"),
    ],
)
def test_mistakes_name_the_field(row, message):
    with pytest.raises(JudgeError) as caught:
        known_pair(row)
    assert message in str(caught.value)


def test_files_jsonl_json_and_gz(tmp_path):
    rows = [{"prompt": f"q{i}", "chosen": "good", "rejected": "bad"} for i in range(12)]
    lines = "\n".join(json.dumps(row) for row in rows)
    (tmp_path / "a.jsonl").write_text(lines)
    (tmp_path / "a.json").write_text(json.dumps(rows, indent=1))
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    read = [read_known_pairs(tmp_path / name).pairs for name in ("a.jsonl", "a.json", "a.jsonl.gz")]
    assert read[0] == read[1] == read[2]
    assert len(read[0]) == 12
    assert len(read_known_pairs(tmp_path / "a.json", limit=3).pairs) == 3


def test_a_few_odd_rows_are_named_and_many_are_an_error(tmp_path):
    path = tmp_path / "x.jsonl"
    good = [json.dumps({"prompt": f"q{i}", "chosen": "good", "rejected": "bad"}) for i in range(19)]
    path.write_text("\n".join([*good, '{"chosen": 1}']))
    known = read_known_pairs(path)
    assert (len(known.pairs), known.skipped) == (19, (f"{path}:20: {known.skipped[0].split(': ', 1)[1]}",))
    path.write_text("\n".join([*good[:3], '{"chosen": 1}']))
    with pytest.raises(JudgeError, match="1 of 4 rows are no pairs; first: "):
        read_known_pairs(path)
    path.write_text(good[0] + "\n{oops")
    with pytest.raises(JudgeError, match=r"x\.jsonl:2: not JSON"):
        read_known_pairs(path)
    path.write_text(good[0] + "\n" + "[" * 100_000)
    with pytest.raises(JudgeError, match=r"x\.jsonl:2: not JSON"):
        read_known_pairs(path)
    path.write_text('[\n{"prompt": "q"},\n{oops]')
    with pytest.raises(JudgeError, match=r"x\.jsonl:3: not JSON"):
        read_known_pairs(path)
    with pytest.raises(JudgeError, match="No such file"):
        read_known_pairs(tmp_path / "none.jsonl")
