"""Group relative policy optimisation, against TRL's GRPOTrainer.

    python -m benchmarks.peers.grpo [--size 4] [--rounds 5]

The microworld's base model (2.0M parameters) answers prompts of its world: 8 prompts a step, 8 answers each, at most
64 tokens, temperature 1, one update a step, KL to the reference at 0.05, the same loss (GRPO's, averaged over
sequences) and the same reward (answers of about twelve words), in float32 on two threads. Sides: ours; TRL at its
defaults otherwise; and TRL without gradient checkpointing. Answers are drawn by each side's own random numbers, so
rewards are compared, not losses. Writes benchmarks/results/grpo.json.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.harness import contest, duel, our_side, trl_side, world
from benchmarks.harness.machine import machine
from benchmarks.harness.roofline import Work

PROMPTS = 8
GROUP = 8
NEW_TOKENS = 64
BETA = 0.05
LEARNING_RATE = 3e-4


def reward_of(text: str) -> float:
    """1 for twelve words, less for more or fewer."""
    return max(0.0, 1 - abs(len(text.split()) - 12) / 12)


def ours(folder: Path, *, total: int) -> duel.Play:
    from training import grpo
    from training.config.rl import GRPOConfig
    from training.rl.train import Steps
    from training.run.logs import read_metrics

    def reward(conversations: Sequence[Any], responses: Sequence[str]) -> list[float]:
        return [reward_of(text) for text in responses]

    def play(steps: int | None) -> dict[str, Any]:
        config = GRPOConfig(
            model=str(world.MODEL),
            prompts=(folder / "prompts.jsonl",),
            rewards=({"kind": "callable", "name": "words"},),
            output_dir=folder / "ours",
            precision="float32",
            steps=steps or total,
            batch_size=PROMPTS * GROUP,
            samples_per_prompt=GROUP,
            max_new_tokens=NEW_TOKENS,
            kl={"beta": BETA},
            optimizer={"learning_rate": LEARNING_RATE, **our_side.OPTIMIZER},
            rollouts={"batch_size": PROMPTS * GROUP},
        )
        shutil.rmtree(config.output_dir, ignore_errors=True)
        spent: list[float] = []
        run_all = Steps.run_all

        def timed(learner: Any) -> Any:
            began = time.perf_counter()
            try:
                return run_all(learner)
            finally:
                spent.append(time.perf_counter() - began)

        Steps.run_all = timed  # type: ignore[method-assign]
        try:
            grpo.train(config, reward_functions={"words": reward})
        finally:
            Steps.run_all = run_all  # type: ignore[method-assign]
        rows = read_metrics(folder / "ours" / "metrics.jsonl")
        return {
            "seconds": spent[0],
            "rewards": [row["reward"] for row in rows],
            "rollout_seconds": sum(row["rollout_seconds"] for row in rows),
            "mean_length": sum(row["length"] for row in rows) / len(rows),
        }

    return play


def trl(folder: Path, *, total: int, **changes: Any) -> duel.Play:
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    from training.models.load import load_causal_lm, load_tokenizer

    tokenizer = load_tokenizer(str(world.MODEL))
    rows = [json.loads(line) for line in (folder / "prompts.jsonl").read_text(encoding="utf-8").splitlines()]

    def play(steps: int | None) -> dict[str, Any]:
        means: list[float] = []
        lengths: list[float] = []

        def words(completions: list[Any], completion_ids: list[list[int]], **_: Any) -> list[float]:
            found = [reward_of(completion[0]["content"]) for completion in completions]
            means.append(sum(found) / len(found))
            lengths.append(sum(map(len, completion_ids)) / len(found))
            return found

        settings = trl_side.settings(
            folder, batch_size=PROMPTS * GROUP, learning_rate=LEARNING_RATE, **changes
        )
        # It draws its prompts itself.
        del settings["train_sampling_strategy"]
        trainer = GRPOTrainer(
            model=load_causal_lm(str(world.MODEL)),
            reward_funcs=words,
            args=GRPOConfig(
                **settings,
                num_generations=GROUP,
                max_completion_length=NEW_TOKENS,
                beta=BETA,
                loss_type="grpo",
                max_steps=steps or total,
            ),
            train_dataset=Dataset.from_list([{"prompt": row["prompt"]} for row in rows]),
            processing_class=tokenizer,
        )
        found = trl_side.timed(trainer)
        del found["losses"]
        return found | {"rewards": means, "mean_length": sum(lengths) / len(lengths)}

    return play


def sides_of(total: int) -> dict[str, duel.Build]:
    return {
        "ours": lambda folder: ours(folder, total=total),
        "trl_defaults": lambda folder: trl(folder, total=total),
        "trl_no_checkpointing": lambda folder: trl(folder, total=total, gradient_checkpointing=False),
    }


def mean_prompt(folder: Path, tokenizer: Any) -> float:
    """Tokens of a prompt, on average."""
    from common.chat import encode_prompt
    from common.rows import read_prompts

    prompts = read_prompts([folder / "prompts.jsonl"])
    return sum(len(encode_prompt(tokenizer, one.prompt)) for one in prompts) / len(prompts)


def work(prompt: float, answer: float, samples: int, *, shared: bool) -> Work:
    """One pass over all samples, from mean lengths; with `shared` a group's prompt is computed once."""
    prompts = samples / GROUP if shared else samples
    return Work(
        tokens=round(prompts * prompt + samples * answer),
        head_tokens=round(samples * answer),
        squares=round(samples * (prompt + answer) ** 2),
    )


def main() -> None:
    options = duel.arguments(__doc__ or "", size=4, unit="steps")
    if options.side:
        duel.serve(sides_of(options.size)[options.side], options.folder)
        return
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory)
        world.prepare(folder, PROMPTS * options.size)
        sides = duel.compete(
            __file__,
            options.sides or list(sides_of(options.size)),
            folder,
            rounds=options.rounds,
            options=["--size", str(options.size)],
        )
        from transformers import AutoConfig

        from training.models.load import load_tokenizer

        config, prompt = (
            AutoConfig.from_pretrained(world.MODEL),
            mean_prompt(folder, load_tokenizer(str(world.MODEL))),
        )
    samples = options.size * PROMPTS * GROUP
    speed = duel.speeds(sides, samples)
    curves = {side: found.pop("rewards") for side, found in sides.items()}
    result = {
        "what": f"samples a second: {options.size} steps of {PROMPTS * GROUP} answers, microworld, 2.0M parameters",
        **contest.ratios(speed, {"trl_defaults": 2.0}, sides),
        # Ours: sampling, policy, reference, update (3); TRL: sampling, reference, update with recomputation (4). What
        # padding costs TRL is not in it.
        "roofline": contest.roofline(
            config,
            {
                side: work(prompt, sides[side]["mean_length"], samples, shared=side == "ours")
                for side in ("ours", "trl_defaults")
            },
            {"ours": 6.0, "trl_defaults": 6.0},
            sides,
        ),
        "sides": sides,
        "machine": machine(),
        "versions": duel.versions("trl"),
        "loss_curves": {side: curves[side] for side in ("ours", "trl_defaults")},
    }
    duel.finish("grpo", result, partial=bool(options.sides))


if __name__ == "__main__":
    main()
