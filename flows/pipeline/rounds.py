"""Iterated RLAIF: sample from the current policy, label, refresh the reward model, go on from the current policy.

All rounds lie in one run directory. A stage of a later round is the ordinary stage with other inputs, so its key and
its folder are others: what a killed or repeated run has done is reused round by round, and judgements are shared.
As in Bai et al. 2022 (arXiv 2204.05862, section 4.5) each round makes a preference model anew with answers of the
newest policy. Unlike there, later rounds start from the policy before them; reinforcement learning stays near
the SL-CAI model by its KL penalty, DPO and its relatives to the policy that they start from.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from common.files import write_json
from flows.config import RunConfig
from flows.config.forms import RoundsRules
from flows.config.trainers import PreferenceSection
from flows.errors import FlowError, TooFewLabels
from flows.pipeline.session import Session
from flows.runs.directory import KEY_LENGTH
from flows.runs.record import Outcome
from flows.stages import gold_model, improvement, labels, pairs, reward_model, rl
from flows.stages.contract import WITHOUT, Artifact, Inputs, Stage
from flows.stages.registry import active

Execute = Callable[[Session, Stage], Outcome]

ROUNDS = "rounds.json"


@dataclass(frozen=True, kw_only=True)
class Round:
    """A finished round. `gain` is in the unit of `measure`, `kl` in nats per answer from the SL-CAI model (None where
    the method learns from pairs and samples nothing).

    `stop` says why no other round follows; `outcomes` holds its stages, `outputs` what its session has.
    """

    number: int
    outcomes: Mapping[str, Outcome]
    outputs: Mapping[tuple[str, str], Artifact]
    measure: str
    gain: float | None
    kl: float | None
    stop: str | None = None

    def gained(self, rules: RoundsRules) -> bool:
        """Whether its policy is better than the one before."""
        return self.gain is not None and self.gain > rules.min_gain

    def record(self) -> dict[str, Any]:
        """The round for rounds.json."""
        made, found = self.outcomes["labels"].manifest.metrics, self.outcomes["gain"].manifest.metrics
        return {
            "round": self.number,
            "stages": {name: o.manifest.key[:KEY_LENGTH] for name, o in self.outcomes.items()},
            "pairs": made["pairs"],
            "usable": made["usable"],
            "kl": self.kl,
            **{name: found[name] for name in ("reward", "win_rate", "gold")},
            "measure": self.measure,
            "gain": self.gain,
            "stop": self.stop,
        }


def run_rounds(
    session: Session, rules: RoundsRules, *, execute: Execute, on_round: Callable[[list[Round]], None]
) -> tuple[list[Round], str]:
    """All rounds until a rule stops them, and why it did. `on_round` hears of each with all before it.

    Raises TooFewLabels in the first round only; later it is a reason to stop.
    """
    done: list[Round] = []
    while True:
        number = len(done) + 1
        try:
            done.append(_round(session, rules, done, execute))
        except TooFewLabels as error:
            if not done:
                raise
            done[-1] = replace(done[-1], stop=f"round {number}: {error}")
        write_json(session.directory.path / ROUNDS, _record(done, rules))
        on_round(done)
        if (stop := done[-1].stop) is not None:
            return done, stop


def kept(done: list[Round], rules: RoundsRules) -> int:
    """The number of the last round whose policy was a gain; 0 is the SL-CAI model."""
    return max((r.number for r in done if r.gained(rules)), default=0)


def why_stop(
    rules: RoundsRules, *, number: int, gain: float | None, measure: str, kl: float | None
) -> str | None:
    """The rule that stops after this round, in words, or None."""
    if gain is None:
        return f"round {number}: no {measure} could be measured"
    if gain <= rules.min_gain:
        return f"round {number} gained {gain:+.3f} in {measure}, not more than {rules.min_gain:g}"
    if None not in (rules.kl_budget, kl) and kl >= rules.kl_budget:  # type: ignore[operator]
        return f"round {number} used up the KL budget: {kl:.2f} of {rules.kl_budget:g} nats"
    return f"all {number} rounds are done" if number == rules.rounds else None


def _round(session: Session, rules: RoundsRules, done: list[Round], execute: Execute) -> Round:
    number = len(done) + 1
    config = _within_budget(session.config, rules, spent=(done[-1].kl or 0.0) if done else 0.0)
    if done:
        # Other seeds: a repeated order of the prompts would show each round the same ones first.
        config = config.model_copy(update={"seed": config.seed + number - 1})
        now = replace(session, config=config, outputs=dict(done[-1].outputs), outcomes={})
        stages = tuple(stage for stage in _later_round(done, rules) if stage.active(config))
    else:
        now = replace(session, config=config, outputs={}, outcomes={})
        stages = tuple(active(config)[: [s.name for s in active(config)].index("rl") + 1])
    before = now.outputs.get(("rl", "model"))
    for stage in stages:
        execute(now, stage)
    measured = replace(now, config=session.config)
    execute(measured, _gain(before or now.outputs[("sl_cai", "model")], now.outputs[("rl", "model")]))
    found = now.outcomes["gain"].manifest.metrics
    measure, gained = _measured(found, rules)
    kl = _kl(now, done)
    return Round(
        number=number,
        outcomes=now.outcomes,
        outputs=now.outputs,
        measure=measure,
        gain=gained,
        kl=kl,
        stop=why_stop(rules, number=number, gain=gained, measure=measure, kl=kl),
    )


def _within_budget(config: RunConfig, rules: RoundsRules, *, spent: float) -> RunConfig:
    """The configuration with the rest of the KL budget as the trainer's own limit."""
    if rules.kl_budget is None:
        return config
    if isinstance(config.rl, PreferenceSection):
        raise FlowError(f"kl_budget: rl.method {config.rl.method} measures no KL; leave it empty")
    # Under LoRA the reference is the round's own start, so what earlier rounds moved is counted here.
    budget = rules.kl_budget - spent if config.rl.lora else rules.kl_budget
    limit = min(budget, config.rl.max_kl or budget)
    return config.model_copy(update={"rl": config.rl.model_copy(update={"max_kl": limit})})


