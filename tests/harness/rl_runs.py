"""Small runs of PPO, GRPO and RLOO on a random tiny model, whose reward a function gives."""

import json

from training import grpo, ppo, rloo
from training.config.rl import GRPOConfig, PPOConfig, RLOOConfig
from training.rl import learner

METHODS = {"ppo": (ppo, PPOConfig), "grpo": (grpo, GRPOConfig), "rloo": (rloo, RLOOConfig)}


def letters(conversations, responses):
    """The share of the letter e: something that a random policy can learn in seconds."""
    return [response.count("e") / max(1, len(response)) for response in responses]


def make_config(method, tiny_dir, prompts_file, output_dir, **changes):
    settings = {
        "model": str(tiny_dir),
        "prompts": [prompts_file],
        "output_dir": output_dir,
        "rewards": [{"kind": "callable", "name": "letters"}],
        "precision": "float32",
        "steps": 4,
        "batch_size": 8,
        "samples_per_prompt": 1 if method == "ppo" else 4,
        "minibatches": 2,
        "epochs": 2,
        "max_new_tokens": 8,
        "optimizer": {"learning_rate": 3e-3},
    }
    if method == "ppo":
        settings["value"] = {"start_from": "policy", "optimizer": {"learning_rate": 3e-3}}
    return METHODS[method][1](**{**settings, **changes})


def run(config, function=letters, **settings):
    module = next(m for m, c in METHODS.values() if c is type(config))
    return module.train(config, reward_functions={"letters": function}, **settings)


def rows(directory):
    return [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]


def without_times(directory):
    return [{k: v for k, v in row.items() if k not in learner.TIMINGS} for row in rows(directory)]
