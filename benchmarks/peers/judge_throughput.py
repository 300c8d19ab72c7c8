"""Judgements per second against a real vLLM server on this machine, beside other ways to ask for them.

    python -m benchmarks.peers.judge_throughput [--rounds 5] [--judgements 4000] [--distilabel PYTHON] [--append]

Contestants, each on prompts that no one has sent before, in an order that turns round with every round:

- `ours`: `OpenAIJudge` as labelling asks it, from calls to checked readings, tokenisation included.
- `labelling`: the whole of `label_pairs`, from pairs to labels in a SQLite ledger.
- `one_each`: a client that sends one request per judgement, 64 in flight.
- `distilabel`: distilabel's `OpenAILLM` itself, in the rounds where `--distilabel` names the Python of an environment
  that has it. Where no round has it, `not_measured` says so and keeps what was last measured.
- `bare_loop`: posts the very batches of `ours`, as token ids made beforehand, and drops the answers unread.
- `offline`: vLLM's own `LLM.generate` at its default settings, on token ids made beforehand, without a server. Its
  engine lives only while its turn lasts: an idle one beside the server halves the rate of single requests.

Writes benchmarks/results/judge_throughput.json: every round, medians, and the promised ratios. `--append` adds
rounds to those already there, so that they can be taken a few at a time.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.harness import duel
from benchmarks.harness.clients import Contestant, bare_loop, one_request_each
from benchmarks.harness.machine import REPOSITORY, RESULTS, machine
from constitution import load
from engines import VllmServer
from judges import Call, LabelSettings, Ledger, OpenAIJudge, Pair, label_pairs
from judges.asking.ask import ask_judges
from judges.asking.questions import Questionnaire
from judges.encoding import CallEncoder
from microworld.data import HELPFUL_ONLY, requests
from microworld.responses import make_answer
from microworld.tokenizer import load_tokenizer

MODEL = REPOSITORY / "microworld" / "weights" / "feedback"
OUT = RESULTS / "judge_throughput.json"
SETTINGS = LabelSettings(templates="microworld")
NAMES = ("ours", "labelling", "one_each", "distilabel", "bare_loop", "offline")
WARM_UP = 64
"""Judgements of every contestant before the first round."""
# What `ours` is promised to be to each.
PROMISES = {"one_each": 2.0, "distilabel": 2.0, "bare_loop": 0.95, "offline": 0.90}


def make_pairs(n: int, name: str) -> list[Pair]:
    """`n` pairs of the microworld whose questions begin with a number of their own: no prefix was seen before."""
    rng = random.Random(name)
    pairs = []
    for i, request in enumerate(requests("rl", n, seed=rng.randrange(2**30))):
        core = next(iter(HELPFUL_ONLY[request.family]))
        a, b = (make_answer(request, core, rng, manners=(0.25, 0.12), padded=p).render() for p in (0, 1))
        text = f"{rng.randrange(10**9)}. {request.text}"
        pairs.append(Pair(id=f"{name}-{i}", prompt=({"role": "user", "content": text},), a=a, b=b))
    return pairs


@dataclass(frozen=True, kw_only=True)
class Ring:
    """Where the contestants meet. Each method named in NAMES takes pairs and returns seconds and good answers."""

    server: VllmServer
    judge: OpenAIJudge
    encoder: CallEncoder
    peer: Contestant | None
    folder: Path

    def calls(self, pairs: Sequence[Pair]) -> list[Call]:
        """Both orders of every pair, one principle each."""
        questionnaire = Questionnaire(load("microworld"), [self.judge.identity], SETTINGS)
        return [vote.call for pair in pairs for vote in questionnaire.question(pair).votes]

    def ours(self, pairs: Sequence[Pair]) -> tuple[float, int]:
        calls, size = self.calls(pairs), 2 * SETTINGS.batch_pairs

        def run() -> int:
            batches = (calls[i : i + size] for i in range(0, len(calls), size))
            answers = (ask_judges([self.judge], [0] * len(b), b) for b in batches)
            return sum(reading.status == "ok" for readings in answers for reading in readings)

        return timed(run)

    def labelling(self, pairs: Sequence[Pair]) -> tuple[float, int]:
        def run() -> int:
            with Ledger.open(str(self.folder / f"{pairs[0].id}.db")) as ledger:
                constitution = load("microworld")
                report = label_pairs(
                    pairs, constitution=constitution, judge=self.judge, ledger=ledger, settings=SETTINGS
                )
            return report.asked if report.failure_rate == 0 else 0

        return timed(run)

    def one_each(self, pairs: Sequence[Pair]) -> tuple[float, int]:
        calls = self.calls(pairs)
        return timed(lambda: one_request_each(self.server.url, self.server.model_name, calls, concurrency=64))

    def distilabel(self, pairs: Sequence[Pair]) -> tuple[float, int]:
        assert self.peer is not None
        chats = self._file([call.messages for call in self.calls(pairs)])
        answer = self.peer.run({"chats": chats, "url": self.server.url, "model": self.server.model_name})
        return answer["seconds"], answer["answered"]

    def bare_loop(self, pairs: Sequence[Pair]) -> tuple[float, int]:
        prompts, options = self._tokens(pairs)
        url, model = self.server.url, self.server.model_name
        return timed(lambda: bare_loop(url, model, prompts, options, size=32, concurrency=8))

    def offline(self, pairs: Sequence[Pair]) -> tuple[float, int]:
        prompts, options = self._tokens(pairs)
        python = REPOSITORY / ".venv-vllm" / "bin" / "python"
        engine = Contestant(python, "offline_engine.py", str(MODEL), log=self.folder / "offline.log")
        try:
            warm, _ = self._tokens(make_pairs(WARM_UP // 2, f"offline-{time.time_ns()}"))
            engine.run({"prompts": self._file(warm), "option_ids": options})
            answer = engine.run({"prompts": self._file(prompts), "option_ids": options})
        finally:
            engine.close()
        return answer["seconds"], answer["answered"]

    def _tokens(self, pairs: Sequence[Pair]) -> tuple[list[list[int]], list[int]]:
        calls = self.calls(pairs)
        forms = self.encoder.distinct_forms(calls[0].options)
        assert forms is not None
        return self.encoder.encode(calls), [i for form in forms for i in form]

    def _file(self, content: Any) -> str:
        path = self.folder / "job.json"
        path.write_text(json.dumps(content), encoding="utf-8")
        return str(path)


def timed(run: Callable[[], int]) -> tuple[float, int]:
    started = time.perf_counter()
    count = run()
    return time.perf_counter() - started, count


def play_round(ring: Ring, number: int, judgements: int) -> dict[str, float]:
    """Judgements per second of every contestant."""
    names = [name for name in NAMES if name != "distilabel" or ring.peer is not None]
    rates = {}
    for name in names if number % 2 else reversed(names):
        n = judgements // 2
        seconds, answered = getattr(ring, name)(make_pairs(n, f"{name}-{time.time_ns()}"))
        if answered != 2 * n:
            raise SystemExit(f"{name} got {answered} of {2 * n} judgements")
        rates[name] = round(judgements / seconds, 2)
        print(f"round {number}: {name} {rates[name]:.1f}/s", flush=True)
    return rates


def summary(rounds: Sequence[dict[str, float]]) -> dict[str, Any]:
    """Medians, and the medians of the rounds' ratios beside what is promised."""
    names = [name for name in NAMES if any(name in rates for rates in rounds)]
    medians = {name: round(statistics.median(r[name] for r in rounds if name in r), 1) for name in names}

    def ratio(one: str, other: str) -> float:
        return round(statistics.median(r[one] / r[other] for r in rounds if one in r and other in r), 3)

    ratios = {name: ratio("ours", name) for name in names if name != "ours"}
    return {
        **duel.against(medians["ours"], medians["one_each"], "one_each", ratio=ratios["one_each"]),
        "ratios": ratios,
        "targets": {name: bound for name, bound in PROMISES.items() if name in ratios},
        "missed": [name for name, bound in PROMISES.items() if ratios.get(name, bound) < bound],
        "labelling_to_bare_loop": ratio("labelling", "bare_loop"),
        "median_per_s": medians,
        "rounds": {name: sum(name in rates for rates in rounds) for name in names},
    }


