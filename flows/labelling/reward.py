"""Direct RLAIF: the run's judge as a reward function, named in a trainer's config as `flows.labelling.reward:score`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.files import write_json
from common.rows import read_rows
from constitution.snapshot import from_json
from flows.labelling.judge import make_judge
from judges.against import BaselineScorer, conversation_key
from judges.asking.scoring import PointwiseScorer

if TYPE_CHECKING:
    from flows.stages.contract import StageInput


def score(conversations: Sequence[Any], responses: Sequence[str], *, settings: str) -> list[float | None]:
    """The judge's scores, None where it gave none: expected marks in [0, 1], or log-odds against baselines where
    there are some. `settings` is a file that the run wrote: the judge's section, the constitution's snapshot, the
    templates, the seed, and the file of pairs whose first answers are the baselines."""
    return _scorer(settings)(conversations, responses)


def judge_term(
    work: StageInput,
    file: str,
    *,
    judge: dict[str, Any],
    templates: str,
    baselines: str | None = None,
    principles: int = 1,
    mass_threshold: float = 0.5,
) -> dict[str, Any]:
    """A trainer's term that has this judge score; its settings go into `file` of the stage's folder.

    The stage's inputs hold the constitution's snapshot. `principles` are drawn per prompt against `baselines`."""
    path = work.directory / file
    constitution = json.loads(work.input("constitution").read_text(encoding="utf-8"))
    write_json(
        path,
        {
            "judge": judge,
            "templates": templates,
            "constitution": constitution,
            "seed": work.seed,
            "baselines": baselines,
            "principles": principles,
            "mass_threshold": mass_threshold,
        },
    )
    return {
        "kind": "function",
        "name": "judge",
        "function": "flows.labelling.reward:score",
        "arguments": {"settings": str(path)},
    }


@lru_cache(maxsize=2)
def _scorer(settings: str) -> PointwiseScorer | BaselineScorer:
    given = json.loads(Path(settings).read_text(encoding="utf-8"))
    judge, constitution = make_judge(given["judge"]), from_json(given["constitution"])
    common = {name: given[name] for name in ("templates", "seed", "mass_threshold")}
    if given["baselines"] is None:
        return PointwiseScorer(judge, constitution, **common)
    rows = (row for _, row in read_rows(Path(given["baselines"])))
    known = {conversation_key(row["prompt"]): row["a"] for row in rows}
    return BaselineScorer(judge, constitution, known, principles=given["principles"], **common)
