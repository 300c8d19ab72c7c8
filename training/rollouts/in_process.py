"""Sampling in this process: a KV cache of slots, refilled with waiting prompts as rows finish.

Works with any decoder-only transformers model whose layers all attend to the whole context. The per-step cost
is the model's own forward pass over live rows only; greedy output equals `model.generate`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch

from training.chat import Conversation, decode_response, encode_prompt, stop_token_ids
from training.errors import TrainingError
from training.rollouts.protocol import Completion, FinishReason, Progress, Sampling
from training.rollouts.sampling import draw, uniform
from training.rollouts.slots import SlotCache

# Waiting prompts enter when this share of the slots is free: fewer, larger prefills.
REFILL_SHARE = 0.25


def generate(
    model: Any,
    tokenizer: Any,
    conversations: Sequence[Conversation],
    *,
    max_new_tokens: int = 64,
    temperature: float = 1.0,
    top_p: float = 1.0,
    seed: int = 0,
    batch_size: int = 128,
    on_progress: Progress | None = None,
) -> list[Completion]:
    """One completion per conversation, in order. `on_progress(done, total)` is called as rows finish.

    Raises TrainingError for sampling settings out of range and for models that need another kind of cache.
    """
    sampling = Sampling(max_new_tokens=max_new_tokens, temperature=temperature, top_p=top_p)
    return generate_ids(
        model,
        tokenizer,
        [encode_prompt(tokenizer, conversation) for conversation in conversations],
        sampling=sampling,
        seed=seed,
        batch_size=batch_size,
        on_progress=on_progress,
    )


@torch.no_grad()
def generate_ids(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Sequence[int]],
    *,
    sampling: Sampling,
    seed: int = 0,
    rows: Sequence[int] | None = None,
    batch_size: int = 128,
    on_progress: Progress | None = None,
) -> list[Completion]:
    """`generate` for prompts that are encoded already.

    `rows` numbers the prompts (by default 0, 1, …): what is drawn depends on the seed and that number.
    """
    if batch_size < 1:
        raise TrainingError(f"batch_size ({batch_size}) must be at least 1")
    if not all(prompts):
        raise TrainingError(f"prompt {[len(prompt) for prompt in prompts].index(0)} has no tokens")
    context = context_length(model)
    room = [min(sampling.max_new_tokens, context - len(prompt)) for prompt in prompts]
    fits = [i for i in range(len(prompts)) if room[i] > 0]
    loop = _Loop(
        model, tokenizer, prompts, room, fits, sampling, seed, rows or range(len(prompts)), batch_size
    )
    done = len(prompts) - len(fits)
    with _sampling_mode(model):
        while not loop.finished:
            finished = loop.step()
            done += finished
            if finished and on_progress is not None:
                on_progress(done, len(prompts))
    return loop.completions()


class InProcessEngine:
    """Rollouts straight from the model being trained; `autocast()` is the context it computes in."""

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        batch_size: int = 128,
        autocast: Callable[[], AbstractContextManager] = nullcontext,
    ) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.batch_size = batch_size
        self.autocast = autocast

    def generate(
        self, prompts: Sequence[Sequence[int]], sampling: Sampling, *, seed: int, rows: Sequence[int]
    ) -> list[Completion]:
        with self.autocast():
            return generate_ids(
                self.model,
                self.tokenizer,
                prompts,
                sampling=sampling,
                seed=seed,
                rows=rows,
                batch_size=self.batch_size,
            )

    def update_weights(self, model: Any) -> None:
        self.model = model

    def close(self) -> None:
        pass


class _Loop:
    """The state of one call: waiting prompts, live rows, and the buffers that results are written to.

    Tensors suffixed _S have one entry a slot; the first `live` are meaningful.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        prompts: Sequence[Sequence[int]],
        room: Sequence[int],
        fits: Sequence[int],
        sampling: Sampling,
        seed: int,
        rows: Sequence[int],
        batch_size: int,
    ) -> None:
        self.model, self.tokenizer, self.prompts, self.sampling = model, tokenizer, prompts, sampling
        self.device = next(model.parameters()).device
        total, longest = len(prompts), max((room[i] for i in fits), default=0)
        # One row of numbers a prompt: what it draws does not depend on when it gets a slot, or in which process.
        self.noise = uniform(seed, rows, longest).to(self.device)
        self.tokens = torch.zeros(total, longest, dtype=torch.long, device=self.device)
        self.logprobs = torch.zeros(total, longest, device=self.device)
        self.lengths = [0] * total
        self.stopped = [False] * total
        # Longest first, so that a prefill pads little and the last rows to run are short.
        self.waiting = sorted(fits, key=lambda i: len(prompts[i]) + room[i])
        self.slots = min(batch_size, len(fits))
        columns = max((len(prompts[i]) + room[i] for i in fits), default=0)
        config = model.config.get_text_config()
        _check_architecture(model, columns)
        self.cache = SlotCache(layers=config.num_hidden_layers, slots=self.slots, columns=columns)
        stops = set(stop_token_ids(tokenizer)) | _generation_stops(model)
        self.is_stop = torch.zeros(max([config.vocab_size, *(s + 1 for s in stops)]), dtype=torch.bool)
        self.is_stop[sorted(stops)] = True
        self.is_stop = self.is_stop.to(self.device)
        self.room = torch.tensor(list(room) or [0], device=self.device)
        self.live = 0
        self.row_S = torch.zeros(self.slots, dtype=torch.long, device=self.device)  # prompt index
        self.column_S = torch.zeros_like(self.row_S)  # where the next input token goes
        self.step_S = torch.zeros_like(self.row_S)  # tokens drawn so far
        self.input_S = torch.zeros_like(self.row_S)  # the next input token
        self.arange = torch.arange(max(self.slots, columns), device=self.device)
        self.width = 0
        parameters = inspect.signature(getattr(model, "get_base_model", lambda: model)().forward).parameters
        self.last_only = {"logits_to_keep": 1} if "logits_to_keep" in parameters else {}

    @property
    def finished(self) -> bool:
        return not self.live and not self.waiting

    def step(self) -> int:
        """Refill free slots, draw one token for every live row; returns how many rows finished."""
        free = self.slots - self.live
        if self.waiting and (not self.live or free >= REFILL_SHARE * self.slots):
            self._refill(free)
        live = slice(0, self.live)
        rows, columns, steps = self.row_S[live], self.column_S[live], self.step_S[live]
        self.width += 1
        self.cache.plan_step(self.arange[live], columns, self.width)
        seen = self.arange[: self.width] <= columns[:, None]
        output = self.model(
            input_ids=self.input_S[live, None],
            position_ids=columns[:, None],
            attention_mask=seen[:, None, None, :],
            past_key_values=self.cache,
            use_cache=True,
        )
        tokens, logprobs = draw(output.logits[:, -1], self.noise[rows, steps], self.sampling)
        self.tokens[rows, steps] = tokens
        self.logprobs[rows, steps] = logprobs
        self.input_S[live] = tokens
        self.column_S[live] += 1
        self.step_S[live] += 1
        stopped = self.is_stop[tokens]
        over = stopped | (self.step_S[live] >= self.room[rows])
        if not over.any():
            return 0
        for row, steps_drawn, stop in zip(
            rows[over].tolist(), self.step_S[live][over].tolist(), stopped[over].tolist(), strict=True
        ):
            self.lengths[row], self.stopped[row] = steps_drawn, stop
        self._retire(over)
        return int(over.sum())

    def completions(self) -> list[Completion]:
        tokens, logprobs = self.tokens.tolist(), self.logprobs.tolist()
        results = []
        for row, length in enumerate(self.lengths):
            reason: FinishReason = "stop" if self.stopped[row] else "length" if length else "prompt_too_long"
            ids = tokens[row][:length]
            text = decode_response(self.tokenizer, ids[:-1] if self.stopped[row] else ids)
            results.append(
                Completion(
                    text=text,
                    token_ids=tuple(ids),
                    logprobs=tuple(logprobs[row][:length]),
                    finish_reason=reason,
                )
            )
        return results

    def _refill(self, free: int) -> None:
        """Give waiting prompts slots and cache all but their last token, which is the next step's input."""
        rows = [self.waiting.pop() for _ in range(min(free, len(self.waiting)))]
        slots = slice(self.live, self.live + len(rows))
        heads = [tuple(self.prompts[row][:-1]) for row in rows]
        longest = max(map(len, heads))
        for group in _alike(heads):
            self._prefill(group, [heads[place] for place in group])
        self.row_S[slots] = torch.tensor(rows, device=self.device)
        self.column_S[slots] = torch.tensor([len(head) for head in heads], device=self.device)
        self.step_S[slots] = 0
        self.input_S[slots] = torch.tensor([self.prompts[row][-1] for row in rows], device=self.device)
        self.live += len(rows)
        self.width = max(self.width, longest)

    def _prefill(self, places: Sequence[int], heads: Sequence[tuple[int, ...]]) -> None:
        """Cache prompts in the slots that are `places` behind the live rows; equal ones are computed once."""
        distinct = {head: index for index, head in enumerate(dict.fromkeys(heads))}
        ids = torch.zeros(len(distinct), max(map(len, heads)), dtype=torch.long)
        for head, index in distinct.items():
            ids[index, : len(head)] = torch.tensor(head, dtype=torch.long)
        slots = torch.tensor(places, device=self.device) + self.live
        copies = torch.tensor([distinct[head] for head in heads], device=self.device)
        self.cache.plan_prefill(slots, copies)
        # Causal attention alone hides the padding on the right from every real token.
        self.model(
            input_ids=ids.to(self.device), past_key_values=self.cache, use_cache=True, **self.last_only
        )

    def _retire(self, over: torch.Tensor) -> None:
        """Drop the rows where `over`, moving live rows from the end into their places."""
        remaining = self.live - int(over.sum())
        target = over[:remaining].nonzero().squeeze(-1)
        source = (~over[remaining:]).nonzero().squeeze(-1) + remaining
        if len(target):
            self.cache.move(source, target, self.width)
            for state in (self.row_S, self.column_S, self.step_S, self.input_S):
                state[target] = state[source]
        self.live = remaining
        self.width = int(self.column_S[:remaining].max()) if remaining else 0


