"""vLLM servers of the user's that load a run's weights: told to, and checked against the model itself.

They must have been started from a copy of a model of the run's architecture that `training.models.export` made, with
VLLM_SERVER_DEV_MODE=1, see the run's folder under the same path, and serve one run at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from common.chat import renderer_of
from engines.client import Client
from engines.errors import EngineError
from engines.fleet import Say
from engines.protocol import Completion, Sampling
from engines.remote import RemoteEngine
from engines.samplers import ServedSampler
from engines.stops import folder_stop_ids

# Far above what kernels of coarser numbers differ by (about 0.01), far below what other weights do.
LARGEST_GAP = 0.2
RELOAD_S = 600.0
_PROBES = ("Hello.", "Why is the sky blue?", "Name three fruits.", "What should I do?")
_GREEDY = Sampling(max_new_tokens=8, temperature=0.0)


class LentSampler(ServedSampler):
    """A model folder on servers that are lent to the run. `close` gives nothing back: they keep the last weights."""

    def __init__(
        self,
        folder: Path,
        endpoints: Sequence[str],
        *,
        load: Callable[[], tuple[Any, Any]],
        export: Callable[[Any, Any, Path], None],
        weights: Path,
        api_key_env: str | None = None,
        timeout_s: float = 120.0,
        say: Say = lambda line: None,
    ) -> None:
        """`load` gives model and tokenizer of `folder`, `export(model, tokenizer, weights)` writes the copy that the
        servers read. Raises EngineError for a bad URL or a missing key."""
        super().__init__(folder)
        self._endpoints, self._load, self._export, self._weights = list(endpoints), load, export, weights
        self._asking: dict[str, Any] = {"api_key_env": api_key_env, "timeout_s": timeout_s}
        self._say = say
        self._clients = [Client(url, api_key_env=api_key_env, timeout_s=RELOAD_S) for url in self._endpoints]
        self._expected: list[Completion] | None = None

    def close(self) -> None:
        """Closes the connections."""
        for client in self._clients:
            client.close()

    def _engine(self, at_once: int) -> RemoteEngine:
        if self._expected is None:
            self._expected = self._give_weights()
            self._check(
                "does not answer as the weights that it loaded; was it started from this architecture?"
            )
        return self._remote(self._endpoints, at_once)

    def _after(self) -> None:
        self._check("answers with other weights than at the start: does another run use it?")

    def _give_weights(self) -> list[Completion]:
        """Have every server load the folder's weights; what the model itself says to the probes."""
        from engines.in_process import generate_ids

        self._say(f"weights of {self._folder.name} to {len(self._endpoints)} servers")
        model, tokenizer = self._load()
        self._export(model, tokenizer, self._weights)
        expected = generate_ids(model, tokenizer, self._probes(), sampling=_GREEDY)
        del model
        place = {"weights_path": str(self._weights.resolve())}
        for client in self._clients:
            client.control("POST", "/collective_rpc", {"method": "reload_weights", "kwargs": place})
            client.control("POST", "/reset_prefix_cache")
        return expected

    def _check(self, problem: str) -> None:
        """Raises EngineError, with the problem, for a server whose greedy answers are not the model's."""
        for url in self._endpoints:
            engine = self._remote([url], len(_PROBES))
            try:
                found = engine.generate(self._probes(), _GREEDY, seed=0, rows=range(len(_PROBES)))
            finally:
                engine.close()
            if any(
                _gap(own, theirs) > LARGEST_GAP
                for own, theirs in zip(self._expected or [], found, strict=True)
            ):
                raise EngineError(f"{url}: {problem}")

    def _remote(self, urls: Sequence[str], at_once: int) -> RemoteEngine:
        return RemoteEngine(
            urls,
            stop_ids=folder_stop_ids(self._folder, self._tokenizer),
            decode=renderer_of(self._tokenizer).decode,
            concurrency=-(-at_once // len(urls)),
            **self._asking,
        )

    def _probes(self) -> list[list[int]]:
        return renderer_of(self._tokenizer).prompts_ids(
            [[{"role": "user", "content": text}] for text in _PROBES]
        )


def _gap(own: Completion, theirs: Completion) -> float:
    """The largest difference of log-probabilities up to the first token in which two greedy answers part."""
    largest = 0.0
    pairs = zip(own.token_ids, own.logprobs, theirs.token_ids, theirs.logprobs, strict=False)
    for mine, logprob, other, told in pairs:
        largest = max(largest, abs(logprob - told))
        if mine != other:
            break
    return largest
