"""Supervised fine-tuning: imitate the assistant's turns of conversations.

    python -m training.sft --config sft.yaml [--resume]

The loss is the negative log-likelihood of assistant tokens (content and end of turn), averaged over the tokens
of the global batch; `prompt_weight` adds the other tokens at a lower weight. Examples are packed without
padding and without seeing each other.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import cross_entropy

from common.chat import naming, renderer_of
from common.rows import Example, read_examples, report_left_out
from training import cli
from training.config.supervised import SftConfig
from training.data.packing import Tree, pack
from training.errors import TrainingError
from training.models.adapters import check_lora, make_trainable
from training.models.attention import choose_layout
from training.models.files import check_model
from training.models.load import check_fit, load_causal_lm, load_tokenizer
from training.models.logprobs import selected_logits
from training.run.directory import Run, TrainResult
from training.run.memory import announce, plan_supervised
from training.run.runtime import Runtime
from training.run.weights import export
from training.supervised import Stats, fit, hold_out, run_batches


@dataclass(frozen=True, kw_only=True)
class SftItem:
    """A tokenized conversation; `weights[t]` is the loss weight of predicting token t (none for the first)."""

    id: str
    tree: Tree
    weights: tuple[float, ...]

    @property
    def weight(self) -> float:
        return sum(self.weights)


class SftObjective(torch.nn.Module):
    """Weighted negative log-likelihood, summed over items."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        self.layout = choose_layout(model)

    def forward(self, items: Sequence[SftItem]) -> tuple[torch.Tensor, Stats]:
        """Loss sum, and next-token accuracy on the tokens of full weight."""
        packed = pack([item.tree for item in items], layout=self.layout)
        predictors, targets, weights = [], [], []
        for start, item in zip(packed.starts.tolist(), items, strict=True):
            for t, weight in enumerate(item.weights):
                if weight:
                    predictors.append(start + t - 1)
                    targets.append(item.tree.prefix[t])
                    weights.append(weight)
        device = self.model.device
        packed = packed.to(device)
        targets_N = torch.tensor(targets, device=device)
        weights_N = torch.tensor(weights, device=device)
        logits_NV = selected_logits(self.model, packed, torch.tensor(predictors, device=device)).float()
        losses_N = cross_entropy(logits_NV, targets_N, reduction="none")
        answer_N = weights_N == 1
        hits = ((logits_NV.detach().argmax(-1) == targets_N) & answer_N).sum()
        return (losses_N * weights_N).sum(), {"accuracy": (hits, weights.count(1.0))}


def encode(tokenizer: Any, examples: Sequence[Example], config: SftConfig) -> list[SftItem]:
    """Tokenize examples; those longer than `max_length` are left out, with a line on stderr.

    Raises TrainingError when nothing is left.
    """
    items = []
    renderer = renderer_of(tokenizer)
    for example in examples:
        with naming(getattr(example, "place", "") or example.id):
            if config.train_on == "last":
                prompt = renderer.prompt_ids(example.messages[:-1])
                answer = renderer.answer_ids(example.messages[:-1], example.messages[-1]["content"])
                ids, mask = prompt + answer, [False] * len(prompt) + [True] * len(answer)
            else:
                ids, mask = renderer.conversation(example.messages)
        if len(ids) <= config.max_length:
            weights = [1.0 if answer else config.prompt_weight for answer in mask]
            weights[0] = 0.0
            items.append(SftItem(id=example.id, tree=Tree(prefix=tuple(ids)), weights=tuple(weights)))
    dropped = len(examples) - len(items)
    if not items:
        raise TrainingError(f"max_length {config.max_length}: every example is longer")
    if dropped:
        print(
            f"{dropped} of {len(examples)} examples are longer than max_length and left out", file=sys.stderr
        )
    return items


def _predicted(item: SftItem) -> int:
    return sum(weight > 0 for weight in item.weights)


def train(config: SftConfig, *, resume: bool = False) -> TrainResult:
    """Fine-tune and save a model. Raises TrainingError, Diverged or Interrupted."""
    run = Run.open(config, method="SFT", resume=resume)
    if run.finished:
        return run.finished
    check_model(config.model, head="causal")
    tokenizer = load_tokenizer(config.model)
    check_lora(config, task="CAUSAL_LM")
    items = encode(tokenizer, report_left_out(read_examples(config.data)), config)
    items, held_out = hold_out(items, config.held_out, seed=config.seed)
    runtime = Runtime(config)
    announce(plan_supervised(config, runtime, items, head_tokens=_predicted), runtime)
    if runtime.is_main:
        run.begin()
    dtype = torch.bfloat16 if config.lora and config.bf16 else torch.float32
    model = load_causal_lm(config.model, dtype=dtype)
    check_fit(model, tokenizer, max(len(item.tree.prefix) for item in items + held_out))
    objective = SftObjective(make_trainable(model, config, task="CAUSAL_LM"))

    def evaluate(module: Any) -> dict[str, float]:
        found = run_batches(
            module, runtime, held_out, layout=objective.layout, tokens=config.micro_batch_tokens
        )
        return {f"eval_{name}": value for name, value in found.items()}

    metrics, steps = fit(
        config,
        run,
        runtime,
        objective,
        items,
        evaluate=evaluate if held_out else None,
        shown=("loss", "accuracy"),
    )

    return export(run, runtime, objective.model, tokenizer, metrics, steps=steps)


if __name__ == "__main__":
    sys.exit(cli.main(SftConfig, train, "Supervised fine-tuning."))
