"""Early stopping against over-optimisation: end a run when held-out gold falls while the proxy climbs, keep the peak.

Reward is a proxy (Gao et al. 2022, arXiv 2210.10760): optimised for long enough, what it stands for falls while it
still rises. Now and then the policy answers held-out prompts, always the same ones; the proxy and a gold score that
no update sees judge the answers. The best evaluation so far is compared with the newest prompt by prompt.

Beside the run's other files: `early_stopping.jsonl` (a row an evaluation) and, until the run is finished,
`early_stopping/step-NNNNNN`, the best policy so far in Hugging Face format.
"""

from __future__ import annotations

import math
import shutil
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from common.files import move_into, write_jsonl
from common.rows import Prompt, read_prompts, report_left_out
from training.config.rl import RLConfig
from training.config.rl_sections import LEAST_PROMPTS, EarlyStoppingConfig
from training.errors import TrainingError
from training.rewards.compose import Reward
from training.rl.experience import measure
from training.rl.models import Models
from training.rl.rollout import Collector
from training.run.runtime import Runtime


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
class EarlyStopping:
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


class HeldOut:
    """The held-out prompts, the gold judge, and early stopping; every process has one and calls it in step."""

    def __init__(
        self,
        config: RLConfig,
        settings: EarlyStoppingConfig,
        runtime: Runtime,
        gold: Reward,
        prompts: list[Prompt],
    ) -> None:
        self.config, self.settings, self.runtime, self.gold = config, settings, runtime, gold
        self.prompts = prompts
        planned = 1 + math.ceil(config.steps / settings.every)
        self.stopping = EarlyStopping(
            patience=settings.patience, confidence=settings.confidence, planned=planned
        )

    def due(self, step: int, *, last: bool) -> bool:
        """Whether the policy after `step` steps is to be evaluated and was not; the last one always is."""
        done = self.stopping.evaluations and self.stopping.evaluations[-1].step >= step
        return not done and (last or step % self.settings.every == 0)

    def evaluate(
        self,
        step: int,
        collector: Collector,
        models: Models,
        save: Callable[[Path], None],
    ) -> dict[str, float]:
        """Answer, score and note; `save` the policy if it is the best so far.

        Returns figures for the metrics. Raises TrainingError when no answer has a gold score.
        """
        # The same draw at every evaluation: what changes is the policy.
        rollouts = collector.answer(self.prompts, seed=self.config.seed + 104_729)
        experience, _ = measure(rollouts, models, self.runtime, self.config, values=False)
        own = range(self.runtime.rank, len(rollouts), self.runtime.world)
        scored = self.gold([rollouts[n].prompt for n in own], [rollouts[n].answer for n in own]).total
        known = {
            n: s for part in self.runtime.gather(dict(zip(own, scored, strict=True))) for n, s in part.items()
        }
        gold = {str(rollouts[n].group): s for n, s in sorted(known.items()) if s is not None}
        if not gold:
            raise TrainingError(
                f"early_stopping: step {step}: gold could score none of {len(rollouts)} answers"
            )
        self.stopping.add(
            Evaluation(
                step=step,
                proxy=sum(rollout.reward for rollout in rollouts) / len(rollouts),
                kl=float(experience.kl_R.mean()),
                gold_by_prompt=gold,
            )
        )
        if self.stopping.best.step == step:
            save(self._folder(step))
        if self.runtime.is_main:
            self._log()
        newest = self.stopping.evaluations[-1]
        return {"held_out_gold": newest.gold, "held_out_proxy": newest.proxy, "held_out_kl": newest.kl}

    def keep_best(self, directory: Path, card: str) -> None:
        """Make the best policy so far the one in `directory`."""
        best = self._folder(self.stopping.best.step)
        (best / "README.md").write_text(card, encoding="utf-8")
        move_into(best, directory)

    def tidy(self) -> None:
        """Drop policies that were the best once. Only after a checkpoint: a resumed run may go back to one."""
        for folder in self._root.glob("step-*"):
            if folder != self._folder(self.stopping.best.step):
                shutil.rmtree(folder)

    def clear(self) -> None:
        """Drop them all: the run is finished."""
        shutil.rmtree(self._root, ignore_errors=True)

    @property
    def _root(self) -> Path:
        return self.config.output_dir / "early_stopping"

    def _folder(self, step: int) -> Path:
        return self._root / f"step-{step:06d}"

    def _log(self) -> None:
        write_jsonl(self.config.output_dir / "early_stopping.jsonl", self.stopping.rows())


def held_out_prompts(settings: EarlyStoppingConfig) -> list[Prompt]:
    """The first `limit` held-out prompts. Raises TrainingError when there are too few."""
    prompts = list(report_left_out(read_prompts(settings.prompts, limit=settings.limit)))
    if len(prompts) < LEAST_PROMPTS:
        raise TrainingError(
            f"early_stopping.prompts: {len(prompts)} prompts are too few to tell a fall from noise; "
            f"give {LEAST_PROMPTS}"
        )
    return prompts
