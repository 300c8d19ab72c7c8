"""RL-CAI: PPO from the SL-CAI model against the reward model, on a leash of KL (Bai et al. 2022, §4.3)."""

from __future__ import annotations

from flows.stages.base import Result, Stage, Work
from flows.stages.training import settings_of, train, tuning_of


def run(work: Work) -> Result:
    """Train; samples.jsonl keeps what the policy said on its way."""
    fields = {
        "model": work.inputs["model"],
        "reward_model": work.inputs["reward_model"],
        "prompts": [work.inputs["prompts"]],
    }
    metrics = train(
        work, "ppo", fields=fields, total=work.settings["knobs"]["steps"], shown=("reward", "kl", "length")
    )
    return Result(outputs={"model": "model", "samples": "model/samples.jsonl"}, metrics=metrics)


STAGE = Stage(
    name="rl",
    title="Reinforcement learning",
    inputs=lambda inputs: {
        "model": inputs.model("sl_cai"),
        "reward_model": inputs.model("reward_model"),
        "prompts": inputs.output("prompts", "rl"),
    },
    settings=lambda config: settings_of(config.rl),
    tuning=lambda config: tuning_of(config, config.rl),
    run=run,
)
