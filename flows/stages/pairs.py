"""Two answers of the SL-CAI model to every prompt; identical ones are no pair and are counted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flows.digests import digest_json
from flows.errors import FlowError
from flows.files import write_jsonl
from flows.stages.base import Result, Stage, Work
from flows.stages.sampling import Sampler, sample_in_parts
from training.data import read_prompts

if TYPE_CHECKING:
    from flows.config import RunConfig


def run(work: Work) -> Result:
    """Write pairs.jsonl. An empty answer is an answer: the judge will say what it is worth.

    Raises FlowError when no two answers differ.
    """
    prompts = read_prompts([work.input("prompts")])
    sampler = Sampler(work.inputs["model"], dtype=work.settings["dtype"])
    twice = [p.prompt for p in prompts for _ in "ab"]
    answers = sample_in_parts(
        work, "answers", sampler, twice, work.settings["sampling"], batch_size=work.tuning["batch_size"]
    )
    rows: list[dict[str, Any]] = []
    for prompt, a, b in zip(prompts, answers[::2], answers[1::2], strict=True):
        if "prompt_too_long" in (a.finish, b.finish) or a.text == b.text:
            continue
        rows.append(
            {
                "id": f"{prompt.id}.{digest_json([a.text, b.text])[:8]}",
                "prompt_id": prompt.id,
                "prompt": prompt.prompt,
                "a": a.text,
                "b": b.text,
                "meta": prompt.meta,
            }
        )
    if not rows:
        raise FlowError(
            f"all {len(prompts)} pairs of answers are identical: raise pairs.sampling.temperature"
        )
    write_jsonl(work.directory / "pairs.jsonl", rows)
    return Result(
        outputs={"pairs": "pairs.jsonl"},
        metrics={
            "pairs": len(rows),
            "identical": len(prompts) - len(rows),
            "empty_answers": sum(not a.text.strip() for a in answers),
            "truncated_answers": sum(a.finish == "length" for a in answers),
        },
    )


def _settings(config: RunConfig) -> dict[str, Any]:
    return {
        "sampling": config.pairs.sampling.model_dump(exclude={"batch_size"}),
        "dtype": config.models.dtype,
    }


STAGE = Stage(
    name="pairs",
    title="Pairs of answers",
    isolated=True,
    inputs=lambda inputs: {"model": inputs.model("sl_cai"), "prompts": inputs.output("prompts", "rl")},
    settings=_settings,
    tuning=lambda config: {"batch_size": config.pairs.sampling.batch_size},
    run=run,
    summary=lambda m: f"{m['pairs']} pairs, {m['identical']} identical left out",
)
