"""Whether a server is asked, and answers, as Charter takes it: the part of `charter check` that goes over HTTP."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from common.chat import renderer_of
from common.text import clipped
from engines import EngineError, Request, Sampling
from engines.defusing import defused
from engines.options import LITTLE_MASS, option_mass
from engines.remote import RemoteEngine
from engines.served import UNLIMITED, listed_logprobs
from engines.stops import folder_stop_ids
from engines.wire import TOP_LOGPROBS
from flows.pipeline.conformance import Check, Finding, tried
from judges import OpenAIJudge, Pair, TemplateSet
from judges.asking.ask import ask_judge
from judges.records import ORDERS

# A run waits longer for a server that is busy; here somebody waits for the answer.
_TIMEOUT_S, _RETRY_S = 60.0, 20.0
# What the shipped templates ask with a short pair, and a little more.
_LEAST_CONTEXT = 512
_QUESTION = "Which response is shorter?"
_PAIR = Pair(
    id="check",
    prompt=({"role": "user", "content": "How long does an egg take?"},),
    a="Nine minutes.",
    b="That depends on how you like it. Nine minutes in boiling water will give you one that is firm all through.",
)


def endpoint_checks(
    url: str, *, model: str | None, tokenizer: Path | None, api_key_env: str | None
) -> Iterator[Check]:
    """What a server says and does: its model, its log-probabilities, one judgement in both orders, stops, seeds.

    With `tokenizer`, the served model's folder, it is asked with token ids, otherwise with conversations. Raises
    EngineError or JudgeError for a bad URL, an unset key variable, a folder without a tokenizer.
    """
    options: dict[str, Any] = {"api_key_env": api_key_env, "timeout_s": _TIMEOUT_S, "retry_s": _RETRY_S}
    judge = OpenAIJudge(endpoints=[url], model=model, tokenizer=tokenizer, **options)
    server = _Server(RemoteEngine([url], model=model, **options), judge, tokenizer)
    try:
        answers = tried("serves", server.serves)
        yield answers
        if answers.status == "fails":
            return
        yield tried("logprobs", server.logprobs)
        yield tried("judges", server.judges)
        yield tried("stops", server.stops)
        yield tried("seeds", server.seeds)
    finally:
        judge.close()
        server.engine.close()


class _Server:
    def __init__(self, engine: RemoteEngine, judge: OpenAIJudge, folder: Path | None) -> None:
        self.engine, self.judge, self.folder, self.tokenizer = engine, judge, folder, None
        if folder is not None:
            from transformers import AutoTokenizer

            self.tokenizer = AutoTokenizer.from_pretrained(
                folder, trust_remote_code=False, local_files_only=True
            )
            engine.stop_ids = folder_stop_ids(folder, self.tokenizer)

    def serves(self) -> Finding:
        served = self.engine.served
        text = f"{served.model}, {served.build}"
        if served.context == UNLIMITED:
            return "ok", f"{text}; it does not say how long its context is"
        if served.context < _LEAST_CONTEXT:
            return (
                "note",
                f"{text}, only {served.context} tokens of context: prompts that are longer get the status truncated; "
                "start it with a larger --max-model-len",
            )
        return "ok", f"{text}, {served.context:,} tokens of context"

    def logprobs(self) -> Finding:
        listed = listed_logprobs(self.engine.pool.clients[0], self.engine.served.model)
        if listed == 0:
            return "note", "lists none for a conversation: judge with readout: verdict, or give --tokenizer"
        if listed < TOP_LOGPROBS:
            return (
                "note",
                f"lists {listed} of the {TOP_LOGPROBS} likeliest tokens asked for: a letter outside the list leaves a "
                "judgement without an answer; start the server with a longer list (vLLM: --max-logprobs)",
            )
        return "ok", f"lists the {listed} likeliest tokens"

    def judges(self) -> Finding:
        """One pair in both orders, through the judge's own client and template."""
        templates = TemplateSet("default")
        calls = [templates.pairwise(_PAIR, _QUESTION, order) for order in ORDERS]
        readings = ask_judge(self.judge, calls)
        way = "conversations" if self.folder is None else "token ids"
        chances = []
        for order, reading in zip(ORDERS, readings, strict=True):
            if reading.status != "ok" or reading.logprobs is None:
                return "fails", f"asked with {way}, order {order}: {reading.status}: {reading.detail}"
            mass = option_mass(reading.logprobs)
            if mass < LITTLE_MASS:
                return (
                    "fails",
                    f"asked with {way}, order {order}: only {mass:.2f} of the probability is on A and B"
                    f" ({reading.detail or 'nothing likelier is listed'}); this is no_answer to a run",
                )
            chances.append(math.exp(reading.logprobs[order.index("a")]) / mass)
        text = f"asked with {way}, the right answer gets {chances[0]:.2f} as A and {chances[1]:.2f} as B"
        if min(chances) < 0.5:
            return (
                "note",
                f"{text}: it does not hold to it in both orders; charter judge exam measures how often",
            )
        return "ok", text

    def stops(self) -> Finding:
        if self.tokenizer is None:
            answer = self.engine.ask([self._request("Answer with one word: yes.", 128, 0.0, 0)])[0]
            if answer.status == "truncated":
                return (
                    "note",
                    f"a one-word answer did not end in 128 tokens: {answer.detail}; rationales may be cut",
                )
            if answer.status != "ok":
                return "fails", f"{answer.status}: {answer.detail}"
            text = answer.text or ""
            if defused(text) != text:
                return (
                    "fails",
                    f"an answer shows a control token ({clipped(text, 80)}): the server's chat template or its end "
                    "tokens are not the model's",
                )
            return "ok", f"an answer ends by itself ({clipped(text, 40)})"
        sampling = Sampling(max_new_tokens=16, temperature=0.0)
        prompt = self._request("How do I boil an egg?", 16, 0.0, 0).ids or ()
        try:
            free = self.engine.generate([prompt], sampling, seed=0, rows=[0])[0].token_ids
            stop = next((i for n, i in enumerate(free) if n and i not in free[:n]), free[0])
            own, self.engine.stop_ids = self.engine.stop_ids, (stop,)
            try:
                ended = self.engine.generate([prompt], sampling, seed=0, rows=[0])[0]
            finally:
                self.engine.stop_ids = own
        except EngineError as error:
            return "note", f"judges, but cannot sample for training: {error}"
        if ended.finish_reason != "stop" or ended.token_ids[-1] != stop or stop in ended.token_ids[:-1]:
            return (
                "fails",
                f"does not stop at a token that it is told to stop at ({stop}): it ignores stop_token_ids",
            )
        return "ok", "stops at the tokens that it is told to stop at"

    def seeds(self) -> Finding:
        """Three answers at temperature 1, the first two with one seed."""
        requests = [self._request("Tell me about a city.", 24, 1.0, seed) for seed in (1, 1, 2)]
        answers = [self.engine.ask([request])[0] for request in requests]
        texts = [answer.text for answer in answers]
        lost = next((a for a in answers if a.status not in ("ok", "truncated") or a.text is None), None)
        if lost is not None:
            return "fails", f"{lost.status}: {lost.detail}"
        if texts[0] != texts[1]:
            return (
                "note",
                "one seed gives different answers: what it writes is kept, but cannot be written again",
            )
        if texts[0] == texts[2]:
            return (
                "note",
                "two seeds give one answer at temperature 1: several rationales may all be the same",
            )
        return "ok", "one seed gives one answer, another seed another"

    def _request(self, text: str, tokens: int, temperature: float, seed: int) -> Request:
        turns = ({"role": "user", "content": text},)
        write = Sampling(max_new_tokens=tokens, temperature=temperature)
        if self.tokenizer is None:
            return Request(messages=turns, write=write, seed=seed)
        return Request(ids=tuple(renderer_of(self.tokenizer).prompt_ids(turns)), write=write, seed=seed)
