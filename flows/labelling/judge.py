"""From a configuration to a judge, and to how it is asked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from judges import Judge, LabelSettings

if TYPE_CHECKING:
    from flows.config import RunConfig


def make_judge(settings: Mapping[str, Any]) -> Judge:
    """The judge of a configuration's `judge` section (as plain data). Nothing is loaded or asked yet.

    With `prices` beside the section's fields, a server's judge writes down what each call costs.
    Raises JudgeError for a model folder or settings that cannot work.
    """
    if settings["kind"] == "in_process":
        from transformers.utils.logging import disable_progress_bar

        from judges import InProcessJudge

        disable_progress_bar()  # its bar would tear through the run's own progress
        return InProcessJudge(settings["model"], dtype=settings["dtype"])
    from judges import OpenAIJudge, Prices

    prices = settings.get("prices")
    return OpenAIJudge(
        endpoints=list(settings["endpoints"]),
        model=settings["model"],
        tokenizer=settings["tokenizer"],
        revision=settings["revision"],
        api_key_env=settings["api_key_env"],
        prompts_per_request=settings["prompts_per_request"],
        concurrency=settings["concurrency"],
        timeout_s=settings["timeout_s"],
        prices=None if prices is None else Prices(**prices),
    )


def priced_judge(config: RunConfig) -> dict[str, Any]:
    """The `judge` section as plain data, with the prices that `prices` states."""
    read, written = config.prices.price_per_million_tokens, config.prices.price_per_million_written_tokens
    prices = None if read is None else {"prompt": read, "completion": read if written is None else written}
    return {**config.judge.model_dump(mode="json"), "prices": prices}


def judge_at(
    place: str, *, model: str | None, tokenizer: str | None, api_key_env: str | None
) -> dict[str, Any]:
    """The section for a model folder, or for the server at an address; `model` is the name that it is served under."""
    served = "://" in place
    return {
        "kind": "openai" if served else "in_process",
        "model": model if served else place,
        "dtype": "auto",
        "endpoints": [place],
        "tokenizer": tokenizer,
        "revision": None,
        "api_key_env": api_key_env,
        "prompts_per_request": 32,
        "concurrency": 8,
        "timeout_s": 120.0,
    }


def label_settings(config: RunConfig) -> LabelSettings:
    """How a run asks its judge."""
    section = config.labels.model_dump(include=set(LabelSettings.model_fields))
    return LabelSettings(**section, seed=config.seed)
