"""What the brake saw of a run of reinforcement learning, as sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from flows.evaluation.over_optimisation import Fit, fit
from flows.labelling.people import worth

Rows = Sequence[Mapping[str, Any]]


def brake_sentences(found: Mapping[str, Any]) -> list[str]:
    """Whether gold fell while the proxy climbed, which policy was kept, and who gold is; nothing without a brake.

    `found` is the summary's `rl`: the trainer's metrics, in `brake` the rows of brake.jsonl, in `gold_model` what the
    model of people's verdicts is worth, where it is gold.
    """
    rows: Rows = found.get("brake", ())
    if not rows:
        return []
    first, last = rows[0], rows[-1]
    people = found.get("gold_model")
    gold = [f"Gold is a model of people's verdicts: {worth(people)}."] if people else []
    if found["kept_step"] == found["last_step"]:
        return [
            f"The brake watched {len(rows)} evaluations and did not fire: held-out gold from {first['gold']:.3f} to "
            f"{last['gold']:.3f}, the proxy from {first['proxy']:.2f} to {last['proxy']:.2f}.",
            *gold,
        ]
    best = kept(found)
    ended = (
        "the brake stopped the run" if found.get("stopped_early", found.get("braked")) else "the run ended"
    )
    return [
        f"Over-optimisation: held-out gold fell from {best['gold']:.3f} to {last['gold']:.3f} while the proxy climbed "
        f"from {best['proxy']:.2f} to {last['proxy']:.2f}; {ended} after step {last['step']} and the policy of step "
        f"{best['step']} was kept.",
        *gold,
    ]


def kept(found: Mapping[str, Any]) -> Mapping[str, Any]:
    """The evaluation of the policy that was kept."""
    return next(row for row in found["brake"] if row["step"] == found["kept_step"])


def gold_fit(rows: Rows) -> Fit | None:
    """The shape of gold's gain over the start on root KL (Gao et al. 2022); None for too few evaluations."""
    start = rows[0]["gold"]
    return fit([row["root_kl"] for row in rows[1:]], [row["gold"] - start for row in rows[1:]])


def fit_words(shape: Fit) -> str:
    """The fit with what it explains and where it says that gold begins to fall."""
    falls = "it never falls" if shape.peak is None else f"its peak is at d = {shape.peak:.2f}"
    return (
        f"Gold's gain against d, the root of KL: d ({shape.alpha:.3f} - {shape.beta:.3f} log d), which explains "
        f"{100 * max(0.0, shape.r_squared):.0f}% of its variance; {falls} (Gao et al. 2022)."
    )
