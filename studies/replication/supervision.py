"""What the claims about critiques, revisions and labels need: chains of revisions, and labels made otherwise."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common.record import plain
from common.statistics import mean, rate
from flows.evaluation.gold import figures, score_answer
from studies.replication.jobs import Study
from studies.replication.reward_models import CLEAR
from studies.replication.world import WEIGHTS, answers, paths, prompts, read_lines, settings, write_lines


def revisions(
    study: Study, name: str, seed: int, *, rounds: int, critiques: bool, count: int
) -> dict[str, Any]:
    """Gold's figures of the helpful-only model's answers to `count` held-out prompts after 0, 1, … `rounds`
    revisions, each against a principle drawn as the pipeline draws it (Bai et al. 2022, section 3.1).

    Harmful and harmless requests are revised alike. Without `critiques` the revision is asked for with an empty
    critique (section 3.5). An empty critique or revision leaves the answer as it was.
    """
    from constitution import draw_critique, load, render_critique, render_revision

    section = settings().critique_revision
    constitution = load(settings().constitution)
    asked = prompts(paths(study, seed)["prompts.eval"])[:count]
    feedback = str(WEIGHTS / "feedback")
    current = answers(paths(study, seed)["helpful_sft.model"], asked, seed=4_000 + seed)
    stages = [current]
    for step in range(rounds):
        drawn = [draw_critique(constitution, p.id, step, seed=seed) for p in asked]
        said = [""] * len(asked)
        if critiques:
            conversations = [
                render_critique(section.templates, p.prompt, text, principle)
                for p, text, principle in zip(asked, current, drawn, strict=True)
            ]
            said = answers(
                feedback, _as_prompts(conversations), seed=4_100 + 10 * seed + step, temperature=0.7
            )
        conversations = [
            render_revision(section.templates, p.prompt, text, principle, critique=critique)
            for p, text, principle, critique in zip(asked, current, drawn, said, strict=True)
        ]
        revised = answers(
            feedback, _as_prompts(conversations), seed=4_200 + 10 * seed + step, temperature=0.7
        )
        current = [new if new.strip() else old for new, old in zip(revised, current, strict=True)]
        stages.append(current)
    scored = [[score_answer(p.prompt, t) for p, t in zip(asked, texts, strict=True)] for texts in stages]
    write_lines(
        study.work(name) / "chains.jsonl",
        [{"prompt": p.prompt, "answers": list(chain)} for p, *chain in zip(asked, *stages, strict=True)],
    )
    return {"after": [plain(figures(scores, seed=seed)) for scores in scored]}


def red_team(study: Study, name: str, seed: int) -> dict[str, Any]:
    """Gold's verdict on the chains of the pipeline itself: answers to harmful requests after 0, 1, … revisions.

    harmless: share that does no harm; helpful and non_evasive: gold's mean, where a refusal that says why counts as
    doing it and a bare one as nothing.
    """
    chains = read_lines(Path(paths(study, seed)["critique_revision.chains"]))
    whole = [c for c in chains if c["status"] == "ok" and c["steps"]]
    after = []
    for count in range(1 + min(len(c["steps"]) for c in whole)):
        texts = [c["steps"][count - 1]["revision"] if count else c["response"] for c in whole]
        scores = [score_answer(c["prompt"], text) for c, text in zip(whole, texts, strict=True)]
        after.append(
            {
                "harmless": rate([s.harmless == 1.0 for s in scores]).to_json(),
                "helpful": mean([s.helpful for s in scores], seed=seed).to_json(),
                "non_evasive": mean([s.non_evasive for s in scores], seed=seed).to_json(),
            }
        )
    return {"chains": len(whole), "after": after}


def _as_prompts(conversations: Sequence[Any]) -> list[Any]:
    from common.rows import Prompt

    return [Prompt(id=str(n), prompt=list(c)) for n, c in enumerate(conversations)]


def orders(study: Study, name: str, seed: int) -> dict[str, Any]:
    """How often the judge names the answer that gold prefers when asked in one order, and in both (mean).

    Of the pairs of which gold makes no tie under the principles that were drawn.
    """
    where = paths(study, seed)
    rows = read_lines(Path(where["labels.labels"]))
    gold = gold_of_labels(rows, read_lines(Path(where["pairs.pairs"])))
    tie = settings().labels.tie_margin
    kept = [(row, p) for row, p in zip(rows, gold, strict=True) if p is not None and abs(p - 0.5) > tie]
    first = [(row["p_ab"] > 0.5) == (p > 0.5) for row, p in kept]
    second = [(row["p_ba"] > 0.5) == (p > 0.5) for row, p in kept]
    return {
        "one_order": rate(first + second).to_json(),
        "both_orders": rate([(row["p"] > 0.5) == (p > 0.5) for row, p in kept]).to_json(),
        "first_slot": sum(row["p_ab"] - row["p_ba"] for row, _ in kept) / (2 * len(kept)),
    }


def gold_of_labels(rows: Sequence[dict[str, Any]], pairs: Sequence[dict[str, Any]]) -> list[float | None]:
    """Gold's probability of every label (a row of labels.jsonl) under the principles that it drew; None without one."""
    from constitution import load
    from flows.labelling.known_pairs import gold_preference

    questions = {p.id: p.question for p in load(settings().constitution).comparison}
    by_id = {pair["id"]: pair for pair in pairs}
    found = []
    for row in rows:
        pair = by_id[row["pair_id"]]
        a, b = (score_answer(pair["prompt"], pair[side]) for side in "ab")
        asked = [(questions[i], 1.0) for i in row["principles"]]
        found.append(gold_preference(asked, a, b) if row["p"] is not None else None)
    return found


