"""Sampling by transformers' own `generate`, for models that the slots of the loop do not fit.

Prompts of one length go together, so nothing is padded: right for recurrent layers, windows and biases alike. Each
row draws by the numbers that it would draw by in the loop.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from transformers import LogitsProcessor, LogitsProcessorList

from common.chat import decode_response
from engines.in_process.draw import draw, uniform
from engines.protocol import Completion, FinishReason, Sampling
from engines.stops import stop_ids


class _Drawing(LogitsProcessor):
    """Draws each row's next token, keeps its log-probability and leaves `generate` no other choice."""

    def __init__(self, noise_BT: torch.Tensor, width: int, sampling: Sampling) -> None:
        self.noise_BT, self.width, self.sampling = noise_BT, width, sampling
        self.logprobs: list[torch.Tensor] = []

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        tokens, logprobs = draw(scores, self.noise_BT[:, input_ids.shape[1] - self.width], self.sampling)
        self.logprobs.append(logprobs)
        return torch.full_like(scores, -torch.inf).scatter(-1, tokens[:, None], 0.0)


def generate_plain(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Sequence[int]],
    room: Sequence[int],
    fits: Sequence[int],
    sampling: Sampling,
    seed: int,
    rows: Sequence[int],
    batch_size: int,
) -> Iterator[dict[int, Completion]]:
    """Completions by their prompts' numbers, a batch at a time; `room` is the most new tokens of each."""
    stops = (*stop_ids(tokenizer, getattr(model, "generation_config", None)), *sampling.stop_ids)
    groups: dict[tuple[int, int], list[int]] = {}
    for i in fits:
        groups.setdefault((len(prompts[i]), room[i]), []).append(i)
    for (width, longest), members in groups.items():
        for at in range(0, len(members), batch_size):
            batch = members[at : at + batch_size]
            ids = torch.tensor([list(prompts[i]) for i in batch], device=model.device)
            noise = uniform(seed, [rows[i] for i in batch], longest).to(model.device)
            drawing = _Drawing(noise, width, sampling)
            output = model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=longest,
                do_sample=False,
                temperature=None,
                top_p=None,
                top_k=None,
                repetition_penalty=1.0,
                eos_token_id=list(stops),
                pad_token_id=stops[0],
                logits_processor=LogitsProcessorList([drawing]),
            )[:, width:].tolist()
            logprobs = torch.stack(drawing.logprobs, 1).tolist()
            yield {
                i: _completion(tokenizer, ids, lps, stops)
                for i, ids, lps in zip(batch, output, logprobs, strict=True)
            }


def _completion(tokenizer: Any, ids: list[int], logprobs: list[float], stops: Sequence[int]) -> Completion:
    end = next((n for n, i in enumerate(ids) if i in stops), None)
    kept = ids if end is None else ids[: end + 1]
    reason: FinishReason = "length" if end is None else "stop"
    return Completion(
        text=decode_response(tokenizer, kept if end is None else kept[:-1]),
        token_ids=tuple(kept),
        logprobs=tuple(logprobs[: len(kept)]),
        finish_reason=reason,
    )
