"""From a configuration to a judge, to how it is asked, and to the labels of a shard of pairs.

A shard opens the ledger and reaches the judge by itself, wherever it lands.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from pydantic import ValidationError

from constitution.snapshot import from_json
from flows.config import RunConfig
from flows.errors import FlowError
from judges import (
    InProcessJudge,
    Judge,
    LabelReport,
    LabelSettings,
    Ledger,
    OpenAIJudge,
    Pair,
    Prices,
    label_pairs,
)
from judges.settings import JudgeSettings, PricedJudge


def make_judge(settings: JudgeSettings | Mapping[str, Any]) -> Judge:
    """The judge of these settings, or of what `judge_tuning` made of them. Nothing is loaded or asked yet.

    Raises JudgeError for a model folder or settings that cannot work.
    """
    if not isinstance(settings, JudgeSettings):
        settings = PricedJudge.model_validate(settings)
    if settings.kind == "in_process":
        from transformers.utils.logging import disable_progress_bar

        disable_progress_bar()  # its bar would tear through the run's own progress
        assert settings.model is not None
        return InProcessJudge(settings.model, dtype=settings.dtype)
    asked = settings.model_dump(exclude={"kind", "dtype", "endpoints", "prices"})
    prices = settings.prices if isinstance(settings, PricedJudge) else None
    return OpenAIJudge(endpoints=list(settings.endpoints), prices=prices, **asked)


def priced_judge(config: RunConfig) -> PricedJudge:
    """The run's judge, with the prices that the configuration states."""
    read, written = config.prices.price_per_million_tokens, config.prices.price_per_million_written_tokens
    prices = None if read is None else Prices(prompt=read, completion=read if written is None else written)
    return PricedJudge(**config.judge.model_dump(), prices=prices)


def judge_tuning(config: RunConfig) -> dict[str, Any]:
    """The run's judge as plain data, for the tuning of a stage."""
    return priced_judge(config).model_dump(mode="json")


def judge_at(
    place: str, *, model: str | None, tokenizer: str | None, api_key_env: str | None
) -> JudgeSettings:
    """The settings for a model folder, or for the server at an address; `model` is the name that it is served under.

    Raises FlowError in one line.
    """
    try:
        if "://" not in place:
            return JudgeSettings(model=place)
        return JudgeSettings(
            kind="openai",
            model=model,
            endpoints=(place,),
            tokenizer=tokenizer,  # type: ignore[arg-type]  # a path as text
            api_key_env=api_key_env,
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
    password. `listen(first pair's id, report)` hears of every commit; it stays behind when the shard travels.
    """

    constitution: Mapping[str, Any]
    settings: LabelSettings
    judge: PricedJudge
    ledger: str
    listen: Callable[[str, LabelReport], None] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "listen"}

    def __call__(self, pairs: list[Pair]) -> LabelReport:
        """Raises JudgeError or LedgerError; what was committed before stays."""
        listen = self.listen
        with Ledger.open(self.ledger) as ledger:
            return label_pairs(
                pairs,
                constitution=from_json(self.constitution),
                judge=_kept_judge(self.judge),
                ledger=ledger,
                settings=self.settings,
                on_progress=None if listen is None else lambda report: listen(pairs[0].id, report),
            )


@lru_cache(maxsize=1)
def _kept_judge(settings: PricedJudge) -> Judge:
    """One judge a process: its model, connections and tokenizer serve shard after shard."""
    return make_judge(settings)


def drop_judge() -> None:
    """Let go of the judge that this process kept: the next stage needs the memory."""
    _kept_judge.cache_clear()
