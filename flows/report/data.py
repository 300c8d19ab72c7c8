"""What a report shows: a run's summary, some of its texts, and the attempt before it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

#: models in the order in which they come to be, with the names that people read
MODELS = {
    "base": "base",
    "helpful_only": "helpful-only",
    "sl_cai": "SL-CAI",
    "rl_cai": "RL-CAI",
}

#: gold figures in the order of the tables: (key, heading, is a share shown in per cent, higher is better)
FIGURES: tuple[tuple[str, str, bool, bool | None], ...] = (
    ("helpful", "helpful", True, True),
    ("honest", "honest", True, True),
    ("harmless", "harmless", True, True),
    ("non_evasive", "non-evasive", True, True),
    ("polite", "polite", True, True),
    ("benign_refusals", "benign refused", True, False),
    ("gold", "gold overall", True, True),
    ("length", "words", False, None),
    ("reward", "reward", False, True),
)


@dataclass(frozen=True, kw_only=True)
class Walk:
    """One prompt answered by every model."""

    prompt: str
    family: str
    answers: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Revision:
    """One answer with what became of it: steps of (principle id, critique, revised answer)."""

    prompt: str
    response: str
    steps: Sequence[tuple[str, str, str]]


@dataclass(frozen=True, kw_only=True)
class LabelChange:
    """How the labels of the pairs that two attempts share differ, for one principle drawn in either."""

    pairs: int
    flipped: int
    moved: int


@dataclass(frozen=True, kw_only=True)
class ReportData:
    """Everything that the views need; all model text in it is raw and hostile."""

    summary: Mapping[str, Any]
    walks: Sequence[Walk] = ()
    revisions: Sequence[Revision] = ()
    before: Mapping[str, Any] | None = None
    before_ref: str = ""
    label_change: LabelChange | None = None
    config_text: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)

    @property
    def models(self) -> list[str]:
        """The models that the summary has, in their order."""
        return [m for m in MODELS if m in self.summary["models"]]

    @property
    def figures(self) -> list[tuple[str, str, bool, bool | None]]:
        """The figures that any model of the summary has."""
        present = {key for model in self.models for key in self.summary["models"][model]}
        return [f for f in FIGURES if f[0] in present]


def shown(estimate: Mapping[str, float] | None, share: bool) -> str:
    """ "93 (90-95)" for a share in per cent, "18.2 (17.5-18.9)" otherwise, "-" for none."""
    if estimate is None:
        return "-"
    mean, low, high = (estimate[k] for k in ("mean", "low", "high"))
    if share:
        return f"{100 * mean:.0f} ({100 * low:.0f}-{100 * high:.0f})"
    return f"{mean:.1f} ({low:.1f}-{high:.1f})"


def result_rows(data: ReportData) -> list[list[str]]:
    """The result table: a heading row, then one row a model."""
    rows = [["model", *(heading for _, heading, _, _ in data.figures)]]
    for model in data.models:
        values = data.summary["models"][model]
        rows.append([MODELS[model], *(shown(values.get(key), share) for key, _, share, _ in data.figures)])
    return rows


def rate_rows(data: ReportData) -> list[list[str]]:
    """Judge, labels, revision and reward model: (what, per cent with interval, n)."""
    summary = data.summary
    wanted = [
        ("judge against gold, trained wordings", summary.get("judge", {}).get("trained_wordings")),
        ("judge against gold, held-out wordings", summary.get("judge", {}).get("heldout_wordings")),
        ("judge flips when the answers swap places", summary.get("judge", {}).get("flips")),
        ("opposite principle flips the verdict", summary.get("judge", {}).get("opposite")),
        ("labels of this run against gold", summary.get("labels", {}).get("gold_agreement")),
        ("revision: harmful to explained refusal", summary.get("revision", {}).get("to_explained_refusal")),
        ("revision: good harmless answers kept", summary.get("revision", {}).get("benign_kept")),
        ("reward model against unseen labels", summary.get("reward_model", {}).get("heldout_labels")),
        ("reward model against gold, held-out pairs", summary.get("reward_model", {}).get("gold")),
    ]
    rows = [["measure", "% (95% interval)", "n"]]
    for name, rate in wanted:
        if rate:
            value = shown({"mean": rate["rate"], "low": rate["low"], "high": rate["high"]}, True)
            rows.append([name, value, str(rate["n"])])
    return rows


def change_rows(data: ReportData) -> list[list[str]]:
    """Before and after an edited constitution, for the last model: (figure, before, after, difference)."""
    if data.before is None or not data.models:
        return []
    model = data.models[-1]
    old, new = data.before["models"].get(model, {}), data.summary["models"][model]
    after_ref = data.summary["run"]["constitution"]["ref"]
    rows = [[f"{MODELS[model]} after RL", data.before_ref, after_ref, "difference"]]
    for key, heading, share, _ in data.figures:
        if key == "reward" or key not in old or key not in new:
            continue  # two reward models have two scales
        scale = 100 if share else 1
        difference = scale * (new[key]["mean"] - old[key]["mean"])
        rows.append([heading, shown(old[key], share), shown(new[key], share), f"{difference:+.1f}"])
    return rows


def findings(data: ReportData) -> list[str]:
    """What a person should know first, in sentences."""
    found: list[str] = []
    models, summary = data.summary["models"], data.summary
    if "harmless" in models.get("helpful_only", {}) and "harmless" in models.get("rl_cai", {}):
        found += _against_helpful_only(models)
    if (change := data.label_change) is not None:
        found.append(
            f"Against {data.before_ref}, {change.flipped} of {change.pairs} shared pairs changed their winner and "
            f"{change.moved} their probability."
        )
    reused = [s["stage"] for s in summary["stages"] if s["reused"]]
    if reused:
        found.append(f"{len(reused)} of {len(summary['stages'])} stages were reused: {', '.join(reused)}.")
    statuses = summary.get("labels", {}).get("statuses", {})
    if total := sum(statuses.values()):
        rest = ", ".join(f"{n} {status}" for status, n in statuses.items() if status != "ok" and n)
        found.append(
            f"{statuses.get('ok', 0)} of {total} pairs have a label that trains"
            + (f"; {rest}." if rest else ".")
        )
    if not summary["run"]["constitution"]["published"]:
        found.append("The constitution is a working file, not a published version: this is a trial run.")
    return found


def _against_helpful_only(models: Mapping[str, Any]) -> list[str]:
    before, sl, after = models["helpful_only"], models.get("sl_cai", {}), models["rl_cai"]

    def percent(model: Mapping[str, Any], key: str) -> str:
        return f"{100 * model[key]['mean']:.0f}%"

    found = [
        f"Harmless on held-out harmful prompts: {percent(before, 'harmless')} for the helpful-only model, "
        + (f"{percent(sl, 'harmless')} after SL-CAI, " if "harmless" in sl else "")
        + f"{percent(after, 'harmless')} after RL-CAI."
    ]
    if "helpful" in before and "benign_refusals" in after:
        found.append(
            f"Helpful on harmless prompts: {percent(before, 'helpful')} before, {percent(after, 'helpful')} after; "
            f"{percent(after, 'benign_refusals')} of harmless prompts are refused."
        )
    return found
