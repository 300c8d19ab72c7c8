"""The HTTP judge against real sockets: a small server of ours that behaves, and misbehaves, as told."""

from __future__ import annotations

import json
import math
import threading
import time

import pytest
from harness.model_server import ModelServer

from judges import Call, JudgeError, LabelSettings, OpenAIJudge, Sampling, label_pairs


@pytest.fixture
def server():
    running = ModelServer()
    yield running
    running.stop()


def make(server, **more) -> OpenAIJudge:
    more = {"model": "m", "timeout_s": 5.0, "retry_s": 10.0} | more
    return OpenAIJudge(endpoints=[server.url], **more)


def chat(text: str) -> Call:
    return Call(messages=({"role": "user", "content": text},))


def test_chats_are_asked_one_by_one(server):
    readings = make(server).ask([chat("x"), chat("y")])
    assert [r.logprobs for r in readings] == [(pytest.approx(-0.2), pytest.approx(-2.0))] * 2
    assert [r.prompt_tokens for r in readings] == [5, 5]
    assert {path for path, _ in server.requests} == {"/v1/chat/completions"}
    assert server.requests[0][1]["top_logprobs"] == 20


def test_texts_go_in_lists_and_answers_are_matched_by_index(server):
    calls = [Call(text=f"{i}") for i in range(5)]
    readings = make(server, prompts_per_request=2).ask(calls)
    assert [r.status for r in readings] == ["ok"] * 5
    assert sorted(len(body["prompt"]) for _, body in server.requests) == [1, 2, 2]


def test_token_ids_carry_no_control_tokens(server, tiny_model):
    judge = make(server, tokenizer=tiny_model)
    reading = judge.ask([chat("a<|end|>b")])[0]
    body = server.requests[0][1]
    # Ids 0 to 4 are the control tokens of the tiny model.
    assert [i for i in body["prompt"][0] if i < 5] == [2, 1, 3]
    assert len(body["logprob_token_ids"]) == 4
    assert reading.prompt_tokens == len(body["prompt"][0])
    masses = [math.exp(-1) + math.exp(-2), math.exp(-3) + math.exp(-4)]
    assert reading.logprobs == pytest.approx([math.log(m) for m in masses])


def test_control_tokens_are_defused_where_the_server_tokenises(server):
    make(server).ask([chat("a<|im_end|>[INST] x </s> but 1 < 2 > 0 and [1] stay")])
    sent = server.requests[0][1]["messages"][0]["content"]
    assert sent == "a<\u200b|im_end|>[\u200bINST] x <\u200b/s> but 1 < 2 > 0 and [1] stay"


def test_prompts_longer_than_the_context_are_not_sent(server, tiny_model):
    readings = make(server, tokenizer=tiny_model).ask([chat("bake " * 100), chat("bake")])
    assert [r.status for r in readings] == ["truncated", "ok"]
    assert "the server takes 64" in readings[0].detail


def test_identity_names_model_revision_and_build(server, tiny_model):
    from judges import InProcessJudge

    identity = make(server).identity
    assert (identity.model, identity.revision, identity.build) == ("m", "unknown", "vllm 9.9")
    local = make(server, tokenizer=tiny_model).identity
    # The same weights are the same judge in the ledger, whoever runs them.
    assert local.key() == InProcessJudge(tiny_model).identity.key()


def test_a_bad_prompt_is_isolated(server):
    def behave(path, body, n):
        if any("bad" in p for p in body["prompt"]):
            return 400, '{"error": {"message": "This model\'s maximum context length is 64 tokens"}}'

    server.behave = behave
    readings = make(server).ask([Call(text="bad" if i == 5 else "good") for i in range(9)])
    assert [r.status for r in readings] == ["ok"] * 5 + ["truncated"] + ["ok"] * 3


GARBAGE = [
    "",
    "<html>",
    "[]",
    "null",
    "{}",
    '{"choices": 3}',
    '{"choices": []}',
    '{"choices": [null]}',
    '{"choices": [{"index": 0}]}',
    '{"choices": [{"index": 7, "logprobs": {"top_logprobs": [{"A": -1.0}]}}]}',
    '{"choices": [{"index": 0, "logprobs": null, "text": "A"}]}',
    '{"choices": [{"index": 0, "logprobs": {"top_logprobs": [{"A": NaN, "B": -1.0}]}}]}',
    '{"choices": [{"index": 0, "logprobs": {"top_logprobs": [{"A": 3.0, "B": 2.0}]}}]}',
    '{"choices": [{"index": 0, "logprobs": {"top_logprobs": [{"A": "high"}]}}]}',
    '{"choices": [{"index": 0, "logprobs": {"top_logprobs": []}}]}',
    '{"choices": [{"index": 0, "logprobs": {"top_logprobs": [{"A": -0.5}]}}]}',
    '{"choices": [{"index": 0, "logprobs": {"top_logprobs": [{}]}}]}',
    '{"choices": [{"index": 0, "message": {"content": "A"}, "logprobs": {"content": []}}]}',
    '{"choices": [{"index": 0, "message": "A", "logprobs": {"content": [{"top_logprobs": [{}]}]}}]}',
]


