"""The judge's labels of all pairs, shard by shard.

The ledger keeps every judgement, so an edit of one principle asks only the pairs that drew it, and a killed
run asks at most one batch again.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from common.files import write_json, write_jsonl
from common.rows import read_rows
from constitution.snapshot import to_json
from flows.config.data import ShardsSection
from flows.errors import TooFewLabels
from flows.labelling.gates import labelling_gate
from flows.labelling.judge import LabelShard, drop_judge, judge_tuning
from flows.labelling.ledger import ledger_at, people_said
from flows.pipeline.forecast.needs import Forecaster, Needs
from flows.runs.pace import Pace
from flows.stages.contract import Artifact, Inputs, Json, Result, Stage, StageInput
from judges import LabelReport, LabelSettings, Ledger, Pair, TemplateSet, export_preferences
from judges.export import effective_status
from judges.ledger.reading import labelled_pairs
from judges.settings import PricedJudge

if TYPE_CHECKING:
    from flows.config import RunConfig

COIN_TOSS = 0.05
"""A probability no further from a half than this names no winner, whatever its label trains."""

# What of the section is not the judge's business: how pairs are grouped, and what trains afterwards.
NOT_ASKED = ("templates", "shard_pairs", "batch_pairs", "ledger", "statuses", "min_usable")


def run(work: StageInput) -> Result:
    """Label every pair; write labels.jsonl (all of them) and preferences.jsonl and .parquet (what may train).

    Raises TooFewLabels when fewer labels may train than `min_usable` says, JudgeError when the judge is down.
    """
    pairs = [Pair.from_row(row) for _, row in read_rows(work.input("pairs"))]
    assert work.constitution is not None
    size, heard = work.tuning["shard_pairs"], ShardProgress(work, len(pairs))
    shard = LabelShard(
        constitution=to_json(work.constitution),
        settings=asked_as(work),
        judge=PricedJudge.model_validate(work.tuning["judge"]),
        ledger=ledger_url(work),
        logs=str(work.directory),
        listen=heard,
        say=lambda line: work.progress(0, len(pairs), line),
    )
    parts = [pairs[i : i + size] for i in range(0, len(pairs), size)]
    try:
        done: list[LabelReport] = work.shards(
            "label pairs",
            parts,
            shard,
            how=ShardsSection.model_validate(work.tuning["shards"]),
            done=lambda number, report: heard(parts[number][0].id, report),
        )
    finally:
        drop_judge()
    with Ledger.open(ledger_url(work)) as ledger:
        ids = [pair.id for pair in pairs]
        label_set = done[0].label_set
        export_preferences(
            ledger,
            label_set,
            work.directory / "preferences",
            statuses=work.settings["statuses"],
            pair_ids=ids,
        )
        rows: list[dict[str, Any]] = []
        usable = 0
        for labelled in labelled_pairs(ledger, label_set, pair_ids=ids):
            rows.append(_row(labelled))
            usable += effective_status(labelled) in work.settings["statuses"]
    write_jsonl(work.directory / "labels.jsonl", rows)
    write_json(work.directory / "constitution.json", to_json(work.constitution))
    metrics = {**_metrics(done), **_winners(rows), "usable": usable, "label_set": label_set}
    check_usable(work, metrics)
    return Result(
        outputs={
            "labels": "labels.jsonl",
            "preferences": "preferences.jsonl",
            "preferences_parquet": "preferences.parquet",
            "constitution": "constitution.json",
        },
        metrics=metrics,
    )


class ShardProgress:
    """The progress of all shards together, whichever of them speaks."""

    def __init__(self, work: StageInput, total: int) -> None:
        self._work, self._total, self._pace = work, total, Pace(total)
        self._reports: dict[str, LabelReport] = {}

    def __call__(self, shard: str, report: LabelReport) -> None:
        self._reports[shard] = report
        reports = list(self._reports.values())
        pairs, tokens = (
            sum(r.pairs for r in reports),
            sum(r.prompt_tokens + r.completion_tokens for r in reports),
        )
        told = [f"{sum(r.asked for r in reports)} asked", self._pace(pairs, tokens)]
        self._work.progress(pairs, self._total, ", ".join(filter(None, told)))


def check_usable(work: StageInput, metrics: Json) -> None:
    """Refuse to go on when too few labels may train: a judge that hardly ever decides teaches nothing."""
    total, usable = metrics["pairs"], metrics["usable"]
    if usable == 0 or usable / total < work.tuning["min_usable"]:
        statuses = ", ".join(f"{n} {status}" for status, n in metrics["statuses"].items())
        raise TooFewLabels(
            f"labels: {usable} of {total} may train ({statuses}), fewer than labels.min_usable "
            f"({work.tuning['min_usable']:g}); look at them with `charter labels`, or lower it"
        )


def ledger_url(work: StageInput) -> str:
    """The ledger that the configuration names, or the one in the run directory."""
    return ledger_at(work.tuning["ledger"], work.run_directory)


def asked_as(work: StageInput) -> LabelSettings:
    """How the judge is asked, of a stage whose settings and tuning are those of the labels."""
    own = {name: work.tuning[name] for name in ("templates", "batch_pairs")}
    return LabelSettings(**work.settings["asked"], **own, seed=work.seed)


def _row(labelled: Any) -> dict[str, Any]:
    label = labelled.label
    return {
        "pair_id": label.pair_id,
        "p": label.p,
        "p_ab": label.p_ab,
        "p_ba": label.p_ba,
        "status": label.status,
        "principles": list(label.principles),
        "label_digest": label.digest,
        "detail": label.detail,
        "person": None if labelled.verdict is None else labelled.verdict.winner,
    }


def _winners(rows: list[dict[str, Any]]) -> dict[str, int]:
    """How many labels have a winner that is no coin toss, and how many have another one in each order."""
    turned = [
        r for r in rows if None not in (r["p_ab"], r["p_ba"]) and (r["p_ab"] > 0.5) != (r["p_ba"] > 0.5)
    ]
    ids = {row["pair_id"] for row in turned}
    clear = [
        r for r in rows if r["status"] == "ok" and abs(r["p"] - 0.5) > COIN_TOSS and r["pair_id"] not in ids
    ]
    return {"clear": len(clear), "order_flips": len(ids)}


def _metrics(reports: list[LabelReport]) -> Json:
    statuses: Counter[str] = Counter()
    by_principle: dict[str, Counter[str]] = {}
    for report in reports:
        statuses.update(report.statuses)
        for principle, counts in report.by_principle.items():
            by_principle.setdefault(principle, Counter()).update(counts)
    return {
        "pairs": sum(r.pairs for r in reports),
        "statuses": dict(statuses.most_common()),
        "by_principle": {p: dict(c) for p, c in sorted(by_principle.items())},
        "asked": sum(r.asked for r in reports),
        "judgements_reused": sum(r.known for r in reports),
        "labels_reused": sum(r.reused for r in reports),
        "prompt_tokens": sum(r.prompt_tokens for r in reports),
        "cost": sum(r.cost for r in reports),
    }


def _inputs(inputs: Inputs) -> dict[str, Artifact]:
    found = {"pairs": inputs.output("pairs", "pairs"), **inputs.judge()}
    # A new verdict makes other preferences; runs that nobody audits keep the keys that they have.
    if (verdicts := people_said(inputs.config)) is not None:
        found["verdicts"] = Artifact(path="ledger", digest=verdicts)
    return found


def _settings(config: RunConfig) -> Json:
    return {
        "asked": config.labels.model_dump(mode="json", exclude=set(NOT_ASKED)),
        "templates": TemplateSet(config.labels.templates).digest,
        "statuses": list(config.labels.statuses),
        "judge": judge_settings(config),
    }


def judge_settings(config: RunConfig) -> Json:
    """What of the judge's section decides its answers, beside the folder among the inputs."""
    judge = config.judge
    thinking = {} if judge.thinking is None else {"thinking": judge.model_dump(mode="json")["thinking"]}
    if judge.kind != "openai":
        return {"dtype": judge.dtype, **({"served": True} if judge.kind == "vllm" else {}), **thinking}
    return {"served_model": judge.model, "revision": judge.revision, **thinking}


