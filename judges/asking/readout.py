"""From log probabilities of the options to a probability, without a parser (Bai et al. 2022, section 4.1)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from judges.records import STATUSES, Reading

# Servers and bf16 sums overshoot log(1) = 0 a little; more than this is not a probability.
LOGPROB_SLACK = 1e-2
# An option that a server did not list may hold at most the mass of the last one listed. Up to this much the
# label cannot move by a whole percent, and the bound itself stands in for the value.
UNLISTED_BOUND = 0.01


def option_mass(logprobs: Sequence[float]) -> float:
    """Total probability that fell on the options, in [0, 1]."""
    return min(1.0, sum(math.exp(min(lp, 0.0)) for lp in logprobs))


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


def without_extensions(logprobs: Sequence[float], answers: Sequence[Sequence[Any]]) -> tuple[float, ...]:
    """Log probabilities of exactly these answers, where one may go on as another ("1" as "10").

    `logprobs[i]` is the probability that the text begins with `answers[i]` (tokens); what goes on as a longer
    answer is taken off the shorter one.
    """
    masses = [math.exp(min(lp, 0.0)) for lp in logprobs]
    own = list(masses)
    for i, short in enumerate(answers):
        for j, long in enumerate(answers):
            if len(long) > len(short) and list(long[: len(short)]) == list(short):
                own[i] -= masses[j]
    return tuple(
        lp if mass == kept else (math.log(kept) if kept > 0 else -math.inf)
        for lp, mass, kept in zip(logprobs, masses, own, strict=True)
    )


def ambiguous(listed: Mapping[str, float], options: Sequence[str]) -> str | None:
    """The option that a list of next tokens cannot tell from a longer one: "1" listed, "10" not."""
    for short in options:
        mass = sum(math.exp(min(listed[t], 0.0)) for t in (short, f" {short}") if t in listed)
        longer = [o for o in options if o != short and o.startswith(short)]
        if mass > UNLISTED_BOUND and any(o not in listed and f" {o}" not in listed for o in longer):
            return short
    return None


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


def read_listed(listed: Mapping[Any, float], forms: Sequence[Sequence[Any]]) -> Reading:
    """A reading from a server's list of the likeliest next tokens.

    `listed` maps a token (text or id) to its log probability; `forms[i]` are the tokens that count as
    option i ("A" and " A"). An option that is not listed gets the largest probability it can have. If that is
    more than 1%, or no option is listed, the answer is not known: "no_answer".
    """
    values = [lp for lp in listed.values() if isinstance(lp, int | float)]
    if not values or any(math.isnan(lp) or lp > LOGPROB_SLACK for lp in values):
        return Reading(
            status="error", detail=f"no usable log probabilities among {len(listed)} listed tokens"
        )
    rest = max(0.0, 1.0 - sum(math.exp(min(lp, 0.0)) for lp in values))
    bound = min(rest, math.exp(min(min(values), 0.0)))
    logprobs: list[float] = []
    missing = False
    for tokens in forms:
        found = [listed[t] for t in dict.fromkeys(tokens) if t in listed]
        missing = missing or not found
        mass = sum(math.exp(min(lp, 0.0)) for lp in found) if found else bound
        logprobs.append(math.log(mass) if mass > 0 else -math.inf)
    if all(not any(t in listed for t in tokens) for tokens in forms):
        return Reading(status="no_answer", detail=f"no option among the {len(listed)} likeliest tokens")
    if missing and bound > UNLISTED_BOUND:
        return Reading(
            status="no_answer",
            detail=f"an option is not among the {len(listed)} listed tokens and may hold up to {bound:.2f}",
        )
    return Reading(status="ok", logprobs=tuple(logprobs))
