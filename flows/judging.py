"""From the judge's settings to a judge."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from judges import Judge


def make_judge(settings: Mapping[str, Any]) -> Judge:
    """The judge of a configuration's `judge` section (as plain data). Nothing is loaded or asked yet.

    Raises JudgeError for a model folder or settings that cannot work.
    """
    if settings["kind"] == "in_process":
        from transformers.utils.logging import disable_progress_bar

        from judges import InProcessJudge

        disable_progress_bar()  # its bar would tear through the run's own progress
        return InProcessJudge(settings["model"], dtype=settings["dtype"])
    from judges import OpenAIJudge

    return OpenAIJudge(
        endpoints=list(settings["endpoints"]),
        model=settings["model"],
        tokenizer=settings["tokenizer"],
        revision=settings["revision"],
        api_key_env=settings["api_key_env"],
        prompts_per_request=settings["prompts_per_request"],
        concurrency=settings["concurrency"],
        timeout_s=settings["timeout_s"],
    )
