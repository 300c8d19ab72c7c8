"""One reader for every room: the same turns from every format, nothing dropped unseen, whoever asks."""

# ruff: noqa: E501

from __future__ import annotations

import csv
import gzip
import json

import pandas as pd
import pytest
from harness.rows import write
from hypothesis import given
from hypothesis import strategies as st

from common.errors import DataError
from common.rows import read_examples, read_preferences, read_prompts, read_rows
from judges.known import read_known_pairs


def u(content):
    return {"role": "user", "content": content}


def a(content):
    return {"role": "assistant", "content": content}


SYSTEM = {"role": "system", "content": "Be brief."}
ONE = [u("Why?")]
THREE = [u("My fern looks pale."), a("Where does it stand?"), u("On a sill.\n\nWhat now?")]
HH = "\n\nHuman: My fern looks pale.\n\nAssistant: Where does it stand?\n\nHuman: On a sill.\n\nWhat now?\n\nAssistant:"
PAIRS = [
    # TRL's standard and conversational forms, with and without a prompt.
    (ONE, {"prompt": "Why?", "chosen": "good", "rejected": "bad"}),
    (ONE, {"prompt": ONE, "chosen": "good", "rejected": "bad"}),
    (ONE, {"prompt": ONE, "chosen": [a("good")], "rejected": [a("bad")]}),
    (ONE, {"chosen": [*ONE, a("good")], "rejected": [*ONE, a("bad")]}),
    (ONE, {"prompt": ONE, "chosen": a("good"), "rejected": a("bad")}),
    ([u("Why? It is")], {"chosen": "Why? It is good", "rejected": "Why? It is bad"}),
    # hh-rlhf: transcripts, as a prompt, trimmed, with the whole conversation in the answers.
    (THREE, {"chosen": f"{HH} good", "rejected": f"{HH} bad"}),
    (THREE, {"prompt": HH, "chosen": " good", "rejected": " bad"}),
    (THREE, {"prompt": HH.strip(), "chosen": "good", "rejected": "bad"}),
    (THREE, {"prompt": HH, "chosen": f"{HH} good", "rejected": f"{HH} bad"}),
    (THREE, {"prompt": HH.replace("\n", "\r\n").replace(".\r\n\r\nW", ".\n\nW"), "chosen": "good", "rejected": "bad"}),
    (THREE, {"prompt": HH.removesuffix("\n\nAssistant:"), "chosen": [a("good")], "rejected": [a("bad")]}),
    # A system text before the turns, in a prompt and in whole transcripts; turns on lines of their own.
    ([SYSTEM, *THREE], {"prompt": f"Be brief.{HH}", "chosen": " good", "rejected": " bad"}),
    ([SYSTEM, *THREE], {"chosen": f"Be brief.{HH} good", "rejected": f"Be brief.{HH} bad"}),
    (ONE, {"prompt": "Human: Why?\nAssistant:", "chosen": " good", "rejected": " bad"}),
    # UltraFeedback-binarized: the prompt is a text, the answers are whole conversations.
    (ONE, {"prompt": "Why?", "chosen": [*ONE, a("good")], "rejected": [*ONE, a("bad")], "messages": [*ONE, a("good")],
           "prompt_id": "x1", "score_chosen": 8.0, "score_rejected": 3.0}),
    ([SYSTEM, *ONE], {"prompt": "Why?", "chosen": [SYSTEM, *ONE, a("good")], "rejected": [SYSTEM, *ONE, a("bad")]}),
    # dpo-mix: several turns that both share; a prompt that has the system turn which the answers lack.
    (THREE, {"chosen": [*THREE, a("good")], "rejected": [*THREE, a("bad")], "dataset": "mix"}),
    ([SYSTEM, *ONE], {"prompt": [SYSTEM, *ONE], "chosen": [*ONE, a("good")], "rejected": [*ONE, a("bad")]}),
    (THREE, {"prompt": THREE[:1], "chosen": [*THREE[1:], a("good")], "rejected": [*THREE[1:], a("bad")]}),
    ([SYSTEM, *ONE], {"system": "Be brief.", "question": "Why?", "chosen": "good", "rejected": "bad"}),
    ([u("Say\n\nthis")], {"instruction": "Say", "input": "this", "chosen": "good", "rejected": "bad"}),
    (ONE, {"prompt": [{"role": "user", "content": [{"type": "text", "text": "Why?"}]}], "chosen": "good", "rejected": "bad"}),
    # The prompt in the conversation beside the answers.
    (THREE, {"messages": THREE, "chosen": a("good"), "rejected": a("bad")}),
    (ONE, {"conversations": [{"from": "human", "value": "Why?"}], "chosen": {"from": "gpt", "value": "good"},
           "rejected": {"from": "gpt", "value": "bad"}, "status": "unchanged"}),
    # RewardBench 1 and 2.
    (ONE, {"prompt": "Why?", "chosen": "good", "rejected": "bad", "subset": "easy", "id": 7, "chosen_model": "m"}),
    (ONE, {"prompt": "Why?", "chosen": ["good"], "rejected": ["bad"], "subset": "Ties", "id": "7"}),
    # HelpSteer 2 and 3.
    (ONE, {"prompt": "Why?", "response_1": "bad", "response_2": "good", "preference_strength": 2}),
    ([u("My fern looks pale."), a("Where?"), u("There.")],
     {"prompt": "My fern looks pale.\n<extra_id_1>Assistant\nWhere?\n<extra_id_1>User\nThere.",
      "response_1": "good", "response_2": "bad", "preference_strength": -1}),
    (THREE, {"context": THREE, "response1": "good", "response2": "bad", "overall_preference": -3, "domain": "code"}),
    # PKU-SafeRLHF, Nectar, UltraFeedback, ranked lists, SHP, WebGPT.
    (ONE, {"prompt": "Why?", "response_0": "bad", "response_1": "good", "better_response_id": 1, "safer_response_id": 1}),
    (ONE, {"prompt": "Why?", "response_0": "good", "response_1": "bad", "better_response_id": 0}),
    (ONE, {"prompt": "Why?", "response_0": "good", "response_1": "bad", "safer_response_id": 0}),
    (THREE, {"prompt": f"{HH} ", "answers": [{"answer": "bad", "rank": 2.0}, {"answer": "good", "rank": 1.0}]}),
    (ONE, {"instruction": "Why?", "completions": [{"response": "good", "overall_score": 8}, {"response": "bad", "overall_score": 2.5}]}),
    (ONE, {"prompt": "Why?", "responses": ["bad", "good"], "ranks": [2, 1]}),
    (ONE, {"prompt": "Why?", "responses": ["bad", "good"], "scores": [0.1, 0.9]}),
    (ONE, {"history": "Why?", "human_ref_A": "bad", "human_ref_B": "good", "labels": 0, "score_A": 1}),
    (ONE, {"history": "Why?", "human_ref_A": "good", "human_ref_B": "bad", "labels": 1}),
    (ONE, {"question": {"dataset": "eli5", "id": "q", "full_text": "Why?"}, "answer_0": "good", "answer_1": "bad",
           "score_0": 0.5, "score_1": -0.5, "quotes_0": {"title": []}}),
    # AlpacaFarm and AlpacaEval, LMSYS arena, multiple choice.
    (ONE, {"instruction": "Why?", "input": "", "output_1": "good", "output_2": "bad", "preference": 1, "raw_preference": 2}),
    (ONE, {"input": "Why?", "output_1": "bad", "output_2": "good", "label": 2}),
    (ONE, {"instruction": "Why?", "output_1": "bad", "output_2": "good", "preference": 2.0, "generator_1": "m"}),
    (THREE, {"conversation_a": [*THREE, a("bad")], "conversation_b": [*THREE, a("good")], "winner": "model_b", "model_a": "x"}),
    # Kaggle's arena (lists as JSON), summaries with a choice, Stack Exchange.
    (ONE, {"id": 7, "prompt": '["Why?"]', "response_a": '["bad"]', "response_b": '["good"]', "model_a": "x",
           "winner_model_a": 0, "winner_model_b": 1, "winner_tie": 0}),
    ([u("Why?"), a("So."), u("Really?")], {"prompt": ["Why?", "Really?"], "response_a": ["So.", "good"],
           "response_b": ["So.", "bad"], "winner_model_a": "1", "winner_model_b": "0", "winner_tie": "0"}),
    ([u("SUBREDDIT: r/x\n\nTITLE: Cats\n\nPOST: Long.\n\nTL;DR:")],
     {"info": {"id": "i", "post": "Long.", "title": "Cats", "subreddit": "x"},
      "summaries": [{"text": "bad", "policy": "p"}, {"text": "good"}], "choice": 1, "split": "train"}),
    (ONE, {"qid": 1, "question": "Why?", "answers": [{"text": "bad", "pm_score": 0}, {"text": "good", "pm_score": 3}]}),
    ([u("How do I pick a lock?"), a("Whose?"), u("My own.")],
     {"prompt": "\n\nHuman: Consider the following conversation between a human and an assistant:\n\n"
                "Human: How do I pick a lock?\nAssistant: Whose?\nHuman: My own.\n\n"
                "Which of these responses is less harmful?\nOptions:\n (A) bad\n (B) good\n\nAssistant: The answer is:",
      "corrects": [" (B)"], "incorrects": [" (A)"]}),
]  # fmt: skip


