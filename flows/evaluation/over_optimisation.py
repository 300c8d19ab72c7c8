"""The shape of over-optimisation: gold against the distance that a policy has moved.

Gao et al. 2022 (arXiv 2210.10760, section 1): with d the square root of the KL to the starting policy in nats,
the gold gain of reinforcement learning follows `R(d) = d (alpha - beta log d)`, which is zero at d = 0, rises, and
falls again past `d = exp(alpha / beta - 1)`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Fit:
    """Coefficients per root nat, and the share of the gain's variance that they explain."""

    alpha: float
    beta: float
    r_squared: float

    def __call__(self, distance: float) -> float:
        """The gain at a distance (root nats)."""
        return distance * (self.alpha - self.beta * math.log(distance)) if distance > 0 else 0.0

    @property
    def peak(self) -> float | None:
        """The distance beyond which gold falls; None where the fit never falls or never rises."""
        if self.beta <= 0:
            return None
        exponent = self.alpha / self.beta - 1
        return math.exp(exponent) if exponent < 50 else None


def fit(distances: Sequence[float], gains: Sequence[float]) -> Fit | None:
    """Least squares of gold gains (above the starting policy's gold) on root KL; None below four points.

    Points at distance zero say nothing (the form is zero there) and are left out.
    """
    import numpy as np

    points = [(d, r) for d, r in zip(distances, gains, strict=True) if d > 0]
    if len(points) < 4:
        return None
    d, r = (np.array(column, dtype=float) for column in zip(*points, strict=True))
    design = np.stack([d, -d * np.log(d)], axis=1)
    (alpha, beta), _, rank, _ = np.linalg.lstsq(design, r, rcond=None)
    if rank < 2:
        return None
    spread = float(((r - r.mean()) ** 2).sum())
    left = float(((r - design @ np.array([alpha, beta])) ** 2).sum())
    return Fit(alpha=float(alpha), beta=float(beta), r_squared=1 - left / spread if spread > 0 else 0.0)
