"""A look at everything that a run will need, before anything is spent: each problem is one line."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TypeVar

import httpx

from common.digest import digest
from common.errors import DataError
from common.rows import Prompt, Rows, read_examples, read_preferences, read_prompts, report_left_out
from constitution import Constitution, templates_digest
from engines import EngineError
from engines.fleet import check_devices
from flows.config import RunConfig
from flows.config.data import CriticEndpoints
from flows.config.judging import JudgeSection
from flows.errors import FlowError
from flows.labelling.gates import exam_gate
from flows.labelling.ledger import check_people
from flows.pipeline.preflight_models import check_hub_model, check_model, check_tokens
from flows.runs.digests import is_hub_id
from flows.runs.store import RunStore
from flows.stages import judge_exam
from flows.stages.registry import active
from judges.asking.templates import TemplateSet
from judges.known import read_known_pairs
from training.config.rl_sections import LEAST_PROMPTS
from training.errors import TrainingError
from training.models.files import check_model as check_trained_model

R = TypeVar("R")


def preflight(config: RunConfig, constitution: Constitution) -> None:
    """Check constitution, templates, files, models and endpoints, the cheap ones first.

    Raises FlowError or JudgeError: one line that says what is wrong and where.
    """
    check_constitution(config, constitution)
    TemplateSet(config.labels.templates)
    templates_digest(config.critique_revision.templates)
    check_run_directory(config.run_directory)
    if config.run_url is not None:
        RunStore(config.run_url).check()
    check_model(config.models.base, "models.base")
    critic = config.models.critic
    if isinstance(critic, CriticEndpoints):
        check_endpoints(critic, "models.critic")
    elif critic is not None:
        check_model(critic, "models.critic")
    check_servers(config)
    check_data(config)
    check_judge(config.judge, "judge")
    check_early_stopping(config)
    check_exam(config, constitution)
    for stage in active(config):
        stage.settings(config)
    check_tokens(config)


def check_constitution(config: RunConfig, constitution: Constitution) -> None:
    """Principles of both kinds, enough of them, and a published version unless the config allows otherwise."""
    if not constitution.published and not config.allow_unpublished:
        raise FlowError(
            f"constitution: {constitution.ref} is not published; publish it (charter constitution publish "
            f"{constitution.name}) or set allow_unpublished: true for a trial"
        )
    for kind in ("critique", "comparison"):
        enabled = [p for p in getattr(constitution, kind) if p.enabled and p.weight > 0]
        if not enabled:
            raise FlowError(f"constitution: {constitution.ref} has no enabled {kind} principle")
        if kind == "comparison" and config.labels.principles > len(enabled):
            raise FlowError(
                f"labels.principles: {config.labels.principles} is not allowed: {constitution.ref} has "
                f"{len(enabled)} enabled comparison principles"
            )


def check_data(config: RunConfig) -> None:
    """Every prompts file parses and is not empty, and so do the demonstrations and people's pairs."""
    if config.prompts is not None:
        asked: dict[str, Rows[Prompt]] = {}
        for purpose in ("sl", "sl_benign", "rl", "eval"):
            source = getattr(config.prompts, purpose)
            if source is not None:
                asked[purpose] = _read(
                    f"prompts.{purpose}",
                    partial(read_prompts, source.path, limit=source.limit, skip=source.skip),
                )
        check_held_out(asked)
    if config.demonstrations is not None:
        _read("demonstrations.path", partial(read_examples, config.demonstrations.path))
    if config.reward_model.human is not None:
        _read("reward_model.human.path", partial(read_preferences, config.reward_model.human.path))


def check_held_out(asked: Mapping[str, Rows[Prompt]]) -> None:
    """No prompt that trains is asked again at the end. `asked` are the prompts of each purpose."""
    evaluated = {digest(prompt.prompt) for prompt in asked["eval"]}
    for purpose, rows in asked.items():
        if purpose == "eval":
            continue
        if shared := [p for p in rows if digest(p.prompt) in evaluated]:
            raise FlowError(
                f"prompts.eval: {len(shared)} of its {len(evaluated)} prompts are in prompts.{purpose} too, first "
                f"{shared[0].place}: evaluation wants prompts that never trained; leave out the first ones with "
                "prompts.eval.skip, or name another file"
            )


def _read(field: str, read: Callable[[], Rows[R]]) -> Rows[R]:
    """The rows of a file that `field` of the configuration names; what of it is left out is said on stderr."""
    try:
        return report_left_out(read())
    except DataError as error:
        raise FlowError(f"{field}: {error}") from error


