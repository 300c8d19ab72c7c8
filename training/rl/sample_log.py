"""`samples.jsonl`: some of each step's responses, for people to read and for a held-out judge to score."""

from __future__ import annotations

import json
import random
from pathlib import Path

from common.files import write_jsonl
from training.rl.experience import Experience
from training.run.logs import read_metrics


class SampleLog:
    """Appends `count` responses a step, drawn by seed and step; `resume_at` drops rows after that step."""

    def __init__(self, output_dir: Path, *, count: int, seed: int, resume_at: int = 0) -> None:
        self.count, self.seed = count, seed
        path = output_dir / "samples.jsonl"
        rows = [row for row in read_metrics(path) if row["step"] <= resume_at] if resume_at else []
        write_jsonl(path, rows)
        self._file = path.open("a", encoding="utf-8")

    def write(self, step: int, experience: Experience) -> None:
        """Write a step's sample: prompt, response, reward, and KL to the reference in nats."""
        rollouts, kl = experience.rollouts, experience.kl_R.tolist()
        draw = random.Random(f"{self.seed}/{step}/samples")
        for index in sorted(draw.sample(range(len(rollouts)), min(self.count, len(rollouts)))):
            rollout = rollouts[index]
            row = {
                "step": step,
                "prompt_id": rollout.prompt.id,
                "prompt": rollout.prompt.prompt,
                "response": rollout.answer,
                "reward": rollout.reward,
                "kl": kl[index],
                "tokens": len(rollout.completion.token_ids),
                "finish_reason": rollout.completion.finish_reason,
            }
            if rollout.answer != rollout.completion.text:
                row["sampled"] = rollout.completion.text
            self._file.write(_line(row))
        self._file.flush()

    def close(self) -> None:
        self._file.close()


def _line(row: dict) -> str:
    return json.dumps(row, ensure_ascii=False) + "\n"
