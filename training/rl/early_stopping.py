"""The brake on over-optimisation: stop when held-out gold falls while the proxy climbs, and keep the peak.

Reward is a proxy (Gao et al. 2022, arXiv 2210.10760): optimised for long enough, what it stands for falls while it
still rises. Now and then the policy answers held-out prompts, always the same ones; the proxy and a gold score that
no update sees judge the answers. The best evaluation so far is compared with the newest prompt by prompt.

Imports no torch.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import Field

from training.config.base import Strict
from training.config.rewards import RewardTerm

LEAST_PROMPTS = 8
"""Fewer cannot tell a fall from noise."""


class BrakeConfig(Strict):
    """When to stop, and who says so."""

    gold: RewardTerm
    """The held-out judge of answers: a stronger reward model, a function, a checker; never part of `rewards`."""

    prompts: tuple[Path, ...] = Field(min_length=1)
    """Files of held-out prompts."""

    limit: int = Field(default=128, ge=LEAST_PROMPTS)
    """This many prompts from the beginning."""

    every: int = Field(default=5, ge=1)
    """Steps between evaluations."""

    patience: int = Field(default=2, ge=1)
    """Evaluations in a row that must find gold fallen."""

    confidence: float = Field(default=0.95, gt=0.5, lt=1)
    """How sure a whole run must be that what it takes for a fall is not noise."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What held-out prompts say of the policy after `step` steps. `kl` in nats per answer, to the reference."""

    step: int
    proxy: float
    kl: float
    gold_by_prompt: Mapping[str, float]

    @cached_property
    def gold(self) -> float:
        """Mean gold score."""
        return statistics.fmean(self.gold_by_prompt.values())


@dataclass(kw_only=True)
class Brake:
    """The evaluations of a run, and what follows from them. `planned` is the most that there will be."""

    patience: int
    confidence: float
    planned: int
    evaluations: list[Evaluation] = field(default_factory=list)

    def add(self, evaluation: Evaluation) -> None:
        """Note the newest evaluation."""
        self.evaluations.append(evaluation)

    @property
    def best(self) -> Evaluation:
        """The evaluation with the highest mean gold; the earliest of equals."""
        return max(self.evaluations, key=lambda e: e.gold)

    @property
    def stop(self) -> bool:
        """Whether the last `patience` evaluations all found gold fallen while the proxy climbed."""
        last = self.evaluations[-self.patience :]
        start = len(self.evaluations) - len(last)
        return len(last) == self.patience and all(self.fallen(start + n) for n in range(len(last)))

    @property
    def kept(self) -> Evaluation:
        """The evaluation whose policy is the one to keep: the best if gold has fallen since, else the newest."""
        return self.best if self.fallen(len(self.evaluations) - 1) else self.evaluations[-1]

    def fallen(self, number: int) -> bool:
        """Whether at evaluation `number` (from 0) gold lies below the best before it, and the proxy above.

        One-sided paired t-test over prompts. Among `planned` evaluations of a policy that never changes, luck has as
        many chances to show a fall as there are pairs of them, so each test gets that part of 1 - confidence
        (Bonferroni): however often a run looks, it stops for nothing with at most that probability.
        """
        now, before = self.evaluations[number], self.evaluations[:number]
        if not before:
            return False
        best = max(before, key=lambda e: e.gold)
        shared = [name for name in best.gold_by_prompt if name in now.gold_by_prompt]
        if now.proxy <= best.proxy or len(shared) < 2:
            return False
        falls = [best.gold_by_prompt[name] - now.gold_by_prompt[name] for name in shared]
        return chance_of_fall(falls) < (1 - self.confidence) / math.comb(max(2, self.planned), 2)

    def rows(self) -> list[dict[str, Any]]:
        """One row an evaluation: step, proxy, gold, KL, its root, and whether gold had fallen."""
        return [
            {
                "step": e.step,
                "proxy": e.proxy,
                "gold": e.gold,
                "n": len(e.gold_by_prompt),
                "kl": e.kl,
                "root_kl": math.sqrt(max(e.kl, 0.0)),
                "fallen": self.fallen(number),
            }
            for number, e in enumerate(self.evaluations)
        ]

    def state(self) -> list[dict[str, Any]]:
        """For a checkpoint."""
        return [asdict(evaluation) for evaluation in self.evaluations]

    def restore(self, state: list[dict[str, Any]]) -> None:
        """Put back what `state` gave."""
        self.evaluations = [Evaluation(**row) for row in state]


def chance_of_fall(falls: Sequence[float]) -> float:
    """The probability that differences without a direction have a mean this far above zero: one-sided t-test.

    Student's t is turned into a normal deviate as Wallace (1959) does, which errs upwards, by a fifth at 8 values and
    a chance of one in a million. `falls` has at least two values.
    """
    mean, free = statistics.fmean(falls), len(falls) - 1
    if mean <= 0:
        return 1.0
    error = statistics.stdev(falls) / math.sqrt(len(falls))
    if error < 1e-9 * mean:  # all fell alike, as so many coins on one side
        return 0.5 ** len(falls)
    deviate = math.sqrt(free * math.log1p((mean / error) ** 2 / free)) * (8 * free + 1) / (8 * free + 3)
    return statistics.NormalDist().cdf(-deviate)
