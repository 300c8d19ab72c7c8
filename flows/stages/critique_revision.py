"""Answers of the helpful-only model, criticised and revised against drawn principles (Bai et al. 2022, §3.1).

The whole chain is kept in chains.jsonl. What trains SL-CAI, in sft.jsonl, is the last revision of every
red-team prompt (in the paper those of all steps) and the unrevised answers to harmless prompts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from common.files import write_jsonl
from common.record import plain
from common.rows import Prompt, read_prompts
from constitution import draw_critique, render_critique, render_revision, templates_digest
from flows.errors import FlowError
from flows.evaluation.texts import copied, looping
from flows.pipeline.forecast.needs import ROW, Forecaster, Needs
from flows.stages.contract import Artifact, Inputs, Json, Result, Stage, StageInput
from flows.stages.samplers import Answer, Sampler, engine_settings, engine_tuning, sampler_of
from flows.stages.sampling import sample_in_parts, spent

if TYPE_CHECKING:
    from flows.config import RunConfig

_SAMPLED = ("response", "critique", "revision")


@dataclass(kw_only=True)
class Step:
    """One critique and the revision that follows it; None before it is there."""

    principle: str
    principle_digest: str
    critique: str
    revision: str | None = None


@dataclass(kw_only=True)
class Chain:
    """A row of chains.jsonl: an answer with what became of it. `finish` says what is wrong with the answer."""

    id: str
    prompt: list[dict[str, str]]
    response: str
    finish: str | None = None
    steps: list[Step] = field(default_factory=list)
    status: str = "ok"
    meta: Mapping[str, Any] = field(default_factory=dict)

    @property
    def last(self) -> str:
        """The answer as it stands after the revisions so far."""
        return next(
            (step.revision for step in reversed(self.steps) if step.revision is not None), self.response
        )

    def defect(self, text: str, asked: list[dict[str, str]]) -> str | None:
        """What is wrong with a whole critique or revision that was drawn for `asked`, beside its length."""
        if looping(text):
            return "looping"
        may_repeat = [*(turn["content"] for turn in self.prompt), self.last]
        return "copied" if copied(text, (turn["content"] for turn in asked), may_repeat) else None

    def end_on(self, kind: str, problem: str | None, *, keep_truncated: bool) -> None:
        """Take a problem down as the reason why this chain ends."""
        if problem == "truncated" and keep_truncated:
            return
        if problem is not None and self.status == "ok":
            self.status = f"{kind}_{problem}"


def run(work: StageInput) -> Result:
    """Sample, then `revisions` times criticise and revise.

    A chain ends with its reason as its status, and trains nothing, where its answer, critique or revision is empty,
    loops or does not fit the context; where a critique or revision repeats what was asked (thresholds:
    flows.evaluation.texts); where an answer or revision is cut off at max_new_tokens, unless `keep_truncated`; and
    where the last revision is the first answer, unless `keep_unchanged`.

    Raises FlowError when no chain is left.
    """
    writer = critic = sampler_of(work, "model")
    red_team = list(read_prompts(work.input("prompts_sl")))
    benign = list(read_prompts(work.input("prompts_sl_benign"))) if "prompts_sl_benign" in work.inputs else []
    answers = _sample(work, "response", writer, [p.prompt for p in red_team + benign])
    if work.inputs["critic"] != work.inputs["model"]:
        writer.close()
        critic = sampler_of(work, "critic")
    chains = [_chain(p, a) for p, a in zip(red_team, answers[: len(red_team)], strict=True)]
    kept = [_chain(p, a) for p, a in zip(benign, answers[len(red_team) :], strict=True)]
    keep = work.settings["keep_truncated"]
    for chain in chains + kept:
        chain.end_on("response", chain.finish, keep_truncated=keep)
        chain.end_on("response", "looping" if looping(chain.response) else None, keep_truncated=keep)
    for step in range(work.settings["revisions"]):
        _revise(work, critic, chains, step)
    critic.close()
    unchanged = [c for c in chains if c.status == "ok" and c.last.strip() == c.response.strip()]
    if not work.settings["keep_unchanged"]:
        for chain in unchanged:
            chain.end_on("revision", "unchanged", keep_truncated=keep)
    write_jsonl(work.directory / "chains.jsonl", map(plain, chains + kept))
    usable = [c for c in chains + kept if c.status == "ok"]
    if not any(c.status == "ok" for c in chains):
        reasons = ", ".join(f"{n} {status}" for status, n in Counter(c.status for c in chains).most_common())
        raise FlowError(
            f"no revision can be trained on ({reasons}){_knobs(chains)}; see {work.directory / 'chains.jsonl'}"
        )
    write_jsonl(work.directory / "sft.jsonl", (_example(c) for c in usable))
    write_jsonl(work.directory / "rewrites.jsonl", rewrite_pairs(chains))
    return Result(
        outputs={"chains": "chains.jsonl", "sft": "sft.jsonl", "rewrites": "rewrites.jsonl"},
        metrics={
            "revised": sum(c.status == "ok" for c in chains),
            "harmless_kept": sum(c.status == "ok" for c in kept),
            "unchanged": len(unchanged),
            "left_out": dict(Counter(c.status for c in chains + kept if c.status != "ok")),
            "texts": spent(work),
            "principles": dict(Counter(s.principle for c in chains for s in c.steps)),
        },
    )


def _knobs(chains: Iterable[Chain]) -> str:
    """Which fields of the configuration would let more chains through."""
    ends = [c.status.rpartition("_") for c in chains if c.status != "ok"]
    raised = sorted(
        {f"critique_revision.{kind}.max_new_tokens" for kind, _, end in ends if end == "truncated"}
    )
    advice = []
    if raised:
        advice.append(f"raise {' and '.join(raised)}, or set critique_revision.keep_truncated")
    if any(end == "unchanged" for _, _, end in ends):
        advice.append("set critique_revision.keep_unchanged")
    return "".join(f"; {one}" for one in advice)


def _chain(prompt: Prompt, answer: Answer) -> Chain:
    return Chain(
        id=prompt.id, prompt=prompt.prompt, response=answer.text, finish=answer.problem, meta=prompt.meta
    )


def _revise(work: StageInput, critic: Sampler, chains: list[Chain], step: int) -> None:
    """One critique and one revision of every chain that still stands."""
    constitution = work.constitution
    assert constitution is not None
    templates, exemplars = work.tuning["templates"], constitution.critique_exemplars
    open_ = [c for c in chains if c.status == "ok"]
    drawn = [draw_critique(constitution, c.id, step, seed=work.seed) for c in open_]
    asked = [
        render_critique(templates, c.prompt, c.last, principle, exemplars)
        for c, principle in zip(open_, drawn, strict=True)
    ]
    critiques = _sample(work, "critique", critic, asked, step)
    for chain, principle, critique, question in zip(open_, drawn, critiques, asked, strict=True):
        chain.steps.append(
            Step(principle=principle.id, principle_digest=principle.digest, critique=critique.text)
        )
        # A critique that was cut off has said what it had to; only its absence ends the chain.
        chain.end_on("critique", critique.problem, keep_truncated=True)
        chain.end_on("critique", chain.defect(critique.text, question), keep_truncated=True)
    standing = [(c, p) for c, p in zip(open_, drawn, strict=True) if c.status == "ok"]
    asked = [
        render_revision(templates, c.prompt, c.last, p, exemplars, critique=c.steps[-1].critique)
        for c, p in standing
    ]
    revisions = _sample(work, "revision", critic, asked, step)
    for (chain, _), revision, question in zip(standing, revisions, asked, strict=True):
        defect = chain.defect(revision.text, question)
        chain.steps[-1].revision = revision.text
        chain.end_on("revision", revision.problem, keep_truncated=work.settings["keep_truncated"])
        chain.end_on("revision", defect, keep_truncated=True)


def _sample(
    work: StageInput, kind: str, sampler: Sampler, conversations: list[Any], step: int | None = None
) -> list[Answer]:
    name = kind if step is None else f"{kind}-{step + 1}"
    return sample_in_parts(
        work,
        name,
        sampler,
        conversations,
        work.settings[kind],
        batch_size=work.tuning["batch_size"][kind],
    )


def _example(chain: Chain) -> dict[str, Any]:
    answer = {"role": "assistant", "content": chain.last}
    return {"id": chain.id, "messages": [*chain.prompt, answer]}


def rewrite_pairs(chains: Iterable[Chain]) -> Iterator[dict[str, Any]]:
    """Preference pairs of a first answer and its last revision, for reward models and DPO; p = 1.

    Chains that ended badly, and revisions that changed nothing, are no pairs.
    """
    for chain in chains:
        if chain.status == "ok" and chain.steps and chain.last != chain.response:
            yield {
                "pair_id": f"{chain.id}.rewrite",
                "prompt": chain.prompt,
                "chosen": [{"role": "assistant", "content": chain.last}],
                "rejected": [{"role": "assistant", "content": chain.response}],
                "p": 1.0,
                "status": "ok",
                "principles": [step.principle for step in chain.steps],
            }


def _inputs(inputs: Inputs) -> dict[str, Artifact]:
    found = {
        "model": inputs.model("helpful_only"),
        "critic": inputs.model("critic"),
        "prompts_sl": inputs.output("prompts", "sl"),
    }
    if ("prompts", "sl_benign") in inputs.outputs:
        found["prompts_sl_benign"] = inputs.output("prompts", "sl_benign")
    return found


def _settings(config: RunConfig) -> Json:
    section = config.critique_revision
    return {
        "revisions": section.revisions,
        "templates_digest": templates_digest(section.templates),
        "keep_truncated": section.keep_truncated,
        "keep_unchanged": section.keep_unchanged,
        "dtype": config.models.dtype,
        **engine_settings(config),
        **{kind: getattr(section, kind).model_dump(exclude={"batch_size"}) for kind in _SAMPLED},
    }


def _tuning(config: RunConfig) -> Json:
    section = config.critique_revision
    batch_size = {kind: getattr(section, kind).batch_size for kind in _SAMPLED}
    return {"templates": section.templates, "batch_size": batch_size, **engine_tuning(config)}


def _forecast(ahead: Forecaster) -> Needs:
    """An answer to every prompt, then a critique and a revision of those that may be harmful."""
    section = ahead.config.critique_revision
    red, benign = ahead.inputs.count("sl"), ahead.inputs.count("sl_benign")
    drawn = {
        "response": red + benign,
        "critique": red * section.revisions,
        "revision": red * section.revisions,
    }
    tokens = sum(n * getattr(section, kind).max_new_tokens for kind, n in drawn.items())
    # Every text lies in its part and in its chain, the last one in sft.jsonl too.
    disk = 2 * tokens * ahead.inputs.bytes_per_token
    disk += drawn["response"] * (2 * ahead.inputs.prompt_bytes + 2 * ROW)
    disk += drawn["response"] * section.revision.max_new_tokens * ahead.inputs.bytes_per_token
    models = ("helpful_only", *(["critic"] if ahead.config.models.critic else []))
    return ahead.sampling(sum(drawn.values()), tokens, disk, models=models)


STAGE = Stage(
    name="critique_revision",
    title="Critiques and revisions",
    version=3,
    principle_kind="critique",
    isolated=True,
    samples=True,
    inputs=_inputs,
    settings=_settings,
    tuning=_tuning,
    run=run,
    forecast=_forecast,
    summary=lambda m: (
        f"{m['revised']} revisions, {m['harmless_kept']} harmless answers kept"
        + (f", {sum(m['left_out'].values())} left out" if m["left_out"] else "")
    ),
)
