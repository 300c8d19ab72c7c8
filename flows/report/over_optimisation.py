"""What early stopping saw of a run of reinforcement learning: sentences, and proxy and gold against root KL."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Self

from common.record import ABSENT, REST, Key, Record
from common.sections import Plot
from flows.evaluation.over_optimisation import Fit, fit
from flows.labelling.people import worth
from flows.report.drawing import GOLD, PROXY, axes_of, second_scale

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_STEPS = 60


@dataclass(frozen=True, kw_only=True)
class Watched(Record):
    """One evaluation on held-out prompts: mean proxy and gold, and the distance from the start in root nats."""

    step: int
    proxy: float
    gold: float
    root_kl: float
    more: Annotated[Mapping[str, Any], REST] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class CurvePoint(Record):
    """Means over the `n` answers of one step of reinforcement learning."""

    step: float
    n: int = 1
    proxy: float | None
    kl: float
    length: Annotated[float | None, ABSENT] = None
    gold: Annotated[float | None, ABSENT] = None


@dataclass(frozen=True, kw_only=True)
class RlFigures(Record):
    """The trainer's metrics, its curve, and what early stopping saw; `gold_model` says what people's model is worth."""

    curve: tuple[CurvePoint, ...] = ()
    watched: Annotated[tuple[Watched, ...], Key("brake")] = ()
    gold_model: Mapping[str, Any] = field(default_factory=dict)
    kept_step: Annotated[float | None, ABSENT] = None
    last_step: Annotated[float | None, ABSENT] = None
    stopped_early: Annotated[float | None, ABSENT] = None
    more: Annotated[Mapping[str, Any], REST] = field(default_factory=dict)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """The figures of any version; `stopped_early` was once called `braked`."""
        old = {"stopped_early": data["braked"]} if "braked" in data else {}
        return super().from_json({**old, **{key: value for key, value in data.items() if key != "braked"}})


def stopping_sentences(rl: RlFigures) -> list[str]:
    """Whether gold fell while the proxy climbed, which policy was kept, and who gold is; nothing unless watched."""
    if not rl.watched:
        return []
    first, last, best = rl.watched[0], rl.watched[-1], kept(rl)
    gold = [f"Gold is a model of people's verdicts: {worth(rl.gold_model)}."] if rl.gold_model else []
    if rl.kept_step == rl.last_step:
        return [
            f"Early stopping watched {len(rl.watched)} evaluations and did not stop the run: held-out gold from "
            f"{first.gold:.3f} to {last.gold:.3f}, the proxy from {first.proxy:.2f} to {last.proxy:.2f}.",
            *gold,
        ]
    ended = "the run was stopped" if rl.stopped_early else "the run ended"
    return [
        f"Over-optimisation: held-out gold fell from {best.gold:.3f} to {last.gold:.3f} while the proxy climbed "
        f"from {best.proxy:.2f} to {last.proxy:.2f}; {ended} after step {last.step} and the policy of step "
        f"{best.step} was kept.",
        *gold,
    ]


def stopping_plot(rl: RlFigures) -> Plot | None:
    """Proxy and gold on held-out prompts with the fit; None where nothing was watched."""
    if not rl.watched:
        return None
    shape = _fit(rl.watched)
    text = [*stopping_sentences(rl), *([fit_words(shape)] if shape else [])]
    return Plot(text=" ".join(text), draw=lambda ink: _draw(rl, shape, ink))


def kept(rl: RlFigures) -> Watched:
    """The evaluation of the policy that was kept."""
    return next(row for row in rl.watched if row.step == rl.kept_step)


def fit_words(shape: Fit) -> str:
    """The fit with what it explains and where it says that gold begins to fall."""
    falls = "it never falls" if shape.peak is None else f"its peak is at d = {shape.peak:.2f}"
    return (
        f"Gold's gain against d, the root of KL: d ({shape.alpha:.3f} - {shape.beta:.3f} log d), which explains "
        f"{100 * max(0.0, shape.r_squared):.0f}% of its variance; {falls} (Gao et al. 2022)."
    )


def _fit(rows: Sequence[Watched]) -> Fit | None:
    """The shape of gold's gain over the start on root KL (Gao et al. 2022); None for too few evaluations."""
    return fit([row.root_kl for row in rows[1:]], [row.gold - rows[0].gold for row in rows[1:]])


def _draw(rl: RlFigures, shape: Fit | None, ink: str) -> Figure:
    rows = rl.watched
    figure, (axes,) = axes_of(ink, width=6.4)
    distance = [row.root_kl for row in rows]
    axes.plot(distance, [row.proxy for row in rows], color=PROXY, marker=".")
    axes.set_xlabel("distance from the start: square root of KL (nats per answer)")
    axes.set_ylabel("proxy (the reward)", color=PROXY)
    axes.set_title("What early stopping saw on held-out prompts", fontsize=11, loc="left")
    other = second_scale(axes, ink)
    other.plot(distance, [row.gold for row in rows], color=GOLD, marker=".", label="gold")
    judge = "model of people's verdicts" if rl.gold_model else "held-out judge"
    other.set_ylabel(f"gold (mean of the {judge})", color=GOLD)
    if shape is not None:
        along = [max(distance) * n / _STEPS for n in range(_STEPS + 1)]
        fitted = [rows[0].gold + shape(d) for d in along]
        other.plot(along, fitted, color=ink, linestyle=":", label="gold, fit of Gao et al.")
    best = kept(rl)
    other.plot(
        [best.root_kl],
        [best.gold],
        linestyle="none",
        marker="o",
        markersize=11,
        markerfacecolor="none",
        markeredgecolor=ink,
        label=f"kept: step {best.step}",
    )
    figure.legend(loc="outside lower center", ncols=3, frameon=False, labelcolor=ink, fontsize=9)
    return figure
