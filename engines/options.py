"""From token log-probabilities to those of options: spellings summed, short lists bounded, what was said instead."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from engines.protocol import Answer, Spellings

# Servers and bf16 sums overshoot log(1) = 0 a little; more than this is not a probability.
LOGPROB_SLACK = 1e-2
# An option that a server did not list may hold at most the mass of the last one listed. Up to this much the
# label cannot move by a whole percent, and the bound itself stands in for the value.
UNLISTED_BOUND = 0.01
# With less on the options together than this, an answer says what was likelier.
LITTLE_MASS = 0.5
_THOUGHTS = ("<think", "[THINK", "<thought", "<reason", "<|channel", "<seed:think", "◁think")


def option_mass(logprobs: Sequence[float]) -> float:
    """Total probability that fell on the options, in [0, 1]."""
    return min(1.0, sum(math.exp(min(lp, 0.0)) for lp in logprobs))


def all_single(spellings: Spellings) -> bool:
    """Whether one list of next tokens tells the options apart: single tokens all, and none that two share."""
    ids = [spelling for option in spellings for spelling in option]
    return all(spellings) and all(len(spelling) == 1 for spelling in ids) and len(set(ids)) == len(ids)


def summed(logprobs: Mapping[tuple[int, ...], float], spellings: Spellings) -> tuple[float, ...]:
    """Log-probabilities of exactly these options from those that the text begins with each spelling.

    An option is the sum of its spellings. What goes on as a longer spelling ("1" as "10") is taken off the shorter
    one where that is another option's, and counted once where it is its own.
    """

    def extends(long: tuple[int, ...], short: tuple[int, ...]) -> bool:
        return len(long) > len(short) and long[: len(short)] == short

    found = []
    for number, option in enumerate(spellings):
        own = dict.fromkeys(option)
        shortest = [s for s in own if not any(extends(s, other) for other in own)]
        others = {s for k, other in enumerate(spellings) if k != number for s in other}
        taken = [s for s in others if any(extends(s, mine) for mine in shortest)]
        outer = [s for s in taken if not any(extends(s, other) for other in taken)]
        if len(shortest) == 1 and not outer:
            found.append(logprobs[shortest[0]])
            continue
        mass = sum(math.exp(min(logprobs[s], 0.0)) for s in shortest)
        mass -= sum(math.exp(min(logprobs[s], 0.0)) for s in outer)
        found.append(math.log(mass) if mass > 0 else -math.inf)
    return tuple(found)


def read_listed(
    listed: Mapping[Any, float], forms: Sequence[Sequence[Any]], *, route: str = "list"
) -> Answer:
    """An answer from a server's list of the likeliest next tokens.

    `listed` maps a token (text or id) to its log-probability; `forms[i]` are the tokens that count as option i ("A"
    and " A"). An option that is not listed gets the largest probability it can have. If that is more than 1%, or no
    option is listed, the answer is not known: "no_answer", which the length of the list may have caused.
    """
    values = [lp for lp in listed.values() if isinstance(lp, int | float)]
    if not values or any(math.isnan(lp) or lp > LOGPROB_SLACK for lp in values):
        return Answer(status="error", detail=f"no usable log probabilities among {len(listed)} listed tokens")
    rest = max(0.0, 1.0 - sum(math.exp(min(lp, 0.0)) for lp in values))
    bound = min(rest, math.exp(min(min(values), 0.0)))
    logprobs: list[float] = []
    missing = 0
    for tokens in forms:
        present = [listed[t] for t in dict.fromkeys(tokens) if t in listed]
        missing += not present
        mass = sum(math.exp(min(lp, 0.0)) for lp in present) if present else bound
        logprobs.append(math.log(mass) if mass > 0 else -math.inf)
    # What a longer list would have shown can matter only while there is room for it.
    cause = f"{route}: {len(listed)} tokens listed" if bound > UNLISTED_BOUND else None
    if missing == len(forms):
        detail = f"no option among the {len(listed)} likeliest tokens{said_instead(listed)}"
        return Answer(status="no_answer", detail=detail, cause=cause)
    if missing and cause:
        detail = f"an option is not among the {len(listed)} listed tokens and may hold up to {bound:.2f}"
        return Answer(status="no_answer", detail=detail, cause=cause)
    little = option_mass(logprobs) < LITTLE_MASS
    return Answer(
        status="ok", logprobs=tuple(logprobs), detail=said_instead(listed)[2:] or None if little else None
    )


def said_instead(likeliest: Mapping[Any, float]) -> str:
    """ "; instead: '<think>' (0.98)": the likeliest tokens and, where they open a thought, what to do."""
    named = {str(token): lp for token, lp in likeliest.items()}
    best = sorted(named, key=lambda token: -named[token])[:3]
    shown = ", ".join(f"{token[:40]!r} ({math.exp(min(named[token], 0.0)):.2f})" for token in best)
    return f"; instead: {shown}{thought_hint(best[0])}" if best else ""


def thought_hint(text: str) -> str:
    """What to do about a judge that thinks before it answers, where `text` is how such an answer begins."""
    if not text.lstrip(" ▁").startswith(_THOUGHTS):
        return ""
    return " opens a thought: set judge.thinking: off, or on to have it think before it answers"


def ambiguous(listed: Mapping[str, float], options: Sequence[str]) -> str | None:
    """The option that a list of next tokens cannot tell from a longer one: "1" listed, "10" not."""
    for short in options:
        mass = sum(math.exp(min(listed[t], 0.0)) for t in (short, f" {short}") if t in listed)
        longer = [o for o in options if o != short and o.startswith(short)]
        if mass > UNLISTED_BOUND and any(o not in listed and f" {o}" not in listed for o in longer):
            return short
    return None
