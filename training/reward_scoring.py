"""Scores from trained reward models."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch

from training.attention import backbone, choose_layout, model_inputs
from training.chat import encode_prompt, encode_response
from training.data import Prompt
from training.models import load_sequence_classifier, load_tokenizer, score_head
from training.packing import Tree, pack
from training.supervised import micro_batches


@dataclass(frozen=True, kw_only=True)
class _Item:
    index: int
    tree: Tree


class RewardModel:
    """A reward model as a reward: one score per prompt and response, None where both exceed its context.

    It reads text, so its tokenizer need not be the policy's. `autocast()` is the context it computes in.
    """

    def __init__(
        self,
        path: str,
        *,
        device: torch.device | str = "cpu",
        micro_batch_tokens: int = 16384,
        autocast: Callable[[], AbstractContextManager] = nullcontext,
    ) -> None:
        self.tokenizer = load_tokenizer(path)
        self.model = load_sequence_classifier(path, pad_token_id=self.tokenizer.pad_token_id)
        self.model.requires_grad_(False).eval().to(device)
        self.layout = choose_layout(self.model)
        self.micro_batch_tokens = micro_batch_tokens
        self.autocast = autocast
        self._encoded: dict[str, tuple[int, ...]] = {}

    @torch.no_grad()
    def __call__(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> list[float | None]:
        """Scores in order."""
        context = self.model.config.get_text_config().max_position_embeddings
        scores: list[float | None] = [None] * len(prompts)
        items = []
        for index, (prompt, response) in enumerate(zip(prompts, responses, strict=True)):
            if prompt.id not in self._encoded:
                self._encoded[prompt.id] = tuple(encode_prompt(self.tokenizer, prompt.prompt))
            head, branch = self._encoded[prompt.id], tuple(encode_response(self.tokenizer, response))
            if len(head) + len(branch) <= context:
                items.append(_Item(index=index, tree=Tree(prefix=head, branches=(branch,))))
        for group in micro_batches(items, self.micro_batch_tokens, self.layout):
            packed = pack([item.tree for item in group], layout=self.layout).to(self.model.device)
            with self.autocast():
                hidden_BTD = backbone(self.model)(**model_inputs(packed)).last_hidden_state
                scores_K1 = score_head(self.model)(hidden_BTD.flatten(0, 1)[packed.ends_K])
            for item, score in zip(group, scores_K1.float().squeeze(-1).tolist(), strict=True):
                scores[item.index] = score
        return scores
