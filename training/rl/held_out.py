"""Evaluating a policy on held-out prompts while it trains, and keeping the best one for the brake.

Beside the run's other files: `brake.jsonl` (a row an evaluation) and, until the run is finished,
`brake/step-NNNNNN`, the best policy so far in Hugging Face format.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from common.files import move_into, write_jsonl
from common.rows import Prompt, read_prompts, report_left_out
from training.config.rl import RLConfig
from training.errors import TrainingError
from training.rewards.compose import Reward
from training.rl.early_stopping import LEAST_PROMPTS, Brake, BrakeConfig, Evaluation
from training.rl.measure import measure
from training.rl.rollout import Collector
from training.rl.update import Trained
from training.run.runtime import Runtime


class HeldOut:
    """The held-out prompts, the gold judge, and the brake; every process has one and calls it in step."""

    def __init__(
        self, config: RLConfig, brake: BrakeConfig, runtime: Runtime, gold: Reward, prompts: list[Prompt]
    ) -> None:
        self.config, self.settings, self.runtime, self.gold = config, brake, runtime, gold
        self.prompts = prompts
        planned = 1 + math.ceil(config.steps / brake.every)
        self.brake = Brake(patience=brake.patience, confidence=brake.confidence, planned=planned)

    def due(self, step: int, *, last: bool) -> bool:
        """Whether the policy after `step` steps is to be evaluated and was not; the last one always is."""
        done = self.brake.evaluations and self.brake.evaluations[-1].step >= step
        return not done and (last or step % self.settings.every == 0)

    def evaluate(
        self,
        step: int,
        collector: Collector,
        policy: Trained,
        reference: Any,
        save: Callable[[Path], None],
    ) -> dict[str, float]:
        """Answer, score and note; `save` the policy if it is the best so far.

        Returns figures for the metrics. Raises TrainingError when no answer has a gold score.
        """
        # The same draw at every evaluation: what changes is the policy.
        rollouts, _ = collector.answer(self.prompts, seed=self.config.seed + 104_729)
        if not rollouts:
            raise TrainingError(f"brake: step {step}: no held-out answer has a reward")
        experience, _ = measure(rollouts, policy, reference, None, self.runtime, self.config)
        own = range(self.runtime.rank, len(rollouts), self.runtime.world)
        scored = self.gold(
            [rollouts[n].prompt for n in own], [rollouts[n].completion.text for n in own]
        ).total
        known = {
            n: s for part in self.runtime.gather(dict(zip(own, scored, strict=True))) for n, s in part.items()
        }
        gold = {str(rollouts[n].group): s for n, s in sorted(known.items()) if s is not None}
        if not gold:
            raise TrainingError(f"brake: step {step}: gold could score none of {len(rollouts)} answers")
        self.brake.add(
            Evaluation(
                step=step,
                proxy=sum(rollout.reward for rollout in rollouts) / len(rollouts),
                kl=float(experience.kl_R.mean()),
                gold_by_prompt=gold,
            )
        )
        if self.brake.best.step == step:
            save(self._folder(step))
        if self.runtime.is_main:
            self._log()
        newest = self.brake.evaluations[-1]
        return {"held_out_gold": newest.gold, "held_out_proxy": newest.proxy, "held_out_kl": newest.kl}

    def keep_best(self, directory: Path, card: str) -> None:
        """Make the best policy so far the one in `directory`."""
        best = self._folder(self.brake.best.step)
        (best / "README.md").write_text(card, encoding="utf-8")
        move_into(best, directory)

    def tidy(self) -> None:
        """Drop policies that were the best once. Only after a checkpoint: a resumed run may go back to one."""
        for folder in self._root.glob("step-*"):
            if folder != self._folder(self.brake.best.step):
                shutil.rmtree(folder)

    def clear(self) -> None:
        """Drop them all: the run is finished."""
        shutil.rmtree(self._root, ignore_errors=True)

    @property
    def _root(self) -> Path:
        return self.config.output_dir / "brake"

    def _folder(self, step: int) -> Path:
        return self._root / f"step-{step:06d}"

    def _log(self) -> None:
        write_jsonl(self.config.output_dir / "brake.jsonl", self.brake.rows())


def held_out_prompts(brake: BrakeConfig) -> list[Prompt]:
    """The first `limit` held-out prompts. Raises TrainingError when there are too few."""
    prompts = list(report_left_out(read_prompts(brake.prompts, limit=brake.limit)))
    if len(prompts) < LEAST_PROMPTS:
        raise TrainingError(
            f"brake.prompts: {len(prompts)} prompts are too few to tell a fall from noise; give {LEAST_PROMPTS}"
        )
    return prompts
