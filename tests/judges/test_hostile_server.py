"""Answers of a server that cannot be read, or lie: each fails its own request and no other."""

from __future__ import annotations

import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from judges import Call, LabelSettings, OpenAIJudge, Sampling, label_pairs

GOOD = {"index": 0, "message": {"content": "A"}} | {
    "logprobs": {"content": [{"top_logprobs": [{"token": t, "logprob": -0.7} for t in "AB"]}]}
}
USAGE = {"prompt_tokens": 7, "completion_tokens": 1}


@pytest.fixture
def server():
    """Answers well, unless `hostile` (headers, bytes) is set and the prompt says "bad"."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            self.reply({}, json.dumps({"data": [{"id": "m", **running.described}]}).encode())

        def do_POST(self):
            asked = self.rfile.read(int(self.headers["content-length"])).decode()
            if "bad" in asked and running.hostile:
                self.reply(*running.hostile)
            else:
                self.reply({}, json.dumps({"choices": [GOOD], "usage": running.usage}).encode())

        def reply(self, headers, body):
            status = int(headers.pop("status", 200)) if (headers := dict(headers)) else 200
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    running.daemon_threads = True
    running.hostile, running.usage, running.described = None, USAGE, {}
    Thread(target=running.serve_forever, args=(0.05,), daemon=True).start()
    running.url = f"http://127.0.0.1:{running.server_address[1]}/v1"
    yield running
    running.shutdown()
    running.server_close()


@pytest.fixture
def judge(server):
    made = OpenAIJudge(endpoints=[server.url], model="m", timeout_s=5.0, retry_s=2.0)
    yield made
    made.close()


def chat(text: str) -> Call:
    return Call(messages=({"role": "user", "content": text},))


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ({"content-encoding": "gzip"}, b"not gzip"),
        ({"content-encoding": "deflate"}, b"not deflate"),
        ({}, b"[" * 200_000),
        ({}, b'{"choices": ' + b"[" * 200_000),
        ({}, b"9" * 10_000),
        ({"content-type": "text/html; charset=hex"}, b"<html>\xff\xfe"),
        ({"content-type": "text/html; charset=hex", "status": "500"}, b"<html>\xff\xfe"),
        ({"status": "400"}, b"[" * 200_000),
        ({"status": "400"}, b'{"error": ' + b"[" * 900 + b"]" * 900 + b"}"),
        ({"status": "302", "location": "http://["}, b""),
        ({"status": "503", "retry-after": "nan", "content-encoding": "gzip"}, b"not gzip"),
        ({}, b'{"choices": [{"index": 0, "message": {"refusal": ' + b"[" * 900 + b"]" * 900 + b"}}]}"),
    ],
)
def test_an_unreadable_answer_fails_its_own_request(server, judge, headers, body):
    server.hostile = headers, body
    readings = judge.ask([chat("bad" if n == 4 else "fine") for n in range(10)])
    assert [r.status for r in readings] == ["ok"] * 4 + [readings[4].status] + ["ok"] * 5
    assert readings[4].status in ("error", "refused")
    assert readings[4].detail and "\n" not in readings[4].detail


def test_a_text_that_utf_8_lacks_is_asked_all_the_same(server, judge):
    assert {r.status for r in judge.ask([chat("\ud800 half"), chat("fine")])} == {"ok"}


@pytest.mark.parametrize("count", [10**30, 2**31, -3, True, 7.5, "7", None, [7]])
def test_counts_of_tokens_that_cannot_be_are_unknown(
    server, judge, ledger, make_constitution, make_pairs, count
):
    server.usage = {"prompt_tokens": count, "completion_tokens": count}
    reading = judge.ask([chat("x")])[0]
    assert (reading.status, reading.prompt_tokens, reading.completion_tokens) == ("ok", 0, 0)
    writing = Call(messages=chat("x").messages, write=Sampling(max_tokens=9, temperature=0.0))
    assert judge.ask([writing])[0].prompt_tokens == 0
    report = label_pairs(
        make_pairs(2),
        constitution=make_constitution(long="Longer?"),
        judge=judge,
        ledger=ledger,
        settings=LabelSettings(templates="microworld"),
    )
    assert (report.pairs, report.prompt_tokens) == (2, 0)


@pytest.mark.parametrize("context", [True, 0, -5, 4.5, "many", None])
def test_a_context_that_cannot_be_is_unknown(server, context, tiny_model):
    server.described = {"max_model_len": context}
    made = OpenAIJudge(endpoints=[server.url], model="m", tokenizer=tiny_model, timeout_s=5.0)
    assert made.ask([chat("x")])[0].status != "truncated"
    made.close()
