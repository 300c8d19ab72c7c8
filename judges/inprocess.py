"""A judge inside this process: a Hugging Face causal language model on the CPU or a GPU (see engines.in_process)."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from engines import Answer, Request
from judges.encoding import CallEncoder
from judges.engine import to_reading
from judges.errors import JudgeError, one_line
from judges.identity import joined
from judges.records import Call, JudgeIdentity, Reading
from judges.thinking import Thinker, Thinking, answered, budget_of, serving_of
from judges.weights import former_revision, model_revision

if TYPE_CHECKING:
    from engines.in_process import InProcessEngine


class InProcessJudge:
    """Reads option probabilities off a local model. Loads on the first call; `tokens_per_batch` bounds memory."""

    def __init__(
        self,
        model: str | Path,
        *,
        device: str = "auto",
        dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto",
        tokens_per_batch: int = 4096,
        thinking: Thinking | None = None,
    ) -> None:
        """`model` is a folder in Hugging Face format, `thinking` as in `JudgeSettings`. Raises JudgeError when there is
        none."""
        self._path = Path(model)
        if not (self._path / "config.json").is_file():
            raise JudgeError(f"no model in {self._path}: expected a Hugging Face folder with config.json")
        if not any(self._path.glob("*.safetensors")):
            raise JudgeError(f"no *.safetensors in {self._path}: only safetensors weights are loaded")
        self._device, self._tokens_per_batch = device, tokens_per_batch
        self._dtype: Literal["auto", "float32", "bfloat16", "float16"] = dtype
        self._loaded: tuple[InProcessEngine, CallEncoder] | None = None
        self._thinking = thinking
        self._thinker: Thinker | None = None
        self._lock = threading.Lock()
        self._identity: JudgeIdentity | None = None

    @property
    def identity(self) -> JudgeIdentity:
        """The folder's name, as revision the digest of its weights, configuration and tokenizer, and the type of
        number that it computes in where that is not float32."""
        if self._identity is None:
            dtype: str = self._dtype
            if dtype == "auto":
                from engines.in_process.model import chosen_dtype

                dtype = chosen_dtype(self._device, "auto")
            self._identity = JudgeIdentity(
                kind="in-process",
                model=self._path.resolve().name,
                revision=model_revision(self._path),
                build=f"transformers {version('transformers')}, torch {version('torch')}",
                serving=joined("" if dtype == "float32" else dtype, serving_of(self._thinking, by_ids=True)),
                former_revision=former_revision(self._path),
            )
        return self._identity

    def ask(self, calls: Sequence[Call]) -> list[Reading]:
        """One reading per call. Prompts longer than the model's context are "truncated", never cut.

        Threads take turns: the model uses all cores for each.
        """
        if not calls:
            return []
        if any(call.verdict for call in calls):
            raise JudgeError("readout: an in-process judge has log probabilities; set readout: logprobs")
        with self._lock, one_line():
            engine, encoder = self._load()
            started = time.perf_counter()
            answers = answered(
                calls, encoder, self._thinker, partial(_asked, engine), context=self._context(engine)
            )
            latency = (time.perf_counter() - started) / len(calls)
        return [to_reading(answers[n], call, latency_s=latency) for n, call in enumerate(calls)]

    def _load(self) -> tuple[InProcessEngine, CallEncoder]:
        if self._loaded is None:
            from engines.in_process import InProcessEngine, load

            loaded = load(self._path, device=self._device, dtype=self._dtype)
            engine = InProcessEngine(
                loaded.model, loaded.tokenizer, batch_size=32, tokens_per_batch=self._tokens_per_batch
            )
            self._loaded = engine, CallEncoder(loaded.tokenizer)
            budget = budget_of(self._thinking)
            if budget is not None:
                self._thinker = Thinker(loaded.tokenizer, self._loaded[1], budget)
        return self._loaded

    def _context(self, engine: InProcessEngine) -> int:
        from engines.in_process.model import context_length

        return context_length(engine.model)


def _asked(engine: InProcessEngine, requests: list[Request]) -> list[Answer]:
    """Answers of an engine to requests of both kinds, in order."""
    answers: dict[int, Answer] = {}
    reading = [n for n, request in enumerate(requests) if request.write is None]
    found = engine.option_logprobs(
        [requests[n].ids or () for n in reading], [requests[n].spellings for n in reading]
    )
    answers |= dict(zip(reading, found, strict=True))
    answers |= _written(engine, {n: r for n, r in enumerate(requests) if r.write is not None})
    return [answers[n] for n in range(len(requests))]


def _written(engine: InProcessEngine, requests: dict[int, Request]) -> dict[int, Answer]:
    """Texts by their calls' numbers; one that does not end within its tokens is "truncated", half a thought being
    another thought. What a prompt draws does not depend on which others it is asked with."""
    from engines.in_process.model import context_length

    context = context_length(engine.model) if requests else 0
    groups: dict[object, list[int]] = {}
    answers: dict[int, Answer] = {}
    for n, request in requests.items():
        assert request.write is not None and request.ids is not None
        whole = len(request.ids) + request.write.max_new_tokens
        if whole > context:
            detail = f"prompt and rationale may have {whole} tokens, the model takes {context}"
            answers[n] = Answer(status="truncated", detail=detail, prompt_tokens=len(request.ids))
        else:
            groups.setdefault(request.write, []).append(n)
    for numbers in groups.values():
        sampling = requests[numbers[0]].write
        assert sampling is not None
        completions = engine.generate(
            [requests[n].ids or () for n in numbers],
            sampling,
            seed=0,
            rows=[requests[n].seed for n in numbers],
        )
        for n, done in zip(numbers, completions, strict=True):
            ended = done.finish_reason == "stop"
            answers[n] = Answer(
                status="ok" if ended else "truncated",
                text=done.text.strip(),
                detail=None if ended else f"the rationale did not end in {sampling.max_new_tokens} tokens",
                prompt_tokens=len(requests[n].ids or ()),
                completion_tokens=len(done.token_ids) - ended,
            )
    return answers
