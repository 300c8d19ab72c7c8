"""What a round of iterated RLAIF gained: the policy before and after it, on the held-out prompts.

Three measures, each after minus before or after against before: the round's reward model, the judge (share of prompts
whose new answer it prefers, both orders), and gold in the microworld.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from common.files import write_jsonl
from common.rows import Prompt, read_prompts
from common.statistics import bounded_mean, mean
from flows.evaluation import gold
from flows.labelling.judge import closing, make_judge
from flows.runs.digests import digest_json
from flows.stages import labels
from flows.stages.answers import answers_of, rewards_of
from flows.stages.contract import Json, Result, Stage, StageInput
from flows.stages.samplers import engine_settings, engine_tuning, sampler_of
from flows.stages.sampling import spent
from judges import Ledger, Pair, TemplateSet, label_pairs
from judges.ledger.reading import labelled_pairs

if TYPE_CHECKING:
    from flows.config import RunConfig

ROLES = ("before", "after")


def run(work: StageInput) -> Result:
    """Write gain.jsonl, one line a prompt. A difference that cannot be measured is missing, not zero.

    The metrics `reward`, `win_rate` and `gold` are each `{"value", "n", "low", "high"}` with a 95% interval; `gold` is
    None outside of the microworld. Identical answers count one half in the win rate.
    """
    prompts = read_prompts([work.input("prompts")])
    repeated = [p for p in prompts for _ in range(work.settings["samples_per_prompt"])]
    texts = {}
    for role in ROLES:
        sampler = sampler_of(work, role)
        texts[role] = [a.text for a in answers_of(work, role, sampler, repeated)]
        sampler.close()
    rewards = rewards_of(work, repeated, texts)
    wins = _wins(work, repeated, texts)
    rows: list[dict[str, Any]] = []
    for index, prompt in enumerate(repeated):
        row: dict[str, Any] = {"id": prompt.id, "prompt": prompt.prompt}
        for role in ROLES:
            row[role] = {"response": texts[role][index], "reward": rewards[role][index]}
            if work.settings["gold"] is not None:
                row[role]["gold"] = gold.overall(gold.score_answer(prompt.prompt, texts[role][index]))
        rows.append({**row, "win": wins[index]})
    write_jsonl(work.directory / "gain.jsonl", rows)
    return Result(
        outputs={"gain": "gain.jsonl"},
        metrics={
            "reward": mean(_differences(rows, "reward"), seed=work.seed).to_json(),
            "win_rate": bounded_mean([w for w in wins if w is not None]).to_json(),
            "gold": mean(_differences(rows, "gold"), seed=work.seed).to_json()
            if work.settings["gold"]
            else None,
            "unjudged": sum(w is None for w in wins),
            "texts": spent(work),
        },
    )


def _differences(rows: list[dict[str, Any]], name: str) -> list[float]:
    both = [(row["after"][name], row["before"][name]) for row in rows]
    return [after - before for after, before in both if None not in (after, before)]


def _wins(work: StageInput, prompts: list[Prompt], texts: dict[str, list[str]]) -> list[float | None]:
    """Per prompt, the probability that the judge prefers the new answer; None where it gave none."""
    assert work.constitution is not None
    pairs: dict[int, Pair] = {}
    for index, prompt in enumerate(prompts):
        before, after = texts["before"][index], texts["after"][index]
        if before != after:
            name = f"gain.{prompt.id}.{digest_json([before, after])[:8]}.{index}"
            pairs[index] = Pair.from_row({"id": name, "prompt": prompt.prompt, "a": after, "b": before})
    found: dict[str, float | None] = {}
    if pairs:
        judged_by = make_judge(
            work.tuning["judge"], logs=work.directory, say=lambda line: work.progress(0, 0, line)
        )
        with Ledger.open(labels.ledger_url(work)) as ledger, closing(judged_by) as judge:
            report = label_pairs(
                list(pairs.values()),
                constitution=work.constitution,
                judge=judge,
                purpose="exam",
                ledger=ledger,
                settings=labels.asked_as(work),
                on_progress=lambda now: work.progress(now.pairs, len(pairs), f"{now.asked} asked"),
            )
            ids = [pair.id for pair in pairs.values()]
            for labelled in labelled_pairs(ledger, report.label_set, pair_ids=ids):
                found[labelled.label.pair_id] = labelled.label.p
    return [found.get(pairs[i].id) if i in pairs else 0.5 for i in range(len(prompts))]


def _settings(config: RunConfig) -> Json:
    section, judged = config.evaluate, labels.STAGE.settings(config)
    return {
        "gold": config.gold,
        "samples_per_prompt": section.samples_per_prompt,
        "sampling": section.sampling.model_dump(exclude={"batch_size"}),
        "dtype": config.models.dtype,
        **engine_settings(config),
        **{name: judged[name] for name in ("asked", "judge")},
        "judge_templates": TemplateSet(config.labels.templates).digest,
    }


STAGE = Stage(
    name="gain",
    title="What a round gained",
    principle_kind="comparison",
    isolated=True,
    samples=True,
    # Which policies are compared is the round's business: see flows/pipeline/rounds.py.
    inputs=lambda inputs: inputs.judge(),
    settings=_settings,
    tuning=lambda config: {
        **labels.STAGE.tuning(config),
        "batch_size": config.evaluate.sampling.batch_size,
        **engine_tuning(config),
    },
    run=run,
    summary=lambda m: f"win rate {m['win_rate']['value']}, reward {m['reward']['value']}",
)