@pytest.mark.parametrize(("prompt", "row"), PAIRS)
def test_every_room_reads_the_same_turns(tmp_path, prompt, row):
    path = write(tmp_path / "rows.jsonl", [row])
    [pair] = read_preferences(path)
    assert (pair.prompt, pair.chosen.strip(), pair.rejected.strip(), pair.p) == (prompt, "good", "bad", 1.0)
    [known] = read_known_pairs(path)
    assert list(known.pair.prompt) == prompt
    assert {"a": known.pair.a, "b": known.pair.b}[known.winner] == pair.chosen
    [asked] = read_prompts(path)
    assert asked.prompt == prompt
    assert pair.place == known.place == asked.place == f"{path}:1"


@pytest.mark.parametrize("kind", ["json", "jsonl.gz", "json.gz", "parquet", "bom", "crlf"])
def test_the_kind_of_file_changes_nothing(tmp_path, kind):
    rows = [
        {"id": None, "prompt": THREE, "chosen": [a(f"good {i}")], "rejected": [a("2024-01-01")]}
        for i in range(3)
    ]
    rows[2]["p"] = 0.75  # a later column
    text = "".join(json.dumps(row) + "\n\n" for row in rows)
    path = tmp_path / f"rows.{kind if kind not in ('bom', 'crlf') else 'jsonl'}"
    if kind == "parquet":
        pd.DataFrame([{"p": 1.0, **row} for row in rows]).to_parquet(path)
    elif kind.startswith("json."):
        path.write_bytes(gzip.compress(json.dumps(rows, indent=1).encode()))
    elif kind == "json":
        path.write_text(json.dumps(rows, indent=1))
    else:
        raw = (
            b"\xef\xbb\xbf" * (kind == "bom")
            + text.replace("\n", "\r\n" if kind == "crlf" else "\n").encode()
        )
        path.write_bytes(gzip.compress(raw) if kind.endswith("gz") else raw)
    plain = read_preferences(write(tmp_path / "plain.jsonl", rows))
    read = read_preferences(path)
    assert [(x.id, x.prompt, x.chosen, x.rejected, x.p) for x in read] == [
        (x.id, x.prompt, x.chosen, x.rejected, x.p) for x in plain
    ]
    assert [x.p for x in read] == [1.0, 1.0, 0.75] and len(read_preferences(path, limit=2)) == 2


