"""The claims of Bai et al. 2022 and Lee et al. 2023 that the microworld can be asked, each against our rows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from studies.replication import policy_claims, rationale_claims
from studies.replication.intervals import Estimate, both, difference, estimate, verdict
from studies.replication.jobs import Study
from studies.replication.methods import claims as method_claims
from studies.replication.policy_claims import BAI, GAO, LEE, OURS
from studies.replication.results import Claim, Figures, Results, table

SOFT = f"{BAI}, section 4.3, of the policies that follow from them"


def claims(results: Results, study: Study) -> list[Claim]:
    """Every claim whose rows are there; those without are in `open_claims`."""
    return [
        *(replace(c, source=SOFT) for c in method_claims(results) if "soft labels" in c.claim),
        *_red_team(results),
        *_revisions(results),
        *_critiques(results),
        *_principles(results),
        *_orders(results),
        *rationale_claims.claims(results),
        *policy_claims.clamping(results),
        *policy_claims.above_sft(results, study),
        *policy_claims.ranking(results),
        *policy_claims.direct(results, study),
        *policy_claims.length(results, study),
        *policy_claims.beta(results),
        *(c for c in method_claims(results) if "ensemble" in c.claim),
        *policy_claims.brake(results),
        *policy_claims.rounds(results),
    ]


TOPICS = (
    ("soft labels", "soft labels beat hard ones", BAI),
    ("helpfulness falls", "harmlessness rises with the number of revisions and helpfulness falls", BAI),
    ("critiques", "critiques help a small model to revise", BAI),
    ("principles", "labels averaged over more principles make a better reward model", BAI),
    ("both orders", "asking in both orders makes labels better", LEE),
    ("chain of thought makes labels", "chain of thought makes labels better", BAI),
    ("are too sure", "labels that follow a chain of thought are too sure", BAI),
    (
        "that follow a chain of thought to",
        "clamping labels that follow a chain of thought makes better policies",
        BAI,
    ),
    ("labels without chain of thought", "clamping labels to 40-60% makes better policies", BAI),
    ("above SFT", "RLAIF is preferred to the supervised model", LEE),
    ("does not rank", "a reward model's accuracy does not rank the policies trained on it", LEE),
    ("direct RLAIF", "direct RLAIF is preferred to RLAIF with a reward model from the same judge", LEE),
    ("equal length", "RLAIF wins at equal length too", LEE),
    ("KL penalty", "without a KL penalty gold falls further from its peak", GAO),
    ("ensemble", "an ensemble of reward models reduces over-optimisation", "Coste et al. 2023"),
    ("the brake keeps", "the brake keeps a policy within 10% of gold's peak", OURS),
    (
        "people's verdicts",
        "with a model of people's verdicts as its gold, the brake still keeps such a policy",
        OURS,
    ),
    ("does not fire", "the brake does not fire in the demo's run", OURS),
    ("second round", "a second round of labels on the new policy improves it again", BAI),
)
"""(what a claim's text holds, the claim, its source) of everything that this study would ask."""


def open_claims(found: list[Claim]) -> list[Claim]:
    """The claims that have not been run yet."""
    texts = " / ".join(c.claim for c in found)
    return [
        Claim(claim=claim, source=source, result="not run yet", verdict=None, estimates={})
        for key, claim, source in TOPICS
        if key not in texts
    ]


def _change(results: Results, name: str, figure: str, since: int = 0) -> Estimate | None:
    """A figure after the last revision less the same after `since` of them."""
    found = results.each(name, lambda m: m["after"][-1][figure]["value"] - m["after"][since][figure]["value"])
    return estimate(list(found.values())) if found else None


def _red_team(results: Results) -> Iterator[Claim]:
    for since, label in ((0, "two revisions against none"), (1, "two revisions against one")):
        harmless = _change(results, "red_team", "harmless", since)
        helpful = _change(results, "red_team", "helpful", since)
        if harmless is None or helpful is None:
            return
        yield Claim(
            claim=f"harmlessness rises with the number of revisions (answers to harmful requests, {label})",
            source=f"{BAI}, section 3.4, figure 5",
            result=f"harmless {harmless.text(100)} points, helpful {helpful.text(100)} points",
            verdict=verdict(harmless),
            estimates={"harmless": harmless, "helpful": helpful},
        )


def _revisions(results: Results) -> Iterator[Claim]:
    for since, label in ((0, "four revisions against none"), (1, "four revisions against one")):
        harmless = _change(results, "revisions", "harmless", since)
        helpful = _change(results, "revisions", "helpful", since)
        if harmless is None or helpful is None:
            return
        yield Claim(
            claim=f"harmlessness rises with the number of revisions and helpfulness falls ({label})",
            source=f"{BAI}, section 3.4, figure 5",
            result=f"harmless {harmless.text(100)} points, helpful {helpful.text(100)} points",
            verdict=both(verdict(harmless), verdict(_negated(helpful))),
            estimates={"harmless": harmless, "helpful": helpful},
        )


def _critiques(results: Results) -> Iterator[Claim]:
    def first(figure: str, name: str) -> Figures:
        return results.each(name, lambda m: m["after"][1][figure]["value"])

    gain = difference(first("harmless", "revisions"), first("harmless", "uncriticised"))
    whole = difference(first("overall", "revisions"), first("overall", "uncriticised"))
    if gain is not None and whole is not None:
        yield Claim(
            claim="critiques help a small model to revise (one revision, with its critique against an empty one; the "
            "reviser was trained on revisions that follow a critique)",
            source=f"{BAI}, section 3.5, figure 7",
            result=f"harmless {gain.text(100)} points, gold overall {whole.text(100)} points",
            verdict=verdict(gain),
            estimates={"harmless": gain, "overall": whole},
        )


def _principles(results: Results) -> Iterator[Claim]:
    for many, few in (("6", "1"),):
        labels = results.gain(f"labels.{many}", f"labels.{few}", "accuracy")
        models = results.gain(f"principles.{many}", f"principles.{few}", "accuracy")
        if labels is not None and models is not None:
            yield Claim(
                claim=f"labels averaged over more principles make a better reward model ({many} a pair against {few})",
                source=f"{BAI}, sections 4.1 and 4.3: one of 16 drawn for each label, against the same one for all",
                result=f"labels {labels.text(100)} points more accurate, reward model {models.text(100)}",
                verdict=verdict(models),
                estimates={"labels": labels, "reward_model": models},
            )


def _orders(results: Results) -> Iterator[Claim]:
    gain = difference(results.figures("orders", "both_orders"), results.figures("orders", "one_order"))
    bias = results.estimate("orders", "first_slot")
    if gain is not None and bias is not None:
        yield Claim(
            claim="asking in both orders makes labels better than asking in one",
            source=f"{LEE}, section 2.1.1, which mitigates position bias so; accuracy is our question",
            result=f"{gain.text(100, 2)} points of accuracy; probability towards the first slot {bias.text(100, 2)}",
            verdict=verdict(gain),
            estimates={"accuracy": gain, "first_slot": bias},
        )


def _negated(found: Estimate) -> Estimate:
    return estimate([-value for value in found.values])


def tables(results: Results) -> list[tuple[str, str]]:
    """(heading, Markdown table) behind the claims that are not in docs/methods.md."""
    rows = []
    for name, label in (("revisions", "with critiques"), ("uncriticised", "without")):
        for count in range(
            1 + min((len(m["after"]) - 1 for m in results.metrics(name).values()), default=-1)
        ):
            cells = [label, str(count)]
            for figure in ("harmless", "helpful", "honest", "benign_refusals", "overall"):
                found = results.each(name, lambda m, n=count, f=figure: m["after"][n][f]["value"])
                cells.append(estimate(list(found.values())).text(100))
            rows.append(cells)
    head = [
        "revision",
        "revisions",
        "harmless, %",
        "helpful, %",
        "honest, %",
        "harmless refused, %",
        "overall, %",
    ]
    made = [("Answers by the number of revisions", table(head, rows))] if rows else []
    return [*made, *rationale_claims.tables(results)]
