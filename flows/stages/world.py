"""The microworld's demonstrations and prompts (only when `gold: microworld`)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from common.files import write_jsonl
from common.rows import read_rows
from flows.runs.digests import digest_json, digest_path
from flows.stages.contract import Result, Stage, StageInput

if TYPE_CHECKING:
    from flows.config import RunConfig


def run(work: StageInput) -> Result:
    """Write demonstrations and prompts; prompts of critique and revision go into two files, by whether gold
    calls them harmful."""
    from microworld.data import WorldSizes, write_world
    from microworld.world import BENIGN

    paths = write_world(work.directory, seed=work.seed, sizes=WorldSizes(**work.settings["sizes"]))
    mixed = paths.pop("prompts_sl")
    rows = [row for _, row in read_rows(mixed)]
    counts = {}
    for name, benign in (("prompts_sl", False), ("prompts_sl_benign", True)):
        paths[name] = work.directory / f"{name}.jsonl"
        counts[name] = write_jsonl(
            paths[name], [r for r in rows if (r["meta"]["family"] in BENIGN) is benign]
        )
    return Result(outputs={name: path.name for name, path in paths.items()}, metrics=counts)


def _settings(config: RunConfig) -> dict[str, object]:
    assert config.world is not None
    return {"sizes": config.world.model_dump(), "source": _source_digest()}


def _source_digest() -> str:
    """The world is made by code: when its grammar changes, its prompts are stale."""
    import microworld

    folder = Path(microworld.__file__).parent
    return digest_json(
        {n: digest_path(folder / f"{n}.py") for n in ("data", "lexicon", "responses", "world")}
    )


STAGE = Stage(
    name="world",
    title="The microworld's prompts and demonstrations",
    inputs=lambda inputs: {},
    settings=_settings,
    run=run,
    active=lambda config: config.world is not None,
    summary=lambda m: f"{m['prompts_sl']} red-team and {m['prompts_sl_benign']} harmless prompts",
)
