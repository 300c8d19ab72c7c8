"""Language-model examples mixed into a policy's updates, against forgetting (PPO-ptx)."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from common.chat import encode_conversation, naming
from common.rows import read_examples, report_left_out
from training.config.rl_sections import PretrainConfig
from training.data.packing import Layout, Tree, pack
from training.errors import TrainingError
from training.rl.models import LossPart, Stats
from training.supervised import batch_of_step

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Example:
    """A conversation, and the places of the tokens that an assistant wrote (never the first)."""

    tree: Tree
    answer: tuple[int, ...]


class PretrainMix:
    """gamma E[-log pi(x)], added to each update's loss (Ouyang et al. 2022, arXiv 2203.02155, equation 2)."""

    def __init__(self, config: PretrainConfig, tokenizer: Any, seed: int) -> None:
        self.config, self.seed = config, seed
        self.examples = []
        rows = report_left_out(read_examples(config.data))
        for row in rows:
            with naming(row.place or row.id):
                ids, mask = encode_conversation(tokenizer, row.messages)
            answer = tuple(place for place, written in enumerate(mask) if written and place)
            if len(ids) <= config.max_length and answer:
                self.examples.append(Example(tree=Tree(prefix=tuple(ids)), answer=answer))
        if not self.examples:
            raise TrainingError(f"pretrain.max_length {config.max_length}: every example is longer")
        if left := len(rows) - len(self.examples):
            _log.warning("pretrain.max_length %d: %d longer examples left out", config.max_length, left)

    def work(self, update: int, layout: Layout, device: Any) -> LossPart:
        """The examples of one update (from 0) and their loss: the mean over their answers' tokens."""
        batch = batch_of_step(
            self.examples, update, batch_size=min(self.config.batch_size, len(self.examples)), seed=self.seed
        )
        tokens = sum(len(example.answer) for example in batch)

        def loss(module: Any, group: Sequence[Example]) -> tuple[torch.Tensor, Stats]:
            packed = pack([example.tree for example in group], layout=layout).to(device)
            predictors, targets = [], []
            for start, example in zip(packed.starts.tolist(), group, strict=True):
                predictors += [start + place - 1 for place in example.answer]
                targets += [example.tree.prefix[place] for place in example.answer]
            logprobs_N, _ = module(
                packed,
                torch.tensor(predictors, device=device),
                torch.tensor(targets, device=device),
                temperature=1.0,
            )
            mean = -logprobs_N.sum() / tokens
            return self.config.coefficient * mean, {"pretrain_loss": mean.detach()}

        return LossPart(items=batch, loss=loss)