def _kl(now: Session, done: list[Round]) -> float | None:
    kl = now.outcomes["rl"].manifest.metrics.get("kl")
    if kl is None or not done or not now.config.rl.lora:
        return kl
    return kl + (done[-1].kl or 0.0)


def _measured(found: Mapping[str, Any], rules: RoundsRules) -> tuple[str, float | None]:
    if rules.measure == "reward":
        return "reward", found["reward"]["value"]
    if rules.measure == "gold or win rate" and found["gold"] is not None:
        return "gold", found["gold"]["value"]
    rate = found["win_rate"]["value"]
    return "win rate above one half", None if rate is None else rate - 0.5


def _later_round(done: list[Round], rules: RoundsRules) -> tuple[Stage, ...]:
    learnt = [r.outputs[("labels", "preferences")] for r in done] if rules.learn_from == "all rounds" else []
    earlier = {f"preferences_{number}": found for number, found in enumerate(learnt, start=1)}

    def from_policy(inputs: Inputs) -> dict[str, Artifact]:
        return {**pairs.STAGE.inputs(inputs), "model": inputs.model("rl_cai")}

    def with_earlier(inputs: Inputs) -> dict[str, Artifact]:
        return {**reward_model.STAGE.inputs(inputs), **earlier}

    def without_earlier(inputs: Inputs) -> dict[str, Artifact]:
        seen = {
            f"{WITHOUT}pairs_{number}": r.outputs[("pairs", "pairs")]
            for number, r in enumerate(done, start=1)
        }
        return {**gold_model.STAGE.inputs(inputs), **seen}

    def with_reference(inputs: Inputs) -> dict[str, Artifact]:
        found = {**rl.STAGE.inputs(inputs), "model": inputs.model("rl_cai")}
        if isinstance(inputs.config.rl, PreferenceSection):
            return {**found, **earlier}
        return found if inputs.config.rl.lora else {**found, "reference": inputs.model("sl_cai")}

    return (
        replace(pairs.STAGE, inputs=from_policy),
        labels.STAGE,
        replace(reward_model.STAGE, inputs=with_earlier),
        replace(gold_model.STAGE, inputs=without_earlier),
        replace(rl.STAGE, inputs=with_reference),
    )


def _gain(before: Artifact, after: Artifact) -> Stage:
    def compared(inputs: Inputs) -> dict[str, Artifact]:
        return {
            "before": before,
            "after": after,
            "reward_model": inputs.model("reward_model"),
            "prompts": inputs.output("prompts", "eval"),
            **inputs.judge(),
        }

    return replace(improvement.STAGE, inputs=compared)


def _record(done: list[Round], rules: RoundsRules) -> dict[str, Any]:
    return {
        "schema_version": 1,
        "rules": rules.model_dump(mode="json"),
        "kept": kept(done, rules),
        "stop": done[-1].stop,
        "rounds": [r.record() for r in done],
    }