def _alike(heads: Sequence[tuple[int, ...]]) -> list[list[int]]:
    """Places of prompts in groups of like length, so that a prefill pads little; empty prompts in none."""
    groups: list[list[int]] = []
    for place in sorted(range(len(heads)), key=lambda place: -len(heads[place])):
        size = len(heads[place])
        if groups and size >= 0.75 * len(heads[groups[-1][0]]) - 8:
            groups[-1].append(place)
        elif size:
            groups.append([place])
    return groups


def context_length(model: Any) -> int:
    """The most tokens that the model's positions allow; unbounded models give 2**31 - 1."""
    config = model.config.get_text_config()
    return getattr(config, "max_position_embeddings", None) or 2**31 - 1


def _generation_stops(model: Any) -> set[int]:
    """End tokens named by the model's generation config: none, one or several."""
    stops = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    if stops is None:
        return set()
    return {stops} if isinstance(stops, int) else set(stops)


def _check_architecture(model: Any, columns: int) -> None:
    config = model.config.get_text_config()
    window = getattr(config, "sliding_window", None)
    layers = getattr(config, "layer_types", None)
    kinds = set(layers or ["sliding_attention" if window else "full_attention"]) - {"full_attention"}
    if window is not None and columns <= window:
        kinds.discard("sliding_attention")
    if getattr(config, "is_encoder_decoder", False):
        kinds.add("an encoder")
    if not getattr(model, "_supports_sdpa", True):
        kinds.add("its own attention function")
    if kinds:
        raise TrainingError(
            f"model type {config.model_type} has {', '.join(sorted(kinds))}, which in-process generation does "
            "not do; use a vLLM server for rollouts"
        )


@contextmanager
def _sampling_mode(model: Any) -> Iterator[None]:
    """Dropout off, and the attention function that takes a mask of any shape; as before afterwards."""
    config = model.config.get_text_config()
    training, attention = model.training, config._attn_implementation
    model.eval()
    config._attn_implementation = "sdpa"
    try:
        yield
    finally:
        config._attn_implementation = attention
        model.train(training)
