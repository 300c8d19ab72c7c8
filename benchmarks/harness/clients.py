"""Clients of a server, without what a labelling run needs: one request per judgement, and a bare loop of batches."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx

from benchmarks.harness.machine import REPOSITORY
from engines.wire import chat_body, tokens_body
from judges import Call
from judges.engine import to_request


def one_request_each(url: str, model: str, calls: Sequence[Call], *, concurrency: int) -> int:
    """Every call as a chat of its own, `concurrency` in flight, asked again twice where the connection broke, as
    OpenAI's client does; returns how many came back with log probabilities."""
    address = f"{url}/chat/completions"

    async def run() -> int:
        gate = asyncio.Semaphore(concurrency)
        limits = httpx.Limits(max_connections=concurrency, max_keepalive_connections=concurrency)
        async with httpx.AsyncClient(timeout=300, limits=limits, trust_env=False) as client:

            async def post(call: Call) -> httpx.Response:
                for _ in range(2):  # a server may close a connection just as it is taken up again
                    with suppress(httpx.ReadError, httpx.RemoteProtocolError):
                        return await client.post(
                            address, json={"model": model, **chat_body(to_request(call))}
                        )
                return await client.post(address, json={"model": model, **chat_body(to_request(call))})

            async def ask(call: Call) -> bool:
                async with gate:
                    answer = (await post(call)).json()["choices"][0]
                    return bool(answer["logprobs"]["content"][0]["top_logprobs"])

            return sum(await asyncio.gather(*map(ask, calls)))

    return asyncio.run(run())


def bare_loop(
    url: str,
    model: str,
    prompts: Sequence[Sequence[int]],
    option_ids: Sequence[int],
    *,
    size: int,
    concurrency: int,
) -> int:
    """Posts token ids in lists of `size` and drops what comes back, unread; returns the prompts of good answers."""
    client = httpx.Client(timeout=300, trust_env=False)

    def post(first: int) -> int:
        part = prompts[first : first + size]
        response = client.post(f"{url}/completions", json={"model": model, **tokens_body(part, option_ids)})
        return len(part) if response.status_code == 200 else 0

    with client, ThreadPoolExecutor(concurrency) as executor:
        return sum(executor.map(post, range(0, len(prompts), size)))


class Contestant:
    """A script in another environment that answers jobs, one line of JSON each."""

    def __init__(self, python: Path, script: str, *arguments: str, log: Path) -> None:
        """Returns when the script is ready. Raises RuntimeError with the end of its log when it never is."""
        self._log = log
        with log.open("wb") as errors:
            self._process = subprocess.Popen(
                [str(python), str(Path(__file__).with_name(script)), *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                cwd=REPOSITORY,
            )
        self.greeting = self._answer()

    def run(self, job: Mapping[str, Any]) -> dict[str, Any]:
        """The script's answer to a job."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(dict(job)) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        """Ends the script."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(60)

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            log = self._log.read_text(errors="replace").splitlines()
            raise RuntimeError("\n".join([f"{self._process.args} ended:", *log[-40:]]))
        return json.loads(line)
