"""The claims of Bai et al. 2022 and Lee et al. 2023 that the microworld can be asked, each against our rows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from statistics import fmean

from replication_parts.intervals import Estimate, both, difference, estimate, verdict
from replication_parts.jobs import Study
from replication_parts.methods import claims as method_claims
from replication_parts.methods import falls, members
from replication_parts.results import Claim, Figures, Results, table
from replication_parts.wins import at_equal_length, compared

BAI = "Bai et al. 2022"
LEE = "Lee et al. 2023"
GAO = "Gao et al. 2022"
SOFT = f"{BAI}, section 4.3, of the policies that follow from them"
OURS = "this project"

NOT_ASKED = (
    ("chain of thought makes labels better, and clamping them to 40-60% makes policies better",
     f"{BAI}, sections 2 and 4.3", "the microworld's judge answers with a letter and writes no rationales"),
)  # fmt: skip


def claims(results: Results, study: Study) -> list[Claim]:
    """Every claim whose rows are there; those without are in `open_claims`."""
    return [
        *(replace(c, source=SOFT) for c in method_claims(results) if "soft labels" in c.claim),
        *_red_team(results),
        *_revisions(results),
        *_critiques(results),
        *_principles(results),
        *_orders(results),
        *_above_sft(results, study),
        *_ranking(results),
        *_direct(results, study),
        *_length(results, study),
        *_beta(results),
        *(c for c in method_claims(results) if "ensemble" in c.claim),
        *_brake(results),
        *_rounds(results),
    ]


TOPICS = (
    ("soft labels", "soft labels beat hard ones", BAI),
    ("helpfulness falls", "harmlessness rises with the number of revisions and helpfulness falls", BAI),
    ("critiques", "critiques help a small model to revise", BAI),
    ("principles", "labels averaged over more principles make a better reward model", BAI),
    ("both orders", "asking in both orders makes labels better", LEE),
    ("above SFT", "RLAIF is preferred to the supervised model", LEE),
    ("does not rank", "a reward model's accuracy does not rank the policies trained on it", LEE),
    ("direct RLAIF", "direct RLAIF is preferred to RLAIF with a reward model from the same judge", LEE),
    ("equal length", "RLAIF wins at equal length too", LEE),
    ("KL penalty", "without a KL penalty gold falls further from its peak", GAO),
    ("ensemble", "an ensemble of reward models reduces over-optimisation", "Coste et al. 2023"),
    ("the brake keeps", "the brake keeps a policy within 10% of gold's peak", OURS),
    ("does not fire", "the brake does not fire in the demo's run", OURS),
    ("second round", "a second round of labels on the new policy improves it again", BAI),
)
"""(what a claim's text holds, the claim, its source) of everything that this study would ask."""


def open_claims(found: list[Claim]) -> list[Claim]:
    """The claims that were not asked, each with its reason."""
    texts = " / ".join(c.claim for c in found)
    missing = [(claim, source, "not run yet") for key, claim, source in TOPICS if key not in texts]
    return [
        Claim(claim=claim, source=source, result=why, verdict=None, estimates={})
        for claim, source, why in (*NOT_ASKED, *missing)
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
            claim="critiques help a small model to revise (one revision, with its critique against without)",
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


def _win_rates(
    results: Results, study: Study, first: str, second: str, *, equal: bool = False
) -> Estimate | None:
    seeds = sorted(results.metrics(first).keys() & results.metrics(second).keys())
    rates = []
    for seed in seeds:
        wins, longer = compared(study, f"{first}-{seed}", f"{second}-{seed}")
        rates.append(at_equal_length(wins, longer) if equal else fmean(wins))
    return estimate(rates) if rates else None


def _above_sft(results: Results, study: Study) -> Iterator[Claim]:
    for second, label in (("sl_cai", "SL-CAI"), ("helpful_sft", "the helpful-only model")):
        rate = _win_rates(results, study, "ppo", second)
        if rate is not None:
            yield Claim(
                claim=f"RLAIF is above SFT: PPO's answers win against those of {label}",
                source=f"{LEE}, section 4.1; {BAI}, section 4.3, of harmlessness",
                result=f"win rate by gold {rate.text(100)}%",
                verdict=verdict(rate, above=0.5),
                estimates={"win_rate": rate},
            )


def _ranking(results: Results) -> Iterator[Claim]:
    ladder = (("share.5", "ppo.5"), ("share.20", "ppo.20"))
    if not all(results.has(*pair) for pair in ladder):
        return
    steps: list[dict[str, Estimate]] = []
    for (few, weak), (more, strong) in ((ladder[0], ladder[1]),):
        accuracy = results.gain(more, few, "accuracy")
        gold = results.gain(strong, weak, "gold", "overall")
        assert accuracy is not None and gold is not None
        steps.append({"accuracy": accuracy, "policy": gold})
    top = difference(results.figures("ppo", "gold", "overall"), results.figures("ppo.20", "gold", "overall"))
    best = difference(
        results.averaged(members(results, "soft"), "accuracy"), results.figures("share.20", "accuracy")
    )
    if top is not None and best is not None:
        steps.append({"accuracy": best, "policy": top})
    # The claim is that policies need not follow accuracies: it fails when every step up in the one is one in the other.
    follows = both(*(verdict(step["policy"]) for step in steps))
    told = [f"reward model {s['accuracy'].text(100)}, policy {s['policy'].text(100)}" for s in steps]
    names = ("20% of the labels against 5%", "all against 20%")
    yield Claim(
        claim="a reward model's accuracy does not rank the policies trained on it",
        source=f"{LEE}, appendix on reward model accuracy",
        result="; ".join(f"{name}: {text} points" for name, text in zip(names, told, strict=False)),
        verdict={"holds": "does not hold", "does not hold": "holds", "cannot tell": "cannot tell"}[follows],
        estimates={f"{key}_{n}": value for n, step in enumerate(steps) for key, value in step.items()},
    )


def _direct(results: Results, study: Study) -> Iterator[Claim]:
    rate = _win_rates(results, study, "direct", "grpo")
    if rate is not None:
        yield Claim(
            claim="direct RLAIF is preferred to RLAIF with a reward model from the same judge",
            source=f"{LEE}, section 4.3",
            result=f"win rate by gold {rate.text(100)}%",
            verdict=verdict(rate, above=0.5),
            estimates={"win_rate": rate},
        )


def _length(results: Results, study: Study) -> Iterator[Claim]:
    rate = _win_rates(results, study, "ppo", "sl_cai", equal=True)
    if rate is not None:
        yield Claim(
            claim="RLAIF wins at equal length too: PPO's answers against SL-CAI's, corrected for length",
            source=f"{LEE}, appendix on controlling for response length",
            result=f"win rate by gold {rate.text(100)}%",
            verdict=verdict(rate, above=0.5),
            estimates={"win_rate": rate},
        )


def _beta(results: Results) -> Iterator[Claim]:
    for beta in ("0.05", "0.2"):
        saved = difference(falls(results, "loose.single"), falls(results, f"loose.beta{beta}"))
        if saved is not None:
            yield Claim(
                claim=f"without a KL penalty gold falls further from its peak (beta 0 against {beta})",
                source=f"{GAO}, section 3.6: the penalty acts like stopping early",
                result=f"gold falls {saved.text(100)} points further from its peak",
                verdict=verdict(saved),
                estimates={"fall": saved},
            )


def _brake(results: Results) -> Iterator[Claim]:
    kept, fired = (results.estimate("brake.loose", "brake", key) for key in ("kept_to_peak", "fired"))
    lost = results.each("brake.loose", lambda m: 1 - m["brake"]["end_gold"] / m["brake"]["peak_gold"])
    if kept is not None and fired is not None:
        yield Claim(
            claim="the brake keeps a policy within 10% of gold's peak where a run over-optimises (PPO, beta 0)",
            source=OURS,
            result=f"kept gold is {kept.text(100)}% of the peak, without the brake gold ends "
            f"{estimate(list(lost.values())).text(100)}% below it; fired in {sum(fired.values):.0f} runs",
            verdict=verdict(kept, above=0.9),
            estimates={"kept_to_peak": kept},
        )
    false = results.estimate("brake.demo", "brake", "fired")
    if false is not None:
        yield Claim(
            claim="the brake does not fire in the demo's run",
            source=OURS,
            result=f"fired in {sum(false.values):.0f} of {len(false.values)} runs",
            verdict="does not hold" if any(false.values) else "holds",
            estimates={"fired": false},
        )


def _rounds(results: Results) -> Iterator[Claim]:
    gain = results.gain("round2", "ppo", "gold", "overall")
    beyond = results.gain("round2", "longer", "gold", "overall")
    if gain is not None and beyond is not None:
        yield Claim(
            claim="a second round of labels on the new policy improves it again, and more than as many further steps",
            source=f"{BAI}, section 6.1, which expects it; arXiv 2204.05862, section 4.5, has it of people's labels",
            result=f"gold overall {gain.text(100)} points over the first round, {beyond.text(100)} over more steps",
            verdict=both(verdict(gain), verdict(beyond)),
            estimates={"over_first": gain, "over_longer": beyond},
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
    return [("Answers by the number of revisions", table(head, rows))] if rows else []
