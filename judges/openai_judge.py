"""A judge behind an OpenAI-compatible HTTP API.

With the model's tokenizer at hand, prompts go as token ids; without it, conversations and texts go as they are and
the server tokenises them (see engines.remote).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from engines import Answer, RemoteEngine, Request
from engines.pool import Pool
from engines.stops import folder_stop_ids
from judges.encoding import CallEncoder
from judges.engine import to_reading, to_request
from judges.errors import JudgeError, one_line
from judges.identity import joined
from judges.records import Call, JudgeIdentity, Reading
from judges.thinking import Thinker, Thinking, answered, budget_of, serving_of
from judges.weights import former_revision, model_revision, tokenizer_digest

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Prices:
    """What an endpoint charges, per million tokens."""

    prompt: float = 0.0
    completion: float = 0.0

    def of(self, answer: Answer) -> float:
        """What one answer cost."""
        return (answer.prompt_tokens * self.prompt + answer.completion_tokens * self.completion) / 1e6


class OpenAIJudge:
    """Reads option probabilities from one or several servers of the same model."""

    def __init__(
        self,
        *,
        endpoints: Sequence[str],
        model: str | None = None,
        tokenizer: str | Path | None = None,
        revision: str | None = None,
        api_key_env: str | None = None,
        api_key: str | None = None,
        prompts_per_request: int = 32,
        concurrency: int = 8,
        timeout_s: float = 120.0,
        retry_s: float = 180.0,
        prices: Prices | None = None,
        thinking: Thinking | None = None,
    ) -> None:
        """`endpoints` are base URLs such as http://127.0.0.1:8000/v1, `model` the name that they
        serve (may be left out where they serve only one).

        `tokenizer` is the model's folder (or one with its tokenizer). `revision` says which weights are served, and
        nobody can check it; a `tokenizer` folder with the weights says it by itself. `retry_s` is how long a server
        may be away. With `prices` every reading has its cost. `thinking` is as in `JudgeSettings`.
        Raises JudgeError for a bad URL, a missing key or a missing folder.
        """
        self._folder = None if tokenizer is None else Path(tokenizer)
        if self._folder is not None and not (self._folder / "tokenizer_config.json").is_file():
            raise JudgeError(f"no tokenizer in {self._folder}: expected tokenizer_config.json")
        self._revision, self._prices, self._thinking = revision, prices, thinking
        self._model, self._endpoints = model, list(endpoints)
        self._options: dict[str, Any] = {
            "api_key_env": api_key_env,
            "api_key": api_key,
            "prompts_per_request": prompts_per_request,
            "concurrency": concurrency,
            "timeout_s": timeout_s,
            "retry_s": retry_s,
        }
        with one_line():
            self._engine = RemoteEngine(self._endpoints, model=model, **self._options)

    @cached_property
    def identity(self) -> JudgeIdentity:
        """Asks the servers what they are, and warns once where nobody says which weights they serve.

        Raises JudgeError when none answers or they serve another model.
        """
        with one_line(hint=" (start one with: charter judge serve)"):
            served = self._engine.served
        model, revision, former = served.model, self._revision, ""
        serving = "chat" if self._folder is None else f"token ids, tokenizer {tokenizer_digest(self._folder)}"
        if revision is None and self._folder is not None and any(self._folder.glob("*.safetensors")):
            # The same weights are the same judge, whoever runs them; their digest holds the tokenizer's.
            model, revision = self._folder.resolve().name, model_revision(self._folder)
            former, serving = former_revision(self._folder), ""
        if revision is None:
            _log.warning(
                "judge %s: no revision and no folder with its weights: answers of other weights under this name "
                "count as its own; give `revision`, another for other weights",
                model,
            )
            revision = "unknown"
        return JudgeIdentity(
            kind="openai",
            model=model,
            revision=revision,
            build=served.build,
            serving=joined(serving, serving_of(self._thinking, by_ids=self._folder is not None)),
            former_revision=former,
        )

    @property
    def pool(self) -> Pool:
        """The servers, for whoever started them."""
        return self._engine.pool

    def close(self) -> None:
        """Closes connections and threads."""
        self._engine.close()

    def ask(self, calls: Sequence[Call]) -> list[Reading]:
        """One reading per call, in order. Raises JudgeError where no call could ever succeed (key, model)."""
        if not calls:
            return []
        started = time.perf_counter()
        with one_line(hint=" (start one with: charter judge serve)"):
            if self._encoder is None:
                answers = self._engine.ask([self._rendered_there(call) for call in calls])
            else:
                encoder, thinker = self._encoder
                context = self._engine.served.context
                answers = answered(calls, encoder, thinker, self._engine.ask, context=context)
        latency = (time.perf_counter() - started) / len(calls)
        return [
            to_reading(
                answers[n],
                call,
                latency_s=latency,
                cost=None if self._prices is None else self._prices.of(answers[n]),
            )
            for n, call in enumerate(calls)
        ]

    def _rendered_there(self, call: Call) -> Request:
        """The request of a call whose turns the server renders: it can think before it writes, not before a letter."""
        budget = budget_of(self._thinking) if call.think else None
        if budget is not None and call.write is None:
            raise JudgeError(
                "judge.thinking: a server that renders the turns cannot stop a thought before the letter; give "
                "judge.tokenizer (the model's folder), or set labels.readout: verdict"
            )
        thinking = None if self._thinking is None else budget is not None
        return to_request(call, thinking=thinking, budget=budget or 0)

    @cached_property
    def _encoder(self) -> tuple[CallEncoder, Thinker | None] | None:
        """The tokenizer, which also says where a rationale ends, and how the model thinks where it is to."""
        if self._folder is None:
            return None
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(self._folder, trust_remote_code=False)
        self._engine.stop_ids = folder_stop_ids(self._folder, tokenizer)
        encoder, budget = CallEncoder(tokenizer), budget_of(self._thinking)
        return encoder, None if budget is None else Thinker(tokenizer, encoder, budget)
