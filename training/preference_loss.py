"""Losses of reward models on pairs with soft labels."""

from __future__ import annotations

import torch
from torch.nn.functional import logsigmoid


def bradley_terry(margin_P: torch.Tensor, p_P: torch.Tensor) -> torch.Tensor:
    """Cross-entropy (P,) of soft labels under the Bradley-Terry model.

    `-[p·log σ(m) + (1-p)·log σ(-m)]` with m = r_chosen - r_rejected and p the probability that `chosen` is the
    better answer. With p = 1 it is the loss of Ouyang et al. 2022 (arXiv 2203.02155, eq. 1); soft targets are
    those of Bai et al. 2022 (arXiv 2212.08073, section 4.1) and Lee et al. 2023 (arXiv 2309.00267, section 2.2.1).
    """
    return -(p_P * logsigmoid(margin_P) + (1 - p_P) * logsigmoid(-margin_P))


def centring(chosen_P: torch.Tensor, rejected_P: torch.Tensor) -> torch.Tensor:
    """`(r_chosen + r_rejected)²` (P,): keeps the scores, which a pair fixes only up to a constant, around zero.

    Eisenstein et al. 2023 (arXiv 2312.09244, eq. 2).
    """
    return (chosen_P + rejected_P).square()
