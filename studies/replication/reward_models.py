"""Reward models: held-out pairs that gold has judged, and how a reward model does on them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import Any

from flows.evaluation.gold import score_answer
from studies.replication.jobs import Study
from studies.replication.world import answers, paths, prompts, read_lines, settings, write_lines

CLEAR = 0.25
"""Gold is clear about a pair when its probability is further than this from one half."""
_BINS = 10


def held_out_pairs(study: Study, name: str, seed: int) -> dict[str, Any]:
    """Pairs of answers to held-out prompts, with the probability that gold gives the first under the whole
    constitution. The answers are SL-CAI's (two), the helpful-only and the base model's: what a reward model sees
    in training and on the way of a policy."""
    asked = prompts(paths(study, seed)["prompts.eval"])
    found = answers_of_all(study, seed, asked, draw=3_000)
    rows = [
        {"prompt": prompt.prompt, "a": a, "b": b, "p": preferred(prompt.prompt, a, b)}
        for prompt, texts in zip(asked, found, strict=True)
        for a, b in combinations(texts, 2)
    ]
    write_lines(study.work(name) / "pairs.jsonl", rows)
    return {"pairs": len(rows), "clear": sum(abs(row["p"] - 0.5) > CLEAR for row in rows)}


def answers_of_all(study: Study, seed: int, asked: Sequence[Any], *, draw: int) -> list[list[str]]:
    """To every prompt the different answers among SL-CAI's (two), the helpful-only and the base model's."""
    where = paths(study, seed)
    sources = [where["sl_cai.model"], where["sl_cai.model"], where["helpful_sft.model"], where["base"]]
    drawn = [answers(model, asked, seed=draw + 10 * seed + n) for n, model in enumerate(sources)]
    return [list(dict.fromkeys(texts)) for texts in zip(*drawn, strict=True)]


def preferred(prompt: Sequence[Mapping[str, str]], a: str, b: str) -> float:
    """The probability that gold gives the first answer under the whole constitution."""
    from flows.labelling.known_pairs import gold_preference

    found = gold_preference(_principles(), *(score_answer(prompt, text) for text in (a, b)))
    assert found is not None
    return found


@cache
def _principles() -> list[tuple[str, float]]:
    from constitution import load

    return [(p.question, p.weight) for p in load(settings().constitution).comparison]


def train_reward_model(
    study: Study,
    name: str,
    seed: int,
    *,
    targets: str = "soft",
    statuses: Sequence[str] = ("ok", "tie"),
    member: int = 0,
    share: float = 1.0,
    clamp: tuple[float, float] | None = None,
    data: str | None = None,
) -> dict[str, Any]:
    """A reward model with the demo's settings but for these, and how it does on the held-out pairs.

    `member` changes the training's seed alone (0 is the pipeline's own); `share` takes that share of the labels;
    `clamp` holds their probabilities between two bounds; `data` names the job whose labels are used instead of the
    pipeline's.
    """
    where = paths(study, seed)
    labels = where["labels.preferences"] if data is None else str(study.work(data) / "preferences.jsonl")
    if share < 1:
        labels = str(_part(Path(labels), study.work(name) / "part.jsonl", share))
    if clamp is not None:
        labels = str(_clamped(Path(labels), study.work(name) / "clamped.jsonl", *clamp))
    output = study.work(name) / "model"
    changes = {"targets": targets, "statuses": list(statuses), "seed": 1_000 * member + seed}
    training = fit(study, seed, Path(labels), output, **changes)
    found = judge_pairs(output, study.work(f"pairs-{seed}") / "pairs.jsonl")
    return {**found, "training": training}


def fit(study: Study, seed: int, data: Path, output: Path, /, **changes: Any) -> dict[str, float]:
    """Train a reward model from SL-CAI with the demo's settings but for `changes`; gives its last metrics."""
    from training.reward_model import RewardModelConfig, train

    demo = settings().reward_model.model_dump(mode="json")
    knobs = {key: value for key, value in demo.items() if key in RewardModelConfig.model_fields}
    knobs |= {"max_not_ok": 1.0, "checkpoint_every": 0, "seed": seed, **changes}
    model = paths(study, seed)["sl_cai.model"]
    config = RewardModelConfig(**knobs, model=model, data=(data,), output_dir=output)
    return train(config, resume=True).metrics


def judge_reward_model(study: Study, name: str, seed: int) -> dict[str, Any]:
    """How the pipeline's own reward model, the first member of its kind, does on the held-out pairs."""
    model = Path(paths(study, seed)["reward_model.model"])
    return judge_pairs(model, study.work(f"pairs-{seed}") / "pairs.jsonl")


def _part(path: Path, out: Path, share: float) -> Path:
    rows = read_lines(path)
    write_lines(out, rows[: max(1, round(share * len(rows)))])
    return out


def _clamped(path: Path, out: Path, low: float, high: float) -> Path:
    write_lines(out, [{**row, "p": min(max(row["p"], low), high)} for row in read_lines(path)])
    return out


def judge_pairs(model: Path, pairs: Path) -> dict[str, Any]:
    """A reward model's accuracy and calibration against gold on held-out pairs."""
    from training.rewards.scoring import RewardScorer

    rows = read_lines(pairs)
    scorer = RewardScorer.load(model, normalise=False)
    conversations = [row["prompt"] for row in rows]
    a, b = (scorer(conversations, [row[side] for row in rows]) for side in "ab")
    kept = [
        (x - y, row["p"]) for x, y, row in zip(a, b, rows, strict=True) if x is not None and y is not None
    ]
    return agreement([margin for margin, _ in kept], [p for _, p in kept])


def agreement(margins: Sequence[float], gold: Sequence[float]) -> dict[str, Any]:
    """How score differences agree with gold's probabilities of the same pairs.

    accuracy: share of the pairs about which gold is clear where the sign is right; accuracy_all: of all pairs that
    are no exact tie. brier: mean squared difference of σ(margin) and gold's probability; log_loss: cross-entropy
    in nats; ece: expected calibration error of σ(margin) against gold's probabilities, ten bins of equal width
    (Guo et al. 2017, arXiv 1706.04599); overconfidence: mean of |σ(margin) - 1/2| less gold's.
    """
    predicted = [_sigmoid(m) for m in margins]
    pairs = list(zip(predicted, gold, strict=True))

    def right(least: float) -> dict[str, Any]:
        from common.statistics import rate

        return rate([(q > 0.5) == (p > 0.5) for q, p in pairs if abs(p - 0.5) > least]).to_json()

    bins: list[list[tuple[float, float]]] = [[] for _ in range(_BINS)]
    for q, p in pairs:
        bins[min(_BINS - 1, int(q * _BINS))].append((q, p))
    ece = sum(abs(sum(q for q, _ in b) - sum(p for _, p in b)) for b in bins) / len(pairs)
    return {
        "accuracy": right(CLEAR),
        "accuracy_all": right(1e-9),
        "brier": sum((q - p) ** 2 for q, p in pairs) / len(pairs),
        "log_loss": sum(
            p * _softplus(-m) + (1 - p) * _softplus(m) for m, p in zip(margins, gold, strict=True)
        )
        / len(pairs),
        "ece": ece,
        "overconfidence": sum(abs(q - 0.5) - abs(p - 0.5) for q, p in pairs) / len(pairs),
    }


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x > -700 else 0.0


def _softplus(x: float) -> float:
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))
