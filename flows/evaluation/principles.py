"""Two models, principle by principle: where they part, with the many tests taken into account."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from common.statistics import benjamini_hochberg
from flows.evaluation.win_rates import Match, head_to_head

#: share of the principles said to part two models that may be expected to do so by chance
FALSE_DISCOVERIES = 0.05


def by_principle(a: str, b: str, matches: Mapping[str, Sequence[Match]]) -> dict[str, dict[str, Any]]:
    """What `head_to_head` says of `a` against `b` under each principle, with `p_adjusted` and `favours`.

    `p_adjusted` is the p-value of the win rate after Benjamini and Hochberg over all principles under which anything
    was decided, None where nothing was. `favours` is the model that wins where that is below 5%, else None. The
    intervals of the win rates hold for each principle on its own, not for all of them together.
    """
    found = {name: head_to_head(own) for name, own in matches.items()}
    tested = [name for name, figures in found.items() if figures["p"] is not None]
    adjusted = dict(zip(tested, benjamini_hochberg([found[n]["p"] for n in tested]), strict=True))
    for name, figures in found.items():
        figures["p_adjusted"] = adjusted.get(name)
        parts = name in adjusted and adjusted[name] < FALSE_DISCOVERIES
        figures["favours"] = (a if figures["win_rate"]["value"] > 0.5 else b) if parts else None
    return found
