"""What servers really answer, each as its status: filters, thinking parsers, short lists, small contexts, oddities."""

from __future__ import annotations

import json
import math
import time

import pytest

from engines import EngineError, RemoteEngine, Request, Sampling
from engines.stops import folder_stop_ids, stop_ids

CHAT = ({"role": "user", "content": "Which is better?"},)
READ = Request(messages=CHAT, options=("A", "B"))
WRITE = Request(messages=CHAT, write=Sampling(max_new_tokens=30, temperature=0.0))


@pytest.fixture
def engine(server):
    made = RemoteEngine([server.url], model="m", timeout_s=5.0, retry_s=5.0)
    yield made
    made.close()


def answers(server, choice, status=200, **more):
    body = {"choices": [{"index": 0, **choice}], "usage": {"prompt_tokens": 5, "completion_tokens": 1}}
    server.behave = lambda path, asked, n: (status, json.dumps(body | more))


def listed(*tokens):
    return {"content": [{"top_logprobs": [{"token": t, "logprob": math.log(p)} for t, p in tokens]}]}


FILTERED = [
    (400, {"error": {"code": "content_filter", "message": "The response was filtered"}}),
    (400, {"error": {"code": None, "innererror": {"code": "ResponsibleAIPolicyViolation"}, "message": "no"}}),
    (400, {"error": {"message": "triggering Azure OpenAI's content management policy"}}),
    (403, {"error": {"code": 403, "message": 'requires moderation. Your input was flagged for "violence"'}}),
    (
        403,
        {
            "error": {
                "message": "flagged",
                "metadata": {"flagged_input": "how", "reasons": {"x": 1}},
                "code": 403,
            }
        },
    ),
    (422, {"code": "DataInspectionFailed", "message": "Input data may contain inappropriate content"}),
    (429, {"error": {"code": "content_policy_violation", "message": "slow down"}}),
    (451, {"error": {"type": "moderation_blocked", "message": "no"}}),
    (500, {"error": {"status": "PROHIBITED_CONTENT", "message": "no"}}),
]


@pytest.mark.parametrize(("status", "body"), FILTERED)
@pytest.mark.parametrize("request_", [READ, WRITE])
def test_a_content_filter_refuses_under_any_status(server, engine, status, body, request_):
    server.behave = lambda path, asked, n: (status, json.dumps(body))
    [answer] = engine.ask([request_])
    assert (answer.status, answer.cause, len(server.requests)) == ("refused", None, 1)
    assert answer.detail.startswith(f"content filter ({status}): ")


def test_one_filtered_prompt_of_many_refuses_itself_alone(server, engine):
    def behave(path, body, n):
        if any("bad" in p for p in body["prompt"]):
            return FILTERED[0][0], json.dumps(FILTERED[0][1])

    server.behave = behave
    asked = [Request(text="bad" if n == 3 else "good", options=("A", "B")) for n in range(8)]
    assert [a.status for a in engine.ask(asked)] == ["ok"] * 3 + ["refused"] + ["ok"] * 4


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (
            400,
            {"error": {"message": "max_tokens must be at least 1, got a prompt about moderation"}},
            "error",
        ),
        (
            400,
            {"error": {"message": "maximum context length is 64 tokens", "type": "BadRequestError"}},
            "truncated",
        ),
        (500, {"error": {"message": "out of memory", "type": "InternalServerError"}}, "error"),
    ],
)
def test_what_is_no_filter_is_none(server, engine, status, body, expected):
    server.behave = lambda path, asked, n: (status, json.dumps(body))
    assert engine.ask([READ])[0].status == expected