def test_csv_and_plain_text(tmp_path):
    with (tmp_path / "farm.csv").open("w", newline="") as file:
        csv.writer(file).writerows(
            [["instruction", "input", "output_1", "output_2", "preference"], ["Why?", "", "a\nb", "c", "2"]]
        )
    [pair] = read_preferences(tmp_path / "farm.csv")
    assert (pair.prompt, pair.chosen, pair.rejected) == (ONE, "c", "a\nb")
    (tmp_path / "p.txt").write_bytes(b"\xef\xbb\xbfWhy?\r\n\r\n Because: {x}\n")
    assert [p.prompt for p in read_prompts(tmp_path / "p.txt")] == [ONE, [u(" Because: {x}")]]


LEFT_OUT = [
    ({"chosen": f"{HH} Yes.\n\nHuman: thanks", "rejected": f"{HH} No.\n\nHuman: bye"}, "ends with the user's words"),
    ({"chosen": f"{HH} Yes.", "rejected": f"{HH} No.\n\nHuman: why?\n\nAssistant: Dunno."}, "part before their last"),
    ({"prompt": HH, "chosen": "Yes.", "rejected": " No.\n\nHuman: why?\n\nAssistant: Dunno."}, "part before their last"),
    ({"chosen": [u("x"), a("y")], "rejected": [u("z"), a("y2")]}, "part before their last"),
    ({"prompt": "x", "chosen": [u("z"), a("1")], "rejected": [u("z"), a("2")]}, "prompt is none of the conversation's"),
    ({"prompt": "x", "chosen": "same", "rejected": "same"}, "both answers are the same"),
    ({"chosen": f"{HH} same", "rejected": f"{HH} same "}, "both answers are the same"),
    ({"prompt": "  ", "chosen": "a", "rejected": "b"}, "the last user turn is empty"),
    ({"chosen": [a("1")], "rejected": [a("2")]}, "no user turn stands before"),
    ({"chosen": [u("x"), SYSTEM, a("1")], "rejected": [u("x"), SYSTEM, a("2")]}, "no user turn stands before"),
    ({"conversation_a": [u("x"), a("1")], "conversation_b": [u("x"), a("2")], "winner": "tie"}, "a tie"),
    ({"conversation_a": [u("x"), a("1")], "conversation_b": [u("x"), a("2")], "winner": "tie (bothbad)"}, "a tie"),
    ({"conversation_a": [u("x"), a("1"), u("y"), a("2")], "conversation_b": [u("x"), a("3"), u("y"), a("4")],
      "winner": "model_a"}, "part before their last"),
    ({"input": "x", "chosen": "1", "rejected": "2", "status": "tie"}, "a tie"),
    ({"question": "x", "answer_0": "1", "answer_1": "2", "score_0": 0.0, "score_1": 0.0}, "a tie"),
    ({"prompt": "x", "response_1": "1", "response_2": "2", "preference_strength": 0}, "a tie"),
    ({"context": [u("x")], "response1": "1", "response2": "2", "overall_preference": 0}, "a tie"),
    ({"instruction": "x", "output_1": "1", "output_2": "2", "preference": 1.5}, "a tie"),
    ({"instruction": "x", "output_1": "1", "output_2": "2", "preference": 0}, "a tie"),
    ({"prompt": "x", "answers": [{"answer": "1", "rank": 1}, {"answer": "2", "rank": 1}]}, "a tie"),
    ({"prompt": "x", "response": "1", "helpfulness": 4}, "one answer alone"),
    ({"prompt": "no options", "corrects": ["A"], "incorrects": ["B"]}, "prompt holds no options"),
    ({"prompt": "x\n(A) a\n(B) b", "corrects": ["C"], "incorrects": ["A"]}, "corrects names no option"),
]  # fmt: skip


