"""The microworld's exam of judge, critic, labels and reward model, each asked exactly as the pipeline asks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from common.record import plain
from common.statistics import rate
from constitution import (
    ComparisonPrinciple,
    Constitution,
    CritiquePrinciple,
    draw_comparison,
    render_critique,
    render_revision,
)
from flows.evaluation.gold import score_answer
from flows.labelling.judge import make_judge
from flows.stages.contract import StageInput
from flows.stages.sampling import Sampler, part_seed
from judges import Pair, TemplateSet
from judges.asking.readout import normalised
from judges.known import KnownPair

if TYPE_CHECKING:
    from microworld.exam import Comparison, Rewrite
    from microworld.oracle import GoldScores

# A comparison counts when gold prefers one answer with more than this probability.
_CLEAR = 0.75


def examine(work: StageInput) -> dict[str, dict[str, Any]]:
    """`{"judge": …, "revision": …}` on held-out topics against gold, each entry a rate with its interval."""
    from microworld.exam import examine_judge, examine_revision

    n, judge = work.settings["exam"]["pairs"], make_judge(work.tuning["judge"])
    templates = TemplateSet(work.tuning["judge_templates"])

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
    critic, templates = Sampler(work.inputs["critic"], dtype=work.settings["dtype"]), work.tuning["templates"]
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
    return draw(
        "revision",
        [
            render_revision(templates, c, r.answer, principle, critique=critique)
            for (c, r), critique in zip(pairs, critiques, strict=True)
        ],
    )


def generated_pairs(constitution: Constitution, *, n: int, seed: int, principles: int) -> list[KnownPair]:
    """Pairs on held-out topics whose better answer gold knows, under the principles that each pair draws.

    Fewer than `n`, down to none, where few of the constitution's questions are the microworld's.
    """
    from microworld.corpus import Corpus
    from microworld.oracle import score_request

    corpus = Corpus(f"known pairs:{seed}", split="heldout", wording_split="heldout")
    found: list[KnownPair] = []
    for number in range(50 * n):
        if len(found) == n:
            break
        request = corpus.request()
        a, b = corpus.pair(request)
        pair = Pair(id=f"exam-{number:05d}", prompt=({"role": "user", "content": request.text},), a=a, b=b)
        drawn = draw_comparison(constitution, pair.id, seed=seed, n=principles)
        scores = score_request(request, a), score_request(request, b)
        p = gold_preference([(principle.question, 1.0) for principle in drawn], *scores)
        if p is not None and abs(p - 0.5) > _CLEAR - 0.5:
            found.append(KnownPair(pair=pair, winner="a" if p > 0.5 else "b"))
    return found


def gold_preference(principles: Sequence[tuple[str, float]], a: GoldScores, b: GoldScores) -> float | None:
    """P(a better) that gold implies for weighted questions; None when a question is not the microworld's."""
    from microworld.corpus import soft_label

    meanings = question_meanings()
    total = probability = 0.0
    for question, weight in principles:
        if question not in meanings:
            return None
        dimension, pole = meanings[question]
        probability += weight * soft_label(dimension, pole, a[dimension], b[dimension])
        total += weight
    return probability / total if total else None


@cache
def question_meanings() -> dict[str, tuple[str, int]]:
    """Every comparison question of the microworld's grammar: the dimension that it is about, and its pole."""
    from microworld.wordings import ADJECTIVES, wordings

    return {
        w.text: (w.dimension, w.pole)
        for dimension in ADJECTIVES
        for pole in (1, -1)
        for split in ("train", "heldout")
        for w in wordings("comparison", dimension, pole, split)
    }


def label_agreement(
    pairs: Mapping[str, Mapping[str, Any]],
    labels: Sequence[Mapping[str, Any]],
    principles: Sequence[ComparisonPrinciple],
) -> dict[str, Any]:
    """How often an `ok` label names the answer that gold prefers under the label's principles, where gold is clear."""
    questions = {p.id: p.question for p in principles}
    agreed = []
    for label in labels:
        if label["status"] != "ok" or not set(label["principles"]) <= questions.keys():
            continue
        pair = pairs[label["pair_id"]]
        a, b = (score_answer(pair["prompt"], pair[side]) for side in "ab")
        p = gold_preference([(questions[i], 1.0) for i in label["principles"]], a, b)
        if p is not None and abs(p - 0.5) > _CLEAR - 0.5:
            agreed.append((p > 0.5) == (label["p"] > 0.5))
    return rate(agreed).to_json()


def reward_agreement(
    rows: Sequence[Mapping[str, Any]], principles: Sequence[ComparisonPrinciple]
) -> dict[str, Any]:
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
            if p is not None and abs(p - 0.5) > _CLEAR - 0.5:
                agreed.append((p > 0.5) == (first["reward"] > second["reward"]))
    return rate(agreed).to_json()
