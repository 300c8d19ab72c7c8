"""A small OpenAI-like server that behaves, and misbehaves, as told."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class ModelServer:
    """An OpenAI-like server; `behave(path, body, n)` may return (status, text) and headers for request number n, and
    `raw` takes the handler itself."""

    def __init__(self, port: int = 0, behave=None, models=("m",), max_model_len=64):
        self.requests: list[tuple[str, dict]] = []
        self.headers: list[dict] = []
        self.connections: list[socket.socket] = []
        self.raw = None
        self.max_model_len = max_model_len
        self.behave = behave or (lambda path, body, n: None)
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self):
                super().setup()
                outer.connections.append(self.connection)

            def do_GET(self):
                entries = [{"id": m, "max_model_len": outer.max_model_len} for m in models]
                body = {"/v1/models": {"data": entries}, "/version": {"version": "9.9"}}.get(self.path)
                self.reply(200 if body else 404, json.dumps(body))

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                outer.requests.append((self.path, body))
                outer.headers.append({k.lower(): v for k, v in self.headers.items()})
                if outer.raw is not None:
                    return outer.raw(self)
                told = outer.behave(self.path, body, len(outer.requests))
                if told == "hang up":
                    self.close_connection = True
                    return
                self.reply(*(told or (200, json.dumps(answer(self.path, body)))))

            def reply(self, status, text, headers=None):
                data = text.encode()
                self.send_response(status)
                for name, value in (headers or {}).items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.http.daemon_threads = True
        self.port = self.http.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}/v1"
        self.thread = threading.Thread(target=self.http.serve_forever, args=(0.05,), daemon=True)
        self.thread.start()

    def stop(self):
        self.http.shutdown()
        self.http.server_close()
        self.thread.join()
        for connection in self.connections:  # kept alive by the client
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


LISTED = {"A": -0.2, "B": -2.0, "I": -4.0}


def answer(path, body):
    if path.endswith("chat/completions"):
        top = [{"token": t, "logprob": lp} for t, lp in LISTED.items()]
        choice = {"index": 0, "message": {"content": "A"}, "logprobs": {"content": [{"top_logprobs": top}]}}
        return {"choices": [choice], "usage": {"prompt_tokens": 5, "completion_tokens": 1}}
    prompts, ids = body["prompt"], body.get("logprob_token_ids")
    listed = LISTED if ids is None else {f"token_id:{i}": -1.0 - n for n, i in enumerate(ids)}
    choices = [{"index": n, "text": "A", "logprobs": {"top_logprobs": [listed]}} for n in range(len(prompts))]
    return {"choices": choices[::-1], "usage": {"prompt_tokens": 5 * len(prompts)}}
