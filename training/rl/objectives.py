"""The formulas of reinforcement learning: advantages from rewards, losses, estimates of the KL divergence.

Shapes: R responses, T tokens of the longest one; `mask_RT` is true on a response's own tokens, which come first in its
row. N counts the response tokens of a batch, laid end to end.
"""

from __future__ import annotations

import torch

from training.config.rl_sections import KLConfig


def token_rewards(
    scores_R: torch.Tensor, kl_RT: torch.Tensor, mask_RT: torch.Tensor, beta: float
) -> torch.Tensor:
    """Rewards (R, T): minus beta times each token's KL, and the response's score at its last token.

    Ziegler et al. 2019 (arXiv 1909.08593), section 2; Stiennon et al. 2020 (arXiv 2009.01325), section 3.4.
    """
    rewards_RT = torch.where(mask_RT, -beta * kl_RT, 0.0)
    last_R1 = mask_RT.sum(1, keepdim=True) - 1
    return rewards_RT.scatter_add(1, last_R1, scores_R.unsqueeze(1).to(rewards_RT.dtype))


def gae(
    rewards_RT: torch.Tensor,
    values_RT: torch.Tensor,
    mask_RT: torch.Tensor,
    *,
    gamma: float,
    lam: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Advantages and returns (R, T), zero outside the mask; nothing is expected after a response's last token.

    delta_t = r_t + gamma V_{t+1} - V_t;  A_t = delta_t + gamma lambda A_{t+1};  return_t = A_t + V_t
    (Schulman et al. 2016, arXiv 1506.02438, equations 11 and 16).
    """
    values_RT = torch.where(mask_RT, values_RT, 0.0)
    rewards_RT = torch.where(mask_RT, rewards_RT, 0.0)
    advantages_RT = torch.zeros_like(values_RT)
    following_R = torch.zeros_like(values_RT[:, 0])
    next_value_R = torch.zeros_like(following_R)
    # Beyond a response's end every term is zero, so rows of different lengths need no special care.
    for t in reversed(range(values_RT.shape[1])):
        delta_R = rewards_RT[:, t] + gamma * next_value_R - values_RT[:, t]
        following_R = delta_R + gamma * lam * following_R
        advantages_RT[:, t] = following_R
        next_value_R = values_RT[:, t]
    return advantages_RT, advantages_RT + values_RT


def whiten(values: torch.Tensor, mask: torch.Tensor, *, shift_mean: bool = True) -> torch.Tensor:
    """Unit variance over the masked entries and, with `shift_mean`, zero mean; zero outside the mask.

    Fewer than two entries have no variance and are only shifted.
    """
    chosen = values[mask]
    if chosen.numel() == 0:
        return torch.zeros_like(values)
    mean = chosen.mean()
    variance = chosen.var(unbiased=False) if chosen.numel() > 1 else torch.ones_like(mean)
    whitened = (values - mean) * torch.rsqrt(variance + 1e-8)
    return torch.where(mask, whitened if shift_mean else whitened + mean, 0.0)


def group_relative(scores_R: torch.Tensor, groups_R: torch.Tensor, *, scale: str = "group") -> torch.Tensor:
    """Each score minus its group's mean, over the standard deviation of the group ("group"), of all scores
    ("batch"), or nothing ("none").

    Shao et al. 2024 (arXiv 2402.03300), section 4.1.2; without the division Liu et al. 2025
    (arXiv 2503.20783). A group of one, whose other answers had no reward, gets 0: there is nothing to
    compare with.
    """
    mean_R, count_R = _group_means(scores_R, groups_R)
    centred_R = scores_R - mean_R
    if scale == "none":
        return centred_R
    if scale == "batch":
        deviation = scores_R.std() if len(scores_R) > 1 else torch.zeros(())
    else:
        squares_R, _ = _group_means(centred_R**2, groups_R)
        deviation = (squares_R * count_R / (count_R - 1).clamp_min(1)).sqrt()
    return centred_R / (deviation + 1e-4)


def leave_one_out(scores_R: torch.Tensor, groups_R: torch.Tensor) -> torch.Tensor:
    """Each score minus the mean of the others in its group; 0 in a group of one.

    Kool et al. 2019; Ahmadian et al. 2024 (arXiv 2402.14740), section 2.3.
    """
    mean_R, count_R = _group_means(scores_R, groups_R)
    return (scores_R - mean_R) * count_R / (count_R - 1).clamp_min(1)


def _group_means(values_R: torch.Tensor, groups_R: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """For each entry its group's mean and size. `groups_R` holds any integers."""
    _, index_R = groups_R.unique(return_inverse=True)
    size = int(index_R.max()) + 1 if len(index_R) else 0
    zeros = values_R.new_zeros(size)
    counts = zeros.index_add(0, index_R, torch.ones_like(values_R))
    sums = zeros.index_add(0, index_R, values_R)
    return (sums / counts)[index_R], counts[index_R]


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


class KLController:
    """A fixed coefficient, or one that steers the KL per response to a target.

    Adaptive: e = clamp(KL / target - 1, -0.2, 0.2); beta <- beta (1 + e n / horizon) after n responses
    (Ziegler et al. 2019, arXiv 1909.08593, section 2.2, with a gain of 0.1 a batch; n / horizon is that of their code).
    """

    def __init__(self, config: KLConfig) -> None:
        self.config = config
        self.beta = config.beta

    def update(self, kl: float, responses: int) -> None:
        """Note the mean KL per response, in nats, of a step with so many responses."""
        if self.config.kind == "adaptive":
            error = min(max(kl / self.config.target - 1, -0.2), 0.2)
            self.beta *= 1 + error * responses / self.config.horizon
