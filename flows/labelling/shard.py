"""A shard of pairs, labelled wherever it lands: it opens the ledger and reaches the judge by itself."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from constitution.snapshot import from_json
from flows.labelling.judge import make_judge
from judges import Judge, LabelReport, LabelSettings, Ledger, Pair, label_pairs


@dataclass(frozen=True, kw_only=True)
class LabelShard:
    """Labels the pairs it is called with; plain data, so that a task runner can carry it to another machine.

    `constitution` is a snapshot (`constitution.snapshot`), `judge` a configuration's section, `ledger` a URL without a
    password. `listen(first pair's id, report)` hears of every commit; it stays behind when the shard travels.
    """

    constitution: Mapping[str, Any]
    settings: LabelSettings
    judge: Mapping[str, Any]
    ledger: str
    listen: Callable[[str, LabelReport], None] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "listen"}

    def __call__(self, pairs: list[Pair]) -> LabelReport:
        """Raises JudgeError or LedgerError; what was committed before stays."""
        listen = self.listen
        with Ledger.open(self.ledger) as ledger:
            return label_pairs(
                pairs,
                constitution=from_json(self.constitution),
                judge=_kept_judge(json.dumps(self.judge, sort_keys=True)),
                ledger=ledger,
                settings=self.settings,
                on_progress=None if listen is None else lambda report: listen(pairs[0].id, report),
            )


@lru_cache(maxsize=1)
def _kept_judge(settings: str) -> Judge:
    """One judge a process: its model, connections and tokenizer serve shard after shard."""
    return make_judge(json.loads(settings))


def drop_judge() -> None:
    """Let go of the judge that this process kept: the next stage needs the memory."""
    _kept_judge.cache_clear()
