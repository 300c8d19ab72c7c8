"""Bad input over all formats: one line that names the place and the field, from the reader and from the commands."""

# ruff: noqa: E501

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from common.errors import DataError
from common.rows import read_examples, read_preferences, read_prompts
from judges.known import read_known_pairs

GOOD = {"prompt": "Is milk white?", "chosen": "Yes.", "rejected": "No."}
TURN = {"role": "user", "content": "x"}
ANSWER = {"role": "assistant", "content": "y"}
FARM = {"instruction": "x", "output_1": "a", "output_2": "b"}
KAGGLE = {"prompt": '["Why?"]', "response_a": '["a"]', "response_b": '["b"]', "winner_model_a": 1, "winner_model_b": 0,
          "winner_tie": 0}  # fmt: skip
SUMMED = {"info": {"post": "Long."}, "summaries": [{"text": "a"}, {"text": "b"}], "choice": 0}
ARENA = {"conversation_a": [TURN, ANSWER], "conversation_b": [TURN, ANSWER]}
TWO = {"prompt": "x", "response_1": "a", "response_2": "b"}
SAFE = {"prompt": "x", "response_0": "a", "response_1": "b"}
SHP = {"history": "x", "human_ref_A": "a", "human_ref_B": "b"}
GPT = {"question": {"full_text": "x"}, "answer_0": "a", "answer_1": "b", "score_0": 1}
PAIRS, PROMPTS, EXAMPLES, KTO = "pairs", "prompts", "examples", "kto"
READERS = {
    PAIRS: (read_preferences, read_known_pairs),
    PROMPTS: (read_prompts,),
    EXAMPLES: (read_examples,),
    KTO: (lambda path: read_preferences(path, lone_answers=True),),
}
BROKEN = [
    (PAIRS, b"{", 'is not JSON: Expecting property name enclosed in double quotes'),
    (PAIRS, b"[1]", 'expected an object, got a list'),
    (PAIRS, b'"text"', 'expected an object, got text'),
    (PAIRS, b'{"prompt": "x" "chosen": 1}', "is not JSON: Expecting ',' delimiter"),
    (PAIRS, b'{"prompt": "x", "prompt": "y", "chosen": "a", "rejected": "b"}', 'prompt: the key is given twice'),
    (PAIRS, b'{"prompt": [{"role": "user", "role": "user", "content": "x"}], "chosen": "a", "rejected": "b"}', 'role: the key is given twice'),
    (PAIRS, b'{"prompt": "x", "chosen": "a", "rejected": "b", "p": NaN}', 'p: nan is no finite number'),
    (PAIRS, b'{"prompt": "x", "chosen": "a", "rejected": "b", "p": -Infinity}', 'p: -inf is no finite number'),
    (PAIRS, b'{"prompt": "x", "chosen": "a", "rejected": "b", "p": 1e999}', 'p: inf is no finite number'),
    (PAIRS, b'{"prompt": "x", "chosen": "a", "rejected": "b", "id": ' + b"9" * 30 + b"}", 'id: the number is larger than 64 bits hold'),
    (PAIRS, b'{"prompt": "x", "chosen": "a", "rejected": "b", "id": 9223372036854775809}', 'id: the number is larger than 64 bits hold'),
    (PAIRS, b'{"prompt": "caf\xe9", "chosen": "a", "rejected": "b"}', 'is not UTF-8 (byte 0xe9)'),
    (PAIRS, b'{"prompt": "a\x00b", "chosen": "a", "rejected": "b"}', 'is not JSON: Invalid control character at'),
    (PAIRS, b'{"prompt": "x", "chosen": "a \\ud83d", "rejected": "b"}', 'chosen: holds a lone surrogate (U+D83D), which is not text'),
    (PAIRS, b'{"meta": {"k\\udc00": 1}, "prompt": "x", "chosen": "a", "rejected": "b"}', 'a key holds a lone surrogate, which is not text'),
    (PAIRS, b'{"prompt": ' + b"[" * 100_000, 'is nested deeper than 32 levels'),
    (PAIRS, b'{"meta": ' + b"[" * 40 + b"]" * 40 + b', "prompt": "x", "chosen": "a", "rejected": "b"}', 'meta[0]: is nested deeper than 32 levels'),
    (PAIRS, {}, 'has nothing, which is no known format; known are'),
    (PAIRS, {"text": "x"}, 'has text, which is no known format; known are'),
    (PAIRS, {"prompt": "x", "chosen": "a"}, 'holds prompts (chosen, prompt), no two answers to compare (rejected is missing beside chosen)'),
    (PAIRS, {"chosen": "a", "rejected": None}, 'has chosen, which is no known format (rejected is missing beside chosen); known are'),
    (PAIRS, {"prompt": "x"}, 'holds prompts (prompt), no two answers to compare'),
    (PAIRS, {"messages": [TURN, ANSWER]}, 'holds messages (messages), no two answers to compare'),
    (PAIRS, {"prompt": "x", "completion": "y", "label": True}, 'holds answers with a label (completion, label, prompt), no two answers to compare (unpaired answers are for KTO)'),
    (PAIRS, {**GOOD, "response_0": "a", "response_1": "b", "better_response_id": 1}, 'has better_response_id, chosen, prompt, rejected, response_0, response_1, which is ambiguous: pairs and PKU-SafeRLHF; keep the fields of one'),
    (PAIRS, {**GOOD, "completion": "a", "label": True}, 'has chosen, completion, label, prompt, rejected, which is ambiguous: answers with a label and pairs; keep the fields of one'),
    (PAIRS, {**GOOD, "chosen": 1}, 'chosen: expected text or a list of messages, got a number'),
    (PAIRS, {**GOOD, "chosen": []}, 'chosen: expected text or a list of messages, got an empty list'),
    (PAIRS, {**GOOD, "chosen": [ANSWER, "x"]}, 'chosen[1]: expected a message with role and content, got text'),
    (PAIRS, {**GOOD, "prompt": 3}, 'prompt: expected text or a list of messages, got a number'),
    (PAIRS, {**GOOD, "prompt": []}, 'prompt: expected text or a list of messages, got an empty list'),
    (PAIRS, {**GOOD, "prompt": [{"role": "bot", "content": "x"}]}, "prompt[0].role: 'bot' is not one of system, user, assistant"),
    (PAIRS, {**GOOD, "prompt": [{"role": "tool", "content": "x"}]}, "prompt[0].role: 'tool' is not one of system, user, assistant"),
    (PAIRS, {**GOOD, "prompt": [{"role": "user"}]}, 'prompt[0].content: is missing; a message has role and content'),
    (PAIRS, {**GOOD, "prompt": [TURN, {"content": "x"}]}, 'prompt[1].role: is missing; a message has role and content'),
    (PAIRS, {**GOOD, "prompt": [{"role": "user", "content": None}]}, 'prompt[0].content: expected text, got null'),
    (PAIRS, {**GOOD, "prompt": [{"role": "user", "content": [{"type": "image", "url": "x"}]}]}, "prompt[0].content[0]: expected a part of type text, got 'image'"),
    (PAIRS, {**GOOD, "prompt": [{"role": "assistant", "content": "", "tool_calls": [{"id": 1}]}]}, 'prompt[0].tool_calls: calls of tools are not read'),
    (PAIRS, {**GOOD, "system": "Be brief.", "prompt": [{"role": "system", "content": "Be long."}, TURN]}, "system: is another text than the conversation's own system turn"),
    (PAIRS, {**GOOD, "system": 3}, 'system: expected text, got a number'),
    (PAIRS, {"chosen": "hello", "rejected": "bye"}, 'prompt: is missing, and chosen and rejected are no transcripts and begin with other words'),
    (PAIRS, {"chosen": "\n\nHuman: x\n\nAssistant: y", "rejected": "bye"}, 'rejected: is no transcript of turns that begin with Human: and Assistant:, and prompt is missing'),
    (PAIRS, {"chosen": [TURN, ANSWER], "rejected": "bye"}, 'rejected: is no transcript of turns that begin with Human: and Assistant:, and prompt is missing'),
    (PAIRS, {**GOOD, "p": 1.5}, 'p: 1.5 is not a probability between 0 and 1'),
    (PAIRS, {**GOOD, "p": True}, 'p: true is not a probability between 0 and 1'),
    (PAIRS, {**GOOD, "p": None}, 'p: null is not a probability between 0 and 1'),
    (PAIRS, {**GOOD, "p": "likely"}, "p: 'likely' is not a probability between 0 and 1"),
    (PAIRS, {**GOOD, "status": 3}, 'status: expected text, got a number'),
    (PAIRS, {**GOOD, "id": True}, 'id: expected text or a number, got true'),
    (PAIRS, {**GOOD, "pair_id": ["x"]}, 'pair_id: expected text or a number, got a list'),
    (PAIRS, {**GOOD, "chosen": ["a", 1]}, 'chosen[0]: expected a message with role and content, got text'),
    (PAIRS, {**FARM, "preference": 3}, 'preference: 3 is not 1 or 2 (or 0, or between them)'),
    (PAIRS, {**FARM, "preference": True}, 'preference: true is not 1 or 2 (or 0, or between them)'),
    (PAIRS, {**FARM, "label": True}, 'label: true is not 1 or 2 (or 0, or between them)'),
    (PAIRS, {**FARM, "label": "first"}, "label: 'first' is not 1 or 2 (or 0, or between them)"),
    (PAIRS, {**FARM, "preference": 0.5}, 'preference: 0.5 is not 1 or 2 (or 0, or between them)'),
    (PAIRS, {**FARM, "preference": 1, "label": 2}, 'label: 2 and preference 1 name two answers'),
    (PAIRS, {**FARM, "instruction": "", "preference": 1}, 'instruction: is missing or empty'),
    (PAIRS, {**FARM, "output_1": 5, "preference": 1}, 'output_1: expected text, got a number'),
    (PAIRS, {**ARENA, "winner": "model_c"}, "winner: 'model_c' is not one of model_a, model_b, tie, tie (bothbad)"),
    (PAIRS, {**ARENA, "winner": True}, "winner: 'True' is not one of model_a, model_b, tie, tie (bothbad)"),
    (PAIRS, {**ARENA, "conversation_a": "x", "winner": "model_a"}, 'conversation_a: expected a list of messages, got text'),
    (PAIRS, {**KAGGLE, "winner_model_a": 0}, 'winner_model_a: 0, 0, 0 with winner_model_b, winner_tie: not one of them is 1'),
    (PAIRS, {**KAGGLE, "winner_tie": "no"}, "winner_tie: 'no' is not 0 or 1"),
    (PAIRS, {**KAGGLE, "response_b": "[broken"}, 'response_b: is not a JSON list of texts'),
    (PAIRS, {**KAGGLE, "response_b": '["a", "b"]'}, 'response_b: 2 answers to 1 prompts'),
    (PAIRS, {**KAGGLE, "response_a": "[3]"}, 'response_a[0]: expected text, got a number'),
    (PAIRS, {**SUMMED, "choice": 2}, 'choice: 2 is not 0 or 1'),
    (PAIRS, {**SUMMED, "info": {"title": "t"}}, 'info.post: expected text, got null'),
    (PAIRS, {**SUMMED, "summaries": [{"text": "a"}]}, 'summaries: expected two objects with text'),
    (PAIRS, {**TWO, "preference_strength": 4}, 'preference_strength: 4 is not a preference from -3 to 3'),
    (PAIRS, {**TWO, "preference_strength": "much"}, "preference_strength: 'much' is not a preference from -3 to 3"),
    (PAIRS, {"context": [TURN], "response1": "a", "response2": ["b"], "overall_preference": 1}, 'response2: expected text, got a list'),
    (PAIRS, {"context": 1, "response1": "a", "response2": "b", "overall_preference": 1}, 'context: expected text or a list of messages, got a number'),
    (PAIRS, {**SAFE, "better_response_id": 2}, 'better_response_id: 2 is not 0 or 1'),
    (PAIRS, {**SAFE, "better_response_id": True}, 'better_response_id: true is not 0 or 1'),
    (PAIRS, {**SAFE, "safer_response_id": 0.5}, 'safer_response_id: 0.5 is not 0 or 1'),
    (PAIRS, {"prompt": "x", "answers": {"answer": "a", "rank": 1}}, 'answers: expected a list, got an object'),
    (PAIRS, {"prompt": "x", "answers": [{"answer": "a"}]}, 'answers[0]: expected an object with answer and rank'),
    (PAIRS, {"prompt": "x", "answers": [{"answer": "a", "rank": True}]}, 'answers[0]: rank: true is not a number'),
    (PAIRS, {"prompt": "x", "responses": ["a", "b"], "scores": [1]}, 'scores: 1 of 2 responses'),
    (PAIRS, {"prompt": "x", "responses": ["a", 2], "ranks": [1, 2]}, 'responses[1]: expected text, got a number'),
    (PAIRS, {**SHP, "labels": 2}, 'labels: 2 is not 1 (A is better) or 0 (B is)'),
    (PAIRS, {**SHP, "labels": True}, 'labels: true is not 1 (A is better) or 0 (B is)'),
    (PAIRS, {**SHP, "history": ["x"], "labels": 1}, 'history: expected text, got a list'),
    (PAIRS, {**GPT, "score_1": "high"}, "score_1: 'high' is not a score from -1 to 1"),
    (PAIRS, {**GPT, "score_1": 7}, 'score_1: 7 is not a score from -1 to 1'),
    (PAIRS, {**GPT, "question": {"id": 1}, "score_1": -1}, 'prompt: is missing or empty'),
    (PAIRS, {"prompt": "x", "response": "y", "helpfulness": 5}, 'helpfulness: 5 is not a score from 0 to 4'),
    (PAIRS, {"prompt": ["x"], "response": "y", "helpfulness": 3}, 'prompt: expected text, got a list'),
    (PAIRS, {"prompt": "x\n(A) a\n(B) b", "corrects": "A", "incorrects": ["B"]}, "corrects: expected a list with an option's letter, got text"),
    (KTO, {"prompt": "x", "completion": "y", "label": 1}, 'label: 1 is not true or false'),
    (KTO, {"prompt": "x", "completion": "y"}, 'label: is missing; true or false is needed'),
    (KTO, {"prompt": "x", "completion": 3, "label": True}, 'completion: expected text or a list of messages, got a number'),
    (KTO, {"completion": "y", "label": True}, 'has completion, label, which is no known format (prompt is missing beside completion); known are'),
    (PROMPTS, {"messages": []}, 'messages: expected a list of messages, got an empty list'),
    (PROMPTS, {"messages": "x"}, 'messages: expected a list of messages, got text'),
    (PROMPTS, {"conversations": [{"from": "robot", "value": "x"}]}, "conversations[0].from: 'robot' is not one of system, human, user, gpt, chatgpt, assistant, model"),
    (PROMPTS, {"conversations": [{"from": "human", "text": "x"}]}, 'conversations[0].value: is missing; a message has role and content'),
    (PROMPTS, {"prompt": "x", "meta": []}, 'meta: expected an object, got an empty list'),
    (PROMPTS, {"prompt": "x", "references": [1]}, 'references: expected a text, or a list of texts'),
    (PROMPTS, {"prompt": "x", "id": {"n": 1}}, 'id: expected text or a number, got an object'),
    (EXAMPLES, GOOD, 'holds pairs (chosen, prompt, rejected), no demonstration;'),
    (EXAMPLES, {"prompt": "x"}, 'holds prompts (prompt), no demonstration;'),
    (EXAMPLES, {"instruction": "x", "output": 3}, 'output: expected text, got a number'),
    (EXAMPLES, {"instruction": "x", "output": "y", "history": ["a"]}, 'history[0]: expected [question, answer]'),
    (EXAMPLES, {"messages": [{"role": "user", "content": "x"}, {"role": "developer", "content": "y"}]}, "messages[1].role: 'developer' is not one of system, user, assistant"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "row", "problem"), BROKEN)
