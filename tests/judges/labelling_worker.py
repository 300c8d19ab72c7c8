"""A labelling process to be killed: `labelling_worker.py LEDGER BOOK PAIRS BATCH_PAIRS`.

Its judge writes every call into the file BOOK before it answers, so that others can count what was asked. Prints
"started" when the imports are done, and at the end how many pairs it labelled and how many calls it asked.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence

from constitution import ComparisonPrinciple, Constitution
from judges import Call, LabelSettings, Ledger, Pair, Reading, ScriptedJudge, label_pairs


class Witnessed(ScriptedJudge):
    """Prefers the long answer; every call is in the book first."""

    def __init__(self, book: str) -> None:
        super().__init__(lambda call: 0.9 if self._first(call).startswith("A long") else 0.1)
        self._book = os.open(book, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    @staticmethod
    def _first(call: Call) -> str:
        return call.messages[-1]["content"].split("\n(A) ")[1]

    def ask(self, calls: Sequence[Call]) -> list[Reading]:
        os.write(self._book, "".join(call.digest + "\n" for call in calls).encode())
        time.sleep(0.005)
        return super().ask(calls)


def main() -> None:
    url, book, n, batch_pairs = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    pairs = (
        Pair(
            id=f"pair-{i:05d}",
            prompt=({"role": "user", "content": f"Question {i}"},),
            a=f"A long one {i}",
            b=f"No {i}",
        )
        for i in range(n)
    )
    principles = tuple(
        ComparisonPrinciple(id=i, question=f"Which is more {i}?", dimension="x") for i in ("kind", "long")
    )
    print("started", flush=True)
    with Ledger.open(url) as ledger:
        report = label_pairs(
            pairs,
            constitution=Constitution(name="t", metadata={}, comparison=principles),
            judge=Witnessed(book),
            ledger=ledger,
            settings=LabelSettings(templates="microworld", batch_pairs=batch_pairs),
        )
    print(report.pairs, report.asked, flush=True)


if __name__ == "__main__":
    main()
