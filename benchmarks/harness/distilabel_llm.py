"""distilabel's client, run in an environment of its own: reads one line of JSON a job, writes one line of JSON.

    PYTHON_OF_DISTILABEL benchmarks/harness/distilabel_llm.py

A job is `{"chats": FILE, "url": ..., "model": ...}`, the file a JSON list of conversations. The answer is
`{"seconds": ..., "answered": ...}`: wall time of its `OpenAILLM` alone, in the batches of 50 that a step of its hands
over by default. Its pipeline, whose processes take seconds to start, is left out, to its advantage.
"""

from __future__ import annotations

import json
import os
import sys
import time
from importlib.metadata import version
from pathlib import Path

BATCH = 50


def main() -> None:
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    from distilabel.models import OpenAILLM

    answers.write(json.dumps({"ready": True, "version": version("distilabel")}) + "\n")
    llm = None
    for line in sys.stdin:
        job = json.loads(line)
        chats = json.loads(Path(job["chats"]).read_text())
        if llm is None:
            # Anything but an empty key does: the server asks for none.
            llm = OpenAILLM(model=job["model"], base_url=job["url"], api_key="none", timeout=300)
            llm.load()
        answered = 0
        started = time.perf_counter()
        for first in range(0, len(chats), BATCH):
            outputs = llm.generate(
                inputs=chats[first : first + BATCH],
                max_new_tokens=1,
                temperature=0.0,
                logprobs=True,
                top_logprobs=20,
            )
            answered += sum(bool(output["logprobs"][0]) for output in outputs if output.get("logprobs"))
        answers.write(json.dumps({"seconds": time.perf_counter() - started, "answered": answered}) + "\n")


if __name__ == "__main__":
    main()
