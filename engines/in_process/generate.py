"""Sampling and scoring in this process, with any decoder-only transformers model.

Models whose layers all attend to the whole context take the loop of slots, which is tried against their own forward
pass first; the others `generate`. Greedy output equals `model.generate`.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch

from common.chat import Conversation, encode_prompt
from engines.errors import EngineError
from engines.in_process.decoders import ModelDecoder, last_logits
from engines.in_process.loop import Loop
from engines.in_process.model import context_length
from engines.in_process.plain import generate_plain
from engines.in_process.score import option_logprobs
from engines.protocol import Answer, Completion, Progress, Sampling, Spellings

_TOO_LONG = Completion(text="", token_ids=(), logprobs=(), finish_reason="prompt_too_long")
_tried: weakref.WeakKeyDictionary[Any, bool] = weakref.WeakKeyDictionary()


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

    Raises EngineError for sampling settings out of range.
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
        raise EngineError(f"batch_size ({batch_size}) must be at least 1")
    if not all(prompts):
        raise EngineError(f"prompt {[len(prompt) for prompt in prompts].index(0)} has no tokens")
    context = context_length(model)
    room = [min(sampling.max_new_tokens, context - len(prompt)) for prompt in prompts]
    fits = [i for i in range(len(prompts)) if room[i] > 0]
    done = len(prompts) - len(fits)
    numbers = rows or range(len(prompts))
    columns = max((len(prompts[i]) + room[i] for i in fits), default=0)
    with _evaluating(model):
        if not fits_slots(model, columns):
            found: dict[int, Completion] = {}
            for batch in generate_plain(
                model, tokenizer, prompts, room, fits, sampling, seed, numbers, batch_size
            ):
                found |= batch
                if on_progress is not None:
                    on_progress(done + len(found), len(prompts))
            return [found.get(i, _TOO_LONG) for i in range(len(prompts))]
        with _masked_attention(model):
            loop = Loop(model, tokenizer, prompts, room, fits, sampling, seed, numbers, batch_size)
            while not loop.finished:
                finished = loop.step()
                done += finished
                if finished and on_progress is not None:
                    on_progress(done, len(prompts))
    return loop.completions()


class InProcessEngine:
    """A model in this process, such as the one being trained; `autocast()` is the context it computes in.

    `batch_size` bounds the rows that are sampled together, `tokens_per_batch` those that are scored.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        batch_size: int = 128,
        tokens_per_batch: int = 4096,
        autocast: Callable[[], AbstractContextManager] = nullcontext,
    ) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.batch_size, self.tokens_per_batch = batch_size, tokens_per_batch
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

    def option_logprobs(
        self, prompts: Sequence[Sequence[int]], spellings: Sequence[Spellings]
    ) -> list[Answer]:
        with self.autocast():
            return option_logprobs(
                self.model, self.tokenizer, prompts, spellings, tokens_per_batch=self.tokens_per_batch
            )

    def update_weights(self, model: Any) -> None:
        self.model = model

    def close(self) -> None:
        pass


def fits_slots(model: Any, columns: int) -> bool:
    """Whether the loop of slots gives this model's logits for sequences of up to `columns` tokens: its cache has one
    kind of layer, and on a few tokens it agrees with the model's own forward pass, with the attention it came with."""
    config = model.config.get_text_config()
    window = getattr(config, "sliding_window", None)
    layers = getattr(config, "layer_types", None)
    kinds = set(layers or ["sliding_attention" if window else "full_attention"]) - {"full_attention"}
    if window is not None and columns <= window:
        kinds.discard("sliding_attention")
    capped = getattr(config, "attn_logit_softcapping", None)
    if (
        kinds
        or capped
        or getattr(config, "is_encoder_decoder", False)
        or not getattr(model, "_supports_sdpa", True)
    ):
        return False
    if model not in _tried:
        _tried[model] = _agrees(model, config)
    return _tried[model]


def _agrees(model: Any, config: Any) -> bool:
    ids = torch.tensor([[(7 * i + 3 * row + 1) % config.vocab_size for i in range(6)] for row in range(2)])
    ids = ids.to(next(model.parameters()).device)
    expected = model(input_ids=ids, use_cache=False).logits[:, -1].float()
    try:
        with _masked_attention(model):
            found = last_logits(ModelDecoder(model), model, ids).float()
    except (AttributeError, RuntimeError, ValueError, TypeError, IndexError, KeyError, NotImplementedError):
        return False
    # Another kernel in reduced precision rounds otherwise; a cap, a bias or a state that is missing shows far above.
    reduced = next(model.parameters()).dtype != torch.float32 or torch.is_autocast_enabled(ids.device.type)
    tolerance = 5e-2 if reduced else 1e-4
    return torch.allclose(found, expected, rtol=tolerance, atol=tolerance * float(expected.abs().max()))


@contextmanager
def _evaluating(model: Any) -> Iterator[None]:
    """Dropout off; as before afterwards."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


@contextmanager
def _masked_attention(model: Any) -> Iterator[None]:
    """The attention function that takes a mask of any shape; as before afterwards."""
    config = model.config.get_text_config()
    attention = config._attn_implementation
    config._attn_implementation = "sdpa"
    try:
        yield
    finally:
        config._attn_implementation = attention
