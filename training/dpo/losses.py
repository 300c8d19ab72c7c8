"""Losses of direct preference optimisation, each (P,) over pairs (KTO's (K,) over answers), with its source.

Log-probabilities are sums over an answer's tokens (end of turn included); lengths are token counts. A pair's
label p is the probability that the chosen answer is the better one: a loss L of a pair becomes its expectation
`p·L(chosen, rejected) + (1-p)·L(rejected, chosen)`, which is L itself where p = 1. With p = 1 - ε everywhere
this is conservative DPO (Mitchell 2023, "A note on DPO with noisy preferences & relationship to IPO").
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn.functional import logsigmoid


@dataclass(frozen=True, kw_only=True)
class PairLogprobs:
    """What a loss may look at; reference log-probabilities are zero where a loss has no reference."""

    chosen_P: torch.Tensor
    rejected_P: torch.Tensor
    reference_chosen_P: torch.Tensor
    reference_rejected_P: torch.Tensor
    chosen_length_P: torch.Tensor
    rejected_length_P: torch.Tensor

    def ratios(self) -> tuple[torch.Tensor, torch.Tensor]:
        """log π/π_ref of the chosen and of the rejected answers; beta times it is the implicit reward."""
        return self.chosen_P - self.reference_chosen_P, self.rejected_P - self.reference_rejected_P

    def averages(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Log-probabilities per token."""
        return self.chosen_P / self.chosen_length_P, self.rejected_P / self.rejected_length_P


def _sigmoid_loss(logits_P: torch.Tensor, p_P: torch.Tensor) -> torch.Tensor:
    return -(p_P * logsigmoid(logits_P) + (1 - p_P) * logsigmoid(-logits_P))


def dpo(logprobs: PairLogprobs, p_P: torch.Tensor, *, beta: float) -> torch.Tensor:
    """`-log σ(β·(log π/π_ref(chosen) - log π/π_ref(rejected)))`. Rafailov et al. 2023 (arXiv 2305.18290, eq. 7)."""
    chosen_P, rejected_P = logprobs.ratios()
    return _sigmoid_loss(beta * (chosen_P - rejected_P), p_P)


def robust_dpo(logprobs: PairLogprobs, p_P: torch.Tensor, *, beta: float, flip_rate: float) -> torch.Tensor:
    """DPO's loss made unbiased under labels flipped at a known rate ε below one half.

    `((1-ε)·L(chosen, rejected) - ε·L(rejected, chosen)) / (1 - 2ε)`. Chowdhury et al. 2024 (arXiv 2403.00409).
    """
    kept, flipped = dpo(logprobs, p_P, beta=beta), dpo(logprobs, 1 - p_P, beta=beta)
    return ((1 - flip_rate) * kept - flip_rate * flipped) / (1 - 2 * flip_rate)


def ipo(logprobs: PairLogprobs, p_P: torch.Tensor, *, beta: float) -> torch.Tensor:
    """`(h - 1/(2β))²`, h the difference of the log-ratios per token. Azar et al. 2023 (arXiv 2310.12036, eq. 17).

    The paper's τ is β. Its authors' results, like TRL, average log-ratios over tokens.
    """
    chosen_P, rejected_P = logprobs.ratios()
    h_P = chosen_P / logprobs.chosen_length_P - rejected_P / logprobs.rejected_length_P
    target = 1 / (2 * beta)
    return p_P * (h_P - target).square() + (1 - p_P) * (h_P + target).square()


def kto(
    ratio_K: torch.Tensor,
    desirable_K: torch.Tensor,
    *,
    beta: float,
    baseline: torch.Tensor | float,
    desirable_weight: float,
    undesirable_weight: float,
) -> torch.Tensor:
    """Each answer judged by itself: (K,) over answers, each desirable with the probability `desirable_K`.

    `λ_D·(1 - σ(β·(r - z)))` for a desirable answer with log-ratio r, `λ_U·(1 - σ(β·(z - r)))` for an undesirable
    one; the baseline z is the batch's KL from the reference, at least 0, without a gradient. Ethayarajh et al.
    2024 (arXiv 2402.01306, eq. 8).
    """
    good_K = desirable_weight * torch.sigmoid(-beta * (ratio_K - baseline))
    bad_K = undesirable_weight * torch.sigmoid(beta * (ratio_K - baseline))
    return desirable_K * good_K + (1 - desirable_K) * bad_K


def orpo(logprobs: PairLogprobs, p_P: torch.Tensor, *, beta: float) -> torch.Tensor:
    """Negative log-likelihood of the better answer plus β times the odds-ratio loss; no reference.

    `-log π(chosen) - β·log σ(log odds(chosen) - log odds(rejected))` with log-probabilities per token and
    `odds = π / (1 - π)`. Hong et al. 2024 (arXiv 2403.07691, eqs. 3-7; their λ is β).
    """
    chosen_P, rejected_P = logprobs.averages()
    log_odds_P = _log_odds(chosen_P) - _log_odds(rejected_P)
    imitation_P = -(p_P * chosen_P + (1 - p_P) * rejected_P)
    return imitation_P + beta * _sigmoid_loss(log_odds_P, p_P)


def simpo(logprobs: PairLogprobs, p_P: torch.Tensor, *, beta: float, margin: float) -> torch.Tensor:
    """`-log σ(β·(log π(chosen)/|chosen| - log π(rejected)/|rejected|) - γ)`; no reference.

    Meng et al. 2024 (arXiv 2405.14734, eq. 6).
    """
    chosen_P, rejected_P = logprobs.averages()
    h_P = beta * (chosen_P - rejected_P)
    return -(p_P * logsigmoid(h_P - margin) + (1 - p_P) * logsigmoid(-h_P - margin))


def _log_odds(logprob_P: torch.Tensor) -> torch.Tensor:
    # log(1 - e^x) loses all digits near x = 0 unless written with expm1; a certain token has infinite odds.
    logprob_P = logprob_P.clamp(max=-1e-7)
    return logprob_P - torch.log(-torch.expm1(logprob_P))
