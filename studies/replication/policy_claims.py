"""The claims about policies: wins, what ranks them, over-optimisation, the brake, further rounds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import fmean

from flows.evaluation import length_controlled
from studies.replication.intervals import Estimate, Verdict, both, difference, estimate, verdict
from studies.replication.jobs import Study
from studies.replication.methods import falls, members
from studies.replication.plan import VERDICTS, WRONG
from studies.replication.results import Claim, Results
from studies.replication.wins import compared

BAI = "Bai et al. 2022"
LEE = "Lee et al. 2023"
GAO = "Gao et al. 2022"
OURS = "this project"


def _win_rates(
    results: Results, study: Study, first: str, second: str, *, equal: bool = False
) -> Estimate | None:
    seeds = sorted(results.metrics(first).keys() & results.metrics(second).keys())
    rates = []
    for seed in seeds:
        wins, lengths = compared(study, f"{first}-{seed}", f"{second}-{seed}")
        rates.append(length_controlled(wins, lengths).value if equal else fmean(wins))
    return estimate(rates) if rates else None


def above_sft(results: Results, study: Study) -> Iterator[Claim]:
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


def clamping(results: Results) -> Iterator[Claim]:
    gold = results.gain("ppo.clamped", "ppo", "gold", "overall")
    accuracy = difference(results.figures("clamped", "accuracy"), results.figures("soft.0", "accuracy"))
    if gold is not None and accuracy is not None:
        yield Claim(
            claim="clamping labels to 40-60% makes better policies (PPO; labels without chain of thought)",
            source=f"{BAI}, section 4.3, which clamps labels that follow a chain of thought",
            result=f"gold overall {gold.text(100)} points, reward model {accuracy.text(100)}",
            verdict=verdict(gold),
            estimates={"policy": gold, "reward_model": accuracy},
        )


def ranking(results: Results) -> Iterator[Claim]:
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
    told = [f"reward model {s['accuracy'].text(100)}, policy {s['policy'].text(100)}" for s in steps]
    names = ("20% of the labels against 5%", "all against 20%")
    yield Claim(
        claim="a reward model's accuracy does not rank the policies trained on it",
        source=f"{LEE}, appendix on reward model accuracy",
        result="; ".join(f"{name}: {text} points" for name, text in zip(names, told, strict=False)),
        verdict=ranked([(step["accuracy"], step["policy"]) for step in steps]),
        estimates={f"{key}_{n}": value for n, step in enumerate(steps) for key, value in step.items()},
    )


def ranked(steps: Sequence[tuple[Estimate, Estimate]]) -> Verdict:
    """Whether policies do not follow accuracies, from the changes of both between neighbours: it holds when they go
    apart at some step, and does not when they go together at every one."""
    together = [(verdict(accuracy), verdict(policy)) for accuracy, policy in steps]
    told = [pair for pair in together if "cannot tell" not in pair]
    if any(accuracy != policy for accuracy, policy in told):
        return "holds"
    return "does not hold" if len(told) == len(steps) else "cannot tell"


def _of(shares: Estimate) -> str:
    return f"{sum(shares.values):.0f} of {len(shares.values)}"


def direct(results: Results, study: Study) -> Iterator[Claim]:
    rate = _win_rates(results, study, "direct", "grpo.alike")
    if rate is not None:
        yield Claim(
            claim="direct RLAIF is preferred to RLAIF with a reward model from the same judge",
            source=f"{LEE}, section 4.3",
            result=f"win rate by gold {rate.text(100)}%",
            verdict=verdict(rate, above=0.5),
            estimates={"win_rate": rate},
        )


def length(results: Results, study: Study) -> Iterator[Claim]:
    rate = _win_rates(results, study, "ppo", "sl_cai", equal=True)
    if rate is not None:
        yield Claim(
            claim="RLAIF wins at equal length too: PPO's answers against SL-CAI's, corrected for length",
            source=f"{LEE}, appendix on controlling for response length",
            result=f"win rate by gold {rate.text(100)}%",
            verdict=verdict(rate, above=0.5),
            estimates={"win_rate": rate},
        )


def beta(results: Results) -> Iterator[Claim]:
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


def brake(results: Results) -> Iterator[Claim]:
    keeps = "keeps a policy within 10% of gold's peak"
    for job, claim in (
        ("braked", f"the brake {keeps} where a run over-optimises (PPO, beta 0)"),
        (
            "people_braked",
            f"with a model of people's verdicts as its gold, the brake still {keeps} ({VERDICTS} verdicts, "
            f"{WRONG:.0%} of them wrong)",
        ),
    ):
        kept, fired = (results.estimate(job, "brake", key) for key in ("kept_to_peak", "fired"))
        saved = results.gain(job, "brake.loose", "gold", "overall")
        if kept is not None and fired is not None and saved is not None:
            taken = results.estimate(job, "gold_model", "taken") if job == "people_braked" else None
            note = "" if taken is None else f"; the flow would take {_of(taken)} gold models"
            yield Claim(
                claim=claim,
                source=OURS,
                result=f"on prompts that it never saw its policy has {kept.text(100)}% of the peak, {saved.text(100)} "
                f"points more than without the brake; it fired in {_of(fired)} runs{note}",
                verdict=verdict(kept, above=0.9),
                estimates={"kept_to_peak": kept, "saved": saved},
            )
    false = results.estimate("brake.default", "brake", "fired")
    if false is not None:
        yield Claim(
            claim="the brake does not fire in the demo's run",
            source=OURS,
            result=f"fired in {_of(false)} runs",
            verdict="does not hold" if any(false.values) else "holds",
            estimates={"fired": false},
        )


def rounds(results: Results) -> Iterator[Claim]:
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
