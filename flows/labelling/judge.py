"""From a configuration to a judge, to how it is asked, and to the labels of a shard of pairs.

A shard opens the ledger and reaches the judge by itself, wherever it lands.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from constitution.snapshot import from_json
from flows.config import RunConfig
from flows.errors import FlowError
from flows.runs.digests import local_folder
from judges import (
    InProcessJudge,
    Judge,
    JudgeError,
    LabelReport,
    LabelSettings,
    Ledger,
    OpenAIJudge,
    Pair,
    Prices,
    VllmJudge,
    label_pairs,
)
from judges.settings import JudgeSettings, PricedJudge
from judges.thinking import ThinkingBudget


def make_judge(
    settings: JudgeSettings | Mapping[str, Any],
    *,
    logs: Path | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Judge:
    """The judge of these settings, or of what `judge_tuning` made of them. Nothing is loaded, started or asked yet.

    `logs` takes the logs of the servers that are started for it, `say` hears how long they have been loading.
    Raises JudgeError for a model folder or settings that cannot work.
    """
    if not isinstance(settings, JudgeSettings):
        settings = PricedJudge.model_validate(settings)
    if settings.kind == "in_process":
        from transformers.utils.logging import disable_progress_bar

        disable_progress_bar()  # its bar would tear through the run's own progress
        assert settings.model is not None
        return InProcessJudge(settings.model, dtype=settings.dtype, thinking=settings.thinking)
    prices = settings.prices if isinstance(settings, PricedJudge) else None
    asking = settings.model_dump(include={"concurrency", "prompts_per_request", "timeout_s"})
    if settings.kind == "vllm":
        assert settings.model is not None
        folder = local_folder(settings.model)
        if folder is None:
            raise JudgeError(
                f"judge.model: {settings.model}: is not in the local hub cache; download it first"
            )
        return VllmJudge(
            folder,
            settings.vllm(),
            dtype=settings.dtype,
            logs=logs,
            say=say,
            prices=prices,
            thinking=settings.thinking,
            **asking,
        )
    return OpenAIJudge(
        endpoints=list(settings.endpoints),
        model=settings.model,
        tokenizer=settings.tokenizer,
        revision=settings.revision,
        api_key_env=settings.api_key_env,
        prices=prices,
        thinking=settings.thinking,
        **asking,
    )


@contextmanager
def closing(judge: Judge) -> Iterator[Judge]:
    """The judge; afterwards its connections are closed, and the servers that were started for it have ended."""
    try:
        yield judge
    finally:
        close_judge(judge)


def close_judge(judge: Judge) -> None:
    """Let go of a judge's connections, and of the servers that were started for it."""
    if isinstance(judge, OpenAIJudge | VllmJudge):
        judge.close()


def priced_judge(config: RunConfig) -> PricedJudge:
    """The run's judge, with the prices that the configuration states."""
    read, written = config.prices.price_per_million_tokens, config.prices.price_per_million_written_tokens
    prices = None if read is None else Prices(prompt=read, completion=read if written is None else written)
    return PricedJudge(**config.judge.model_dump(), prices=prices)


def judge_tuning(config: RunConfig) -> dict[str, Any]:
    """The run's judge as plain data, for the tuning of a stage."""
    return priced_judge(config).model_dump(mode="json")


def judge_at(
    place: str,
    *,
    model: str | None,
    tokenizer: str | None,
    api_key_env: str | None,
    thinking_budget: int | None = None,
) -> JudgeSettings:
    """The settings for a model folder, or for the server at an address; `model` is the name that it is served under.
    With a `thinking_budget` the judge thinks first.

    Raises FlowError in one line.
    """
    thinking = None if thinking_budget is None else ThinkingBudget(budget=thinking_budget)
    try:
        if "://" not in place:
            return JudgeSettings(model=place, thinking=thinking)
        return JudgeSettings(
            kind="openai",
            model=model,
            endpoints=(place,),
            tokenizer=tokenizer,  # type: ignore[arg-type]  # a path as text
            api_key_env=api_key_env,
            thinking=thinking,
        )
    except ValidationError as error:
        raise FlowError(
            f"judge: {place}: {error.errors()[0]['msg'].removeprefix('Value error, ')}"
        ) from error


def label_settings(config: RunConfig) -> LabelSettings:
    """How a run asks its judge."""
    section = config.labels.model_dump(include=set(LabelSettings.model_fields))
    return LabelSettings(**section, seed=config.seed)


@dataclass(frozen=True, kw_only=True)
class LabelShard:
    """Labels the pairs it is called with; plain data, so that a task runner can carry it to another machine.

    `constitution` is a snapshot (`constitution.snapshot`), `ledger` a URL without a
    password, `logs` the folder of the logs of servers that are started. `listen(first pair's id, report)` hears of
    every commit, `say` how long servers have been loading; both stay behind when the shard travels.
    """

    constitution: Mapping[str, Any]
    settings: LabelSettings
    judge: PricedJudge
    ledger: str
    logs: str | None = None
    listen: Callable[[str, LabelReport], None] | None = None
    say: Callable[[str], None] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in ("listen", "say")}

    def __call__(self, pairs: list[Pair]) -> LabelReport:
        """Raises JudgeError or LedgerError; what was committed before stays."""
        listen = self.listen
        with Ledger.open(self.ledger) as ledger:
            return label_pairs(
                pairs,
                constitution=from_json(self.constitution),
                judge=_kept_judge(self),
                ledger=ledger,
                settings=self.settings,
                on_progress=None if listen is None else lambda report: listen(pairs[0].id, report),
            )


_kept: dict[PricedJudge, Judge] = {}
_keeping = threading.Lock()


def _kept_judge(shard: LabelShard) -> Judge:
    """One judge a process: its model, connections, servers and tokenizer serve shard after shard."""
    with _keeping:
        if shard.judge not in _kept:
            _drop()
            logs = None if shard.logs is None else Path(shard.logs)
            say = shard.say or (lambda line: None)
            _kept[shard.judge] = make_judge(shard.judge, logs=logs, say=say)
        return _kept[shard.judge]


def drop_judge() -> None:
    """Let go of the judge that this process kept, and of its servers: the next stage needs the memory."""
    with _keeping:
        _drop()


def _drop() -> None:
    while _kept:
        close_judge(_kept.popitem()[1])
