"""Critique-revision and pairs through vLLM servers that the stages start, beside the same stages in process.

    python -m benchmarks.peers.served_sampling --model DIR [--prompts 12] [--tokens 48] [--rounds 1] [--replicas 1]

Both engines run the stages' own code (`flows.stages.critique_revision`, `flows.stages.pairs`) on the same prompts under
the constitution hhh, in an order that turns round with every round. Tokens a second are those that were written while
texts were drawn; the seconds in which servers load are told apart. Greedy answers are compared first.

Writes benchmarks/results/served_sampling.json.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import judges.exam
from benchmarks.harness.machine import RESULTS, machine
from constitution import load
from engines.settings import SamplingSettings
from flows.stages import critique_revision, pairs
from flows.stages.contract import StageInput
from flows.stages.samplers import sampler_of
from judges.known import read_known_pairs

OUT = RESULTS / "served_sampling.json"
OUR_PAIRS = Path(judges.exam.__file__).with_name("pairs.json")
ENVIRONMENT = Path(__file__).parents[2] / ".venv-vllm"
KINDS = ("response", "critique", "revision")


class Clock:
    """Listens to a stage's progress for how long its servers were loading."""

    def __init__(self) -> None:
        self.loading = 0.0
        self._since: float | None = None

    def __call__(self, done: int, total: int, text: str) -> None:
        now = time.monotonic()
        if text.startswith("starting"):
            self._since = self._since or now
        elif self._since is not None:
            self.loading += now - self._since
            self._since = None


def work(
    folder: Path, stage: str, model: Path, prompts: Path, kind: str, arguments: Any, clock: Clock
) -> StageInput:
    how = {"temperature": 0.7, "top_p": 0.9, "max_new_tokens": arguments.tokens}
    engine: dict[str, Any] = {"kind": kind}
    if kind == "vllm":
        engine |= {
            "replicas": arguments.replicas,
            "vllm_environment": str(ENVIRONMENT),
            "max_model_len": 2048,
        }
    settings: dict[str, Any] = {"dtype": "float32", "keep_truncated": True, "revisions": 1}
    settings |= {"sampling": how, "contrast_share": 0.0, **{name: how for name in KINDS}}
    tuning = {
        "templates": "default",
        "engine": SamplingSettings.model_validate(engine).model_dump(mode="json"),
    }
    batch: Any = arguments.batch if stage == "pairs" else dict.fromkeys(KINDS, arguments.batch)
    folder.mkdir(parents=True)
    roles = ("model", "critic", "prompts", "prompts_sl")
    return StageInput(
        stage=stage,
        directory=folder,
        run_directory=folder,
        seed=0,
        settings=settings,
        tuning={**tuning, "batch_size": batch},
        inputs={role: str(model if role in ("model", "critic") else prompts) for role in roles},
        digests={},
        constitution=load("hhh@^1"),
        progress=clock,
    )


def measured(folder: Path, model: Path, prompts: Path, kind: str, arguments: Any) -> dict[str, Any]:
    """Tokens and seconds of both stages with one engine."""
    texts: dict[str, dict[str, float]] = {}
    clock = Clock()
    for stage in (critique_revision, pairs):
        given = work(folder / stage.STAGE.name, stage.STAGE.name, model, prompts, kind, arguments, clock)
        texts |= stage.run(given).metrics["texts"]
    seconds = sum(found["seconds"] for found in texts.values()) - clock.loading
    written = sum(found["completion_tokens"] for found in texts.values())
    return {
        "engine": kind,
        "tokens_per_second": round(written / seconds, 2),
        "texts": texts,
        "seconds": round(seconds, 2),
        "loading_seconds": round(clock.loading, 2),
    }


def greedy(folder: Path, model: Path, prompts: list[Any], kind: str, arguments: Any) -> list[str]:
    given = work(folder, "pairs", model, folder, kind, arguments, Clock())
    sampler = sampler_of(given, "model")
    settings = {"temperature": 0.0, "top_p": 1.0, "max_new_tokens": 24}
    found = sampler.draw(
        prompts, settings, batch_size=arguments.batch, seed=0, on_progress=lambda done, total: None
    )
    sampler.close()
    return [answer.text for answer in found]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--prompts", type=int, default=12)
    parser.add_argument("--tokens", type=int, default=48)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--replicas", type=int, default=1)
    arguments = parser.parse_args()
    known = [k.pair for k in read_known_pairs(OUR_PAIRS, limit=arguments.prompts)]
    conversations = [[dict(turn) for turn in pair.prompt] for pair in known]
    rounds: list[list[dict[str, Any]]] = []
    with tempfile.TemporaryDirectory() as scratch:
        home = Path(scratch)
        prompts = home / "prompts.jsonl"
        rows = [{"id": f"p{n}", "prompt": turns} for n, turns in enumerate(conversations)]
        prompts.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        same = [
            greedy(home / f"greedy-{kind}", arguments.model, conversations, kind, arguments)
            for kind in ("in_process", "vllm")
        ]
        equal = sum(a == b for a, b in zip(*same, strict=True))
        print(f"greedy answers equal: {equal} of {len(conversations)}")
        for number in range(arguments.rounds):
            order = ("in_process", "vllm") if number % 2 == 0 else ("vllm", "in_process")
            found = [
                measured(home / f"{number}-{kind}", arguments.model, prompts, kind, arguments)
                for kind in order
            ]
            rounds.append(sorted(found, key=lambda f: f["engine"]))
            for one in rounds[-1]:
                print(one["engine"], one["tokens_per_second"], "tokens/s", one["seconds"], "s")
    ours = statistics.median(r[1]["tokens_per_second"] for r in rounds)
    peer = statistics.median(r[0]["tokens_per_second"] for r in rounds)
    result = {
        **machine(),
        "model": arguments.model.name,
        "prompts": len(conversations),
        "tokens": arguments.tokens,
        "batch": arguments.batch,
        "replicas": arguments.replicas,
        "greedy_equal": equal / len(conversations),
        "ours": ours,
        "peer": peer,
        "ratio": round(ours / peer, 3),
        "rounds": rounds,
    }
    OUT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(f"{ours} tokens/s served, {peer} in process: {ours / peer:.2f} times")


if __name__ == "__main__":
    main()
