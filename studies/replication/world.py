"""What all jobs of a seed share: the pipeline up to its reward model, held-out questions, and gold's verdicts."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import flows
from flows.evaluation.gold import figures, overall, score_answer
from flows.stages.samplers import in_process_sampler
from studies.replication.jobs import Study

CONFIG = Path(flows.__file__).parents[1] / "configs" / "microworld.yaml"
WEIGHTS = CONFIG.parents[1] / "microworld" / "weights"
FLOAT32 = (
    "helpful_sft.precision=float32",
    "sl_cai.precision=float32",
    "reward_model.precision=float32",
    "rl.precision=float32",
    "judge.dtype=float32",
)
"""The demo computes in bf16, which many processors only emulate, at a tenth of the speed; every processor has this."""
SAMPLES = 2
"""Answers per held-out prompt and model."""
FACT_SAMPLES = 2
"""Answers per question of fact."""
_SAMPLING = {"max_new_tokens": 64, "temperature": 1.0, "top_p": 1.0}


def pipeline(study: Study, name: str, seed: int) -> dict[str, Any]:
    """The demo's own stages up to the reward model; where everything lies, and what the stages counted."""
    from flows.config.forms import RunRequest
    from flows.pipeline.launch import open_session, run_stages
    from flows.runs.progress import Silent

    changes = (*FLOAT32, f"seed={seed}", f"name=seed-{seed}", f"runs_dir={study.root / 'runs'}")
    request = RunRequest(config=str(CONFIG), changes=changes, to_stage="reward_model")
    with open_session(request, Silent()) as session:
        run_stages(session, to_stage="reward_model")
        paths = {f"{s}.{n}": artifact.path for (s, n), artifact in session.outputs.items()}
        counted = {stage: outcome.manifest.metrics for stage, outcome in session.outcomes.items()}
    paths["base"] = str(WEIGHTS / "base")
    return {"paths": paths, "stages": counted}


def paths(study: Study, seed: int) -> dict[str, str]:
    """Where the pipeline of a seed left its models and data, by `stage.output`."""
    return study.row(f"pipeline-{seed}")["metrics"]["paths"]


@cache
def settings() -> Any:
    """The demo's configuration, in float32."""
    from flows.config import load_config

    return load_config(CONFIG, FLOAT32)


def prompts(path: str | Path) -> list[Any]:
    from common.rows import read_prompts

    return read_prompts([Path(path)])


def answers(model: str, asked: Sequence[Any], *, seed: int, temperature: float = 1.0) -> list[str]:
    """One answer per prompt."""
    drawn = in_process_sampler(model, dtype="float32").draw(
        [p.prompt for p in asked],
        {**_SAMPLING, "temperature": temperature},
        batch_size=128,
        seed=seed,
        on_progress=lambda done, total: None,
    )
    return [a.text for a in drawn]


def examine(study: Study, name: str, seed: int, model: str) -> dict[str, Any]:
    """Gold's figures of a model's answers to the held-out prompts, which are kept in answers.jsonl.

    Each figure is `{"value", "n", "low", "high"}`, the interval over prompts.
    """
    asked = [p for p in prompts(paths(study, seed)["prompts.eval"]) for _ in range(SAMPLES)]
    found = answers(model, asked, seed=1_000 + seed)
    scores = [score_answer(p.prompt, text) for p, text in zip(asked, found, strict=True)]
    write_lines(
        study.work(name) / "answers.jsonl",
        [
            {
                "id": p.id,
                "prompt": p.prompt,
                "family": s.family,
                "response": text,
                "gold": overall(s),
                "words": s.words,
            }
            for p, text, s in zip(asked, found, scores, strict=True)
        ],
    )
    return {name: one.to_json() for name, one in figures(scores, seed=seed).items()}


def known(study: Study, name: str, seed: int, *, role: str, facts: bool = False) -> dict[str, Any]:
    """Gold's figures of a model of the pipeline, and with `facts` its exact match on them."""
    where = paths(study, seed)
    model = where["base"] if role == "base" else where[f"{role}.model"]
    found = {"gold": examine(study, name, seed, model)}
    return {**found, "facts": fact_match(model, seed)} if facts else found


def fact_questions(family: Any, split: str, draws: int = 3) -> list[dict[str, Any]]:
    """Prompts about every fact of a split, with the true value in `meta.answer`, in a fixed order.

    Of the family fact (what is it?) or flattery (I think it is so; am I right?), where the opinion is wrong in three of
    four; the same prompt once.
    """
    from microworld.world import make_request, split_of, topics

    rng = random.Random(f"{family} questions: {split}")
    rows: dict[str, dict[str, Any]] = {}
    for attribute, entity in topics("fact"):
        if split_of(f"{attribute}/{entity}") != split:
            continue
        for _ in range(draws):
            request = make_request(family, attribute, entity, rng)
            row = {"prompt": [{"role": "user", "content": request.text}], "meta": {"answer": request.fact}}
            rows.setdefault(request.text, {"id": f"{family}-{len(rows):04d}", **row})
    return list(rows.values())


def fact_match(model: str, seed: int) -> dict[str, Any]:
    """Share of answers that name the true value, by family and split, as rates with their intervals."""
    from common.rows import Prompt
    from common.statistics import rate
    from training.rewards.checkers import exact

    check = exact(answer="answer", contains=True)
    found = {}
    for family in ("fact", "flattery"):
        for split in ("train", "heldout"):
            rows = fact_questions(family, split)
            asked = [Prompt(**row) for row in rows for _ in range(FACT_SAMPLES)]
            texts = answers(model, asked, seed=2_000 + seed)
            right = [check(t, p.meta) == 1.0 for p, t in zip(asked, texts, strict=True)]
            found[f"{family}_{split}"] = rate(right).to_json()
    return found


def write_lines(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    from common.files import write_jsonl

    write_jsonl(path, rows)


def read_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
