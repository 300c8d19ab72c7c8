"""The audit's page served alone, and a ledger of labels for it."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from constitution import ComparisonPrinciple, Constitution
from judges import Call, LabelSettings, Ledger, Pair, ScriptedJudge, label_pairs

QUESTION = "Which is kinder?"


def half_sure(call: Call) -> float:
    return 0.9 if len(call.messages[-1]["content"]) % 3 else 0.2


def write_labels(path: Path, texts: Sequence[str], *, name: str = "test", judge: str = "scripted") -> str:
    """A ledger with a labelled pair for every text, in which each part holds the text; gives the label set."""
    pairs = [
        Pair(
            id=f"pair-{i:02d}",
            prompt=({"role": "user", "content": f"{text} asked {i}"},),
            a=f"{text} first {i}",
            b=f"{texts[(i + 1) % len(texts)]} second {i}",
        )
        for i, text in enumerate(texts)
    ]
    principle = ComparisonPrinciple(id="kind", question=f"{QUESTION} {texts[0]}", dimension="helpful")
    constitution = Constitution(name=name, metadata={}, comparison=(principle,))
    path.parent.mkdir(parents=True, exist_ok=True)
    with Ledger.open(str(path)) as ledger:
        report = label_pairs(
            pairs,
            constitution=constitution,
            judge=ScriptedJudge(half_sure, name=judge),
            ledger=ledger,
            settings=LabelSettings(),
        )
    return report.label_set


@contextmanager
def serving(app) -> Iterator[str]:
    """The app on a free port of this machine; gives its address."""
    import uvicorn

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=port, log_level="warning"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + 30
    while not server.started:
        assert thread.is_alive() and time.monotonic() < deadline
        time.sleep(0.02)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(10)
