"""Continuous batching: a KV cache of slots, refilled with waiting prompts as rows finish.

A step computes nothing for rows that are done, and no step waits for the longest answer of a batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from common.chat import decode_response
from engines.in_process.decoders import choose_decoder
from engines.in_process.draw import draw, uniform
from engines.in_process.slots import SlotCache
from engines.protocol import Completion, FinishReason, Sampling
from engines.stops import stop_ids

# Waiting prompts enter when this share of the slots is free: fewer, larger prefills.
REFILL_SHARE = 0.25
# What one more prefill costs beside its tokens, in tokens; and the most tokens of one, so that what lies between the
# layers' products stays in the processor's cache.
PREFILL_COST, PREFILL_TOKENS = 128, 4096


class Loop:
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
        self.tokenizer, self.prompts, self.sampling = tokenizer, prompts, sampling
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
        self.decoder = choose_decoder(model, columns)
        self.cache = SlotCache(layers=config.num_hidden_layers, slots=self.slots, columns=columns)
        stops = (*stop_ids(tokenizer, getattr(model, "generation_config", None)), *sampling.stop_ids)
        self.is_stop = torch.zeros(max([config.vocab_size, *(s + 1 for s in stops)]), dtype=torch.bool)
        self.is_stop[list(stops)] = True
        self.is_stop = self.is_stop.to(self.device)
        self.room = torch.tensor(list(room) or [0], device=self.device)
        self.live = 0
        self.row_S = torch.zeros(self.slots, dtype=torch.long, device=self.device)  # prompt index
        self.column_S = torch.zeros_like(self.row_S)  # where the next input token goes
        self.step_S = torch.zeros_like(self.row_S)  # tokens drawn so far
        self.input_S = torch.zeros_like(self.row_S)  # the next input token

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
        logits = self.decoder.step(self.input_S[live], columns, self.cache)
        tokens, logprobs = draw(logits, self.noise[rows, steps], self.sampling)
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
        places: dict[tuple[int, ...], list[int]] = {}
        for place, row in enumerate(rows):
            places.setdefault(tuple(self.prompts[row][:-1]), []).append(place)
        heads = [head for head in places if head]
        for group in alike([len(head) for head in heads]):
            self._prefill({heads[number]: places[heads[number]] for number in group})
        self.row_S[slots] = torch.tensor(rows, device=self.device)
        self.column_S[slots] = torch.tensor([len(self.prompts[row]) - 1 for row in rows], device=self.device)
        self.step_S[slots] = 0
        self.input_S[slots] = torch.tensor([self.prompts[row][-1] for row in rows], device=self.device)
        self.live += len(rows)

    def _prefill(self, places: dict[tuple[int, ...], list[int]]) -> None:
        """Cache prompts, each in the slots that are its `places` behind the live rows."""
        ids = torch.zeros(len(places), max(map(len, places)), dtype=torch.long)
        for number, head in enumerate(places):
            ids[number, : len(head)] = torch.tensor(head)
        copies = [number for number, wanted in enumerate(places.values()) for _ in wanted]
        slots = torch.tensor([place for wanted in places.values() for place in wanted]) + self.live
        slots, ids = slots.to(self.device), ids.to(self.device)
        self.decoder.prefill(ids, slots, torch.tensor(copies, device=self.device), self.cache)

    def _retire(self, over: torch.Tensor) -> None:
        """Drop the rows where `over`, moving live rows from the end into their places."""
        remaining = self.live - int(over.sum())
        target = over[:remaining].nonzero().squeeze(-1)
        source = (~over[remaining:]).nonzero().squeeze(-1) + remaining
        if len(target):
            self.cache.move(source, target, int(self.column_S[source].max()))
            for state in (self.row_S, self.column_S, self.step_S, self.input_S):
                state[target] = state[source]
        self.live = remaining


def alike(lengths: Sequence[int]) -> list[list[int]]:
    """Places of prompts in groups that are cached together, longest first, so that padding costs less than passes."""
    groups: list[list[int]] = []
    padding = 0
    for place in sorted(range(len(lengths)), key=lambda place: -lengths[place]):
        longest = lengths[groups[-1][0]] if groups else 0
        padding += longest - lengths[place]
        if groups and padding <= PREFILL_COST and (len(groups[-1]) + 1) * longest <= PREFILL_TOKENS:
            groups[-1].append(place)
        else:
            groups.append([place])
            padding = 0
    return groups