def test_a_key_that_is_refused_still_stops_everything(server, engine):
    server.behave = lambda path, asked, n: (
        403,
        '{"error": {"message": "invalid key", "code": "invalid_api_key"}}',
    )
    with pytest.raises(EngineError, match="refuses the key"):
        engine.ask([READ])


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning", None])
@pytest.mark.parametrize("logprobs", [None, listed(("<think>", 0.98), ("A", 0.01))])
def test_a_reasoning_parser_that_keeps_the_text_is_named(server, engine, field, logprobs):
    message = {"role": "assistant", "content": None} | ({field: "First I compare"} if field else {})
    answers(server, {"message": message, "finish_reason": "length", "logprobs": logprobs})
    for request in (READ, WRITE):
        [answer] = engine.ask([request])
        assert (answer.status, answer.cause) == ("truncated", "chat: reasoning parser")
        assert "--reasoning-parser" in answer.detail and (field or "content: null") in answer.detail


def test_letters_that_a_parser_took_for_a_thought_are_read(server, engine):
    message = {"content": None, "reasoning_content": "A"}
    answers(
        server, {"message": message, "finish_reason": "length", "logprobs": listed(("A", 0.7), ("B", 0.29))}
    )
    [answer] = engine.ask([READ])
    assert answer.status == "ok" and answer.logprobs == pytest.approx((math.log(0.7), math.log(0.29)))


def test_a_thought_where_the_letter_is_read_is_told(server, engine):
    tokens = [("<think>", 0.97), ("Okay", 0.02), ("A", 0.0005)]
    answers(server, {"message": {"content": "<think>"}, "logprobs": listed(*tokens)})
    [answer] = engine.ask([READ])
    assert answer.status == "no_answer" or sum(map(math.exp, answer.logprobs)) < 0.01
    assert "'<think>' (0.97)" in answer.detail and "judge.thinking" in answer.detail


@pytest.mark.parametrize(
    ("tokens", "cause"),
    [
        ([("A", 0.4), ("The", 0.2), ("I", 0.15), ("Both", 0.1), ("It", 0.08)], "chat: 5 tokens listed"),
        ([("The", 0.5), ("I", 0.2), ("It", 0.1)], "chat: 3 tokens listed"),
        ([("The", 0.9), ("I", 0.0999), ("It", 0.0001)], None),  # no room left for an option
    ],
)
def test_what_a_short_list_left_out_is_its_fault(server, engine, tokens, cause):
    answers(server, {"message": {"content": "A"}, "logprobs": listed(*tokens)})
    [answer] = engine.ask([READ])
    assert (answer.status, answer.cause) == ("no_answer", cause)


@pytest.mark.parametrize("other", ["A", " A", "▁A", "Ġ" + "A"])
def test_listed_tokens_that_read_the_same_are_summed(server, engine, other):
    answers(server, {"message": {"content": "B"}, "logprobs": listed(("B", 0.42), ("A", 0.3), (other, 0.25))})
    [answer] = engine.ask([READ])
    assert [math.exp(lp) for lp in answer.logprobs] == pytest.approx([0.55, 0.42])


def test_the_same_by_token_ids(server, engine):
    names = {"token_id:7": math.log(0.3), "token_id:8": math.log(0.25), "token_id:9": math.log(0.42)}
    answers(server, {"text": "B", "logprobs": {"top_logprobs": [names]}})
    [answer] = engine.ask([Request(ids=(1, 2), options=("A", "B"), spellings=(((7,), (8,)), ((9,),)))])
    assert [math.exp(lp) for lp in answer.logprobs] == pytest.approx([0.55, 0.42])


def test_a_server_without_vllms_names_of_tokens_is_read_by_their_text(server, engine):
    answers(server, {"text": "B", "logprobs": {"top_logprobs": [{"A": math.log(0.3), " B": math.log(0.7)}]}})
    [answer] = engine.ask([Request(ids=(1, 2), options=("A", "B"), spellings=(((7,),), ((9,),)))])
    assert [math.exp(lp) for lp in answer.logprobs] == pytest.approx([0.3, 0.7])


def test_without_log_probabilities_the_line_says_what_to_choose(server, engine):
    answers(server, {"message": {"content": "A"}, "logprobs": None, "finish_reason": "length"})
    [answer] = engine.ask([READ])
    assert answer.status == "error" and "readout: verdict" in answer.detail


