"""Direct RLAIF: the run's judge as a reward function, named in a trainer's config as `flows.judge_reward:score`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from flows.judging import make_judge
from flows.snapshot import from_json
from judges.pointwise import PointwiseScorer


def score(conversations: Sequence[Any], responses: Sequence[str], *, settings: str) -> list[float | None]:
    """The judge's expected scores in [0, 1], None where it gave none. `settings` is a file that the run wrote:
    the judge's section, the constitution's snapshot, the templates and the seed."""
    return _scorer(settings)(conversations, responses)


@lru_cache(maxsize=1)
def _scorer(settings: str) -> PointwiseScorer:
    given = json.loads(Path(settings).read_text(encoding="utf-8"))
    return PointwiseScorer(
        make_judge(given["judge"]),
        from_json(given["constitution"]),
        templates=given["templates"],
        seed=given["seed"],
    )
