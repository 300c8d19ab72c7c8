"""Supervised fine-tuning on hh-rlhf's preferred conversations, against TRL's SFTTrainer.

    python -m benchmarks.peers.sft [--size 48] [--rounds 5]

Sides: ours; TRL at its defaults; and TRL's ways to waste less, all without gradient checkpointing: batches of like
length, padding-free batches, and packed rows of 2,048 tokens, one a step. The loss is on the
assistant's tokens. All train the same 3.7M-parameter Llama, 8 conversations a step, in float32 on two threads.
Writes benchmarks/results/sft.json; its ratio is to the best of TRL's.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from benchmarks.harness import contest, data, duel, figure, our_side, pairs, trl_side
from benchmarks.harness.machine import machine
from benchmarks.harness.roofline import Work

LEARNING_RATE = 1e-3
PACKED_LENGTH = 2048


def config(folder: Path, steps: int | None = None) -> Any:
    from training.sft import SftConfig

    return SftConfig(
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


def load_items(folder: Path) -> list[Any]:
    """The tokenized conversations, as our trainer reads them."""
    from common.rows import read_examples
    from training.models.load import load_tokenizer
    from training.sft import encode

    tokenizer = load_tokenizer(str(folder / "model"))
    return encode(tokenizer, read_examples([folder / "pairs.jsonl"]), config(folder))


def ours(folder: Path) -> duel.Play:
    from training import sft

    return lambda steps: our_side.timed(sft, config(folder, steps))


def trl(folder: Path, **changes: Any) -> duel.Play:
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    from training.models.load import load_causal_lm, load_tokenizer

    tokenizer = load_tokenizer(str(folder / "model"))
    items = trl_side.in_step_order(load_items(folder), batch_size=pairs.BATCH, seed=pairs.SEED)
    rows = [
        {
            "input_ids": list(item.tree.prefix),
            "labels": [t if w else -100 for t, w in zip(item.tree.prefix, item.weights, strict=True)],
            "length": len(item.tree.prefix),
        }
        for item in items
    ]
    settings = {"batch_size": pairs.BATCH, "max_length": data.MAX_LENGTH} | changes

    def play(steps: int | None) -> dict[str, Any]:
        arguments = trl_side.settings(folder, learning_rate=LEARNING_RATE, **settings)
        trainer = SFTTrainer(
            model=load_causal_lm(str(folder / "model")),
            args=SFTConfig(**arguments, max_steps=steps or -1),
            train_dataset=Dataset.from_list(rows),
            processing_class=tokenizer,
        )
        return trl_side.timed(trainer)

    return play


SIDES: dict[str, duel.Build] = {
    "ours": ours,
    "trl_defaults": trl,
    "trl_length_sorted": lambda folder: trl(folder, **trl_side.LENGTH_SORTED),
    "trl_padding_free": lambda folder: trl(
        folder, gradient_checkpointing=False, padding_free=True, max_length=None
    ),
    "trl_packed": lambda folder: trl(
        folder, gradient_checkpointing=False, packing=True, max_length=PACKED_LENGTH, batch_size=1
    ),
}


def main() -> None:
    options = duel.arguments(__doc__ or "", size=48, unit="conversations")
    if options.side:
        duel.serve(SIDES[options.side], options.folder)
        return
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory)
        pairs.prepare(folder, options.size)
        items = load_items(folder)
        sides = duel.compete(__file__, options.sides or list(SIDES), folder, rounds=options.rounds)
        from transformers import AutoConfig

        model = AutoConfig.from_pretrained(folder / "model")
    speed = duel.speeds(sides, len(items))
    curves = {side: found.pop("losses") for side, found in sides.items()}
    best = max((side for side in sides if side != "ours"), key=lambda side: speed[side])
    # Packed rows are other batches, whose losses compare with nobody's.
    like = [side for side in dict.fromkeys((best, "trl_defaults")) if side in curves and side != "trl_packed"]
    answers = sum(weight > 0 for item in items for weight in item.weights)
    work = Work.of_rows([len(item.tree.prefix) for item in items], answers)
    result = {
        "what": f"conversations a second: {len(items)} of hh-rlhf, {pairs.BATCH} a step, 3.7M-parameter Llama",
        **contest.ratios(speed, {best: 1.5}, sides),
        "largest_loss_differences": {
            side: figure.largest_difference(curves["ours"], curves[side]) for side in like
        },
        # The least work is the same for every side that pads nothing.
        "roofline": contest.roofline(model, {"ours": work, best: work}, {"ours": 3.0, best: 3.0}, sides),
        "sides": sides,
        "machine": machine(),
        "versions": duel.versions("trl"),
        "loss_curves": {side: curves[side] for side in ("ours", *like)},
    }
    duel.finish("sft", result, partial=bool(options.sides))


if __name__ == "__main__":
    main()
