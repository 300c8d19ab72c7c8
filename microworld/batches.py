"""Examples as token ids, and batches of rows of like length."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from transformers import PreTrainedTokenizerFast

from microworld.corpus import Corpus, Example

POOL_ROWS = 768


@dataclass(frozen=True, kw_only=True)
class Row:
    """An encoded example: per-token loss weights; probe marks as (token index, probe name, label)."""

    ids: list[int]
    weights: list[float]
    p_first: float | None
    marks: list[tuple[int, str, tuple[float, ...]]]


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Rows of like length, right-padded: `ids_BT`, `weights_BT`, and flat lists of judged rows and probe marks."""

    ids_BT: torch.Tensor
    weights_BT: torch.Tensor
    judged: torch.Tensor  # (n, 2): row, position whose next token is the letter
    p_first: torch.Tensor  # (n,)
    answer_at: torch.Tensor  # (m, 2)
    answer_gold: torch.Tensor  # (m, 6)
    answer_asked: torch.Tensor  # (m,)
    principle_at: torch.Tensor  # (k, 2)
    principle_is: torch.Tensor  # (k,): dimension * 2 + (pole > 0)

    @property
    def tokens(self) -> int:
        return int((self.ids_BT != 0).sum())


def encode(example: Example, tokenizer: PreTrainedTokenizerFast) -> Row:
    prompt = tokenizer.backend_tokenizer.encode(example.prompt, add_special_tokens=False)
    target = tokenizer.backend_tokenizer.encode(example.target, add_special_tokens=False).ids
    ids = prompt.ids + target
    weights = [example.prompt_weight] * len(prompt.ids) + [1.0] * len(target)
    marks = []
    for at, name, label in example.marks:
        token = prompt.char_to_token(at - 1)
        assert token is not None, f"no token ends at character {at} of {example.prompt!r}"
        marks.append((token, name, label))
    return Row(ids=ids, weights=weights, p_first=example.p_first, marks=marks)


def collate(rows: list[Row]) -> Batch:
    length = max(len(r.ids) for r in rows)
    ids = torch.tensor([r.ids + [0] * (length - len(r.ids)) for r in rows])
    weights = torch.tensor([r.weights + [0.0] * (length - len(r.ids)) for r in rows])
    judged = [(i, len(r.ids) - 1) for i, r in enumerate(rows) if r.p_first is not None]
    marked: dict[str, list[tuple[int, int, tuple[float, ...]]]] = {"answer": [], "asked": [], "principle": []}
    for i, row in enumerate(rows):
        for at, name, label in row.marks:
            marked[name].append((i, at, label))
    meant = marked["principle"]
    return Batch(
        ids_BT=ids,
        weights_BT=weights,
        judged=torch.tensor(judged, dtype=torch.long).view(-1, 2),
        p_first=torch.tensor([r.p_first for r in rows if r.p_first is not None]),
        answer_at=torch.tensor([m[:2] for m in marked["answer"]], dtype=torch.long).view(-1, 2),
        answer_gold=torch.tensor([m[2] for m in marked["answer"]]),
        answer_asked=torch.tensor([m[2][0] for m in marked["asked"]]),
        principle_at=torch.tensor([m[:2] for m in meant], dtype=torch.long).view(-1, 2),
        principle_is=torch.tensor([int(2 * m[2][0] + m[2][1]) for m in meant], dtype=torch.long),
    )


def batches(
    corpus: Corpus, tokenizer: PreTrainedTokenizerFast, mix: dict[str, float], batch_tokens: int
) -> Iterator[Batch]:
    """Endless batches of about `batch_tokens` padded tokens: pools of rows are sorted by length, cut, shuffled."""
    rng = random.Random(corpus.rng.random())
    while True:
        kinds = rng.choices(list(mix), weights=list(mix.values()), k=POOL_ROWS)
        rows = sorted(
            (encode(getattr(corpus, kind)(), tokenizer) for kind in kinds), key=lambda r: len(r.ids)
        )
        groups: list[list[Row]] = [[]]
        for row in rows:
            if groups[-1] and len(row.ids) * (len(groups[-1]) + 1) > batch_tokens:
                groups.append([])
            groups[-1].append(row)
        rng.shuffle(groups)
        yield from (collate(g) for g in groups)
