"""Gold's exam of judge, critic, labels and reward model in the microworld, each asked exactly as the pipeline asks."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import pairwise
from typing import TYPE_CHECKING

from common.files import write_json
from common.record import plain
from common.rows import read_rows
from common.statistics import rate
from constitution import ComparisonPrinciple, CritiquePrinciple, render_critique, render_revision
from flows.evaluation.gold import score_answer
from flows.labelling.judge import closing, make_judge
from flows.labelling.known_pairs import CLEAR, gold_preference
from flows.runs.digests import digest_json
from flows.stages.contract import Json, StageInput
from flows.stages.samplers import sampler_of
from flows.stages.sampling import part_seed
from judges import Pair, TemplateSet
from judges.asking.readout import normalised

if TYPE_CHECKING:
    from microworld.exam import Comparison, Rewrite


def gold_exam(work: StageInput) -> Json:
    """What the judge and the critic can do on held-out topics, by the microworld's exam."""
    depends_on = [work.digests.get("judge"), work.digests["critic"], work.settings["exam"], work.seed]
    name = f"exam-{digest_json(depends_on)[:12]}.json"
    path = work.once(name, lambda path: write_json(path, _examine(work)))
    return json.loads(path.read_text(encoding="utf-8"))


def gold_agreement(work: StageInput, rows: Sequence[Json]) -> Json:
    """How often this run's labels and its reward model agree with gold."""
    assert work.constitution is not None
    principles = work.constitution.comparison
    pairs = {row["id"]: row for _, row in read_rows(work.input("pairs"))}
    labels = [row for _, row in read_rows(work.input("labels"))]
    return {
        "labels": _label_agreement(pairs, labels, principles),
        "reward_model": _reward_agreement(rows, principles),
    }


def _examine(work: StageInput) -> Json:
    """`{"judge": …, "revision": …}` on held-out topics against gold, each entry a rate with its interval."""
    from microworld.exam import examine_judge, examine_revision

    n, templates = work.settings["exam"]["pairs"], TemplateSet(work.tuning["judge_templates"])
    judged_by = make_judge(
        work.tuning["judge"], logs=work.directory, say=lambda line: work.progress(0, 0, line)
    )

    def prefer(asked: Sequence[Comparison]) -> list[float | None]:
        calls = [
            templates.pairwise(
                Pair(id="exam", prompt=({"role": "user", "content": c.prompt},), a=c.a, b=c.b),
                c.principle,
                "ab",
            )
            for c in asked
        ]
        work.progress(0, 0, f"exam of the judge, {len(calls):,} questions")
        readings = judge.ask(calls)
        return [normalised(r.logprobs)[0] if r.logprobs is not None else None for r in readings]

    with closing(judged_by) as judge:
        exam = asdict(examine_judge(prefer, n=n, seed=work.seed))
    by_dimension = {d: rate(found) for d, found in exam.pop("by_dimension").items()}
    revision = asdict(examine_revision(lambda asked: _revise(work, asked), n=n // 2, seed=work.seed))
    return plain(
        {
            "judge": {**{name: rate(found) for name, found in exam.items()}, "by_dimension": by_dimension},
            "revision": {name: rate(found) for name, found in revision.items()},
        }
    )


def _revise(work: StageInput, asked: Sequence[Rewrite]) -> list[str]:
    """One critique and one revision each, on the dimension of harm."""
    from microworld.wordings import wordings

    principle = CritiquePrinciple(
        id="exam",
        critique_request=wordings("critique", "harmless", 1, "train")[0].text,
        revision_request=wordings("revision", "harmless", 1, "train")[0].text,
        dimension="harmless",
    )
    critic, templates = sampler_of(work, "critic"), work.tuning["templates"]
    conversations = [[{"role": "user", "content": r.prompt}] for r in asked]

    def draw(kind: str, prompts: list[list[dict[str, str]]]) -> list[str]:
        answers = critic.draw(
            prompts,
            work.settings["exam"][kind],
            batch_size=work.tuning["batch_size"],
            seed=part_seed(work, f"exam-{kind}", 0),
            on_progress=lambda done, total: work.progress(done, total, f"exam of the critic: {kind}"),
        )
        return [answer.text for answer in answers]

    pairs = list(zip(conversations, asked, strict=True))
    critiques = draw("critique", [render_critique(templates, c, r.answer, principle) for c, r in pairs])
    revisions = draw(
        "revision",
        [
            render_revision(templates, c, r.answer, principle, critique=critique)
            for (c, r), critique in zip(pairs, critiques, strict=True)
        ],
    )
    critic.close()
    return revisions


def _label_agreement(
    pairs: Mapping[str, Json],
    labels: Sequence[Json],
    principles: Sequence[ComparisonPrinciple],
) -> Json:
    """How often an `ok` label names the answer that gold prefers under the label's principles, where gold is clear."""
    questions = {p.id: p.question for p in principles}
    agreed = []
    for label in labels:
        if label["status"] != "ok" or not set(label["principles"]) <= questions.keys():
            continue
        pair = pairs[label["pair_id"]]
        a, b = (score_answer(pair["prompt"], pair[side]) for side in "ab")
        p = gold_preference([(questions[i], 1.0) for i in label["principles"]], a, b)
        if p is not None and abs(p - 0.5) > CLEAR - 0.5:
            agreed.append((p > 0.5) == (label["p"] > 0.5))
    return rate(agreed).to_json()


def _reward_agreement(rows: Sequence[Json], principles: Sequence[ComparisonPrinciple]) -> Json:
    """How often the reward model ranks two models' answers to a held-out prompt as gold does under the whole
    constitution, where gold is clear. `rows` are those of answers.jsonl; neighbouring models are compared."""
    weighted = [(p.question, p.weight) for p in principles if p.enabled and p.weight > 0]
    agreed = []
    for row in rows:
        for first, second in pairwise(row["models"].values()):
            if first["reward"] is None or second["reward"] is None:
                continue
            a, b = (score_answer(row["prompt"], found["response"]) for found in (first, second))
            p = gold_preference(weighted, a, b)
            if p is not None and abs(p - 0.5) > CLEAR - 0.5:
                agreed.append((p > 0.5) == (first["reward"] > second["reward"]))
    return rate(agreed).to_json()