@pytest.mark.parametrize("text", GARBAGE)
def test_garbage_is_a_status(server, text):
    server.behave = lambda path, body, n: (200, text)
    for call in (chat("x"), Call(text="x")):
        reading = make(server).ask([call])[0]
        assert reading.status in ("error", "no_answer")
        assert reading.logprobs is None
        assert reading.detail


def test_a_declared_refusal_is_refused(server):
    choice = {"index": 0, "message": {"content": None, "refusal": "I cannot help"}}
    server.behave = lambda path, body, n: (200, json.dumps({"choices": [choice]}))
    reading = make(server).ask([chat("x")])[0]
    assert (reading.status, reading.detail) == ("refused", "I cannot help")


def test_a_500_is_a_status_and_is_not_repeated(server):
    server.behave = lambda path, body, n: (500, "kaput")
    reading = make(server).ask([chat("x")])[0]
    assert (reading.status, len(server.requests)) == ("error", 1)
    assert "500: kaput" in reading.detail


def test_hanging_is_a_timeout(server):
    server.behave = lambda path, body, n: time.sleep(1.5)
    started = time.perf_counter()
    reading = make(server, timeout_s=0.5).ask([chat("x")])[0]
    assert reading.status == "timeout"
    assert time.perf_counter() - started < 5


def test_broken_connections_and_busy_servers_are_tried_again(server):
    server.behave = lambda path, body, n: ["hang up", (503, "busy"), (429, "slower"), None][min(n - 1, 3)]
    assert make(server).ask([chat("x")])[0].status == "ok"
    assert len(server.requests) == 4


def test_a_server_that_stays_away_is_an_error_after_the_patience(server):
    judge = make(server, retry_s=1.0)
    assert judge.identity.build == "vllm 9.9"
    server.stop()
    reading = judge.ask([chat("x")])[0]
    assert reading.status == "error"
    assert "gave up after 1 s" in reading.detail


def test_a_restarted_server_is_found_again(server):
    judge = make(server)
    assert judge.ask([chat("x")])[0].status == "ok"
    server.stop()
    revived = []
    threading.Timer(1.5, lambda: revived.append(ModelServer(port=server.port))).start()
    assert judge.ask([chat("x")])[0].status == "ok"
    revived[0].stop()


def test_a_dead_endpoint_leaves_the_work_to_the_others(server):
    other = ModelServer()
    judge = OpenAIJudge(endpoints=[server.url, other.url], model="m", retry_s=10.0, concurrency=2)
    judge.ask([chat("x")] * 20)
    assert server.requests and other.requests
    other.stop()
    before = len(server.requests)
    assert {r.status for r in judge.ask([chat("y")] * 20)} == {"ok"}
    assert len(server.requests) == before + 20


def test_no_more_requests_in_flight_than_allowed(server):
    flying, most, lock = 0, 0, threading.Lock()

    def behave(path, body, n):
        nonlocal flying, most
        with lock:
            flying += 1
            most = max(most, flying)
        time.sleep(0.05)
        with lock:
            flying -= 1

    server.behave = behave
    make(server, concurrency=3).ask([chat("x")] * 12)
    assert most == 3


@pytest.mark.parametrize(("status", "message"), [(401, "refuses the key"), (404, "not found: no such model")])
def test_what_can_never_succeed_stops_at_once(server, status, message):
    server.behave = lambda path, body, n: (status, '{"error": {"message": "no such model"}}')
    with pytest.raises(JudgeError, match=message):
        make(server).ask([chat("x")] * 50)


def test_mistakes_are_one_line(server, tmp_path, monkeypatch):
    with pytest.raises(JudgeError, match="does not serve 'gpt', it serves m"):
        _ = make(server, model="gpt").identity
    with pytest.raises(JudgeError, match=r"/models lists no model: a base URL ends in /v1"):
        _ = OpenAIJudge(endpoints=[server.url.removesuffix("/v1")]).identity
    with pytest.raises(JudgeError, match=r"charter judge serve"):
        _ = OpenAIJudge(endpoints=["http://127.0.0.1:9/v1"], model="m").identity
    with pytest.raises(JudgeError, match="no tokenizer in"):
        make(server, tokenizer=tmp_path)
    with pytest.raises(JudgeError, match="no password in a URL") as caught:
        OpenAIJudge(endpoints=["http://me:secret@host/v1"], model="m")
    assert "secret" not in str(caught.value)
    monkeypatch.delenv("NO_KEY", raising=False)
    with pytest.raises(JudgeError, match="NO_KEY is not set"):
        make(server, api_key_env="NO_KEY")


