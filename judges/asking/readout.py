"""From log probabilities of the options to a probability, without a parser (Bai et al. 2022, section 4.1)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from engines.options import LOGPROB_SLACK, option_mass
from judges.records import STATUSES, Reading


def normalised(logprobs: Sequence[float]) -> tuple[float, ...]:
    """Probabilities of the options, renormalised over the options alone."""
    top = max(logprobs)
    weights = [math.exp(lp - top) for lp in logprobs]
    return tuple(w / sum(weights) for w in weights)


def checked(reading: Any, n_options: int) -> Reading:
    """`reading` if it is one that may become a label; otherwise a reading with status "error" that says why.

    The last gate before the ledger: whatever a judge hands over (NaN, a wrong count, an unknown status, not a
    reading at all), nothing but finite sums of probabilities passes as "ok".
    """
    if not isinstance(reading, Reading):
        return Reading(status="error", detail=f"the judge returned {type(reading).__name__}, not a reading")
    if reading.status in ("tie", "inconsistent") or reading.status not in STATUSES:
        return Reading(
            status="error", detail=f"status {str(reading.status)[:40]!r} is not one of a judgement"
        )
    if reading.status != "ok":
        return replace(reading, logprobs=None)
    problem = _problem(reading.logprobs, n_options)
    if problem is None:
        return reading
    return replace(reading, status="error", logprobs=None, detail=problem)


def checked_text(reading: Any) -> Reading:
    """The same gate for a call that writes: an "ok" reading carries text, and an empty text is no answer."""
    if not isinstance(reading, Reading):
        return Reading(status="error", detail=f"the judge returned {type(reading).__name__}, not a reading")
    if reading.status in ("tie", "inconsistent") or reading.status not in STATUSES:
        return Reading(
            status="error", detail=f"status {str(reading.status)[:40]!r} is not one of a judgement"
        )
    if reading.status == "ok" and not isinstance(reading.text, str):
        return replace(reading, status="error", logprobs=None, text=None, detail="the judge wrote no text")
    if reading.status == "ok" and not (reading.text or "").strip():
        return replace(reading, status="no_answer", logprobs=None, detail="the judge wrote nothing")
    return replace(reading, logprobs=None)


def _problem(logprobs: Any, n_options: int) -> str | None:
    if not isinstance(logprobs, tuple | list) or len(logprobs) != n_options:
        return f"expected {n_options} option log probabilities, got {str(logprobs)[:80]}"
    if not all(isinstance(lp, int | float) and not isinstance(lp, bool) for lp in logprobs):
        return "a log probability is not a number"
    if any(math.isnan(lp) or lp > LOGPROB_SLACK for lp in logprobs):
        return f"not log probabilities: {[float(lp) for lp in logprobs]}"
    if option_mass(logprobs) == 0.0:
        return "every option has probability zero"
    if sum(math.exp(min(lp, 0.0)) for lp in logprobs) > 1.0 + 2 * LOGPROB_SLACK:
        return f"option probabilities add up to more than one: {[float(lp) for lp in logprobs]}"
    return None
