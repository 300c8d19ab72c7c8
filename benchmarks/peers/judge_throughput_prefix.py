"""What vLLM's prefix cache gives when every prompt begins with a long constitution.

    python -m benchmarks.peers.judge_throughput_prefix [--rounds 5] [--pairs 200]

Two servers of the same model, one with prefix caching (vLLM's default) and one without, are asked in turn about both
orders of new pairs, through `OpenAIJudge`. The template puts the constitution first, then the conversation, then the
responses, so the constitution is shared by all prompts and the conversation by the two orders of a pair. The same
pairs are asked with the microworld's own short template for comparison. Writes
benchmarks/results/judge_throughput_prefix.json.
"""

from __future__ import annotations

import argparse
import json
import signal
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack, closing
from pathlib import Path

from benchmarks.harness import duel
from benchmarks.harness.machine import REPOSITORY, RESULTS, machine
from benchmarks.peers.judge_throughput import MODEL, make_pairs
from constitution import load
from engines import VllmServer
from judges import OpenAIJudge
from judges.asking.templates import TemplateSet
from judges.encoding import CallEncoder
from judges.records import ORDERS
from microworld.tokenizer import load_tokenizer

OUT = RESULTS / "judge_throughput_prefix.json"
SERVERS = {"with prefix caching": (), "without": ("--no-enable-prefix-caching",)}


def template_sets() -> dict[str, TemplateSet]:
    """The microworld's own, and the same after a text that names every principle of two constitutions."""
    own = TemplateSet("microworld")
    texts = [p.question for name in ("hhh", "microworld") for p in load(name).comparison]
    source = "\n".join(texts)[:2400] + "\n" + own.sources["pairwise.j2"]
    return {"long": TemplateSet("long", sources={"pairwise.j2": source}), "short": own}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--pairs", type=int, default=200)
    parser.add_argument("--out", type=Path, default=OUT)
    arguments = parser.parse_args()
    # However it ends, the servers end with it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    question = load("microworld").comparison[0].question
    encoder, sets = CallEncoder(load_tokenizer(MODEL)), template_sets()
    rates: dict[str, dict[str, list[float]]] = {name: {kind: [] for kind in sets} for name in SERVERS}
    tokens: dict[str, int] = {}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        judges = {}
        for name, options in SERVERS.items():
            log = folder / f"{name}.log"
            server = VllmServer(MODEL, environment=REPOSITORY / ".venv-vllm", log=log, arguments=options)
            stack.enter_context(server)
            judges[name] = stack.enter_context(closing(OpenAIJudge(endpoints=[server.url], tokenizer=MODEL)))
        for number in range(arguments.rounds + 1):  # round 0 warms up
            for name in list(judges)[:: 1 if number % 2 else -1]:
                for kind, templates in sets.items():
                    pairs = make_pairs(arguments.pairs if number else 16, f"{name}-{kind}-{time.time_ns()}")
                    calls = [templates.pairwise(p, question, order) for p in pairs for order in ORDERS]
                    started = time.perf_counter()
                    readings = judges[name].ask(calls)
                    seconds = time.perf_counter() - started
                    if any(reading.status not in ("ok", "no_answer") for reading in readings):
                        raise SystemExit(f"{name}: {readings[0]}")
                    if number:
                        rates[name][kind].append(round(len(calls) / seconds, 2))
                        print(f"round {number}: {name}, {kind}: {rates[name][kind][-1]:.1f}/s", flush=True)
                    tokens[kind] = round(statistics.mean(map(len, encoder.encode(calls[:32]))))
        build = next(iter(judges.values())).identity.build
    medians = {
        name: {kind: round(statistics.median(found), 1) for kind, found in kinds.items()}
        for name, kinds in rates.items()
    }
    gains = {
        kind: round(
            statistics.median(x / y for x, y in zip(*(rates[name][kind] for name in SERVERS), strict=True)), 2
        )
        for kind in sets
    }
    cached, without = (medians[name]["long"] for name in SERVERS)
    result = {
        "what": "judgements a second of a vLLM server with prefix caching, and without: prompts of a thousand tokens",
        **duel.against(cached, without, "without", ratio=gains["long"]),
        "judgements_per_round": 2 * arguments.pairs,
        "tokens_per_prompt": tokens,
        "median_per_s": medians,
        "gain_of_caching": gains,
        "rounds_per_s": rates,
        "machine": machine(),
        "versions": duel.versions() | {"server": build},
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
