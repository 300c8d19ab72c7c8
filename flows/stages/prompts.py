"""Prompts in one form: read from wherever they come, what fits the model's context kept, the rest counted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from common.files import write_jsonl
from common.rows import Prompt, read_prompts, report_left_out
from flows.errors import FlowError
from flows.pipeline.forecast.needs import Forecaster, Needs
from flows.stages.contract import Artifact, Inputs, Json, Result, Stage, StageInput

if TYPE_CHECKING:
    from flows.config import RunConfig

PURPOSES = ("sl", "sl_benign", "rl", "eval")


def run(work: StageInput) -> Result:
    """Write `<purpose>.jsonl` for every purpose; prompts too long to be answered go to `too_long.jsonl`."""
    fits = _fits(work)
    outputs: dict[str, str] = {}
    counts: dict[str, Any] = {}
    left_out = 0
    too_long: list[dict[str, Any]] = []
    for purpose in PURPOSES:
        if purpose not in work.inputs:
            continue
        taken = {
            "limit": work.settings["limits"][purpose],
            "skip": work.settings.get("skips", {}).get(purpose, 0),
        }
        prompts = report_left_out(read_prompts(work.input(purpose), **taken))
        left_out += len(prompts.left_out)
        kept = [p for p in prompts if fits(p, work.settings["room"][purpose])]
        kept_ids = {p.id for p in kept}
        too_long += [{"purpose": purpose, **p.row()} for p in prompts if p.id not in kept_ids]
        if not kept:
            raise FlowError(
                f"{work.inputs[purpose]}: none of its {len(prompts)} prompts fits the model's context"
            )
        outputs[purpose] = f"{purpose}.jsonl"
        counts[purpose] = write_jsonl(work.directory / f"{purpose}.jsonl", (p.row() for p in kept))
    write_jsonl(work.directory / "too_long.jsonl", too_long)
    return Result(
        outputs=outputs,
        metrics={**counts, "too_long": len(too_long)} | ({"left_out": left_out} if left_out else {}),
    )


def _fits(work: StageInput) -> Any:
    from transformers import AutoConfig

    from common.chat import encode_prompt, naming
    from training.models.load import load_tokenizer

    base = work.inputs["base"]
    tokenizer = load_tokenizer(base)
    config = AutoConfig.from_pretrained(base, trust_remote_code=False).get_text_config()
    context = getattr(config, "max_position_embeddings", None) or 2**31

    def fits(prompt: Prompt, room: int) -> bool:
        with naming(prompt.place or prompt.id):
            return len(encode_prompt(tokenizer, prompt.prompt)) + room <= context

    return fits


def _inputs(inputs: Inputs) -> dict[str, Artifact]:
    from flows.runs.digests import digest_file

    found = {"base": inputs.model("base")}
    if inputs.config.prompts is None:
        for purpose in PURPOSES:
            found[purpose] = inputs.output("world", f"prompts_{purpose}")
        return found
    for purpose in PURPOSES:
        source = getattr(inputs.config.prompts, purpose)
        if source is not None:
            found[purpose] = Artifact(path=str(source.path), digest=digest_file(source.path))
    return found


def _settings(config: RunConfig) -> Json:
    """`room` is the longest answer that each purpose asks for, in tokens."""
    room = {
        "sl": config.critique_revision.response.max_new_tokens,
        "sl_benign": config.critique_revision.response.max_new_tokens,
        "rl": max(config.pairs.sampling.max_new_tokens, getattr(config.rl, "max_new_tokens", 0)),
        "eval": config.evaluate.sampling.max_new_tokens,
    }
    sources = {p: getattr(config.prompts, p, None) for p in PURPOSES}
    limits = {p: source.limit if source else None for p, source in sources.items()}
    skips = {p: source.skip for p, source in sources.items() if source and source.skip}
    return {"room": room, "limits": limits} | ({"skips": skips} if skips else {})


def _forecast(ahead: Forecaster) -> Needs:
    """The prompts in one form."""
    total = sum(ahead.inputs.count(purpose) for purpose in PURPOSES)
    return Needs(disk_bytes=round(total * (ahead.inputs.prompt_bytes + 120)), source=f"{total:,} prompts")


STAGE = Stage(
    name="prompts",
    title="Prompts, checked against the model's context",
    isolated=True,
    inputs=_inputs,
    settings=_settings,
    run=run,
    forecast=_forecast,
    summary=lambda m: (
        ", ".join(f"{m[p]} {p.replace('_', ' ')}" for p in PURPOSES if p in m)
        + (f"; {m['too_long']} too long, left out" if m["too_long"] else "")
        + (f"; {m['left_out']} rows left out" if m.get("left_out") else "")
    ),
)