@pytest.mark.parametrize(("row", "reason"), LEFT_OUT)
def test_what_is_of_no_use_is_left_out_by_line(tmp_path, row, reason):
    good = {"prompt": "Is milk white?", "chosen": "Yes.", "rejected": "No."}
    path = write(tmp_path / "rows.jsonl", [good, row, {**good, "prompt": "Is tea hot?"}])
    for read in (read_preferences(path), read_known_pairs(path)):
        assert len(read) == 2
        [left] = read.left_out
        assert left.place == f"{path}:2" and reason in left.reason
        assert read.told() == [f"{path}:2: 1 row left out: {left.reason}"]
    with pytest.raises(DataError, match=r"holds no preferences; .*:1: 1 row left out: ") as caught:
        read_preferences(write(tmp_path / "alone.jsonl", [row]))
    assert reason in str(caught.value) and "\n" not in str(caught.value)


def test_left_out_rows_are_counted_by_reason(tmp_path):
    rows = [
        {"prompt": f"{i}?", "chosen": "Yes.", "rejected": "Yes." if i % 4 == 0 else "No."} for i in range(40)
    ]
    path = write(tmp_path / "rows.jsonl", rows)
    read = read_preferences(path)
    assert len(read) == 30
    assert read.told() == [f"{path}:1, 5, 9 and 7 more: 10 rows left out: both answers are the same"]


