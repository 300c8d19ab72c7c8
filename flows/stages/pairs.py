"""Two answers to every prompt; identical ones are no pair and are counted.

Both are the SL-CAI model's, or, for a share of the prompts, the second is another model's: what the SL-CAI model hardly
says any more, such as a refusal of a harmless request, would otherwise be a blind spot of the reward model, and the
policy finds those.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from common.files import write_jsonl
from common.rows import read_prompts
from flows.errors import FlowError
from flows.pipeline.forecast.needs import ROW, Forecaster, Needs
from flows.runs.digests import digest_json
from flows.stages.contract import Artifact, Inputs, Json, Result, Stage, StageInput
from flows.stages.samplers import Answer, Messages, engine_settings, engine_tuning, sampler_of
from flows.stages.sampling import sample_in_parts, spent

if TYPE_CHECKING:
    from flows.config import RunConfig


_KINDS = {"contrast": "contrast answer"}


def run(work: StageInput) -> Result:
    """Write pairs.jsonl. An empty answer is an answer: the judge will say what it is worth. A thought that did not end
    is none.

    Raises FlowError when no two answers differ.
    """
    prompts = read_prompts([work.input("prompts")])
    asked = [p.prompt for p in prompts]
    contrasted = [_is_contrasted(work, p.id) for p in prompts]
    mine = [q for q, c in zip(asked, contrasted, strict=True) if not c]
    firsts, own = _sample(work, "model", {"answers-a": asked, "answers-b": mine})
    theirs = [q for q, c in zip(asked, contrasted, strict=True) if c]
    (other,) = _sample(work, "contrast", {"answers-contrast": theirs}) if theirs else ([],)
    queues = {False: iter(own), True: iter(other)}
    seconds = [next(queues[c]) for c in contrasted]
    rows: list[dict[str, Any]] = []
    unfinished = 0
    for prompt, a, b in zip(prompts, firsts, seconds, strict=True):
        if a.unfinished_thought or b.unfinished_thought:
            unfinished += 1
            continue
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
            "contrasted": sum(contrasted),
            "identical": len(prompts) - len(rows) - unfinished,
            **({"unfinished_thoughts": unfinished} if unfinished else {}),
            "empty_answers": sum(not a.text.strip() for a in firsts + seconds),
            "truncated_answers": sum(a.finish == "length" for a in firsts + seconds),
            "texts": spent(work),
        },
    )


def _sample(work: StageInput, role: str, asked: Mapping[str, Sequence[Messages]]) -> list[list[Answer]]:
    """One model's answers to several lists of conversations, each under its name."""
    sampler = sampler_of(work, role)
    how, batch_size = work.settings["sampling"], work.tuning["batch_size"]
    found = [
        sample_in_parts(
            work, name, sampler, conversations, how, batch_size=batch_size, kind=_KINDS.get(role, "pair")
        )
        for name, conversations in asked.items()
    ]
    sampler.close()
    return found


def _is_contrasted(work: StageInput, prompt_id: str) -> bool:
    share = int(digest_json([work.seed, "contrast", prompt_id])[:8], 16) / 0xFFFFFFFF
    return share < work.settings["contrast_share"]


def _inputs(inputs: Inputs) -> dict[str, Artifact]:
    found = {"model": inputs.model("sl_cai"), "prompts": inputs.output("prompts", "rl")}
    if contrast := inputs.config.pairs.contrast:
        found["contrast"] = inputs.model(contrast)
    return found


def _settings(config: RunConfig) -> Json:
    return {
        "sampling": config.pairs.sampling.model_dump(exclude={"batch_size"}),
        "contrast_share": config.pairs.contrast_share if config.pairs.contrast else 0.0,
        "dtype": config.models.dtype,
        **engine_settings(config),
    }


def _forecast(ahead: Forecaster) -> Needs:
    """Two answers to every prompt."""
    prompts, longest = ahead.inputs.count("rl"), ahead.config.pairs.sampling.max_new_tokens
    # Each answer lies in its part and in its pair.
    answer = longest * ahead.inputs.bytes_per_token
    disk = prompts * (4 * answer + ahead.inputs.prompt_bytes + 2 * ROW)
    models = ("sl_cai", *filter(None, [ahead.config.pairs.contrast]))
    return ahead.sampling(2 * prompts, 2 * prompts * longest, disk, models=models)


STAGE = Stage(
    name="pairs",
    title="Pairs of answers",
    isolated=True,
    samples=True,
    inputs=_inputs,
    settings=_settings,
    tuning=lambda config: {"batch_size": config.pairs.sampling.batch_size, **engine_tuning(config)},
    run=run,
    forecast=_forecast,
    summary=lambda m: f"{m['pairs']} pairs, {m['identical']} identical left out",
)
