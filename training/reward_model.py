"""Reward models: a score per answer, from pairs with soft labels.

    python -m training.reward_model --config reward_model.yaml [--resume]

Bradley-Terry on soft targets over the score at an answer's last token (or an encoder's pooled output), with the
prompt that two answers share computed once. The mean and standard deviation of the scores over held-out pairs
are saved as `reward_mean` and `reward_std` in the model's config.json, and `score` applies them.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from typing import Any

import torch
from torch.nn.functional import logsigmoid

from training import cli
from training.config.supervised import RewardModelConfig
from training.data.packing import Layout, pack
from training.data.pairs import PairItem, load_pairs
from training.models.adapters import check_lora, make_trainable
from training.models.attention import choose_layout
from training.models.files import check_model
from training.models.load import (
    check_fit,
    is_decoder,
    load_sequence_classifier,
    load_tokenizer,
    reward_pad_token,
)
from training.rewards.scoring import RewardScorer, branch_scores, score
from training.run.directory import Run, TrainResult
from training.run.memory import announce, plan_supervised
from training.run.runtime import Runtime
from training.run.weights import export
from training.supervised import Stats, fit, hold_out, run_batches

__all__ = ["RewardModelConfig", "RewardScorer", "score", "train"]

_BINS = 10


class RewardObjective(torch.nn.Module):
    """Bradley-Terry loss with centring, summed over pairs."""

    def __init__(self, model: Any, *, centring: float) -> None:
        super().__init__()
        self.model = model
        self.centring = centring
        self.layout: Layout = choose_layout(model) if is_decoder(model) else "rows"

    def forward(self, items: Sequence[PairItem]) -> tuple[torch.Tensor, Stats]:
        """Loss sum; accuracy and margin, and in evaluation what calibration and length need."""
        packed = pack([item.tree for item in items], layout=self.layout).to(self.model.device)
        scores_K = branch_scores(self.model, packed)
        chosen_P, rejected_P = scores_K[0::2], scores_K[1::2]
        p_P = torch.tensor([item.p for item in items], device=scores_K.device)
        margin_P = chosen_P - rejected_P
        losses_P = bradley_terry(margin_P, p_P) + self.centring * centring(chosen_P, rejected_P)
        margin_P = margin_P.detach()
        decided_P = p_P != 0.5
        right = (((margin_P > 0) == (p_P > 0.5)) & decided_P).sum()
        stats: Stats = {
            "accuracy": (right, sum(item.p != 0.5 for item in items)),
            "margin": ((margin_P * (2 * p_P - 1).sign()).sum(), len(items)),
        }
        if not self.training:
            lengths_K = torch.tensor(
                [float(len(branch)) for item in items for branch in item.tree.branches],
                device=scores_K.device,
            )
            stats |= _moments(scores_K, lengths_K) | _calibration(margin_P, p_P)
            longer = (lengths_K[0::2] > lengths_K[1::2]) == (p_P > 0.5)
            unequal = (lengths_K[0::2] != lengths_K[1::2]) & decided_P
            stats["longer_is_better"] = ((longer & unequal).sum(), int(unequal.sum()))
        return losses_P.sum(), stats


def train(config: RewardModelConfig, *, resume: bool = False) -> TrainResult:
    """Train and save a reward model. Raises TrainingError, Diverged or Interrupted."""
    run = Run.open(config, method="reward model", resume=resume)
    if run.finished:
        return run.finished
    check_model(config.model)
    tokenizer = load_tokenizer(config.model)
    check_lora(config, task="SEQ_CLS")
    items = load_pairs(tokenizer, config)
    items, held_out = hold_out(items, config.held_out, seed=config.seed)
    runtime = Runtime(config)
    announce(plan_supervised(config, runtime, items, head_tokens=lambda item: 0), runtime)
    if runtime.is_main:
        run.begin()
    model = load_sequence_classifier(
        config.model,
        dtype=torch.bfloat16 if config.lora and config.bf16 else torch.float32,
        pad_token_id=reward_pad_token(tokenizer),
        new_head=True,
        seed=config.seed,
    )
    check_fit(model, tokenizer, max(item.tree.width for item in items + held_out))
    objective = RewardObjective(make_trainable(model, config, task="SEQ_CLS"), centring=config.centring)

    def measure(module: Any, pairs: Sequence[PairItem]) -> dict[str, float]:
        found = run_batches(module, runtime, pairs, layout=objective.layout, tokens=config.micro_batch_tokens)
        return report(found)

    def evaluate(module: Any) -> dict[str, float]:
        return {f"eval_{name}": value for name, value in measure(module, held_out).items()}

    def normalise(module: Any) -> dict[str, float]:
        found = measure(module, held_out or items[:512])
        model.config.reward_mean = found["score_mean"]
        model.config.reward_std = max(found["score_std"], 1e-6)
        scale = {"reward_mean": found["score_mean"], "reward_std": found["score_std"]}
        if not held_out:
            return scale
        # Of the weights that are kept: with `patience` the last evaluation was of others.
        kept = {f"eval_{name}": value for name, value in found.items()}
        return {**kept, "held_out_pairs": float(len(held_out)), **scale}

    metrics, steps = fit(
        config,
        run,
        runtime,
        objective,
        items,
        evaluate=evaluate if held_out else None,
        conclude=normalise,
        shown=("loss", "accuracy"),
    )

    return export(run, runtime, objective.model, tokenizer, metrics, steps=steps)


def report(found: dict[str, float]) -> dict[str, float]:
    """Readable measures from the means that the objective collects in evaluation.

    `calibration_error` is the expected calibration error of the probability of the preferred answer in ten bins
    over [0.5, 1], against the labels' own probabilities; `length_correlation` is Pearson's, between score and
    answer length in tokens; `longer_is_better` is how often the label prefers the longer answer.
    """
    plain = {name: value for name, value in found.items() if not name.startswith("_")}
    spread = _variance(found["_score"], found["_score_squared"])
    lengths = _variance(found["_length"], found["_length_squared"])
    covariance = found["_product"] - found["_score"] * found["_length"]
    error = 0.0
    for number in range(_BINS):
        if found[f"_bin{number}_share"]:
            gap = abs(found[f"_bin{number}_predicted"] - found[f"_bin{number}_labelled"])
            error += found[f"_bin{number}_share"] * gap
    return {
        **plain,
        "calibration_error": error,
        "length_correlation": covariance / math.sqrt(spread * lengths) if spread * lengths > 0 else 0.0,
        "score_mean": found["_score"],
        "score_std": math.sqrt(spread),
    }


def _variance(mean: float, mean_of_squares: float) -> float:
    return max(0.0, mean_of_squares - mean**2)


def _moments(scores_K: torch.Tensor, lengths_K: torch.Tensor) -> Stats:
    # In double precision: a variance as a difference of means cancels.
    scores, lengths = scores_K.detach().double(), lengths_K.double()
    values = {
        "_score": scores,
        "_score_squared": scores.square(),
        "_length": lengths,
        "_length_squared": lengths.square(),
        "_product": scores * lengths,
    }
    return {name: (value.sum(), len(scores)) for name, value in values.items()}


def _calibration(margin_P: torch.Tensor, p_P: torch.Tensor) -> Stats:
    probability_P = margin_P.sigmoid()
    flipped_P = probability_P < 0.5
    predicted_P = torch.where(flipped_P, 1 - probability_P, probability_P)
    labelled_P = torch.where(flipped_P, 1 - p_P, p_P)
    bins_P = ((predicted_P - 0.5) * 2 * _BINS).long().clamp(0, _BINS - 1)
    stats: Stats = {}
    for number in range(_BINS):
        inside_P = bins_P == number
        count = int(inside_P.sum())
        stats[f"_bin{number}_predicted"] = (predicted_P[inside_P].sum(), count)
        stats[f"_bin{number}_labelled"] = (labelled_P[inside_P].sum(), count)
        stats[f"_bin{number}_share"] = (float(count), len(p_P))
    return stats


def bradley_terry(margin_P: torch.Tensor, p_P: torch.Tensor) -> torch.Tensor:
    """Cross-entropy (P,) of soft labels under the Bradley-Terry model.

    `-[p·log σ(m) + (1-p)·log σ(-m)]` with m = r_chosen - r_rejected and p the probability that `chosen` is the
    better answer. With p = 1 it is the loss of Ouyang et al. 2022 (arXiv 2203.02155, eq. 1); soft targets are
    those of Bai et al. 2022 (arXiv 2212.08073, section 4.1) and Lee et al. 2023 (arXiv 2309.00267, section 2.2.1).
    """
    return -(p_P * logsigmoid(margin_P) + (1 - p_P) * logsigmoid(-margin_P))


def centring(chosen_P: torch.Tensor, rejected_P: torch.Tensor) -> torch.Tensor:
    """`(r_chosen + r_rejected)²` (P,): keeps the scores, which a pair fixes only up to a constant, around zero.

    Eisenstein et al. 2023 (arXiv 2312.09244, eq. 2).
    """
    return (chosen_P + rejected_P).square()


if __name__ == "__main__":
    sys.exit(cli.main(RewardModelConfig, train, "Train a reward model on preference pairs."))
