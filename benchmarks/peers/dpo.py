"""Direct preference optimisation on hh-rlhf's pairs, against TRL's DPOTrainer.

    python -m benchmarks.peers.dpo [--size 40] [--rounds 5]

Sides: ours; TRL at its defaults; and TRL without gradient checkpointing on batches of like length. The reference's pass
counts on every side. All train the same 3.7M-parameter Llama on the same pairs, 8 a step, in float32 on two threads.
Writes benchmarks/results/dpo.json.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.harness import contest, data, duel, our_side, pairs, trl_side

LEARNING_RATE = 1e-4


def ours(folder: Path) -> duel.Play:
    from training.dpo import train as dpo

    def play(steps: int | None) -> dict[str, Any]:
        config = dpo.DpoConfig(
            model=str(folder / "model"),
            data=(folder / "pairs.jsonl",),
            output_dir=folder / "ours",
            precision="float32",
            batch_size=pairs.BATCH,
            max_length=data.MAX_LENGTH,
            max_steps=steps,
            optimizer={"learning_rate": LEARNING_RATE, **our_side.OPTIMIZER},
            seed=pairs.SEED,
        )
        return our_side.timed(dpo, config, first="with_reference")

    return play


def trl(folder: Path, **changes: Any) -> duel.Play:
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    from training.models.load import load_causal_lm, load_tokenizer

    class Tokenized(DPOTrainer):
        """Takes token ids, so that both sides see the same ones."""

        def _prepare_dataset(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
            return dataset

    tokenizer = load_tokenizer(str(folder / "model"))
    rows = [
        {
            "prompt_ids": list(item.tree.prefix),
            "chosen_ids": list(item.tree.branches[0]),
            "rejected_ids": list(item.tree.branches[1]),
            "length": pairs.longest(item),
        }
        for item in pairs.in_order(folder)
    ]

    def play(steps: int | None) -> dict[str, Any]:
        settings = trl_side.settings(folder, batch_size=pairs.BATCH, learning_rate=LEARNING_RATE, **changes)
        trainer = Tokenized(
            model=load_causal_lm(str(folder / "model")),
            ref_model=load_causal_lm(str(folder / "model"), trainable=False),
            args=DPOConfig(**settings, max_steps=steps or -1),
            train_dataset=Dataset.from_list(rows),
            processing_class=tokenizer,
        )
        return trl_side.timed(trainer)

    return play


SIDES: dict[str, duel.Build] = {
    "ours": ours,
    "trl_defaults": trl,
    "trl_length_sorted": lambda folder: trl(folder, **trl_side.LENGTH_SORTED),
}


def main() -> None:
    options = duel.arguments(__doc__ or "", size=40, unit="pairs")
    contest.preference_contest(
        __file__,
        options,
        SIDES,
        name="dpo",
        head=True,
        # The reference's pass is one more.
        passes={"ours": 4.0, "trl_defaults": 5.0},
        targets={"trl_defaults": 2.0},
    )


if __name__ == "__main__":
    main()
