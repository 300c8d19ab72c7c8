"""A judge behind an OpenAI-compatible HTTP API: vLLM first of all, any other with log probabilities too.

With the model's tokenizer at hand, prompts go as token ids to `/completions`, many per request: nothing in a text
can become a control token, and vLLM returns exactly the options' log probabilities (`logprob_token_ids`).
Without it, chats go to `/chat/completions` one by one, and completion templates to `/completions` as text.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from judges import wire
from judges.asking.readout import checked, without_extensions
from judges.encoding import CallEncoder
from judges.endpoints import Endpoints, RequestFailed
from judges.errors import JudgeError
from judges.inprocess import model_revision
from judges.jobs import Job, grouped
from judges.records import Call, JudgeIdentity, Reading
from judges.served import Served, what_is_served

_log = logging.getLogger(__name__)
_TOO_LONG = re.compile(r"context length|max_model_len|maximum.{0,30}(length|tokens)|too long", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Prices:
    """What an endpoint charges, per million tokens."""

    prompt: float = 0.0
    completion: float = 0.0


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
        prompts_per_request: int = 32,
        concurrency: int = 8,
        timeout_s: float = 120.0,
        retry_s: float = 180.0,
        prices: Prices | None = None,
    ) -> None:
        """`endpoints` are base URLs such as http://127.0.0.1:8000/v1, `model` the name that they
        serve (may be left out where they serve only one).

        `tokenizer` is the model's folder (or one with its tokenizer). `revision` says which weights are served, and
        nobody can check it; a `tokenizer` folder with the weights says it by itself. `retry_s` is how long a server
        may be away. With `prices` every reading has its cost.
        Raises JudgeError for a bad URL, a missing key or a missing folder.
        """
        self._model = model
        self._folder = None if tokenizer is None else Path(tokenizer)
        if self._folder is not None and not (self._folder / "tokenizer_config.json").is_file():
            raise JudgeError(f"no tokenizer in {self._folder}: expected tokenizer_config.json")
        self._revision = revision
        self._prompts_per_request = prompts_per_request
        self._prices = prices
        self._endpoints = Endpoints(
            endpoints,
            api_key_env=api_key_env,
            concurrency=concurrency,
            timeout_s=timeout_s,
            retry_s=retry_s,
        )
        self._executor = ThreadPoolExecutor(self._endpoints.total_concurrency, thread_name_prefix="endpoint")

    @cached_property
    def identity(self) -> JudgeIdentity:
        """Asks the servers what they are, and warns once where nobody says which weights they serve.

        Raises JudgeError when none answers or they serve another model.
        """
        model, revision = self._server.model, self._revision
        if revision is None and self._folder is not None and any(self._folder.glob("*.safetensors")):
            # The same weights are the same judge, whoever runs them.
            model, revision = self._folder.resolve().name, model_revision(self._folder)
        if revision is None:
            _log.warning(
                "judge %s: no revision and no folder with its weights: answers of other weights under this name "
                "count as its own; give `revision`, another for other weights",
                model,
            )
            revision = "unknown"
        return JudgeIdentity(kind="openai", model=model, revision=revision, build=self._server.build)

    def close(self) -> None:
        """Closes connections and threads."""
        self._executor.shutdown(cancel_futures=True)
        self._endpoints.close()

    def ask(self, calls: Sequence[Call]) -> list[Reading]:
        """One reading per call, in order. Raises JudgeError where no call could ever succeed (key, model)."""
        if not calls:
            return []
        started = time.perf_counter()
        readings: list[Reading] = [Reading(status="error", detail="not asked")] * len(calls)
        jobs = []
        for job in self._jobs(calls):
            if job.reading is not None:
                readings[job.numbers[0]] = job.reading
            else:
                jobs.append((job, self._executor.submit(self._run, job)))
        try:
            for job, future in jobs:
                for n, reading in zip(job.numbers, future.result(), strict=True):
                    readings[n] = reading
        finally:
            for _, future in jobs:
                future.cancel()
        latency = (time.perf_counter() - started) / len(calls)
        return [self._finished(reading, latency) for reading in readings]

    def _jobs(self, calls: Sequence[Call]) -> Iterator[Job]:
        """The calls as requests: neighbours with the same options together, chats without a tokenizer alone."""
        size = self._prompts_per_request
        if self._encoder is None:
            texts = [n for n, call in enumerate(calls) if call.text is not None]
            yield from (Job(calls, [n]) for n in range(len(calls)) if calls[n].text is None)
            for group in grouped(texts, calls, size):
                yield Job(calls, group)
            return
        prompts = self._encoder.encode(calls)
        fitting = []
        for n, ids in enumerate(prompts):
            call = calls[n]
            whole = len(ids) + (1 if call.write is None else call.write.max_tokens)
            if not ids or whole > self._server.context:
                detail = f"prompt and answer may have {whole} tokens, the server takes {self._server.context}"
                yield Job(
                    calls, [n], reading=Reading(status="truncated", detail=detail, prompt_tokens=len(ids))
                )
            else:
                fitting.append(n)
        for group in grouped(fitting, calls, size):
            yield Job(calls, group, prompts=[prompts[n] for n in group])

    def _run(self, job: Job) -> list[Reading]:
        """One request; one that the server finds bad is halved until the bad prompt is alone."""
        try:
            return self._request(job)
        except RequestFailed as failure:
            if failure.bad_request and len(job.numbers) > 1:
                return [r for half in job.halves() for r in self._run(half)]
            truncated = failure.bad_request and _TOO_LONG.search(failure.detail)
            status = "truncated" if truncated else failure.status
            return [Reading(status=status, detail=failure.detail)] * len(job.numbers)
        except JudgeError:
            raise
        except Exception as error:
            # One answer that nobody foresaw may not cost the good ones of its batch.
            detail = f"{type(error).__name__}: {error}"[:500]
            return [Reading(status="error", detail=detail)] * len(job.numbers)

    def _request(self, job: Job) -> list[Reading]:
        calls = [job.calls[n] for n in job.numbers]
        options = calls[0].options
        if calls[0].write is not None:
            texts = [call.text for call in calls if call.text is not None]
            path = "/completions" if job.prompts or texts else "/chat/completions"
            return wire.read_writing(self._post(path, wire.writing_body(calls[0], job.prompts, texts)), calls)
        if job.prompts is None:
            if calls[0].text is None:
                return [wire.read_chat(self._post("/chat/completions", wire.chat_body(calls[0])), calls[0])]
            return wire.read_texts(self._post("/completions", wire.text_body(calls)), calls)
        assert self._encoder is not None
        forms = self._encoder.distinct_forms(options)
        if forms is None:
            return self._continuations(job.prompts, calls)
        body = wire.tokens_body(job.prompts, [i for form in forms for i in form])
        return wire.read_tokens(self._post("/completions", body), [len(ids) for ids in job.prompts], forms)

    def _continuations(self, prompts: Sequence[list[int]], calls: Sequence[Call]) -> list[Reading]:
        """Options of several tokens: every option is appended to its prompt and scored whole."""
        encoder = self._encoder
        assert encoder is not None
        whole, starts = [], []
        for prompt, call in zip(prompts, calls, strict=True):
            plain = encoder.is_plain(call)
            for option in call.options:
                whole.append(prompt + encoder.continuation(option, plain=plain))
                starts.append(len(prompt))
        lengths = [len(ids) for ids in whole]
        answer = self._post("/completions", wire.continuation_body(whole))
        scores, remaining = iter(wire.read_continuations(answer, starts, lengths)), iter(whole)
        readings = []
        for prompt, call in zip(prompts, calls, strict=True):
            mine = [next(scores) for _ in call.options]
            mine_ids = [next(remaining) for _ in call.options]
            wrong = [score for score in mine if isinstance(score, str)]
            if wrong:
                readings.append(Reading(status="error", detail=wrong[0]))
            else:
                answers = [ids[len(prompt) :] for ids in mine_ids]
                values = without_extensions([float(score) for score in mine], answers)
                reading = Reading(
                    status="ok", logprobs=values, prompt_tokens=len(prompt), completion_tokens=1
                )
                readings.append(checked(reading, len(values)))
        return readings

    def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        return self._endpoints.post(path, {"model": self._server.model, **body})

    def _finished(self, reading: Reading, latency: float) -> Reading:
        cost = None
        if self._prices is not None:
            tokens = reading.prompt_tokens * self._prices.prompt
            cost = (tokens + reading.completion_tokens * self._prices.completion) / 1e6
        return replace(reading, latency_s=latency, cost=cost)

    @cached_property
    def _encoder(self) -> CallEncoder | None:
        if self._folder is None:
            return None
        from transformers import AutoTokenizer

        return CallEncoder(AutoTokenizer.from_pretrained(self._folder, trust_remote_code=False))

    @cached_property
    def _server(self) -> Served:
        return what_is_served(self._endpoints, self._model)