def _tuning(config: RunConfig) -> Json:
    names = {"templates", "shard_pairs", "batch_pairs", "ledger", "min_usable"}
    return {
        "judge": judge_tuning(config),
        "shards": config.launcher.shards.model_dump(),
        **config.labels.model_dump(include=names),
    }


def _forecast(ahead: Forecaster) -> Needs:
    """What the ledger lacks, or the most that the prompts can come to."""
    pairs = ahead.inputs.pairs()
    if pairs:
        asked, count = ahead.judge.of_pairs(pairs), len(pairs)
        answers = sum(len(p.a.encode()) + len(p.b.encode()) for p in pairs) / count
    else:
        count, longest = ahead.inputs.count("rl"), ahead.config.pairs.sampling.max_new_tokens
        asked = ahead.judge.of_prompts(count, ahead.inputs.made_up(answer=""), answer_tokens=longest)
        answers = 2 * longest * ahead.inputs.bytes_per_token
    return Needs(disk_bytes=ahead.label_bytes(asked, count, answers)).with_judge(asked)


STAGE = Stage(
    name="labels",
    version=2,
    title="The judge's labels",
    principle_kind="comparison",
    inputs=_inputs,
    settings=_settings,
    tuning=_tuning,
    run=run,
    forecast=_forecast,
    gate=labelling_gate,
    summary=lambda m: (
        f"{m['usable']} of {m['pairs']} labels may train; {m['asked']} judgements asked, "
        f"{m['judgements_reused'] + 2 * m['labels_reused']} reused"
    ),
)
