"""Direct preference optimisation and its relatives: a policy from preference pairs, without a reward model.

    python -m training.dpo --config dpo.yaml [--resume]

One trainer; the losses are in `training.dpo.losses`. KTO takes answers with a label of their own too. The prompt that
two answers share is computed once, and the reference's log-probabilities are computed before the first step, so that
only the policy is in memory while training.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from training.config.supervised import WITHOUT_REFERENCE, DpoConfig
from training.data.packing import Layout
from training.data.pairs import load_pairs
from training.dpo import losses
from training.dpo.items import DpoItem, balanced_weights, branch_logprobs, make_items, with_reference
from training.models.adapters import check_lora, make_trainable
from training.models.attention import choose_layout
from training.models.files import check_model
from training.models.load import check_fit, load_causal_lm, load_tokenizer
from training.models.policy import switch_dropout_off
from training.run.directory import Run, TrainResult
from training.run.memory import announce, plan_supervised
from training.run.runtime import Runtime
from training.run.weights import export
from training.supervised import Stats, fit, hold_out, run_batches

_BETAS = {"dpo": 0.1, "robust": 0.1, "ipo": 0.1, "kto": 0.1, "orpo": 0.1, "simpo": 2.0}


class DpoObjective(torch.nn.Module):
    """One of the losses, summed over pairs; KTO's over answers, each of which counts half a pair.

    `baseline` is KTO's: the batch's KL from the reference on mismatched answers, at least 0. So are `weights`, of
    desirable and of undesirable answers.
    """

    def __init__(self, model: Any, config: DpoConfig, layout: Layout) -> None:
        super().__init__()
        self.model = model
        self.config = config
        self.layout = layout
        self.beta = config.beta or _BETAS[config.loss]
        self.baseline = 0.0
        self.weights = (config.desirable_weight or 1.0, config.undesirable_weight or 1.0)

    def forward(self, items: Sequence[DpoItem], mismatched: bool = False) -> tuple[torch.Tensor, Stats]:
        """Loss sum; accuracy and margin of the implicit rewards, and log-probabilities of both answers.

        With `mismatched`, the sum of log π/π_ref over the items' mismatched answers instead, also as statistic `kl`.
        """
        if mismatched:
            trees = [item.with_branches(item.mismatched).tree for item in items]
            ratios_K = branch_logprobs(self.model, trees, self.layout)
            total = ratios_K.sum() - sum(item.reference_mismatched for item in items)
            return total, {"kl": (total, len(items))}
        logprobs_K = branch_logprobs(self.model, [item.tree for item in items], self.layout)
        if self.config.loss == "kto":
            return self._kto(items, logprobs_K)
        device = logprobs_K.device
        reference_P2 = torch.tensor([item.reference for item in items], device=device)
        lengths_P2 = torch.tensor(
            [[float(len(ids)) for ids in item.tree.branches] for item in items], device=device
        )
        p_P = torch.tensor([item.p for item in items], device=device)
        pairs = losses.PairLogprobs(
            chosen_P=logprobs_K[0::2],
            rejected_P=logprobs_K[1::2],
            reference_chosen_P=reference_P2[:, 0],
            reference_rejected_P=reference_P2[:, 1],
            chosen_length_P=lengths_P2[:, 0],
            rejected_length_P=lengths_P2[:, 1],
        )
        losses_P = self._losses(pairs, p_P)
        with torch.no_grad():
            kind = self.config.loss
            chosen_P, rejected_P = pairs.averages() if kind in WITHOUT_REFERENCE else pairs.ratios()
            decisions = _decisions(items, self.beta * (chosen_P - rejected_P), p_P)
        return losses_P.sum(), decisions | {
            "logprob_chosen": (pairs.chosen_P.detach().sum(), len(items)),
            "logprob_rejected": (pairs.rejected_P.detach().sum(), len(items)),
        }

    def _losses(self, pairs: losses.PairLogprobs, p_P: torch.Tensor) -> torch.Tensor:
        config, beta = self.config, self.beta
        match config.loss:
            case "dpo":
                return losses.dpo(pairs, p_P, beta=beta)
            case "robust":
                return losses.robust_dpo(pairs, p_P, beta=beta, flip_rate=config.flip_rate)
            case "ipo":
                return losses.ipo(pairs, p_P, beta=beta)
            case "orpo":
                return losses.orpo(pairs, p_P, beta=beta)
            case "simpo":
                return losses.simpo(pairs, p_P, beta=beta, margin=config.margin)
        raise AssertionError(config.loss)

    def _kto(self, items: Sequence[DpoItem], logprobs_K: torch.Tensor) -> tuple[torch.Tensor, Stats]:
        device = logprobs_K.device
        sizes = [len(item.tree.branches) for item in items]
        sizes_P = torch.tensor(sizes, device=device)
        first_P = sizes_P.cumsum(0) - sizes_P
        p_P = torch.tensor([item.p for item in items], device=device)
        reference_K = torch.tensor([value for item in items for value in item.reference], device=device)
        ratio_K = logprobs_K - reference_K
        owners_K = torch.repeat_interleave(torch.arange(len(items), device=device), sizes_P)
        desirable_K = 1 - p_P[owners_K]
        desirable_K[first_P] = p_P
        losses_K = losses.kto(
            ratio_K,
            desirable_K,
            beta=self.beta,
            baseline=self.baseline,
            desirable_weight=self.weights[0],
            undesirable_weight=self.weights[1],
        )
        losses_P = torch.zeros_like(p_P).index_add(0, owners_K, losses_K) / 2
        with torch.no_grad():
            # A lone answer is compared with the baseline.
            rival_P = torch.full_like(p_P, self.baseline)
            paired_P = sizes_P == 2
            rival_P[paired_P] = ratio_K[first_P[paired_P] + 1]
            margin_P = self.beta * (ratio_K[first_P] - rival_P)
            # Of a pair the first answer counts as chosen, of lone ones those whose label is more than a half.
            chosen_K = desirable_K > 0.5
            chosen_K[first_P[paired_P]], chosen_K[first_P[paired_P] + 1] = True, False
            stats = _decisions(items, margin_P, p_P)
            for name, kind_K in (("chosen", chosen_K), ("rejected", ~chosen_K)):
                stats[f"logprob_{name}"] = (logprobs_K[kind_K].sum(), int(kind_K.sum()))
        return losses_P.sum(), stats


def _decisions(items: Sequence[DpoItem], margin_P: torch.Tensor, p_P: torch.Tensor) -> Stats:
    right = (((margin_P > 0) == (p_P > 0.5)) & (p_P != 0.5)).sum()
    return {
        "accuracy": (right, sum(item.p != 0.5 for item in items)),
        "margin": ((margin_P * (2 * p_P - 1).sign()).sum(), len(items)),
    }


def _answered(item: DpoItem) -> int:
    return sum(map(len, item.tree.branches))


def train(config: DpoConfig, *, resume: bool = False) -> TrainResult:
    """Train and save a policy. Raises TrainingError, Diverged or Interrupted."""
    run = Run.open(config, method=config.loss.upper(), resume=resume)
    if run.finished:
        return run.finished
    check_model(config.model, head="causal")
    if config.reference:
        check_model(config.reference, head="causal")
    tokenizer = load_tokenizer(config.model)
    check_lora(config, task="CAUSAL_LM")
    kto = config.loss == "kto"
    items = make_items(load_pairs(tokenizer, config, lone_answers=kto), mismatched=kto)
    runtime = Runtime(config)
    reference_needed = config.loss not in WITHOUT_REFERENCE
    plan = plan_supervised(config, runtime, items, head_tokens=_answered, reference=reference_needed)
    announce(plan, runtime)
    if runtime.is_main:
        run.begin()
    dtype = torch.bfloat16 if config.lora and config.bf16 else torch.float32
    model = load_causal_lm(config.model, dtype=dtype)
    longest = max(item.tree.width for item in items)
    check_fit(model, tokenizer, longest)
    layout = choose_layout(model)
    if reference_needed:
        reference = load_causal_lm(config.reference, dtype=dtype) if config.reference else model
        if config.reference:
            check_fit(reference, tokenizer, longest)
        items = with_reference(
            reference,
            items,
            runtime,
            layout=choose_layout(reference) if config.reference else layout,
            tokens=config.micro_batch_tokens,
        )
        del reference
    items, held_out = hold_out(items, config.held_out, seed=config.seed)
    model = make_trainable(model, config, task="CAUSAL_LM")
    if reference_needed:
        switch_dropout_off(model)
    objective = DpoObjective(model, config, layout)
    if kto:
        balanced = balanced_weights(items)
        objective.weights = (
            config.desirable_weight or balanced[0],
            config.undesirable_weight or balanced[1],
        )

    settings: dict[str, Any] = {"layout": layout, "tokens": config.micro_batch_tokens}

    def measure_baseline(module: Any, batch: Sequence[DpoItem]) -> None:
        swapped = [item.with_branches(item.mismatched) for item in batch]
        found = run_batches(module, runtime, swapped, **settings, mismatched=True)
        objective.baseline = max(0.0, found["kl"])

    def evaluate(module: Any) -> dict[str, float]:
        if kto:
            measure_baseline(module, held_out)
        found = run_batches(module, runtime, held_out, **settings)
        return {f"eval_{name}": value for name, value in found.items()}

    metrics, steps = fit(
        config,
        run,
        runtime,
        objective,
        items,
        before_step=measure_baseline if kto else None,
        evaluate=evaluate if held_out else None,
        shown=("loss", "margin"),
    )

    return export(run, runtime, objective.model, tokenizer, metrics, steps=steps)
