"""vLLM's offline engine, run in vLLM's own environment: reads one line of JSON a job, writes one line of JSON.

    .venv-vllm/bin/python benchmarks/harness/offline_engine.py MODEL

A job is `{"prompts": FILE, "option_ids": [...]}`, the file a JSON list of lists of token ids. The answer is
`{"seconds": ..., "answered": ...}`: wall time of `LLM.generate` alone. The engine has its default settings, but
float32, no compilation and a cache of 1 GB, as the server has them on a CPU.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path


def main() -> None:
    # vLLM prints progress; the answers need a stream of their own.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    os.environ |= {"HF_HUB_OFFLINE": "1", "VLLM_CPU_KVCACHE_SPACE": "1"}
    from vllm import LLM, SamplingParams

    llm = LLM(model=sys.argv[1], dtype="float32", enforce_eager=True)
    answers.write(json.dumps({"ready": True}) + "\n")
    for line in sys.stdin:
        job = json.loads(line)
        prompts = json.loads(Path(job["prompts"]).read_text())
        ids = job["option_ids"]
        sampling = SamplingParams(
            max_tokens=1, temperature=0.0, logprobs=len(ids), logprob_token_ids=ids, detokenize=False
        )
        started = time.perf_counter()
        outputs = llm.generate([{"prompt_token_ids": p} for p in prompts], sampling, use_tqdm=False)
        seconds = time.perf_counter() - started
        answered = sum(bool(output.outputs[0].logprobs) for output in outputs)
        answers.write(json.dumps({"seconds": seconds, "answered": answered}) + "\n")


if __name__ == "__main__":
    main()