def test_prompts_count_once_and_are_what_stands_before_the_last_answer(tmp_path):
    rows = [
        {"prompt": "a"},
        {"prompt": [u("a")]},
        {"messages": [u("b"), a("x")]},
        {"prompt": [u("c"), a("d")]},
    ]
    rows += [{"conversations": [{"from": "system", "value": "Be brief."}, {"from": "human", "value": "e"}]}]
    rows += [{"prompt": [a("hello")]}, {"prompt": [u("f"), SYSTEM]}, {"prompt": " "}]
    path = write(tmp_path / "p.jsonl", rows)
    read = read_prompts(path)
    assert [p.prompt for p in read] == [[u("a")], [u("b")], [u("c")], [SYSTEM, u("e")]]
    assert [(x.place.rpartition(":")[2], x.reason[:12]) for x in read.left_out] == [
        ("2", "asks the sam"), ("6", "no user turn"), ("7", "no user turn"), ("8", "the last use"),
    ]  # fmt: skip
    assert [x.place for x in read.notes] == [f"{path}:4"]
    assert [p.prompt for p in read_prompts(path, limit=2)] == [[u("a")], [u("b")]]


def test_ids_and_meta(tmp_path):
    rows = [
        {"id": 0, "prompt": "a"},
        {"id": None, "prompt": "b"},
        {"id": "", "prompt": "c"},
        {"id": 1.5, "prompt": "d"},
    ]
    rows[0] |= {"meta": {"k": 1}, "reference": "42"}
    read = read_prompts(write(tmp_path / "p.jsonl", rows))
    assert (read[0].id, read[3].id) == ("0", "1.5") and len({p.id for p in read}) == 4
    assert read[0].meta == {"k": 1, "references": ["42"]} and read[1].meta == {}
    turned = read_prompts(write(tmp_path / "q.jsonl", rows[::-1]))
    assert {p.id for p in read} == {p.id for p in turned}
    pair = {"prompt": "x", "chosen": "1", "rejected": "2"}
    ids = [
        p.id
        for p in read_preferences(
            write(
                tmp_path / "r.jsonl",
                [{**pair, "pair_id": "x", "id": "y"}, {**pair, "subset": "s", "id": 3}, pair],
            )
        )
    ]
    assert ids[:2] == ["x", "s/3"] and ids[2].startswith("known-")


def test_several_answers_make_several_pairs(tmp_path):
    answers = [
        {"answer": "b", "rank": 2},
        {"answer": "a", "rank": 1},
        {"answer": "c", "rank": 3},
        {"answer": "c2", "rank": 3},
    ]
    read = read_preferences(write(tmp_path / "n.jsonl", [{"id": 5, "prompt": "x", "answers": answers}]))
    assert {(p.chosen, p.rejected) for p in read} == {
        ("a", "b"),
        ("a", "c"),
        ("a", "c2"),
        ("b", "c"),
        ("b", "c2"),
    }
    assert [p.id for p in read] == [f"5:{n}" for n in range(1, 6)]
    best = {"prompt": "x", "chosen": ["1", "2"], "rejected": ["3", "4"], "subset": "Ties", "id": "t"}
    assert len(read_preferences(write(tmp_path / "b.jsonl", [best]))) == 4
    scores = [("x", "1", 4), ("x", "2", 1), ("y", "3", 2), ("y", "4", 2), ("z", "5", 0), ("z", "6", 3)]
    rows = [{"prompt": p, "response": r, "helpfulness": h, "verbosity": 2} for p, r, h in scores]
    read = read_preferences(write(tmp_path / "h.jsonl", rows))
    assert [(p.chosen, p.rejected) for p in read] == [("1", "2"), ("6", "5")]
    assert [x.reason for x in read.left_out] == ["a tie"]


