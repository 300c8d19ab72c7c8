"""Direct preference optimisation and its relatives: a policy from preference pairs, without a reward model.

    python -m training.dpo --config dpo.yaml [--resume]

One trainer; the losses are in `training.dpo_losses`. The prompt that two answers share is computed once, and the
reference's log-probabilities are computed before the first step, so that only the policy is in memory while
training.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from training import cli
from training import dpo_losses as losses
from training.adapters import make_trainable
from training.attention import choose_layout
from training.export import export
from training.logprobs import selected_logprobs, sum_by_branch
from training.model_files import check_model
from training.models import check_fit, load_causal_lm, load_tokenizer
from training.packing import Layout, Tree, pack
from training.pairs import PairItem, encode_pairs, load_pairs
from training.plan import announce, plan_supervised
from training.run import Run, TrainResult
from training.runtime import Runtime
from training.supervised import Stats, fit, hold_out, micro_batches, run_batches, share_out
from training.supervised_config import WITHOUT_REFERENCE, DpoConfig

_BETAS = {"dpo": 0.1, "robust": 0.1, "ipo": 0.1, "kto": 0.1, "orpo": 0.1, "simpo": 2.0}


@dataclass(frozen=True, kw_only=True)
class DpoItem:
    """A pair with the reference's log-probabilities of its chosen and rejected answer.

    For KTO also another prompt's answer put to this prompt, and the reference's log-probability of that.
    """

    id: str
    tree: Tree
    p: float
    reference: tuple[float, float] = (0.0, 0.0)
    mismatched: tuple[int, ...] = ()
    reference_mismatched: float = 0.0
    weight: float = 1.0


class DpoObjective(torch.nn.Module):
    """One of the losses, summed over pairs.

    `baseline` is KTO's: the batch's KL from the reference on mismatched answers, at least 0.
    """

    def __init__(self, model: Any, config: DpoConfig, layout: Layout) -> None:
        super().__init__()
        self.model = model
        self.config = config
        self.layout = layout
        self.beta = config.beta or _BETAS[config.loss]
        self.baseline = 0.0

    def forward(self, items: Sequence[DpoItem], mismatched: bool = False) -> tuple[torch.Tensor, Stats]:
        """Loss sum; accuracy and margin of the implicit rewards, and log-probabilities of both answers.

        With `mismatched`, the sum of log π/π_ref over the items' mismatched answers instead.
        """
        if mismatched:
            trees = [Tree(prefix=item.tree.prefix, branches=(item.mismatched,)) for item in items]
            ratios_K = branch_logprobs(self.model, trees, self.layout)
            return ratios_K.sum() - sum(item.reference_mismatched for item in items), {}
        logprobs_K = branch_logprobs(self.model, [item.tree for item in items], self.layout)
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
            margin_P = self.beta * (chosen_P - rejected_P)
            decided_P = p_P != 0.5
            right = (((margin_P > 0) == (p_P > 0.5)) & decided_P).sum()
        return losses_P.sum(), {
            "accuracy": (right, sum(item.p != 0.5 for item in items)),
            "margin": ((margin_P * (2 * p_P - 1).sign()).sum(), len(items)),
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
            case "kto":
                return losses.kto(
                    pairs,
                    p_P,
                    beta=beta,
                    baseline=self.baseline,
                    desirable_weight=config.desirable_weight,
                    undesirable_weight=config.undesirable_weight,
                )


def branch_logprobs(model: Any, trees: Sequence[Tree], layout: Layout) -> torch.Tensor:
    """Log-probability (K,) of every branch given its prefix, summed over its tokens."""
    packed = pack(trees, layout=layout).to(model.device)
    return sum_by_branch(selected_logprobs(model, packed), packed)


def make_items(pairs: Sequence[PairItem], *, mismatched: bool) -> list[DpoItem]:
    """Items without their reference; with `mismatched` each also gets the next other prompt's chosen answer."""
    items = []
    for index, pair in enumerate(pairs):
        other: tuple[int, ...] = ()
        if mismatched:
            following = (pairs[(index + step) % len(pairs)] for step in range(1, len(pairs)))
            partner = next((q for q in following if q.tree.prefix != pair.tree.prefix), pair)
            other = partner.tree.branches[0]
        items.append(DpoItem(id=pair.id, tree=pair.tree, p=pair.p, mismatched=other))
    return items


@torch.no_grad()
def with_reference(
    model: Any, items: Sequence[DpoItem], runtime: Runtime, *, layout: Layout, tokens: int
) -> list[DpoItem]:
    """The items with the log-probabilities of a frozen reference; processes share the work."""
    model.to(runtime.device).eval()
    numbered = {id(item): number for number, item in enumerate(items)}
    mine: dict[int, list[float]] = {}
    share = share_out(items, runtime.world, layout)[runtime.rank]
    for group in micro_batches(share, tokens, layout):
        trees = [
            Tree(
                prefix=item.tree.prefix,
                branches=item.tree.branches + ((item.mismatched,) if item.mismatched else ()),
            )
            for item in group
        ]
        with runtime.accelerator.autocast():
            found = branch_logprobs(model, trees, layout).tolist()
        for item, tree in zip(group, trees, strict=True):
            size = len(tree.branches)
            mine[numbered[id(item)]], found = found[:size], found[size:]
    known = {number: values for part in runtime.gather(mine) for number, values in part.items()}
    return [
        replace(item, reference=(values[0], values[1]), reference_mismatched=sum(values[2:]))
        for item, values in ((item, known[number]) for number, item in enumerate(items))
    ]


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
    pairs = encode_pairs(tokenizer, load_pairs(config), config.max_length)
    items = make_items(pairs, mismatched=config.loss == "kto")
    runtime = Runtime(config)
    announce(plan_supervised(config, runtime, items, head_tokens=_answered), runtime)
    if runtime.is_main:
        run.begin()
    dtype = torch.bfloat16 if config.lora and config.bf16 else torch.float32
    model = load_causal_lm(config.model, dtype=dtype)
    longest = max(len(i.tree.prefix) + max(map(len, (*i.tree.branches, i.mismatched))) for i in items)
    check_fit(model, tokenizer, longest)
    layout = choose_layout(model)
    if config.loss not in WITHOUT_REFERENCE:
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
    objective = DpoObjective(make_trainable(model, config, task="CAUSAL_LM"), config, layout)

    settings: dict[str, Any] = {"layout": layout, "tokens": config.micro_batch_tokens}

    def measure_baseline(module: Any, batch: Sequence[DpoItem]) -> None:
        found = run_batches(module, runtime, batch, **settings, mismatched=True)
        objective.baseline = max(0.0, found["loss"])

    def evaluate(module: Any) -> dict[str, float]:
        if config.loss == "kto":
            measure_baseline(module, held_out)
        found = run_batches(module, runtime, held_out, **settings)
        return {f"eval_{name}": value for name, value in found.items()}

    metrics, steps = fit(
        config,
        run,
        runtime,
        objective,
        items,
        before_step=measure_baseline if config.loss == "kto" else None,
        evaluate=evaluate if held_out else None,
        shown=("loss", "margin"),
    )

    return export(run, runtime, objective.model, tokenizer, metrics, steps=steps)


if __name__ == "__main__":
    sys.exit(cli.main(DpoConfig, train, "Direct preference optimisation and its relatives."))
