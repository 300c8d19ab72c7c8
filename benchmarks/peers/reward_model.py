"""Training a reward model on hh-rlhf's pairs, against TRL's RewardTrainer.

    python -m benchmarks.peers.reward_model [--size 64] [--rounds 5]

Sides: ours; TRL at its defaults; the same without gradient checkpointing, which saves memory that nobody lacks here;
and that with batches of like length. All train the same 3.7M-parameter Llama on the same pairs, 8 a step, in float32 on
two threads. Writes benchmarks/results/reward_model.json.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.harness import contest, data, duel, our_side, pairs, trl_side

LEARNING_RATE = 1e-4


def ours(folder: Path) -> duel.Play:
    from training import reward_model

    def play(steps: int | None) -> dict[str, Any]:
        config = reward_model.RewardModelConfig(
            model=str(folder / "model"),
            data=(folder / "pairs.jsonl",),
            output_dir=folder / "ours",
            precision="float32",
            batch_size=pairs.BATCH,
            max_length=data.MAX_LENGTH,
            max_steps=steps,
            held_out=0.0,
            centring=0.0,
            optimizer={"learning_rate": LEARNING_RATE, **our_side.OPTIMIZER},
            seed=pairs.SEED,
        )
        return our_side.timed(reward_model, config)

    return play


def trl(folder: Path, **changes: Any) -> duel.Play:
    from datasets import Dataset
    from trl import RewardConfig, RewardTrainer

    from training.models.load import load_sequence_classifier, load_tokenizer, reward_pad_token

    tokenizer = load_tokenizer(str(folder / "model"))
    rows = [
        {
            "chosen_ids": [*item.tree.prefix, *item.tree.branches[0]],
            "rejected_ids": [*item.tree.prefix, *item.tree.branches[1]],
            "length": pairs.longest(item),
        }
        for item in pairs.in_order(folder)
    ]

    def play(steps: int | None) -> dict[str, Any]:
        model = load_sequence_classifier(
            str(folder / "model"), pad_token_id=reward_pad_token(tokenizer), new_head=True, seed=pairs.SEED
        )
        settings = trl_side.settings(folder, batch_size=pairs.BATCH, learning_rate=LEARNING_RATE, **changes)
        trainer = RewardTrainer(
            model=model,
            args=RewardConfig(**settings, max_steps=steps or -1),
            train_dataset=Dataset.from_list(rows),
            processing_class=tokenizer,
        )
        return trl_side.timed(trainer)

    return play


SIDES: dict[str, duel.Build] = {
    "ours": ours,
    "trl_defaults": trl,
    "trl_no_checkpointing": lambda folder: trl(folder, gradient_checkpointing=False),
    "trl_length_sorted": lambda folder: trl(folder, **trl_side.LENGTH_SORTED),
}


def main() -> None:
    options = duel.arguments(__doc__ or "", size=64, unit="pairs")
    contest.preference_contest(
        __file__,
        options,
        SIDES,
        name="reward_model",
        head=False,
        passes={"ours": 3.0, "trl_defaults": 4.0},
        targets={"trl_defaults": 3.5, "trl_length_sorted": 1.5},
    )


if __name__ == "__main__":
    main()
