"""How near the pool comes to linear over 1 to 16 endpoints of one speed, and what is left when some misbehave.

    python -m benchmarks.limits.endpoints_scaling [--seconds 20]

The endpoints are scripted: one process that answers on as many ports, each holding every request for a fixed time and
taking so many at once. Then one of eight answers 500, one 503 and one is gone: all texts must come, none twice, and
the rate is held against that of those that are left.

Writes benchmarks/results/endpoints_scaling.json.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import time
from collections import Counter
from typing import Any

from benchmarks.harness.machine import RESULTS, machine
from engines import Completion, RemoteEngine, Sampling

OUT = RESULTS / "endpoints_scaling.json"
AT_ONCE = 8
HOLD_S = 0.8
COUNTS = (1, 2, 4, 8, 16)


async def _serve(behaviours: list[str], told: Any) -> None:
    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, kind: str) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = 0
                for line in head.split(b"\r\n"):
                    if line.lower().startswith(b"content-length:"):
                        length = int(line.split(b":")[1])
                body = json.loads(await reader.readexactly(length)) if length else {}
                status, answer = b"200 OK", {"data": [{"id": "m", "max_model_len": 4096}]}
                if body:
                    await asyncio.sleep(HOLD_S)
                    if kind != "well":
                        status = b"503 Busy" if kind == "busy" else b"500 Broken"
                    choice = {
                        "index": 0,
                        "token_ids": [body["prompt"][0], 0],
                        "finish_reason": "stop",
                        "logprobs": {"token_logprobs": [-1.0, -1.0]},
                    }
                    answer = {"model": "m", "choices": [choice]}
                data = json.dumps(answer).encode()
                writer.write(b"HTTP/1.1 " + status + b"\r\nContent-Length: %d\r\n\r\n" % len(data) + data)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    ports = []
    for kind in behaviours:
        server = await asyncio.start_server(lambda r, w, k=kind: connected(r, w, k), "127.0.0.1", 0)
        ports.append(server.sockets[0].getsockname()[1])
        if kind == "gone":
            server.close()
    told.send(ports)
    await asyncio.sleep(3600)


def _process(behaviours: list[str], told: Any) -> None:
    asyncio.run(_serve(behaviours, told))


def rate(behaviours: list[str], texts: int, *, timeout_s: float = 120.0) -> tuple[float, Counter[int]]:
    """Texts a second over endpoints that behave so, and how often each text came."""
    ours, theirs = multiprocessing.Pipe()
    server = multiprocessing.get_context("spawn").Process(target=_process, args=(behaviours, theirs))
    server.start()
    try:
        urls = [f"http://127.0.0.1:{port}/v1" for port in ours.recv()]
        engine = RemoteEngine(urls, model="m", concurrency=AT_ONCE, timeout_s=timeout_s, retry_s=600.0)
        came: Counter[int] = Counter()
        _ = engine.served
        began = time.monotonic()

        def done(place: int, completion: Completion) -> None:
            assert completion.token_ids[0] == place + 1
            came[place] += 1

        prompts = [[place + 1] for place in range(texts)]
        engine.generate(prompts, Sampling(max_new_tokens=2), seed=0, rows=range(texts), on_done=done)
        seconds = time.monotonic() - began
        engine.close()
    finally:
        server.terminate()
        server.join()
    return texts / seconds, came


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20.0)
    waves = round(parser.parse_args().seconds / HOLD_S)
    rates: dict[int, float] = {}
    for count in COUNTS:
        rates[count], came = rate(["well"] * count, waves * AT_ONCE * count)
        assert set(came.values()) == {1}
        print(
            f"{count:2d} endpoints: {rates[count]:7.1f} texts/s, {rates[count] / count / rates[1]:.3f} of linear"
        )
    texts = 4 * waves * AT_ONCE * 5 // 4
    hurt, came = rate(["well"] * 5 + ["busy", "gone", "broken"], texts)
    assert set(came.values()) == {1} and len(came) == texts
    left = hurt / (5 * rates[1])
    print(f"five of eight well: {left:.3f} of the rate of those five")
    shares = {str(count): round(found / count / rates[1], 4) for count, found in rates.items()}
    result = {
        **machine(),
        "hold_seconds": HOLD_S,
        "at_once": AT_ONCE,
        "texts_per_second": {str(count): round(found, 2) for count, found in rates.items()},
        "share_of_linear": shares,
        "ours": shares["16"],
        "peer": 1.0,
        "ratio": shares["16"],
        "five_of_eight": round(left, 4),
    }
    OUT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