def not_measured(rounds: Sequence[dict[str, float]], before: dict[str, Any]) -> dict[str, Any]:
    """The sides that no round has, each with what the result before says of it, or None."""
    known = dict(before.get("not_measured", {}))
    for name, per_s in before.get("median_per_s", {}).items():
        known[name] = {
            "date": before["machine"]["date"],
            "version": before["versions"].get(name),
            "per_s": per_s,
            "ratio": before["ratios"].get(name),
        }
    return {name: known.get(name) for name in NAMES if not any(name in rates for rates in rounds)}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--judgements", type=int, default=4000)
    parser.add_argument("--distilabel", type=Path, help="Python of an environment with distilabel 1.5")
    parser.add_argument("--append", action="store_true", help="add to the rounds already measured")
    parser.add_argument("--out", type=Path, default=OUT)
    arguments = parser.parse_args()
    # However it ends, the servers end with it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    found = json.loads(arguments.out.read_text(encoding="utf-8")) if arguments.out.is_file() else {}
    before = found.get("rounds_per_s", []) if arguments.append else []
    before_versions = found.get("versions", {}) if arguments.append else {}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server = stack.enter_context(VllmServer(MODEL, environment=REPOSITORY / ".venv-vllm"))
        peer = None
        if arguments.distilabel is not None:
            peer = Contestant(arguments.distilabel, "distilabel_llm.py", log=folder / "distilabel.log")
            stack.callback(peer.close)
        judge = stack.enter_context(closing(OpenAIJudge(endpoints=[server.url], tokenizer=MODEL)))
        encoder = CallEncoder(load_tokenizer(MODEL))
        ring = Ring(server=server, judge=judge, encoder=encoder, peer=peer, folder=folder)
        rounds = list(before)
        # Round 0 does not count: connections open, templates and tokenizers load.
        play_round(ring, 0, WARM_UP)
        for _ in range(arguments.rounds):
            rounds.append(play_round(ring, len(rounds) + 1, arguments.judgements))
            result = {
                "what": "judgements a second of the microworld's judge (float32) by a vLLM server on this machine",
                "judgements_per_round": arguments.judgements,
                **summary(rounds),
                "not_measured": not_measured(rounds, found),
                "rounds_per_s": rounds,
                "machine": machine(),
                "versions": {
                    "server": judge.identity.build,
                    "distilabel": peer.greeting["version"] if peer else before_versions.get("distilabel"),
                },
            }
            arguments.out.parent.mkdir(parents=True, exist_ok=True)
            arguments.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
