"""Direct RLAIF: the run's judge as a reward function, named in a trainer's config as `flows.judge_reward:score`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.files import write_json
from flows.judging import make_judge
from flows.snapshot import from_json
from judges.pointwise import PointwiseScorer

if TYPE_CHECKING:
    from flows.stages.base import Work


def score(conversations: Sequence[Any], responses: Sequence[str], *, settings: str) -> list[float | None]:
    """The judge's expected scores in [0, 1], None where it gave none. `settings` is a file that the run wrote:
    the judge's section, the constitution's snapshot, the templates and the seed."""
    return _scorer(settings)(conversations, responses)


def judge_term(work: Work, file: str, *, judge: dict[str, Any], templates: str) -> dict[str, Any]:
    """A trainer's term that has this judge score; its settings go into `file` of the stage's folder.

    The stage's inputs hold the constitution's snapshot."""
    path = work.directory / file
    constitution = json.loads(work.input("constitution").read_text(encoding="utf-8"))
    write_json(
        path, {"judge": judge, "templates": templates, "constitution": constitution, "seed": work.seed}
    )
    return {
        "kind": "function",
        "name": "judge",
        "function": "flows.judge_reward:score",
        "arguments": {"settings": str(path)},
    }


@lru_cache(maxsize=2)
def _scorer(settings: str) -> PointwiseScorer:
    given = json.loads(Path(settings).read_text(encoding="utf-8"))
    return PointwiseScorer(
        make_judge(given["judge"]),
        from_json(given["constitution"]),
        templates=given["templates"],
        seed=given["seed"],
    )
