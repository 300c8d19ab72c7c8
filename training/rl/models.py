"""The models of a reinforcement learner: loaded, put into checkpoints, and put back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from training.config.rl import PPOConfig, RLConfig
from training.models.adapters import make_trainable
from training.models.load import check_fit, load_causal_lm
from training.models.policy import PolicyModule, ValueModule, load_value_model, switch_dropout_off
from training.rl.update import Trained
from training.run.runtime import Runtime
from training.run.weights import load_optimizer, load_weights, optimizer_state, weights


@dataclass(frozen=True, kw_only=True)
class Models:
    """What is trained, and what it is held to.

    `model` is the language model inside `policy`. `reference` is None under LoRA, where it is the policy with its
    adapter off; `value` is None except for PPO.
    """

    model: Any
    policy: Trained
    reference: PolicyModule | None
    value: Trained | None

    @classmethod
    def load(cls, config: RLConfig, runtime: Runtime, tokenizer: Any) -> Models:
        """Raises TrainingError when a model is unreadable or does not fit the tokenizer."""
        dtype = torch.bfloat16 if config.lora and config.bf16 else torch.float32
        model = load_causal_lm(config.model, dtype=dtype)
        check_fit(model, tokenizer, 0)
        reference = None
        if not config.lora:
            frozen = load_causal_lm(config.reference or config.model, trainable=False)
            reference = PolicyModule(frozen.to(runtime.device), temperature=config.temperature)
        model = make_trainable(model, config, task="CAUSAL_LM")
        switch_dropout_off(model)
        tokens = config.micro_batch_tokens
        policy = Trained(
            PolicyModule(model, temperature=config.temperature), config.optimizer, runtime, tokens=tokens
        )
        value = None
        if isinstance(config, PPOConfig):
            trunk = ValueModule(load_value_model(config, tokenizer))
            value = Trained(trunk, config.value.optimizer, runtime, tokens=tokens)
        return cls(model=model, policy=policy, reference=reference, value=value)

    def trees(self) -> dict[str, Any]:
        """Weights and optimiser states for a checkpoint. Every process must call this."""
        trees: dict[str, Any] = {
            "policy": weights(self.policy.module),
            "policy_optimizer": optimizer_state(self.policy.optimizer),
        }
        if self.value is not None:
            trees["value"] = weights(self.value.module)
            trees["value_optimizer"] = optimizer_state(self.value.optimizer)
        return trees

    def restore(self, saved: dict[str, Any]) -> None:
        """Put back what `trees` took. Raises TrainingError when it is of other models."""
        load_weights(self.policy.module, saved["policy"])
        load_optimizer(self.policy.module, self.policy.optimizer, saved["policy_optimizer"])
        if self.value is not None:
            load_weights(self.value.module, saved["value"])
            load_optimizer(self.value.module, self.value.optimizer, saved["value_optimizer"])
