"""An engine behind an OpenAI-compatible HTTP API: vLLM first of all, any other with log probabilities too.

Token ids go to `/completions`: nothing in a text can become a control token, and vLLM returns exactly the options'
log probabilities (`logprob_token_ids`). Conversations go to `/chat/completions` one by one, texts to `/completions`.
"""

from __future__ import annotations

import hashlib
import logging
import re
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import replace
from functools import cached_property
from typing import Any

from engines import batching, replies, wire
from engines.errors import EngineError, RequestFailed
from engines.options import all_single
from engines.pool import Pool
from engines.protocol import Answer, Completion, Request, Sampling, Spellings
from engines.served import Served, what_is_served

_log = logging.getLogger(__name__)
# A text that is drawn a second time is the same text: its seed is its own.
_AGAIN = 3
_TOO_LONG = re.compile(r"context length|max_model_len|maximum.{0,30}(length|tokens)|too long", re.IGNORECASE)


class RemoteEngine:
    """One model on one or several servers."""

    def __init__(
        self,
        endpoints: Sequence[str],
        *,
        model: str | None = None,
        stop_ids: Sequence[int] = (),
        decode: Callable[[Sequence[int]], str] | None = None,
        api_key_env: str | None = None,
        api_key: str | None = None,
        prompts_per_request: int = 32,
        concurrency: int = 8,
        timeout_s: float = 120.0,
        retry_s: float = 180.0,
    ) -> None:
        """`endpoints` are base URLs such as http://127.0.0.1:8000/v1, `model` the name that they serve (may be left
        out where they serve only one). `stop_ids` end an answer; `decode` gives the text of generated ids.
        `prompts_per_request` is the most, fewer where they are long. `timeout_s` is how long a request may take,
        in proportion longer where it has many tokens; `retry_s` how long a server may be away. Raises EngineError for a
        bad URL or a missing key.
        """
        self._wanted = model
        self.stop_ids, self._decode = tuple(stop_ids), decode or (lambda ids: "")
        self._prompts_per_request = prompts_per_request
        self._timeout_s, self._concurrency = timeout_s, concurrency
        self.pool = Pool(
            endpoints,
            api_key_env=api_key_env,
            api_key=api_key,
            concurrency=concurrency,
            timeout_s=timeout_s,
            retry_s=retry_s,
        )
        self._executor = ThreadPoolExecutor(self.pool.total_concurrency, thread_name_prefix="endpoint")
        self._lock = threading.Lock()
        self._refused: frozenset[str] = frozenset()
        self._renamed = False

    @cached_property
    def served(self) -> Served:
        """What the servers say of themselves. Raises EngineError when none answers or they serve another model."""
        return what_is_served(self.pool, self._wanted)

    def close(self) -> None:
        """Closes connections and threads."""
        self._executor.shutdown(cancel_futures=True)
        self.pool.close()

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        sampling: Sampling,
        *,
        seed: int,
        rows: Sequence[int],
        on_done: Callable[[int, Completion], None] = lambda place, completion: None,
    ) -> list[Completion]:
        """One completion per encoded prompt, in order; `on_done(place, completion)` is called in this thread as each is
        finished. Raises EngineError when a server fails.

        vLLM gives all prompts of one request the same seed, and with it the same noise: each goes alone, with a seed
        of its own, so that asking again what got lost draws the same.
        """
        _ = self.served  # asked once, before threads want it
        found: list[Completion | None] = [None] * len(prompts)
        jobs = {
            self._executor.submit(self._complete, prompt, sampling, row_seed(seed, row)): place
            for place, (prompt, row) in enumerate(zip(prompts, rows, strict=True))
        }
        try:
            for job in as_completed(jobs):
                found[jobs[job]] = done = job.result()
                on_done(jobs[job], done)
        finally:
            for job in jobs:
                job.cancel()
        return [completion for completion in found if completion is not None]

    def _complete(self, prompt: Sequence[int], sampling: Sampling, seed: int) -> Completion:
        room = min(sampling.max_new_tokens, self.served.context - len(prompt))
        if room <= 0:
            return Completion(text="", token_ids=(), logprobs=(), finish_reason="prompt_too_long")
        fits = replace(sampling, max_new_tokens=room)
        body = wire.completion_body(prompt, fits, seed=seed, stop_ids=self.stop_ids)
        limit_s = batching.scaled(self._timeout_s, len(prompt), room, at_once=self._concurrency)
        try:
            answer = self._post("/completions", body, limit_s, again=_AGAIN)
            found = replies.read_completion(answer, self._decode)
        except RequestFailed as failure:
            raise EngineError(f"{self.pool.clients[0].url}: {failure.detail}") from failure
        if isinstance(found, str):
            raise EngineError(f"{self.pool.clients[0].url}: {found}")
        return found

    def option_logprobs(
        self, prompts: Sequence[Sequence[int]], spellings: Sequence[Spellings]
    ) -> list[Answer]:
        """Per prompt the log-probability of each of its options, all spellings summed."""
        return self.ask(
            [Request(ids=tuple(ids), spellings=s) for ids, s in zip(prompts, spellings, strict=True)]
        )

    def ask(self, requests: Sequence[Request]) -> list[Answer]:
        """One answer per request, in order. Raises EngineError where none could ever succeed (key, model)."""
        if not requests:
            return []
        _ = self.served  # asked once, before threads want it
        answers = [Answer(status="error", detail="not asked")] * len(requests)
        fitting = []
        for n, request in enumerate(requests):
            if (too_long := self._too_long(request)) is not None:
                answers[n] = too_long
            else:
                fitting.append(n)
        jobs = [
            (numbers, self._executor.submit(self._run, [requests[n] for n in numbers]))
            for numbers in batching.grouped(fitting, requests, self._prompts_per_request)
        ]
        try:
            for numbers, future in jobs:
                for n, answer in zip(numbers, future.result(), strict=True):
                    answers[n] = answer
        finally:
            for _, future in jobs:
                future.cancel()
        return answers

    def _too_long(self, request: Request) -> Answer | None:
        if request.ids is None:
            return None
        length, context = len(request.ids), self.served.context
        # One token is drawn where options are read; a spelling that has to be appended needs its place.
        longest = max((len(s) for option in request.spellings for s in option), default=1)
        room = request.write.max_new_tokens if request.write is not None else longest
        if length and length + room <= context:
            return None
        return Answer(
            status="truncated",
            detail=f"prompt and answer may have {length + room} tokens, the server takes {context}",
            cause=f"context {context}" if length else None,
            prompt_tokens=length,
        )

    def _run(self, requests: Sequence[Request]) -> list[Answer]:
        """One HTTP request; one that the server finds bad is halved until the bad prompt is alone."""
        try:
            return self._exchange(requests)
        except RequestFailed as failure:
            if failure.isolates and len(requests) > 1:
                k = len(requests) // 2
                return [*self._run(requests[:k]), *self._run(requests[k:])]
            if failure.isolates and failure.status == "error" and _TOO_LONG.search(failure.detail):
                limit = re.search(r"\d+", failure.detail.partition(": ")[2])
                cause = f"context {limit.group() if limit else self.served.context}"
                return [Answer(status="truncated", detail=failure.detail, cause=cause)] * len(requests)
            return [Answer(status=failure.status, detail=failure.detail)] * len(requests)
        except EngineError:
            raise
        except Exception as error:
            # One answer that nobody foresaw may not cost the good ones of its batch.
            detail = f"{type(error).__name__}: {error}"[:500]
            return [Answer(status="error", detail=detail)] * len(requests)

    def _exchange(self, requests: Sequence[Request]) -> list[Answer]:
        first = requests[0]
        limit_s = batching.patience(self._timeout_s, requests, at_once=self._concurrency)
        chats = first.ids is None and first.text is None
        if first.write is not None:
            stop_ids = self.stop_ids if first.ids is not None else ()
            path = "/chat/completions" if chats else "/completions"
            body = wire.writing_body(requests, stop_ids=stop_ids)
            return replies.read_writing(self._post(path, body, limit_s), requests)
        if chats:
            body = wire.chat_body(first)
            return [replies.read_chat(self._post("/chat/completions", body, limit_s), first)]
        if first.ids is None:
            return replies.read_texts(self._post("/completions", wire.text_body(requests), limit_s), requests)
        prompts = [request.ids or () for request in requests]
        if all_single(first.spellings):
            ids = [spelling[0] for option in first.spellings for spelling in option]
            answer = self._post("/completions", wire.tokens_body(prompts, ids), limit_s)
            return replies.read_tokens(answer, [len(p) for p in prompts], first.spellings, first.options)
        return self._continuations(requests, limit_s)

    def _continuations(self, requests: Sequence[Request], limit_s: float) -> list[Answer]:
        """Options of several tokens: every spelling is appended to its prompt and scored whole."""
        whole, starts = [], []
        for request in requests:
            prompt = request.ids or ()
            for spelling in (s for option in request.spellings for s in option):
                whole.append(prompt + spelling)
                starts.append(len(prompt))
        answer = self._post("/completions", wire.continuation_body(whole), limit_s)
        scores = iter(replies.read_continuations(answer, starts, [len(ids) for ids in whole]))
        return [
            replies.add_up(
                [next(scores) for option in request.spellings for _ in option],
                request.ids or (),
                request.spellings,
            )
            for request in requests
        ]

    def _post(self, path: str, body: dict[str, Any], limit_s: float, *, again: int = 0) -> dict[str, Any]:
        """One answer within `limit_s`. Fields that the server refuses by name are left out from then on, once said."""
        while True:
            sent = {name: value for name, value in body.items() if name not in self._refused}
            try:
                answer = self.pool.post(
                    path, {"model": self.served.model, **sent}, timeout_s=limit_s, again=again
                )
            except RequestFailed as failure:
                named = {
                    name
                    for name in wire.EXTENSIONS & sent.keys()
                    if re.search(rf"\b{name}\b", failure.detail)
                }
                if not failure.isolates or not named:
                    raise
                self._leave_out(named)
                continue
            self._check_name(answer.get("model"))
            return answer

    def _leave_out(self, names: set[str]) -> None:
        with self._lock:
            new = names - self._refused
            self._refused |= names
        if new:
            _log.warning(
                "%s does not know %s: there its own defaults hold",
                self.pool.clients[0].url,
                ", ".join(sorted(new)),
            )

    def _check_name(self, name: Any) -> None:
        """Says once that the server answers as another model than it was asked for."""
        if self._renamed or not isinstance(name, str) or not name or name == self.served.model:
            return
        with self._lock:
            told, self._renamed = self._renamed, True
        if not told:
            _log.warning(
                "%s was asked for the model %r and answers as %r: is it the one you mean?",
                self.pool.clients[0].url,
                self.served.model,
                name[:100],
            )


def row_seed(seed: int, row: int) -> int:
    """A prompt's own seed from the run's and the prompt's number, in [0, 2**63)."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{row}".encode()).digest()[:8]) >> 1
