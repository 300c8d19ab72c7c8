"""The policy and the value model as modules that read packed responses."""

from __future__ import annotations

import copy
from typing import Any

import torch

from training.config.rewards import EnsembleTerm, ModelTerm
from training.config.rl import PPOConfig
from training.data.packing import Packed
from training.errors import TrainingError
from training.models.adapters import make_trainable
from training.models.attention import backbone, choose_layout, model_inputs, same_in_training
from training.models.load import OWN_DROPOUT, is_decoder, load_sequence_classifier, load_tokenizer, score_head
from training.models.logprobs import selected_logits


class PolicyModule(torch.nn.Module):
    """Log-probabilities of given tokens under a language model at the sampling temperature."""

    def __init__(self, model: Any, *, temperature: float) -> None:
        super().__init__()
        self.model = model
        self.temperature = temperature
        self.layout = choose_layout(model)

    def forward(
        self,
        packed: Packed,
        predictors_N: torch.Tensor,
        targets_N: torch.Tensor,
        *,
        entropy: bool = False,
        temperature: float | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Log-probabilities (N,) of `targets_N` at the flat indices `predictors_N`; with `entropy`, also the
        entropies (N,) of those distributions, without gradient. `temperature` replaces the sampling temperature: the
        likelihood of texts that nobody sampled is the model's own, at 1."""
        logits_NV = selected_logits(self.model, packed, predictors_N).float()
        temperature = self.temperature if temperature is None else temperature
        if temperature != 1:
            logits_NV = logits_NV / temperature
        logprobs_NV = logits_NV.log_softmax(-1)
        chosen_N = logprobs_NV.gather(1, targets_N[:, None]).squeeze(1)
        if not entropy:
            return chosen_N, None
        with torch.no_grad():
            entropies_N = -(logprobs_NV.exp() * logprobs_NV).sum(-1)
        return chosen_N, entropies_N


class ValueModule(torch.nn.Module):
    """The value of each state: the expected reward still to come before a token is chosen.

    A sequence classifier with one label, read at every token instead of the last one, and normalised like the
    rewards of the model that it started from.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.mean = getattr(model.config, "reward_mean", 0.0)
        self.std = getattr(model.config, "reward_std", 1.0)
        self.model = model
        self.layout = choose_layout(model)

    def forward(self, packed: Packed, predictors_N: torch.Tensor) -> torch.Tensor:
        """Values (N,) of the states at the flat indices `predictors_N`."""
        hidden_BTD = backbone(self.model)(**model_inputs(self.model, packed)).last_hidden_state
        scores_N = score_head(self.model)(hidden_BTD.flatten(0, 1)[predictors_N]).float().squeeze(-1)
        return (scores_N - self.mean) / self.std


def load_value_model(config: PPOConfig, tokenizer: Any) -> Any:
    """The sequence classifier that a value model starts from, trainable.

    Raises TrainingError when the reward model reads other tokens than the policy writes.
    """
    if config.value.start_from == "policy":
        model = load_sequence_classifier(
            config.model, pad_token_id=tokenizer.pad_token_id, new_head=True, seed=config.seed
        )
        # Untrained values of order one would drown the first advantages in noise.
        torch.nn.init.zeros_(score_head(model).weight)
    else:
        term = next(term for term in config.terms if isinstance(term, (ModelTerm, EnsembleTerm)))
        path = term.path if isinstance(term, ModelTerm) else term.paths[0]
        if load_tokenizer(path).get_vocab() != tokenizer.get_vocab():
            raise TrainingError(
                f"value.start_from: {path} has another vocabulary than the policy; set it to policy"
            )
        model = load_sequence_classifier(path, pad_token_id=tokenizer.pad_token_id)
    if not is_decoder(model):
        raise TrainingError(
            f"value.start_from: {type(model).__name__} reads whole texts, a value model token by token; "
            "set it to policy"
        )
    model = make_trainable(model, config, task="SEQ_CLS")
    switch_dropout_off(model)
    return model


def switch_dropout_off(model: torch.nn.Module) -> None:
    """Make training mode compute what evaluation mode does, wherever a policy is compared with a reference: otherwise
    the policy that is updated would not be the one that was sampled or measured, and the first ratio not 1.

    Dropout of layers, attention and adapters, and the jitter of routers. Raises TrainingError where some is left.
    """
    for module in model.modules():
        if isinstance(module, torch.nn.modules.dropout._DropoutNd):
            module.p = 0.0
        for name, value in vars(module).items():
            if isinstance(value, float) and _is_noise(name):
                setattr(module, name, 0.0)
    # Some models (Falcon) read their config at every call; `save_model` writes what the model came with.
    config: Any = model.config
    own = {
        name: value for name, value in vars(config).items() if isinstance(value, float) and _is_noise(name)
    }
    config.update({OWN_DROPOUT: {**own, **getattr(config, OWN_DROPOUT, {})}, **dict.fromkeys(own, 0.0)})
    if not same_in_training(model):
        raise TrainingError(
            f"model {config.name_or_path}: computes otherwise in training than in evaluation, through a dropout "
            "that cannot be switched off from outside; set it to 0 in the model's config.json"
        )


def _is_noise(name: str) -> bool:
    return "drop" in name or "jitter" in name


def without_adapter(model: Any) -> Any:
    """A plain model to save: a copy with its adapter merged in, or the model itself if it has none."""
    return copy.deepcopy(model).merge_and_unload() if hasattr(model, "merge_and_unload") else model
