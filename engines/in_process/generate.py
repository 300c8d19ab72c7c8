"""Sampling in this process, from any decoder-only transformers model whose layers all attend to the whole context.

Greedy output equals `model.generate`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch

from common.chat import Conversation, encode_prompt
from training.errors import TrainingError
from training.models.load import context_length
from training.rollouts.loop import Loop
from training.rollouts.protocol import Completion, Progress, Sampling


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
    _check_architecture(model, max((len(prompts[i]) + room[i] for i in fits), default=0))
    done = len(prompts) - len(fits)
    with _sampling_mode(model):
        loop = Loop(
            model, tokenizer, prompts, room, fits, sampling, seed, rows or range(len(prompts)), batch_size
        )
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
