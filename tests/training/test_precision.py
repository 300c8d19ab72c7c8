"""Trainer steps in bf16 come near those in float32: losses, gradients' norms and where the weights go."""

from __future__ import annotations

import json

import pytest
import torch

from training import reward_model, sft
from training.dpo import train as dpo
from training.models.load import load_causal_lm, load_sequence_classifier
from training.run.logs import read_metrics

ANSWERS = ("Take the egg and boil it.", "Paris is the capital.", "No", "Go and ask a dog in a red house.")


@pytest.mark.parametrize("kind", ["sft", "reward_model", "dpo"])
def test_three_steps_in_bf16_are_near_those_in_float32(kind, tiny_dir, tmp_path):
    make, train, load = {
        "sft": (sft.SftConfig, sft.train, load_causal_lm),
        "reward_model": (reward_model.RewardModelConfig, reward_model.train, load_sequence_classifier),
        "dpo": (dpo.DpoConfig, dpo.train, load_causal_lm),
    }[kind]
    data = tmp_path / "data.jsonl"
    with data.open("w") as file:
        for n in range(12):
            prompt = [{"role": "user", "content": f"Question {n}: tell me " * (n % 3 + 1)}]
            chosen, rejected = ANSWERS[n % 4], ANSWERS[(n + 1) % 4]
            pair = {"prompt": prompt, "chosen": chosen, "rejected": rejected, "p": 0.9}
            messages = [*prompt, {"role": "assistant", "content": chosen}]
            file.write(json.dumps({"messages": messages} if kind == "sft" else pair) + "\n")
    rows, moves = [], []
    for precision in ("float32", "bf16"):
        settings = {"optimizer": {"learning_rate": 1e-3, "schedule": "constant"}, "max_steps": 3}
        config = make(
            model=str(tiny_dir),
            data=[data],
            output_dir=tmp_path / precision,
            precision=precision,
            batch_size=4,
            held_out=0.0,
            **settings,
        )
        train(config)
        rows.append(read_metrics(config.output_dir / "metrics.jsonl"))
        after, before = load(str(config.output_dir)), load_causal_lm(str(tiny_dir)).model
        assert {p.dtype for p in after.parameters()} == {torch.float32}
        paired = zip(after.model.parameters(), before.parameters(), strict=True)
        moves.append(torch.cat([(a - b).flatten() for a, b in paired]))
    assert len(rows[0]) == len(rows[1]) == 3
    for one, other in zip(*rows, strict=True):
        assert other["loss"] == pytest.approx(one["loss"], rel=0.03, abs=0.01)
        assert other["grad_norm"] == pytest.approx(one["grad_norm"], rel=0.1)
    assert not torch.equal(*moves)
    # Adam turns gradients near zero into steps of full size: directions agree, single weights need not.
    assert torch.cosine_similarity(*moves, dim=0) > 0.9
