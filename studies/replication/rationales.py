"""Chain of thought: a judge that can write before it answers, and what its labels are worth with and without.

The shipped judge names a letter and writes nothing. It goes to school once more for every seed: half of its lessons
compare the two answers in words before the letter comes, half ask for the letter at once. So one judge answers both
ways, and what differs is the way of asking alone. Its lessons are of the training splits, drawn by the world's own
corpus, and the letters are drawn with the probabilities that gold implies.
"""

from __future__ import annotations

import math
import random
from pathlib import Path
from typing import Any

from microworld.corpus import Corpus, judge_prompt, soft_label
from microworld.oracle import score_request
from studies.replication.jobs import Study
from studies.replication.reward_models import agreement
from studies.replication.supervision import gold_of_labels
from studies.replication.world import WEIGHTS, paths, read_lines, settings, write_lines

TEMPLATES = Path(__file__).parent / "templates" / "reasoned"
LESSONS = 12_000
HELD_OUT = 400
"""Further lessons, on which the judge's rationales are marked."""
_WORDS = {
    "helpful": "helpful",
    "honest": "honest",
    "harmless": "harmless",
    "concise": "short",
    "polite": "polite",
    "non_evasive": "open",
}
_LEVELS = ((0.9, "very"), (0.6, "fairly"), (0.2, "hardly"), (0.0, "not"))


def comparison(dimension: str, a: float, b: float) -> str:
    """What gold's scores of two answers say in words, both answers by name and no winner."""
    return " ".join(
        f"{letter} is {_level(score)} {_WORDS[dimension]}." for letter, score in (("A", a), ("B", b))
    )


def _level(score: float) -> str:
    return next(word for least, word in _LEVELS if score >= least)


def lessons(count: int, seed: int | str) -> list[dict[str, Any]]:
    """Conversations of a judge that reasons, and of one that answers at once, in turns."""
    corpus, rng = Corpus(f"rationales:{seed}"), random.Random(f"rationales:{seed}")
    rows = []
    while len(rows) < count:
        wording, request = corpus.wordings.comparison(), corpus.request()
        d = wording.dimension
        a, b = corpus.pair(request)
        gold_a, gold_b = score_request(request, a)[d], score_request(request, b)[d]
        if gold_a == gold_b and rng.random() < 0.7:  # most pairs tie on a dimension drawn at random
            continue
        letter = "A" if rng.random() < soft_label(d, wording.pole, gold_a, gold_b) else "B"
        asked = judge_prompt(wording.text, request.text, a, b)
        turns = [{"role": "user", "content": asked}]
        if len(rows) % 2:
            turns = [
                {"role": "user", "content": asked.removesuffix("Better:") + "Compare:"},
                {"role": "assistant", "content": comparison(d, gold_a, gold_b)},
                {"role": "user", "content": "Better:"},
            ]
        rows.append({"messages": [*turns, {"role": "assistant", "content": letter}]})
    return rows


def reasoner(study: Study, name: str, seed: int) -> dict[str, Any]:
    """The shipped judge after further lessons; how often its rationales say what gold would."""
    from flows.stages.samplers import in_process_sampler
    from training.config.supervised import SftConfig
    from training.sft import train

    folder = study.work(name)
    write_lines(folder / "lessons.jsonl", lessons(LESSONS, seed))
    result = train(
        SftConfig(
            model=str(WEIGHTS / "feedback"),
            data=(folder / "lessons.jsonl",),
            output_dir=folder / "model",
            precision="float32",
            epochs=1,
            batch_size=32,
            checkpoint_every=0,
            seed=seed,
            optimizer={"learning_rate": 5e-4, "schedule": "cosine"},
        ),
        resume=True,
    )
    asked = [row["messages"] for row in lessons(2 * HELD_OUT, f"held out {seed}") if len(row["messages"]) > 2]
    drawn = in_process_sampler(str(folder / "model"), dtype="float32").draw(
        [turns[:1] for turns in asked],
        {"max_new_tokens": 24, "temperature": 0.0, "top_p": 1.0},
        batch_size=64,
        seed=seed,
        on_progress=lambda done, total: None,
    )
    right = [text.text.strip() == turns[1]["content"] for text, turns in zip(drawn, asked, strict=True)]
    return {"rationales_right": sum(right) / len(right), "n": len(right), "training": result.metrics}


def reasoned_labels(study: Study, name: str, seed: int, *, judge: str, rationales: int) -> dict[str, Any]:
    """The pipeline's pairs labelled by the judge of a job, with so many rationales each (0: none), unclamped.

    Its labels against gold under the principles that were drawn: accuracy and calibration as `agreement` has them.
    """
    from constitution import load
    from judges import InProcessJudge, LabelSettings, Ledger, Pair, export_preferences, label_pairs
    from judges.ledger.reading import labelled_pairs

    section = settings().labels
    constitution = load(settings().constitution)
    rows = read_lines(Path(paths(study, seed)["pairs.pairs"]))
    folder = study.work(name)
    with Ledger.open(f"sqlite:///{folder / 'ledger.db'}") as ledger:
        report = label_pairs(
            [Pair.from_row(row) for row in rows],
            constitution=constitution,
            judge=InProcessJudge(study.work(judge) / "model", dtype="float32"),
            ledger=ledger,
            settings=LabelSettings(
                templates=str(TEMPLATES),
                principles=section.principles,
                rationales=rationales,
                rationale_tokens=32,
                clamp_low=0.0,
                clamp_high=1.0,
                seed=seed,
            ),
        )
        export_preferences(ledger, report.label_set, folder / "preferences", statuses=section.statuses)
        found = [x.label for x in labelled_pairs(ledger, report.label_set)]
    made = [{"pair_id": x.pair_id, "principles": x.principles, "p": x.p} for x in found]
    gold = gold_of_labels(made, rows)
    both = [(x.p, p) for x, p in zip(found, gold, strict=True) if x.p is not None and p is not None]
    return {
        "pairs": len(rows),
        "statuses": dict(report.statuses),
        "asked": report.asked,
        **agreement([_logit(p) for p, _ in both], [p for _, p in both]),
    }


def _logit(p: float) -> float:
    held = min(max(p, 1e-6), 1 - 1e-6)
    return math.log(held / (1 - held))