def check_exam(config: RunConfig, constitution: Constitution) -> None:
    """The exam's pairs can be read; without any of one's own, the ledger holds no exam that the judge failed."""
    for path in config.exam.pairs:
        _read("exam.pairs", partial(read_known_pairs, path))
    # A run that examines its judge does so in a moment, perhaps with other thresholds than last time.
    if not judge_exam.STAGE.active(config):
        exam_gate(config, constitution)


def check_judge(judge: JudgeSection, field: str) -> None:
    """A judge's own folder and tokenizer are whole; every one of its servers serves its model."""
    if judge.kind == "openai":
        check_endpoints(judge, field)
    else:
        check_model(judge.model, f"{field}.model")


def check_endpoints(section: JudgeSection | CriticEndpoints, field: str) -> None:
    """The tokenizer's folder is one, and every server answers and serves the model."""
    if section.tokenizer is not None and not (section.tokenizer / "tokenizer_config.json").is_file():
        raise FlowError(f"{field}.tokenizer: {section.tokenizer}: has no tokenizer (tokenizer_config.json)")
    for endpoint in section.endpoints:
        check_endpoint(endpoint, section.model, section.api_key_env, field)


def check_servers(config: RunConfig) -> None:
    """vLLM's environment is there where the run will start servers, and so are the GPUs that they take."""
    for field, section in (("sampling", config.sampling), ("judge", config.judge)):
        if section.kind == "vllm":
            try:
                check_devices(section.vllm())
            except EngineError as error:
                raise FlowError(f"{field}: {error}") from error
    for endpoint in config.sampling.endpoints:
        check_endpoint(endpoint, None, config.sampling.api_key_env, "sampling")


def check_early_stopping(config: RunConfig) -> None:
    """The gold judge of early stopping can be had, and there are prompts enough to hold out."""
    section = getattr(config.rl, "early_stopping", None)
    if section is None:
        return
    if section.microworld and config.gold is None:
        raise FlowError(
            "rl.early_stopping.microworld: the oracle reads the microworld's prompts alone; gold: microworld says "
            "these are, or name another gold"
        )
    if section.judge is not None:
        check_judge(section.judge, "rl.early_stopping.judge")
    if section.model is not None:
        if is_hub_id(section.model):
            check_hub_model(section.model, "rl.early_stopping.model")
        else:
            try:
                check_trained_model(section.model, head="reward")
            except TrainingError as error:
                raise FlowError(f"rl.early_stopping.{error}") from error
    if section.people:
        check_people(config)
    if config.prompts is not None:
        sources = filter(None, (config.prompts.sl, config.prompts.sl_benign))
        held_out = sum(
            len(read_prompts(source.path, limit=source.limit, skip=source.skip)) for source in sources
        )
        if held_out < LEAST_PROMPTS:
            raise FlowError(
                f"rl.early_stopping: needs {LEAST_PROMPTS} held-out prompts; prompts.sl and prompts.sl_benign have "
                f"{held_out}"
            )


def check_endpoint(url: str, model: str | None, api_key_env: str | None, field: str) -> None:
    """The server answers `/v1/models` and serves the model of the judge that is `field` of the configuration."""
    headers = {}
    if api_key_env is not None:
        key = os.environ.get(api_key_env)
        if not key:
            raise FlowError(f"{field}.api_key_env: the environment variable {api_key_env} is not set")
        headers["Authorization"] = f"Bearer {key}"
    models_url = f"{url.rstrip('/').removesuffix('/v1')}/v1/models"
    try:
        response = httpx.get(models_url, headers=headers, timeout=10)
    except httpx.HTTPError as error:
        reason = str(error) or type(error).__name__
        raise FlowError(f"{field}.endpoints: {url}: no answer: {reason}") from error
    if response.status_code in (401, 403):
        hint = (
            f"the key in {api_key_env} is refused"
            if api_key_env
            else f"it asks for a key; set {field}.api_key_env"
        )
        raise FlowError(f"{field}.endpoints: {url}: {hint}")
    try:
        response.raise_for_status()
        served = [entry["id"] for entry in response.json()["data"]]
    except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
        raise FlowError(
            f"{field}.endpoints: {url}: not an OpenAI-compatible server (/v1/models answered "
            f"{response.status_code})"
        ) from error
    if model is not None and model not in served:
        raise FlowError(f"{field}.model: {model}: {url} serves {', '.join(served) or 'no model'}")


def check_run_directory(path: Path) -> None:
    """The run directory can be made and written."""
    existing = path
    while not existing.exists():
        existing = existing.parent
    if not existing.is_dir():
        raise FlowError(f"runs_dir: {existing}: is not a folder")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise FlowError(f"runs_dir: {existing}: cannot be written to")