def label(
    study: Study, name: str, seed: int, *, principles: int, policy: str | None = None
) -> dict[str, Any]:
    """Pairs labelled as the pipeline labels them but for the number of principles, and the labels against gold under
    the whole constitution.

    The pairs are the pipeline's, or with `policy` (a job) of a second round: answers to the same prompts by that
    policy, every other one against SL-CAI's.
    """
    from constitution import load
    from judges import InProcessJudge, LabelSettings, Ledger, Pair, export_preferences, label_pairs
    from judges.ledger.reading import labelled_pairs

    section = settings().labels
    constitution = load(settings().constitution)
    rows = read_lines(Path(paths(study, seed)["pairs.pairs"]))
    if policy is not None:
        rows = _second_round(study, seed, f"{policy}-{seed}")
    folder = study.work(name)
    with Ledger.open(f"sqlite:///{folder / 'ledger.db'}") as ledger:
        report = label_pairs(
            [Pair.from_row(row) for row in rows],
            constitution=constitution,
            judge=InProcessJudge(WEIGHTS / "feedback", dtype="float32"),
            ledger=ledger,
            settings=LabelSettings(templates=section.templates, principles=principles, seed=seed),
        )
        export_preferences(ledger, report.label_set, folder / "preferences", statuses=section.statuses)
        labels = {found.label.pair_id: found.label for found in labelled_pairs(ledger, report.label_set)}
    agreed = _against_gold(rows, {i: found.p for i, found in labels.items()}, constitution)
    return {"pairs": len(rows), "statuses": dict(report.statuses), "asked": report.asked, **agreed}


def _second_round(study: Study, seed: int, policy: str) -> list[dict[str, Any]]:
    where = paths(study, seed)
    asked = prompts(where["prompts.rl"])
    model = str(study.work(policy) / "model")
    firsts = answers(model, asked, seed=5_000 + seed)
    seconds: dict[int, str] = {}
    for start, other in ((0, model), (1, where["sl_cai.model"])):
        part = range(start, len(asked), 2)
        drawn = answers(other, [asked[n] for n in part], seed=5_010 + 10 * seed + start)
        seconds |= dict(zip(part, drawn, strict=True))
    return [
        {
            "id": f"{p.id}.second",
            "prompt_id": p.id,
            "prompt": p.prompt,
            "a": a,
            "b": seconds[n],
            "meta": p.meta,
        }
        for n, (p, a) in enumerate(zip(asked, firsts, strict=True))
        if a != seconds[n]
    ]


def _against_gold(
    rows: Sequence[dict[str, Any]], labels: dict[str, float | None], constitution: Any
) -> dict[str, Any]:
    from flows.labelling.known_pairs import gold_preference

    weighted = [(p.question, p.weight) for p in constitution.comparison]
    right, squares = [], []
    for row in rows:
        a, b = (score_answer(row["prompt"], row[side]) for side in "ab")
        gold, p = gold_preference(weighted, a, b), labels[row["id"]]
        if gold is None or p is None:
            continue
        squares.append((p - gold) ** 2)
        if abs(gold - 0.5) > CLEAR:
            right.append((p > 0.5) == (gold > 0.5))
    return {"accuracy": rate(right).to_json(), "brier": sum(squares) / len(squares)}
