"""hh-rlhf's pairs as both sides of the preference benchmarks read them, and what their layers compute."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.harness import data
from benchmarks.harness.roofline import Work
from benchmarks.harness.trl_side import in_step_order

BATCH = 8  # TRL's default
SEED = 0


def prepare(folder: Path, count: int) -> None:
    """The model and `pairs.jsonl`."""
    data.make_model(folder)
    with (folder / "pairs.jsonl").open("w", encoding="utf-8") as file:
        for number, pair in enumerate(data.draw_pairs(count)):
            file.write(json.dumps({"id": str(number), **pair}) + "\n")


def load_items(folder: Path) -> list[Any]:
    """The tokenized pairs, as our trainers read them."""
    from common.rows import read_preferences
    from training.data.pairs import encode_pairs
    from training.models.load import load_tokenizer

    tokenizer = load_tokenizer(str(folder / "model"))
    return encode_pairs(tokenizer, read_preferences([folder / "pairs.jsonl"]), data.MAX_LENGTH)


def in_order(folder: Path) -> list[Any]:
    """The items in the order of our trainers' steps."""
    return in_step_order(load_items(folder), batch_size=BATCH, seed=SEED)


def longest(item: Any) -> int:
    """Tokens of a pair's longer side, prompt included."""
    return len(item.tree.prefix) + max(map(len, item.tree.branches))


def work(items: list[Any], *, head: bool) -> dict[str, Work]:
    """What a round computes without padding and with prompts shared (ours), and with padded rows (TRL's).

    With `head`, the answers' tokens go through the output head.
    """
    padded = []
    ordered = in_step_order(items, batch_size=BATCH, seed=SEED)
    for start in range(0, len(ordered), BATCH):
        batch = ordered[start : start + BATCH]
        padded += [max(map(longest, batch))] * (2 * len(batch))
    answers = sum(len(branch) for item in items for branch in item.tree.branches) if head else 0
    return {
        "ours": Work(
            tokens=sum(item.tree.tokens("packed") for item in items),
            head_tokens=answers,
            squares=sum((len(item.tree.prefix) + len(b)) ** 2 for item in items for b in item.tree.branches),
        ),
        "trl_defaults": Work.of_rows(padded, answers),
    }
