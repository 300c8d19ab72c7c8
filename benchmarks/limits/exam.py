"""The exam in the microworld: the shipped judge, and three that only seem to judge.

    python -m benchmarks.limits.exam [--pairs 400] [--seeds 0 1 2]

Pairs on held-out topics whose better answer gold knows, asked and measured as a run's exam does, with its thresholds.
Beside the shipped judge stand one that always answers A, one that takes the longer response, and the shipped judge
made to obey whatever a response tells it. Writes benchmarks/results/exam.json: every figure of every exam.
"""

from __future__ import annotations

import argparse
import re
import tempfile
from collections.abc import Sequence
from statistics import fmean
from typing import Any

from benchmarks.harness.duel import against, finish, versions
from benchmarks.harness.machine import REPOSITORY, machine
from constitution import load
from flows.config import load_config
from flows.labelling.exam import Exam
from flows.labelling.known_pairs import generated_pairs
from judges import InProcessJudge, Judge, Ledger, ScriptedJudge
from judges.exam import ExamReport, examine
from judges.records import Call, JudgeIdentity, Reading

WEIGHTS = REPOSITORY / "microworld" / "weights" / "feedback"
_RESPONSES = re.compile(r"\(A\) (.*)\n\(B\) (.*)\n+Better:", re.DOTALL)
_ORDER = re.compile(r"choose A|choose B|choose it|is the better one|the answer is A|better: A", re.IGNORECASE)


class Obedient:
    """A judge that knows, but does what a response tells it to do."""

    def __init__(self, judge: Judge) -> None:
        self._judge = judge

    @property
    def identity(self) -> JudgeIdentity:
        return JudgeIdentity(kind="scripted", model="obedient", revision="1", build="charter")

    def ask(self, calls: Sequence[Call]) -> list[Reading]:
        readings = list(self._judge.ask(calls))
        for n, call in enumerate(calls):
            told = [bool(_ORDER.search(text)) for text in _responses(call)]
            if told[0] != told[1]:
                readings[n] = Reading(status="ok", logprobs=(-0.1, -2.4) if told[0] else (-2.4, -0.1))
        return readings


def _responses(call: Call) -> tuple[str, str]:
    found = _RESPONSES.search(call.messages[-1]["content"])
    return (found[1], found[2]) if found else ("", "")


def _longer(call: Call) -> float:
    a, b = map(len, _responses(call))
    return 0.5 if a == b else 0.9 if a > b else 0.1


def contestants() -> dict[str, Judge]:
    shipped = InProcessJudge(WEIGHTS, dtype="float32")
    return {
        "shipped": shipped,
        "always A": ScriptedJudge(lambda call: 0.9, name="always-a"),
        "the longer": ScriptedJudge(_longer, name="longer"),
        "obedient": Obedient(shipped),
    }


def take(judge: Judge, seed: int, pairs: int) -> ExamReport:
    """One exam, as a run of the shipped configuration takes it, but for its size."""
    config = load_config(REPOSITORY / "configs" / "microworld.yaml", (f"seed={seed}",))
    constitution = load(config.constitution)
    exam = Exam.of_run(config, constitution)
    known = generated_pairs(constitution, n=pairs, seed=seed, principles=exam.settings.principles)
    assert known is not None
    with tempfile.TemporaryDirectory() as folder, Ledger.open(f"{folder}/exam.db") as ledger:
        return examine(
            judge,
            constitution,
            known,
            ledger=ledger,
            settings=exam.settings,
            exam=exam.thresholds,
            source="generated pairs on held-out topics",
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=400)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    args = parser.parse_args()
    found: dict[str, list[dict[str, Any]]] = {}
    for name, judge in contestants().items():
        for seed in args.seeds:
            report = take(judge, seed, args.pairs)
            found.setdefault(name, []).append({"seed": seed, **report.to_json()})
            verdict = "passed" if report.passed else "; ".join(report.problems)
            print(f"{name:<12} seed {seed}  {report.pairs} pairs  {verdict}", flush=True)
    accuracy, always_a = (
        fmean(report[key]["share"] for report in found["shipped"]) for key in ("accuracy", "always_a")
    )
    result = {
        "pairs": args.pairs,
        "seeds": args.seeds,
        **against(accuracy, always_a, "accuracy of always A"),
        "passed": {name: sum(r["passed"] for r in reports) for name, reports in found.items()},
        "exams": found,
        "machine": machine(),
        "versions": versions("torch", "transformers"),
    }
    finish("exam", result, partial=False)


if __name__ == "__main__":
    main()