def test_answers_of_another_name_are_said_once(server, engine, caplog):
    answers(
        server, {"message": {"content": "A"}, "logprobs": listed(("A", 0.7), ("B", 0.3))}, model="m-2025-06"
    )
    assert {a.status for a in engine.ask([READ] * 5)} == {"ok"}
    assert [m for m in caplog.messages if "answers as 'm-2025-06'" in m] == caplog.messages and len(
        caplog.messages
    ) == 1


@pytest.mark.parametrize(
    ("change", "status"),
    [
        (lambda body: body.pop("usage"), "ok"),
        (lambda body: body["choices"][0].update(index="0"), "ok"),
        (lambda body: body["choices"][0].pop("index"), "ok"),
        (lambda body: body["choices"][0].update(finish_reason="content_filter"), "refused"),
        (lambda body: body["choices"][0]["message"].update(refusal="I cannot"), "refused"),
        (lambda body: body["choices"][0]["logprobs"]["content"].clear(), "error"),
        (lambda body: body["choices"].append(body["choices"][0]), "error"),
    ],
)
def test_oddities_of_the_json(server, engine, change, status):
    body = {
        "choices": [
            {"index": 0, "message": {"content": "A"}, "logprobs": listed(("A", 0.7), ("B", 0.3))},
        ],
        "usage": {},
    }
    change(body)
    server.behave = lambda path, asked, n: (200, json.dumps(body))
    assert engine.ask([READ])[0].status == status


def test_every_request_states_every_field_that_decides_a_draw(server, engine):
    def behave(path, body, n):
        if body.get("return_token_ids"):
            choice = {
                "index": 0,
                "token_ids": [5],
                "logprobs": {"token_logprobs": [-1.0]},
                "finish_reason": "stop",
            }
            return 200, json.dumps({"choices": [choice]})

    server.behave = behave
    asked = [
        READ,
        WRITE,
        Request(text="x", options=("A", "B")),
        Request(ids=(1, 2), spellings=(((7,),), ((9,),))),
        Request(ids=(1, 2), spellings=(((7, 8),), ((9,),))),
        Request(ids=(1, 2), write=Sampling(max_new_tokens=4, temperature=0.7, top_k=9)),
    ]
    engine.ask(asked)
    engine.generate([[5, 6]], Sampling(max_new_tokens=4, temperature=0.7, top_p=0.9), seed=1, rows=[0])
    assert len(server.requests) == len(asked) + 1
    every = {
        "max_tokens",
        "temperature",
        "top_p",
        "top_k",
        "min_p",
        "repetition_penalty",
        "seed",
        "stop_token_ids",
    }
    every |= {"presence_penalty", "frequency_penalty"}
    for path, body in server.requests:
        assert every <= body.keys(), path
    # What was asked together arrives in any order.
    assert server.requests[-1][1]["top_p"] == 0.9
    assert sorted(body["top_k"] for _, body in server.requests) == [-1] * len(asked) + [9]


def test_a_strict_server_is_asked_without_the_fields_that_it_refuses(server, engine, caplog):
    def behave(path, body, n):
        extra = sorted({"top_k", "min_p", "repetition_penalty", "stop_token_ids"} & body.keys())
        if extra:
            return 400, json.dumps(
                {"error": {"message": f"Unrecognized request argument supplied: {extra[0]}"}}
            )

    server.behave = behave
    assert {a.status for a in engine.ask([READ] * 3)} == {"ok"}
    said = [m for m in caplog.messages if "its own defaults hold" in m]
    assert len(said) == 4
    assert engine.ask([READ])[0].status == "ok"
    assert len([m for m in caplog.messages if "its own defaults hold" in m]) == 4


