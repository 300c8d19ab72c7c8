"""Scores from a reward model: normalised, batched, and None where an answer could not be scored."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from common.chat import Conversation, renderer_of
from engines.in_process.model import context_length
from training.data.packing import Layout, Packed, Tree, batch_tokens, pack
from training.models.attention import backbone, choose_layout, model_inputs
from training.models.load import is_decoder, load_sequence_classifier, load_tokenizer
from training.supervised import micro_batches


def branch_scores(model: Any, packed: Packed) -> torch.Tensor:
    """Raw scores (K,) of a batch's branches, in float32: a decoder's at the last token, an encoder's pooled."""
    if not is_decoder(model):
        # Rows hold one branch each, in order.
        mask = packed.real_BT.long()
        return model(input_ids=packed.input_ids_BT, attention_mask=mask).logits.squeeze(-1).float()
    hidden_BTD = backbone(model)(**model_inputs(model, packed)).last_hidden_state
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    return inner.score(hidden_BTD.flatten(0, 1)[packed.ends_K]).squeeze(-1).float()


@dataclass(frozen=True, kw_only=True)
class _Item:
    tree: Tree
    places: tuple[int, ...]


class RewardScorer:
    """A reward model as a callable: `scorer(conversations, responses)`.

    Scores are normalised with the mean and standard deviation that training saved (`normalise=False` gives raw
    ones). Answers to one conversation share its computation, as many as fit a pass of `micro_batch_tokens`. None
    stands for an answer that, with its prompt, does not fit the model's context, and for a score that is not finite.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        normalise: bool = True,
        micro_batch_tokens: int = 16384,
        autocast: Callable[[], AbstractContextManager] = nullcontext,
    ) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.layout: Layout = choose_layout(model) if is_decoder(model) else "rows"
        self.mean = getattr(model.config, "reward_mean", 0.0) if normalise else 0.0
        self.std = getattr(model.config, "reward_std", 1.0) if normalise else 1.0
        self.micro_batch_tokens = micro_batch_tokens
        self.autocast = autocast

    @classmethod
    def load(cls, path: str | Path, *, device: torch.device | str = "cpu", **settings: Any) -> RewardScorer:
        """From a directory that `training.reward_model` wrote. Raises TrainingError."""
        tokenizer = load_tokenizer(str(path))
        model = load_sequence_classifier(str(path))
        return cls(model.requires_grad_(False).eval().to(device), tokenizer, **settings)

    @torch.no_grad()
    def __call__(self, conversations: Sequence[Conversation], responses: Sequence[str]) -> list[float | None]:
        """One score per conversation and response, in order."""
        context = context_length(self.model)
        scores: list[float | None] = [None] * len(conversations)
        groups: dict[tuple, list[int]] = {}
        for index, conversation in enumerate(conversations):
            key = tuple((message["role"], message["content"]) for message in conversation)
            groups.setdefault(key, []).append(index)
        items = []
        renderer = renderer_of(self.tokenizer)
        for places in groups.values():
            asked = conversations[places[0]]
            prompt = tuple(renderer.prompt_ids(asked))
            answers = {i: tuple(renderer.answer_ids(asked, responses[i])) for i in places}
            fitting = {i: ids for i, ids in answers.items() if len(prompt) + len(ids) <= context}
            items += self._split(prompt, fitting)
        training = self.model.training
        self.model.eval()
        for batch in micro_batches(items, self.micro_batch_tokens, self.layout):
            packed = pack([item.tree for item in batch], layout=self.layout).to(self.model.device)
            with self.autocast():
                found = branch_scores(self.model, packed).tolist()
            for place, value in zip((i for item in batch for i in item.places), found, strict=True):
                scores[place] = (value - self.mean) / self.std if math.isfinite(value) else None
        self.model.train(training)
        return scores

    def _split(self, prompt: tuple[int, ...], answers: dict[int, tuple[int, ...]]) -> list[_Item]:
        """One prompt's answers in trees of at most `micro_batch_tokens` (or one answer)."""
        items: list[_Item] = []
        for place, ids in answers.items():
            if items:
                places, tree = items[-1].places, items[-1].tree
                grown = Tree(prefix=prompt, branches=(*tree.branches, ids))
                if batch_tokens([grown], self.layout) <= self.micro_batch_tokens:
                    items[-1] = _Item(tree=grown, places=(*places, place))
                    continue
            items.append(_Item(tree=Tree(prefix=prompt, branches=(ids,)), places=(place,)))
        return items


def score(
    model: str | Path | RewardScorer, conversations: Sequence[Conversation], responses: Sequence[str]
) -> list[float | None]:
    """Scores from a model directory or a loaded `RewardScorer`; keep the latter to score more than once."""
    scorer = model if isinstance(model, RewardScorer) else RewardScorer.load(model)
    return scorer(conversations, responses)