def test_soft_labels_statuses_and_notes(tmp_path):
    row = {"pair_id": "z", "prompt": ONE, "chosen": [a("1")], "rejected": [a("2")], "p": 0.7, "status": "tie"}
    rows = [row, {**row, "pair_id": "f", "p": None, "status": "refused", "chosen": [a("3")]}]
    rows += [{"instruction": "x", "output_1": "1", "output_2": "2", "preference": 1.9}]
    rows += [
        {"prompt": "y", "response_0": "1", "response_1": "2", "better_response_id": 0, "safer_response_id": 1}
    ]
    path = write(tmp_path / "c.jsonl", rows)
    read = read_preferences(path)
    assert [(p.id, p.p, p.status) for p in read[:2]] == [("z", 0.7, "tie"), ("f", 0.5, "refused")]
    assert (read[2].chosen, round(read[2].p, 6), read[3].chosen) == ("2", 0.9, "1")
    assert [x.place for x in read.notes] == [
        f"{path}:4"
    ] and "safer_response_id names the other" in read.notes[0].reason
    known = read_known_pairs(path)
    assert len(known) == 3 and known.left_out[0].reason == "undecided: status refused, p 0.5"


EXAMPLES = [
    {"messages": [SYSTEM, u("Why?"), a("So.")]},
    {
        "conversations": [
            {"from": "system", "value": "Be brief."},
            {"from": "human", "value": "Why?"},
            {"from": "gpt", "value": "So."},
        ]
    },
    {
        "system": "Be brief.",
        "conversations": [{"from": "human", "value": "Why?"}, {"from": "gpt", "value": "So."}],
    },
    {"prompt": [SYSTEM, u("Why?")], "completion": [a("So.")]},
    {"system": "Be brief.", "prompt": "Why?", "completion": "So."},
    {"system_prompt": "Be brief.", "instruction": "Why?", "output": "So."},
    {"prompt": "Why?", "messages": [SYSTEM, u("Why?"), a("So.")]},
    {"conversation": [SYSTEM, u("Why?"), a("So.")], "model": "m"},
    {"system": "Be brief.", "transcript": "\n\nHuman: Why?\n\nAssistant: So.", "rating": 4.0},
    {"system": "Be brief.", "instruction": "Why?", "context": "", "response": "So.", "category": "open_qa"},
    {"system": "Be brief.", "prompt": "Why?", "response": "So.", "is_safe": True},
]


@pytest.mark.parametrize("row", EXAMPLES)
def test_demonstrations_in_every_form(tmp_path, row):
    path = write(tmp_path / "e.jsonl", [row])
    [example] = read_examples(path)
    assert example.messages == [SYSTEM, u("Why?"), a("So.")]
    assert [p.prompt for p in read_prompts(path)] == [example.messages[:-1]]


def test_earlier_turns_and_bad_examples_are_seen(tmp_path):
    rows = [
        {"instruction": "c", "output": "d", "history": [["a", "b"]]},
        {"messages": [u("x"), a("y"), u("z")]},
    ]
    rows += [{"prompt": "x", "completion": "y", "label": False}]
    rows += [
        {"prompt": "x", "response": "y", "is_safe": False},
        {"instruction": "c", "context": "d", "response": "e"},
    ]
    read = read_examples(write(tmp_path / "e.jsonl", rows))
    assert [e.messages for e in read] == [[u("a"), a("b"), u("c"), a("d")], [u("c\n\nd"), a("e")]]
    assert [x.reason for x in read.left_out] == [
        "the last turn is the user's, not the assistant's", *["the answer is labelled as undesirable"] * 2,
    ]  # fmt: skip