def test_prompts_of_a_step_draw_from_noise_of_their_own_and_again_the_same(server, engine):
    def behave(path, body, n):
        choice = {
            "index": 0,
            "token_ids": [5],
            "logprobs": {"token_logprobs": [-1.0]},
            "finish_reason": "length",
        }
        return 200, json.dumps({"choices": [choice]})

    server.behave = behave
    prompts, rows = [[5, 6]] * 4 + [[7]] * 4, range(8)
    engine.generate(prompts, Sampling(max_new_tokens=4), seed=1, rows=rows)
    seeds = [body["seed"] for _, body in server.requests]
    assert len(set(seeds)) == 8 and all(0 <= seed < 2**63 for seed in seeds)
    # The same rows in another process, a half each.
    engine.generate(prompts[4:], Sampling(max_new_tokens=4), seed=1, rows=rows[4:])
    engine.generate(prompts[:4], Sampling(max_new_tokens=4), seed=1, rows=rows[:4])
    assert sorted(body["seed"] for _, body in server.requests[8:]) == sorted(seeds)
    engine.generate(prompts, Sampling(max_new_tokens=4), seed=2, rows=rows)
    assert not {body["seed"] for _, body in server.requests[16:]} & set(seeds)


def test_one_set_of_stops_in_process_and_over_http(server, tiny_dir, tiny_tokenizer, tiny_model, tmp_path):
    """A generation config with several end tokens, as Llama 3, Qwen 2.5 and Gemma have."""
    from engines.in_process.loop import Loop

    tiny_model.generation_config.eos_token_id = [tiny_tokenizer.eos_token_id, 300]
    tiny_model.generation_config.save_pretrained(tmp_path)
    loop = Loop(tiny_model, tiny_tokenizer, [[5, 6]], [4], [0], Sampling(max_new_tokens=4), 0, [0], 8)
    stops = tuple(i for i, stop in enumerate(loop.is_stop.tolist()) if stop)
    assert 300 in stops and stops == stop_ids(tiny_tokenizer, tiny_model.generation_config)
    assert folder_stop_ids(tmp_path, tiny_tokenizer) == stops
    engine = RemoteEngine([server.url], model="m", stop_ids=stops)
    engine.ask([Request(ids=(5, 6), write=Sampling(max_new_tokens=4))])
    assert server.requests[0][1]["stop_token_ids"] == list(stops)
    engine.close()


def test_no_proxy_variable_is_read(server, monkeypatch):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY", raising=False)
    engine = RemoteEngine([server.url], model="m", retry_s=1.0)
    assert engine.ask([READ])[0].status == "ok"
    engine.close()


def test_an_answer_that_trickles_in_has_a_limit_over_all(server):
    """Each byte comes in time, the whole does not."""

    def trickle(handler):
        handler.send_response(200)
        handler.send_header("content-length", "1000")
        handler.end_headers()
        for _ in range(100):
            handler.wfile.write(b" ")
            handler.wfile.flush()
            time.sleep(0.05)

    server.raw = trickle
    engine = RemoteEngine([server.url], model="m", timeout_s=0.5)
    started = time.monotonic()
    [answer] = engine.ask([READ])
    assert (answer.status, time.monotonic() - started < 3) == ("timeout", True)
    engine.close()


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_retry_after_is_obeyed(server, engine, form):
    from email.utils import formatdate

    times = []

    def behave(path, body, n):
        times.append(time.monotonic())
        if n == 1:
            after = "2" if form == "seconds" else formatdate(time.time() + 3, usegmt=True)
            return 429, "{}", {"retry-after": after}

    server.behave = behave
    assert engine.ask([READ])[0].status == "ok"
    assert times[1] - times[0] >= 1.9


def test_a_wait_beyond_all_patience_is_said(server, engine):
    server.behave = lambda path, body, n: (429, "{}", {"retry-after": "3600"})
    started = time.monotonic()
    [answer] = engine.ask([READ])
    assert answer.status == "error" and "asks for 3600 s" in answer.detail
    assert time.monotonic() - started < 4
