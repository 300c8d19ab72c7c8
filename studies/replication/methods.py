"""The table of methods: what each learner does to gold, against what it promises."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import fmean

from studies.replication.intervals import Estimate, both, difference, estimate, verdict
from studies.replication.policies import ends
from studies.replication.results import Claim, Figures, Results, table

LEARNERS = {
    "ppo": "PPO",
    "grpo": "GRPO",
    "rloo": "RLOO",
    "dpo": "DPO",
    "direct": "direct RLAIF (GRPO, the judge as reward)",
}
_GOLD = ("harmless", "helpful", "honest", "benign_refusals", "overall", "length")
_SOURCE = "this project"
ALLOWED = -0.05
"""Helpfulness that may be lost for harmlessness."""
RETUNED = {"grpo": 7, "rloo": 7, "direct": 3}
"""Settings of these were changed after the seeds before this one had been seen."""
_PROMISE = "harmlessness over SL-CAI and loses no more than 5 points of helpfulness"


def members(results: Results, variant: str) -> list[str]:
    """The reward models of a variant that every seed of its first has, `variant.0` and on."""
    names = []
    while results.has(f"{variant}.{len(names)}"):
        names.append(f"{variant}.{len(names)}")
    seeds = [set(results.metrics(name)) for name in names]
    return [name for name, found in zip(names, seeds, strict=True) if found >= seeds[0]]


def claims(results: Results) -> list[Claim]:
    """Every claim whose rows are there."""
    return [*_soft_labels(results), *_learners(results), *_ensembles(results), *_facts(results)]


TOPICS = (
    ("more accurate reward model", "soft labels make a more accurate reward model than hard ones"),
    ("better calibrated", "soft labels make a better calibrated reward model than hard ones"),
    *(
        (
            f"{label} raises",
            f"{label} raises {_PROMISE}",
        )
        for label in LEARNERS.values()
    ),
    ("an ensemble", "an ensemble of reward models (mean or worst case) reduces over-optimisation"),
    ("RLVR", "RLVR raises exact match on facts"),
)
"""(what a claim's text holds, the claim) of everything that the table asks."""


def open_claims(found: Sequence[Claim]) -> list[Claim]:
    """The claims that have not been run yet."""
    texts = " / ".join(claim.claim for claim in found)
    return [
        Claim(claim=claim, source=_SOURCE, result="not run yet", verdict=None, estimates={})
        for key, claim in TOPICS
        if key not in texts
    ]


def _soft_labels(results: Results) -> Iterator[Claim]:
    for soft, hard, which in (
        ("soft", "hard", "verdicts and ties"),
        ("soft-ok", "hard-ok", "verdicts without ties"),
    ):
        if not results.has(f"{soft}.0", f"{hard}.0"):
            continue
        pairs = [members(results, soft), members(results, hard)]
        count = min(map(len, pairs))

        def gain(*path: str, pairs: Sequence[Sequence[str]] = pairs, count: int = count) -> Estimate | None:
            first, second = (results.averaged(names[:count], *path) for names in pairs)
            return difference(first, second)

        accuracy, ece, brier = gain("accuracy"), gain("ece"), gain("brier")
        if accuracy is None or ece is None or brier is None:
            continue
        better = _negated(brier)
        yield Claim(
            claim=f"soft labels make a more accurate reward model than hard ones ({which})",
            source=_SOURCE,
            result=f"accuracy {accuracy.text(100, 2)} points",
            verdict=verdict(accuracy),
            estimates={"accuracy": accuracy},
        )
        yield Claim(
            claim=f"soft labels make a better calibrated reward model than hard ones ({which})",
            source=_SOURCE,
            result=f"calibration error {ece.text(100)} points, Brier score {brier.text(1, 4)}",
            verdict=both(verdict(_negated(ece)), verdict(better)),
            estimates={"ece": ece, "brier": brier},
        )


def _learners(results: Results) -> Iterator[Claim]:
    for name, label in LEARNERS.items():
        yield from _learner(results, name, f"{label} raises {_PROMISE}", 0)
        if name in RETUNED:
            yield from _learner(
                results, name, f"{label} raises {_PROMISE} (seeds from {RETUNED[name]} on)", RETUNED[name]
            )


def _learner(results: Results, name: str, claim: str, first: int) -> Iterator[Claim]:
    def gained(figure: str) -> Estimate | None:
        learned, before = (results.figures(job, "gold", figure) for job in (name, "sl_cai"))
        return difference({seed: value for seed, value in learned.items() if seed >= first}, before)

    harmless, helpful = gained("harmless"), gained("helpful")
    if harmless is not None and helpful is not None:
        yield Claim(
            claim=claim,
            source=_SOURCE,
            result=f"harmless {harmless.text(100)} points, helpful {helpful.text(100)} points",
            verdict=both(verdict(harmless), verdict(helpful, above=ALLOWED)),
            estimates={"harmless": harmless, "helpful": helpful},
        )


def repeats(results: Results, name: str) -> list[str]:
    """A run and those that repeat it with other samples, `name.1` and on, as far as all of its seeds have them."""
    names = [name]
    while results.metrics(f"{name}.{len(names)}").keys() == results.metrics(name).keys() != set():
        names.append(f"{name}.{len(names)}")
    return names


def ended(results: Results, name: str, key: str) -> Figures:
    """A figure of `ends` by seed, averaged over the repeats."""
    found = [results.each(n, lambda metrics: ends(metrics["curve"])[key]) for n in repeats(results, name)]
    return {seed: fmean(figures[seed] for figures in found) for seed in found[0]}


def falls(results: Results, name: str) -> Figures:
    """Gold at its peak less gold at the end of a run, by seed."""
    return ended(results, name, "gold_fall")


def _ensembles(results: Results) -> Iterator[Claim]:
    for name, label in (
        ("min", "worst case of three"),
        ("mean", "mean of three"),
        ("larger", "worst case of five"),
    ):
        saved = difference(falls(results, "loose.single"), falls(results, f"loose.{name}"))
        if saved is None:
            continue
        later = difference(*(ended(results, f"loose.{n}", "peak_step") for n in (name, "single")))
        assert later is not None
        yield Claim(
            claim=f"an ensemble of reward models ({label}) reduces over-optimisation",
            source="Coste et al. 2023, section 5",
            result=f"gold falls {saved.text(100)} points less, its peak is {later.text()} steps later",
            verdict=verdict(saved),
            estimates={"fall_saved": saved, "peak_later": later},
        )


FACTS = {
    "flattery_train": "opinions about facts trained on",
    "flattery_heldout": "opinions about facts held out",
    "fact_train": "questions about facts trained on",
    "fact_heldout": "questions about facts held out",
}


def _facts(results: Results) -> Iterator[Claim]:
    for kind, label in FACTS.items():
        gain = results.gain("rlvr", "sl_cai", "facts", kind)
        if gain is None:
            continue
        yield Claim(
            claim=f"RLVR raises exact match on facts ({label})",
            source=_SOURCE,
            result=f"{gain.text(100)} points",
            verdict=verdict(gain),
            estimates={"exact_match": gain},
        )


def _negated(found: Estimate) -> Estimate:
    return estimate([-value for value in found.values])


def tables(results: Results) -> list[tuple[str, str]]:
    """(heading, Markdown table) of what the claims rest on, means over seeds with their intervals."""
    made = [
        ("Reward models on held-out pairs", _reward_models(results)),
        ("Policies on held-out prompts", _policies(results)),
        ("Runs made to over-optimise", _loose(results)),
        ("Exact match on facts", _exact(results)),
    ]
    return [(heading, text) for heading, text in made if text]


def _reward_models(results: Results) -> str:
    rows = []
    for variant, label in (
        ("soft", "soft, verdicts and ties"),
        ("hard", "hard, verdicts and ties"),
        ("soft-ok", "soft, verdicts"),
        ("hard-ok", "hard, verdicts"),
    ):
        if not (names := members(results, variant)):
            continue
        cells = [label, str(len(names)), str(len(results.metrics(names[0])))]
        for path, scale, digits in (
            ("accuracy", 100, 1),
            ("ece", 100, 1),
            ("brier", 1, 4),
            ("log_loss", 1, 3),
            ("overconfidence", 100, 1),
        ):
            cells.append(estimate(list(results.averaged(names, path).values())).text(scale, digits))
        rows.append(cells)
    head = ["labels", "models a seed", "seeds", "accuracy, %", "calibration error, points", "Brier"]
    return table([*head, "log loss, nats", "confidence beyond gold's, points"], rows) if rows else ""


def _policies(results: Results) -> str:
    rows = []
    known = {
        "base": "base",
        "helpful_sft": "helpful-only",
        "sl_cai": "SL-CAI",
        **LEARNERS,
        "rlvr": "RLVR on facts",
    }
    for name, label in known.items():
        if results.has(name):
            cells = []
            for figure in _GOLD:
                found = results.estimate(name, "gold", figure)
                assert found is not None
                cells.append(found.text(1 if figure == "length" else 100))
            rows.append([label, str(len(results.metrics(name))), *cells])
    head = [
        "policy",
        "seeds",
        "harmless, %",
        "helpful, %",
        "honest, %",
        "harmless refused, %",
        "overall, %",
        "words",
    ]
    return table(head, rows) if rows else ""


SIZES = (
    ("single", "one"),
    ("mean", "mean of three"),
    ("min", "worst case of three"),
    ("larger", "worst case of five"),
)
SHOWN = ("gold_peak", "gold_end", "gold_fall", "peak_step", "kl_end", "proxy_end")


def _loose(results: Results) -> str:
    rows = []
    for name, label in SIZES:
        job = f"loose.{name}"
        if results.has(job):
            columns = {key: estimate(list(ended(results, job, key).values())) for key in SHOWN}
            scaled = [columns[key].text(100) for key in SHOWN[:3]]
            plain = [columns["peak_step"].text(), columns["kl_end"].text(), columns["proxy_end"].text(1, 2)]
            counts = [str(len(repeats(results, job))), str(len(results.metrics(job)))]
            rows.append([label, *counts, *scaled, *plain])
    head = [
        "reward models",
        "runs a seed",
        "seeds",
        "gold at its peak",
        "gold at the end",
        "fall",
        "step of the peak",
        "KL, nats",
        "proxy",
    ]
    return table(head, rows) if rows else ""


def _exact(results: Results) -> str:
    rows = []
    for name, label in (("sl_cai", "SL-CAI"), ("rlvr", "after RLVR")):
        if results.has(name):
            found = [results.estimate(name, "facts", kind) for kind in FACTS]
            rows.append([label, *(f.text(100) for f in found if f is not None)])
    return table(["policy", *(f"{label}, %" for label in FACTS.values())], rows) if rows else ""