def test_unpaired_answers(tmp_path):
    rows = [
        {"prompt": HH, "completion": " y", "label": True},
        {"prompt": "x", "completion": [a("z")], "label": False},
    ]
    rows += [{"prompt": [u("x"), a("w")], "completion": [a("z")], "label": True}]
    read = read_preferences(write(tmp_path / "k.jsonl", rows), lone_answers=True)
    assert [(p.prompt, p.chosen, p.rejected, p.p) for p in read] == [
        (THREE, "y", None, 1.0),
        ([u("x")], "z", None, 0.0),
    ]
    assert [x.reason for x in read.left_out] == ["no user turn stands before one answer"]


def test_two_turns_of_one_speaker_are_one_and_labels_inside_a_line_are_text(tmp_path):
    text = "\n\nHuman: Note: Human: is a word\nAssistant: too\n\nAssistant: Hm.\n\nAssistant: Yes.\n\nHuman: \u2028 so?\n\nAssistant:"
    [pair] = read_preferences(
        write(tmp_path / "t.jsonl", [{"chosen": f"{text} ", "rejected": f"{text} b\n\nc: d"}])
    )
    assert pair.prompt == [u("Note: Human: is a word\nAssistant: too"), a("Hm.\n\nYes."), u("so?")]
    assert (pair.chosen, pair.rejected) == ("", "b\n\nc: d")


TEXT = st.text(st.characters(codec="utf-8"), min_size=1).filter(lambda t: t.strip() and ":" not in t)


@given(st.lists(TEXT, min_size=1, max_size=6), st.booleans(), TEXT, TEXT)
def test_no_text_is_lost_between_row_and_record(tmp_path_factory, texts, starts, one, other):
    """Every word of a transcript stands in a turn, and messages arrive letter by letter."""
    folder = tmp_path_factory.mktemp("rows")
    names = ["Human", "Assistant"] if starts else ["Assistant", "Human"]
    turns = [(names[i % 2], text) for i, text in enumerate(texts)]
    turns += [("Human", "so")] if turns[-1][0] == "Assistant" else []
    transcript = "".join(f"\n\n{name}: {text}" for name, text in turns)
    row = {"chosen": f"{transcript}\n\nAssistant: {one}", "rejected": f"{transcript}\n\nAssistant: {other} x"}
    [pair] = read_preferences(write(folder / "t.jsonl", [row]))
    assert [m["content"] for m in pair.prompt] == [text.strip() for _, text in turns]
    assert (pair.chosen, pair.rejected) == (one.strip(), f"{other} x".strip())
    messages = [
        {"role": {"Human": "user", "Assistant": "assistant"}[name], "content": text} for name, text in turns
    ]
    rows = [{"prompt": messages, "chosen": one, "rejected": f"{other} x"}]
    [pair] = read_preferences(write(folder / "m.jsonl", rows))
    assert (pair.prompt, pair.chosen, pair.rejected) == (messages, one, f"{other} x")
    [example] = read_examples(write(folder / "e.jsonl", [{"messages": [*messages, a(one)]}]))
    [prompt] = read_prompts(write(folder / "p.jsonl", [{"prompt": messages}]))
    assert example.messages == [*messages, a(one)] and prompt.prompt == messages


def test_what_we_write_comes_back(tmp_path):
    known = read_known_pairs(write(tmp_path / "a.jsonl", [row for _, row in PAIRS[:3]]))
    again = read_known_pairs(write(tmp_path / "b.jsonl", [k.to_row() for k in known]))
    assert [(k.pair, k.winner) for k in again] == [(k.pair, k.winner) for k in known]
    prompts = read_prompts(write(tmp_path / "c.jsonl", [row for _, row in PAIRS[:9]]))
    assert [p.row() for p in read_prompts(write(tmp_path / "d.jsonl", [p.row() for p in prompts]))] == [
        p.row() for p in prompts
    ]


def test_internal_rows_are_read_without_a_format(tmp_path):
    rows = [{"text": "\x00 \u2028 \x85", "n": 1.5, "deep": [{"x": None}]}]
    path = write(tmp_path / "x.jsonl", rows)
    assert list(read_rows(path)) == [(f"{path}:1", rows[0])]
