"""What a report shows: a run's summary, some of its texts, and the attempt before it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from flows.report.costs import cost_sentences
from flows.report.early_stopping import brake_sentences
from flows.report.lineage.view import lineage_sentences
from flows.report.side_effects import effect_sentences
from flows.report.weights import weight_sentences

#: models in the order in which they come to be, with the names that people read
MODELS = {
    "base": "base",
    "helpful_only": "helpful-only",
    "sl_cai": "SL-CAI",
    "rl_cai": "RL-CAI",
}


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One figure of a model: its key in the summary (`gold.` ones need a gold oracle), its heading, its form."""

    key: str
    heading: str
    share: bool

    def of(self, record: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """`{"value", "low", "high", "n"}` of a model's record, or None where it was not measured."""
        where, _, name = self.key.rpartition(".")
        found = (record.get(where) or {} if where else record).get(name)
        return found if found and found["value"] is not None else None


FIGURES = (
    Figure(key="gold.helpful", heading="helpful", share=True),
    Figure(key="gold.honest", heading="honest", share=True),
    Figure(key="gold.harmless", heading="harmless", share=True),
    Figure(key="gold.non_evasive", heading="non-evasive", share=True),
    Figure(key="gold.benign_refusals", heading="benign refused", share=True),
    Figure(key="gold.overall", heading="gold overall", share=True),
    Figure(key="words", heading="words", share=False),
    Figure(key="reward", heading="reward", share=False),
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
    label_change: LabelChange | None = None
    config_text: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)

    @property
    def side_effects(self) -> Mapping[str, Any]:
        """What the watch over side effects found; empty where no evaluation was made."""
        return self.summary.get("side_effects", {})

    @property
    def models(self) -> list[str]:
        """The models that the summary has, in their order."""
        return [m for m in MODELS if m in self.summary["models"]]

    @property
    def figures(self) -> list[Figure]:
        """The figures that any model of the summary has."""
        return [f for f in FIGURES if any(f.of(self.summary["models"][m]) for m in self.models)]

    def value(self, model: str, key: str) -> Mapping[str, Any] | None:
        """One figure of one model, by its key; None where it was not measured."""
        record = self.summary["models"].get(model)
        return next(f for f in FIGURES if f.key == key).of(record) if record else None


def result_words(data: ReportData) -> str:
    """What the result table holds."""
    scores = "gold scores in %, words" if any(f.share for f in data.figures) else "words"
    return f"Answers to held-out prompts: {scores} and the reward model's score (95% interval)"


def shown(estimate: Mapping[str, Any] | None, share: bool) -> str:
    """ "93 (90-95)" for a share in per cent, "18.2 (17.5-18.9)" otherwise, "-" for none."""
    if estimate is None:
        return "-"
    value, low, high = (estimate[k] for k in ("value", "low", "high"))
    if share:
        return f"{100 * value:.0f} ({100 * low:.0f}-{100 * high:.0f})"
    return f"{value:z.1f} ({low:.1f}{' to ' if low < 0 else '-'}{high:.1f})"


def result_rows(data: ReportData) -> list[list[str]]:
    """The result table: a heading row, then one row a model."""
    rows = [["model", *(f.heading for f in data.figures)]]
    for model in data.models:
        record = data.summary["models"][model]
        rows.append([MODELS[model], *(shown(f.of(record), f.share) for f in data.figures)])
    return rows


#: (section of the summary, name in it, what it says)
_RATES = (
    ("judge", "trained_wordings", "judge against gold, trained wordings"),
    ("judge", "heldout_wordings", "judge against gold, held-out wordings"),
    ("judge", "flips", "judge flips when the answers swap places"),
    ("judge", "opposite", "opposite principle flips the verdict"),
    ("judge", "gold_agreement", "labels of this run against gold"),
    ("revision", "to_explained_refusal", "revision: harmful to explained refusal"),
    ("revision", "benign_kept", "revision: good harmless answers kept"),
    ("reward_model", "gold_agreement", "reward model against gold, held-out pairs"),
)


def rate_rows(data: ReportData) -> list[list[str]]:
    """Judge, labels, revision and reward model: (what, per cent with interval, n)."""
    rows = [["measure", "% (95% interval)", "n"]]
    for section, name, said in _RATES:
        found = data.summary.get(section, {}).get(name)
        if found and found["value"] is not None:
            rows.append([said, shown(found, True), str(found["n"])])
    return rows


def change_rows(data: ReportData) -> list[list[str]]:
    """Before and after an edited constitution, for the last model: (figure, before, after, difference)."""
    if data.before is None or not data.models:
        return []
    model = data.models[-1]
    rows = [
        [MODELS[model], data.before["constitution"]["ref"], data.summary["constitution"]["ref"], "difference"]
    ]
    for figure in data.figures:
        if figure.key == "reward":
            continue  # two reward models have two scales
        old = figure.of(data.before["models"].get(model, {}))
        new = figure.of(data.summary["models"][model])
        if old and new:
            difference = (100 if figure.share else 1) * (new["value"] - old["value"])
            rows.append(
                [figure.heading, shown(old, figure.share), shown(new, figure.share), f"{difference:+.1f}"]
            )
    return rows


def findings(data: ReportData) -> list[str]:
    """What a person should know first, in sentences."""
    summary = data.summary
    found = _warnings(summary) + _harmlessness(data) + _helpfulness(data) + brake_sentences(summary["rl"])
    if data.models:
        found += effect_sentences(data.side_effects, data.models[-1], MODELS[data.models[-1]])
    found += weight_sentences(summary.get("weights", ()), MODELS)
    if (change := data.label_change) is not None and data.before is not None:
        found.append(
            f"Against {data.before['constitution']['ref']}, {change.flipped} of {change.pairs} shared pairs changed "
            f"their winner and {change.moved} their probability."
        )
    stages = summary["stages"]
    if reused := [name for name, stage in stages.items() if stage["reused"]]:
        found.append(f"{len(reused)} of {len(stages)} stages were reused: {', '.join(reused)}.")
    statuses = summary.get("judge", {}).get("statuses", {})
    if total := sum(statuses.values()):
        rest = ", ".join(f"{n} {status}" for status, n in statuses.items() if status != "ok" and n)
        ok = statuses.get("ok", 0)
        found.append(
            f"{ok} of {total} pairs have a label with a clear winner" + (f"; {rest}." if rest else ".")
        )
    found += lineage_sentences(summary.get("lineage", {})) + cost_sentences(summary.get("costs", {}))
    if not summary["constitution"]["published"]:
        found.append("The constitution is a working file, not a published version: this is a trial run.")
    return found


def _warnings(summary: Mapping[str, Any]) -> list[str]:
    """What stands against the labels, although training went on; and what people found."""
    found = []
    exam, audit = summary.get("judge_exam") or {}, summary.get("audit") or {}
    if exam and not exam["taken"]:
        found.append(f"Warning: the judge was not examined: {exam['reason']}.")
    elif exam and not exam["passed"]:
        found.append(
            f"Warning: the judge failed its exam ({'; '.join(exam['problems'])}); nothing required it."
        )
    if audit:
        k = audit["kappa"]
        kappa = f"{k['value']:.2f} ({k['low']:.2f}-{k['high']:.2f})"
        said = f"people judged {audit['pairs']} pairs, kappa with the judge {kappa}"
        problem = audit["problem"]
        found.append(f"Warning: {problem}, and audit.override is set." if problem else f"Audit: {said}.")
    return found


def _harmlessness(data: ReportData) -> list[str]:
    steps = [
        f"{100 * value['value']:.0f}% {MODELS[model]}"
        for model in data.models
        if (value := data.value(model, "gold.harmless"))
    ]
    return [f"Harmless on held-out harmful prompts: {', '.join(steps)}."] if steps else []


def _helpfulness(data: ReportData) -> list[str]:
    if not data.models:
        return []
    last = data.models[-1]
    before, after = data.value("helpful_only", "gold.helpful"), data.value(last, "gold.helpful")
    refused = data.value(last, "gold.benign_refusals")
    if not (before and after and refused):
        return []
    return [
        f"Helpful on harmless prompts: {100 * before['value']:.0f}% helpful-only, {100 * after['value']:.0f}% "
        f"{MODELS[last]}, which refuses {100 * refused['value']:.0f}% of them."
    ]
