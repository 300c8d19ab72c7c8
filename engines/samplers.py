"""Conversations to texts, whichever engine answers: a model in this process, vLLM servers, or a chat API.

Stages see a `Sampler` and do not know which. The prompts are the renderer's token ids and the stops the model folder's
in process and on vLLM alike, so greedy answers are equal; what is drawn depends on the seed and a text's number alone.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from common.chat import Conversation, renderer_of
from engines.errors import EngineError
from engines.fleet import Fleet, Say
from engines.protocol import Completion, Request, Sampling
from engines.remote import RemoteEngine, row_seed
from engines.served import Served
from engines.settings import VllmSettings
from engines.stops import folder_stop_ids
from engines.texts import Reader, Text, written_text

OnText = Callable[[int, Text], None]
"""`on_text(place, text)`: the text of the conversation at `place` is finished."""


class Sampler(Protocol):
    """Draws one text per conversation."""

    def draw(
        self,
        conversations: Sequence[Conversation],
        sampling: Sampling,
        *,
        seed: int,
        rows: Sequence[int],
        at_once: int,
        on_text: OnText,
        on_progress: Callable[[int], None],
    ) -> None:
        """`at_once` are drawn together; `rows` numbers the conversations, and `on_progress` hears how many are done.

        Raises EngineError when an engine fails; what `on_text` was given by then is whole.
        """
        ...

    def close(self) -> None:
        """Let go of memory and servers."""
        ...


class InProcessSampler:
    """A model in this process; `load` gives it with its tokenizer when it is first needed."""

    def __init__(self, load: Callable[[], tuple[Any, Any]]) -> None:
        self._load = load

    @cached_property
    def loaded(self) -> tuple[Any, Any]:
        """(model, tokenizer)."""
        return self._load()

    def draw(
        self,
        conversations: Sequence[Conversation],
        sampling: Sampling,
        *,
        seed: int,
        rows: Sequence[int],
        at_once: int,
        on_text: OnText,
        on_progress: Callable[[int], None],
    ) -> None:
        from engines.in_process import generate_ids

        model, tokenizer = self.loaded
        prompts, reader = renderer_of(tokenizer).prompts_ids(conversations), Reader(tokenizer)
        completions = generate_ids(
            model,
            tokenizer,
            prompts,
            sampling=sampling,
            seed=seed,
            rows=rows,
            batch_size=at_once,
            on_progress=lambda done, total: on_progress(done),
        )
        for place, (ids, completion) in enumerate(zip(prompts, completions, strict=True)):
            on_text(place, reader.text(ids, completion))

    def close(self) -> None:
        self.__dict__.pop("loaded", None)


class ServedSampler(ABC):
    """A model folder on vLLM servers, by token ids: `_engine` reaches them."""

    def __init__(self, folder: Path) -> None:
        self._folder = Path(folder)

    def draw(
        self,
        conversations: Sequence[Conversation],
        sampling: Sampling,
        *,
        seed: int,
        rows: Sequence[int],
        at_once: int,
        on_text: OnText,
        on_progress: Callable[[int], None],
    ) -> None:
        prompts, reader = renderer_of(self._tokenizer).prompts_ids(conversations), Reader(self._tokenizer)
        engine, done = self._engine(at_once), 0

        def finished(place: int, completion: Completion) -> None:
            nonlocal done
            done += 1
            on_text(place, reader.text(prompts[place], completion))
            on_progress(done)

        try:
            engine.generate(prompts, sampling, seed=seed, rows=rows, on_done=finished)
        finally:
            engine.close()
        self._after()

    @abstractmethod
    def close(self) -> None: ...

    @abstractmethod
    def _engine(self, at_once: int) -> RemoteEngine:
        """The servers, ready, for so many requests at once."""

    @abstractmethod
    def _after(self) -> None:
        """When all texts of a call are drawn."""

    @cached_property
    def _tokenizer(self) -> Any:
        return load_tokenizer(self._folder)


class VllmSampler(ServedSampler):
    """Servers that are started when a text is first wanted, and ended by `close`."""

    def __init__(
        self,
        folder: Path,
        settings: VllmSettings,
        *,
        logs: Path,
        dtype: str | None = None,
        timeout_s: float = 120.0,
        say: Say = lambda line: None,
    ) -> None:
        """Raises EngineError when the environment or the GPUs for it are missing."""
        super().__init__(folder)
        self._timeout_s, self._say = timeout_s, say
        self._fleet = Fleet(self._folder, settings, logs=logs, dtype=dtype)
        self._started = False
        self._served: Served | None = None

    def close(self) -> None:
        """Ends the servers."""
        self._fleet.close()
        self._started = False

    def _engine(self, at_once: int) -> RemoteEngine:
        if not self._started:
            self._fleet.start(self._say)
            self._started = True
        engine = RemoteEngine(
            self._fleet.urls,
            model=self._fleet.served_name,
            stop_ids=folder_stop_ids(self._folder, self._tokenizer),
            decode=renderer_of(self._tokenizer).decode,
            api_key=self._fleet.api_key,
            concurrency=-(-at_once // len(self._fleet.urls)),
            timeout_s=self._timeout_s,
            retry_s=RESTART_S,
        )
        self._fleet.tell(engine.pool)
        if self._served is None:
            self._served = engine.served
        engine.served = self._served  # a server that is being started again cannot say it
        return engine

    def _after(self) -> None:
        pass  # they stay for the next call


RESTART_S = 1800.0
"""How long requests wait for a server that is started again; one that is gone for good ends them at once."""


class ChatSampler:
    """Servers of another model: conversations to `/chat/completions`, or token ids where its tokenizer is here."""

    def __init__(
        self,
        endpoints: Sequence[str],
        *,
        model: str | None = None,
        tokenizer: Path | None = None,
        api_key_env: str | None = None,
        timeout_s: float = 120.0,
    ) -> None:
        """Raises EngineError for a bad URL or a missing key."""
        self._endpoints, self._model, self._folder = list(endpoints), model, tokenizer
        self._api_key_env, self._timeout_s = api_key_env, timeout_s

    def draw(
        self,
        conversations: Sequence[Conversation],
        sampling: Sampling,
        *,
        seed: int,
        rows: Sequence[int],
        at_once: int,
        on_text: OnText,
        on_progress: Callable[[int], None],
    ) -> None:
        tokenizer = None if self._folder is None else load_tokenizer(self._folder)
        prompts = None if tokenizer is None else renderer_of(tokenizer).prompts_ids(conversations)
        requests = [
            Request(
                ids=None if prompts is None else tuple(prompts[place]),
                messages=() if prompts is not None else tuple(conversation),
                write=sampling,
                seed=row_seed(seed, row),
            )
            for place, (conversation, row) in enumerate(zip(conversations, rows, strict=True))
        ]
        engine = RemoteEngine(
            self._endpoints,
            model=self._model,
            stop_ids=() if tokenizer is None else folder_stop_ids(Path(self._folder or ""), tokenizer),
            api_key_env=self._api_key_env,
            prompts_per_request=1,
            concurrency=-(-at_once // len(self._endpoints)),
            timeout_s=self._timeout_s,
        )
        problems: list[str] = []
        done = 0
        try:
            for start in range(0, len(requests), 4 * at_once):
                for place, answer in enumerate(engine.ask(requests[start : start + 4 * at_once]), start):
                    if answer.status in ("ok", "truncated", "refused"):
                        on_text(place, written_text(answer))
                    else:
                        problems.append(f"{self._endpoints[0]}: {answer.status}: {answer.detail}")
                done = min(start + 4 * at_once, len(requests))
                on_progress(done)
                if problems:
                    raise EngineError(problems[0])
        finally:
            engine.close()

    def close(self) -> None:
        pass


def load_tokenizer(folder: Path) -> Any:
    """A model folder's tokenizer. Raises EngineError in one line."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise EngineError(f"{folder}: cannot load the tokenizer: {str(error).splitlines()[0]}") from error
