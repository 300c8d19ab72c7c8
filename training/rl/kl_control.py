"""The coefficient of the KL penalty, step by step."""

from __future__ import annotations

from training.config.rl_sections import KLConfig


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