def test_a_broken_row_is_one_line_with_its_place(tmp_path, kind, row, problem):
    good = {PROMPTS: {"prompt": "a"}, EXAMPLES: {"messages": [TURN, ANSWER]}}.get(kind, GOOD)
    path = tmp_path / "rows.jsonl"
    line = row if isinstance(row, bytes) else json.dumps(row).encode()
    path.write_bytes(json.dumps(good).encode() + b"\n\n" + line + b"\n")
    for read in READERS[kind]:
        with pytest.raises(DataError) as caught:
            read(path)
        assert str(caught.value).startswith(f"{path}:3: {problem}")
        assert "\n" not in str(caught.value)


FILES = {
    "none.jsonl": (None, "none.jsonl: no such file"),
    "rows.xlsx": (b"", "rows.xlsx: unknown kind of file; .jsonl, .ndjson, .json, .csv, .txt, .parquet are read, each also"),
    "empty.jsonl": (b"", "empty.jsonl: holds no prompts"),
    "blank.jsonl": (b"\n \r\n", "blank.jsonl: holds no prompts"),
    "bom.jsonl": (b"\xef\xbb\xbf", "bom.jsonl: holds no prompts"),
    "list.json": (b"[]", "list.json: holds no prompts"),
    "half.json": (b'[\n{"prompt": "q"},\n{oops]', "half.json:3: is not JSON: Expecting property name"),
    "comma.json": (b'[\n{"prompt": "q"}\n{"a": 1}]', "comma.json:3: is not JSON: expected , or ] after a row"),
    "more.json": (b'[{"chosen": "a b", "rejected": "a c"}]\n{}', "more.json:2: is not JSON: text after the list"),
    "number.json": (b"[\n\n1]", "number.json:3: expected an object, got a number"),
    "utf16.jsonl": ('{"prompt": "x"}'.encode("utf-16"), "utf16.jsonl:1: is not UTF-8 (byte 0xff)"),
    "latin.json": (b'[\n{"prompt": "caf\xe9"}]', "latin.json:2: is not UTF-8 (byte 0xe9)"),
    "cut.jsonl.gz": (gzip.compress(json.dumps(GOOD).encode() * 999)[:-20], "cut.jsonl.gz: cannot be read: Compressed file"),
    "bad.jsonl.gz": (gzip.compress(b"x" * 99)[:12] + b"\0" * 20, "bad.jsonl.gz: cannot be read: "),
    "plain.jsonl.gz": (b"{}", "plain.jsonl.gz: is not gzip, whatever its name says"),
    "fake.parquet": (b"no", "fake.parquet: is not Parquet: "),
    "nul.txt": (b"a\nb\0c\n", "nul.txt:2: holds a NUL byte"),
    "wide.csv": (b"prompt,chosen,rejected\nx,a,b\nx,a,b,c\n", "wide.csv:3: more cells than the 3 columns"),
    "twice.csv": (b"prompt,chosen,chosen\nx,a,b\n", "twice.csv:1: column chosen is given twice"),
    "quote.csv": (b'prompt,chosen,rejected\nx,a,"b\n', "quote.csv:2: not CSV: unexpected end of data"),
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_a_broken_file_is_one_line(tmp_path, name):
    raw, problem = FILES[name]
    if raw is not None:
        (tmp_path / name).write_bytes(raw)
    with pytest.raises(DataError) as caught:
        read_prompts(tmp_path / name)
    assert str(caught.value).startswith(f"{tmp_path}/{problem}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("read", [read_preferences, read_prompts, read_examples])
def test_an_id_that_returns_with_other_content_is_named(tmp_path, read):
    form = {read_preferences: GOOD, read_prompts: {}, read_examples: {"completion": "y"}}[read]
    rows = [{**form, "id": n, "prompt": text} for n, text in ((7, "x"), (8, "y"), ("7", "z"))]
    path = tmp_path / "ids.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(DataError) as caught:
        read(path)
    assert str(caught.value) == f"{path}:3: id: '7' was already used for another row, {path}:1"


def test_a_row_of_parquet_is_named_by_its_number(tmp_path):
    rows = [{**GOOD, "p": 0.9}, {**GOOD, "prompt": "Is tea hot?", "p": None}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "p.parquet")
    with pytest.raises(DataError, match=r"p\.parquet:2: p: null is not a probability between 0 and 1"):
        read_preferences(tmp_path / "p.parquet")


def test_a_trainer_and_a_command_say_the_same_line(tmp_path, capsys):
    from flows.cli import main
    from training import cli
    from training.config.supervised import RewardModelConfig

    path = tmp_path / "rows.jsonl"
    path.write_text('{"prompt": "x \\ud83d", "chosen": "a", "rejected": "b"}\n')
    line = f"error: {path}:1: prompt: holds a lone surrogate (U+D83D), which is not text\n"
    with pytest.raises(SystemExit) as stopped:
        main(["labels", "import", str(path), "--who", "x", "--ledger", str(tmp_path / "l.db")])
    assert stopped.value.code == 2 and capsys.readouterr().err == line
    config = tmp_path / "rm.yaml"
    config.write_text(f"model: x\ndata: [{path}]\noutput_dir: {tmp_path}/out\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["rm", "--config", str(config)])
        assert cli.main(RewardModelConfig, lambda c, resume: read_preferences(c.data), "") == 2
    assert capsys.readouterr().err == line


def test_every_shape_is_told(tmp_path: Path):
    """The unknown shape is named with what is known."""
    path = tmp_path / "x.jsonl"
    path.write_text('{"text": "hm", "source": null}\n')
    with pytest.raises(DataError) as caught:
        read_prompts(path)
    told = str(caught.value)
    assert told.startswith(
        f"{path}:1: has text, which is no known format; known are prompt; messages; conversations"
    )
    assert "human_ref_A" in told and "conversation_a" in told and "chosen, rejected" in told
