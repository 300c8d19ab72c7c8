"""Losses of the policy and the value model, and estimates of the KL divergence, token by token.

N counts the response tokens of a batch, laid end to end.
"""

from __future__ import annotations

import torch


def clipped_policy_loss(
    logprobs: torch.Tensor,
    old_logprobs: torch.Tensor,
    advantages: torch.Tensor,
    *,
    clip: float,
    clip_high: float | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """PPO's clipped objective, to be minimised, and whether each entry was clipped (as 0 or 1).

    -min(r A, clamp(r, 1 - clip, 1 + clip_high) A) with r the ratio to the sampling policy (Schulman et al.
    2017, arXiv 1707.06347, equation 7). Entries are tokens (PPO, GRPO) or whole responses (RLOO).
    """
    ratio = (logprobs - old_logprobs).exp()
    bounded = ratio.clamp(1 - clip, 1 + (clip if clip_high is None else clip_high))
    loss = torch.maximum(-advantages * ratio, -advantages * bounded)
    clipped = (-advantages * bounded > -advantages * ratio).float()
    return loss, clipped


def clipped_value_loss(
    values: torch.Tensor, old_values: torch.Tensor, returns: torch.Tensor, *, clip: float | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Half the squared error, the larger of the clipped and unclipped value's, and whether it was clipped.

    The clipping is that of the PPO2 code of OpenAI's baselines; Schulman et al. 2017 have the square alone.
    """
    loss = (values - returns) ** 2
    if clip is None:
        return 0.5 * loss, torch.zeros_like(loss)
    near = torch.clamp(values, old_values - clip, old_values + clip)
    clipped_loss = (near - returns) ** 2
    return 0.5 * torch.maximum(loss, clipped_loss), (clipped_loss > loss).float()


def kl_k1(logprobs: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """log p - log q of a sampled token: an unbiased estimate of KL(p || q), of either sign."""
    return logprobs - reference


def kl_k3(logprobs: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """q/p - 1 - log(q/p): an estimate of KL(p || q) that is never negative.

    Schulman 2020, "Approximating KL divergence"; Shao et al. 2024 (arXiv 2402.03300), equation 4.
    """
    gap = reference - logprobs
    return gap.exp() - 1 - gap


def token_weights(
    lengths: torch.Tensor, *, reduction: str, total_tokens: int, responses: int, max_new_tokens: int
) -> torch.Tensor:
    """The weight (K,) of each token of responses with these `lengths`, in a batch of `responses`.

    "token": the mean over all tokens (Yu et al. 2025, arXiv 2503.14476, equation 12). "sequence": the mean
    over a response, then over responses (Shao et al. 2024, equation 3). "constant": the sum over a response
    over max_new_tokens, so that length buys nothing (Liu et al. 2025, arXiv 2503.20783).
    """
    ones = torch.ones_like(lengths, dtype=torch.float32)
    if reduction == "token":
        return ones / total_tokens
    if reduction == "sequence":
        return ones / (lengths * responses)
    assert reduction == "constant"
    return ones / (responses * max_new_tokens)