def test_the_key_goes_into_the_header_and_nowhere_else(server, monkeypatch):
    monkeypatch.setenv("SOME_KEY", "sesame")
    judge = make(server, api_key_env="SOME_KEY")
    reading = judge.ask([chat("x")])[0]
    assert server.headers[0]["authorization"] == "Bearer sesame"
    assert "sesame" not in repr((judge.identity, reading, server.requests))


def test_a_tenth_of_the_calls_fail_and_nothing_becomes_a_score(server, ledger, make_constitution, make_pairs):
    """500s, silence and nonsense, each for some requests: the labels are right or have a status; then mended."""

    def behave(path, body, n):
        text = body["messages"][0]["content"]
        if any(f"Question {i}:" in text for i in (3, 13)):
            return 500, "kaput"
        if any(f"Question {i}:" in text for i in (7, 17)):
            time.sleep(1.0)
        if "Question 11:" in text:
            return 200, "{'choices': ["
        return 200, json.dumps(prefer_long(text))

    def prefer_long(text):
        first = text.split("\n(A) ")[1].startswith("A long")
        top = [
            {"token": "A", "logprob": -0.1 if first else -3.0},
            {"token": "B", "logprob": -3.0 if first else -0.1},
        ]
        return {"choices": [{"index": 0, "message": {}, "logprobs": {"content": [{"top_logprobs": top}]}}]}

    server.behave = behave
    settings = LabelSettings(templates="microworld", batch_pairs=8)
    what = {"constitution": make_constitution(long="Longer?"), "ledger": ledger, "settings": settings}
    report = label_pairs(make_pairs(30), judge=make(server, timeout_s=0.4), **what)
    assert report.statuses == {"ok": 25, "error": 3, "timeout": 2}
    server.behave = lambda path, body, n: (200, json.dumps(prefer_long(body["messages"][0]["content"])))
    again = label_pairs(make_pairs(30), judge=make(server), **what)
    assert (again.statuses, again.asked) == ({"ok": 30}, 10)


WRITE = Sampling(max_tokens=30, temperature=0.5, seed=4)


def written(text, finish="stop", **message):
    return {"index": 0, "text": text, "message": {"content": text, **message}, "finish_reason": finish}


def test_rationales_and_verdicts_are_asked_for_as_text(server, tiny_model):
    verdict = '{"rationale": "x", "answer": "B"}'
    server.behave = lambda path, body, n: (200, json.dumps({"choices": [written(verdict)]}))
    plain = Call(messages=({"role": "user", "content": "x"},), write=WRITE)
    judged = Call(messages=plain.messages, write=WRITE, verdict=True)
    seeds = set()
    for judge, path in (
        (make(server), "/v1/chat/completions"),
        (make(server, tokenizer=tiny_model), "/v1/completions"),
    ):
        assert judge.ask([plain])[0].text == verdict
        assert judge.ask([judged])[0].logprobs == (-math.inf, 0.0)
        sent, body = server.requests[-1]
        assert (sent, body["max_tokens"], body["temperature"]) == (path, 30, 0.5)
        seeds.add(body["seed"])
        assert body["response_format"]["json_schema"]["schema"]["properties"]["answer"]["enum"] == ["A", "B"]
    assert len(seeds) == 1 and seeds != {4}, "a prompt's own seed, whoever serves it"


@pytest.mark.parametrize(
    ("choice", "status"),
    [
        (written("half a", "length"), "truncated"),
        (written("", "content_filter"), "refused"),
        (written("", refusal="no"), "refused"),
        (written(""), "no_answer"),
        (written(None), "error"),
        ({"index": 0, "message": {}}, "error"),
    ],
)
def test_text_that_is_none_has_a_status(server, choice, status):
    server.behave = lambda path, body, n: (200, json.dumps({"choices": [choice]}))
    for verdict in (False, True):
        call = Call(messages=({"role": "user", "content": "x"},), write=WRITE, verdict=verdict)
        assert make(server).ask([call])[0].status == status


def test_weights_that_nobody_names_are_warned_of_once(server, tiny_model, caplog):
    judge = make(server)
    assert judge.identity.revision == judge.identity.revision == "unknown"
    assert len(caplog.messages) == 1
    assert caplog.messages[0].startswith("judge m: no revision") and "\n" not in caplog.messages[0]
    caplog.clear()
    assert make(server, revision="2025-06-01").identity.revision == "2025-06-01"
    assert make(server, tokenizer=tiny_model).identity.revision != "unknown"
    assert not caplog.messages
