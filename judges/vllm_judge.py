"""A judge on vLLM servers of its own: started when it is first asked, ended by `close` or with this process."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from engines.fleet import Fleet
from engines.serve import vllm_build
from engines.settings import VllmSettings
from judges.errors import JudgeError, one_line
from judges.identity import joined
from judges.openai_judge import OpenAIJudge, Prices
from judges.records import Call, JudgeIdentity, Reading
from judges.thinking import Thinking, serving_of
from judges.weights import former_revision, model_revision

RESTART_S = 1800.0
"""How long calls wait for a server that is started again; one that is gone for good ends them at once."""


class VllmJudge:
    """Reads option probabilities off vLLM servers of a folder. Nothing is started before it is asked."""

    def __init__(
        self,
        model: str | Path,
        settings: VllmSettings,
        *,
        dtype: Literal["auto", "float32", "bfloat16"] = "auto",
        logs: Path | None = None,
        say: Callable[[str], None] = lambda line: None,
        prices: Prices | None = None,
        thinking: Thinking | None = None,
        **asking: Any,
    ) -> None:
        """`model` is a folder in Hugging Face format; `logs` takes the servers' logs, by default a new folder; `say`
        hears how long they have been loading; `asking` are `OpenAIJudge`'s concurrency, prompts_per_request, timeout_s.

        Raises JudgeError when the folder holds no model with safetensors weights.
        """
        self._folder, self._settings = Path(model), settings
        if not (self._folder / "config.json").is_file():
            raise JudgeError(f"no model in {self._folder}: expected a Hugging Face folder with config.json")
        if not any(self._folder.glob("*.safetensors")):
            raise JudgeError(f"no *.safetensors in {self._folder}: only safetensors weights are served")
        self._dtype, self._logs, self._say = dtype, logs, say
        self._prices, self._thinking, self._asking = prices, thinking, asking
        self._fleet: Fleet | None = None
        self._asked: OpenAIJudge | None = None
        self._lock = threading.Lock()

    @cached_property
    def identity(self) -> JudgeIdentity:
        """The folder's weights, whoever computes with them: known without a server."""
        return JudgeIdentity(
            kind="vllm",
            model=self._folder.resolve().name,
            revision=model_revision(self._folder),
            build=vllm_build(self._settings.environment),
            serving=joined(
                "bfloat16" if self._dtype == "bfloat16" else "", serving_of(self._thinking, by_ids=True)
            ),
            former_revision=former_revision(self._folder),
        )

    def ask(self, calls: Sequence[Call]) -> list[Reading]:
        """One reading per call, in order. Raises JudgeError in one line when the servers do not start, or all end."""
        return self._judge().ask(calls) if calls else []

    def close(self) -> None:
        """Ends the servers; the next call starts others."""
        with self._lock:
            if self._asked is not None:
                self._asked.close()
            if self._fleet is not None:
                self._fleet.close()
            self._asked = self._fleet = None

    def _judge(self) -> OpenAIJudge:
        with self._lock, one_line():
            if self._asked is None:
                logs = self._logs or Path(tempfile.mkdtemp(prefix="charter-vllm-"))
                dtype = None if self._dtype == "auto" else self._dtype
                fleet = Fleet(self._folder, self._settings, logs=logs, dtype=dtype)
                fleet.start(self._say)
                self._fleet = fleet
                self._asked = OpenAIJudge(
                    endpoints=fleet.urls,
                    model=fleet.served_name,
                    tokenizer=self._folder,
                    api_key=fleet.api_key,
                    retry_s=RESTART_S,
                    prices=self._prices,
                    thinking=self._thinking,
                    **self._asking,
                )
                fleet.tell(self._asked.pool)
            return self._asked
