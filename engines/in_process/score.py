"""Log-probabilities of options: prompts in batches of like length, logits at the last positions only.

Prompts are padded on the right: attention is causal, so no real token sees the padding, no mask is needed and the
fast attention path is taken.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from engines.in_process.model import context_length
from engines.options import LITTLE_MASS, all_single, option_mass, said_instead, summed
from engines.protocol import Answer, Spellings


def option_logprobs(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Sequence[int]],
    spellings: Sequence[Spellings],
    *,
    tokens_per_batch: int = 4096,
) -> list[Answer]:
    """Per prompt the log-probability of each of its options, all spellings summed.

    A prompt that does not fit the model with its options is "truncated", never cut. `tokens_per_batch` bounds memory.
    """
    context = context_length(model)
    answers: list[Answer | None] = [None] * len(prompts)
    rows: list[_Row] = []
    for n, (prompt, options) in enumerate(zip(prompts, spellings, strict=True)):
        single = all_single(options)
        longest = len(prompt) + (0 if single else max(len(s) for option in options for s in option))
        if not prompt or longest > context:
            detail = f"prompt and answer have {longest} tokens, the model takes {context}"
            answers[n] = Answer(status="truncated", detail=detail, prompt_tokens=len(prompt))
            continue
        heads = [()] if single else dict.fromkeys(s[:-1] for option in options for s in option)
        rows += [_Row(call=n, ids=[*prompt, *head], start=len(prompt), options=options) for head in heads]
    scores: dict[int, dict[tuple[int, ...], float]] = {}
    whole: dict[int, tuple[float, ...]] = {}
    instead: dict[int, str] = {}
    padding = tokenizer.pad_token_id or 0
    for batch in _batches(sorted(rows, key=lambda row: (len(row.ids), row.call)), tokens_per_batch):
        for row, logprobs_NV in zip(batch, _logprobs(model, batch, padding), strict=True):
            if all_single(row.options):
                forms = [[s[0] for s in option] for option in row.options]
                whole[row.call] = tuple(float(logprobs_NV[0, form].logsumexp(0)) for form in forms)
            else:
                head = tuple(row.ids[row.start :])
                mine = scores.setdefault(row.call, {})
                for spelling in (s for option in row.options for s in option if s[:-1] == head):
                    mine[spelling] = float(logprobs_NV[range(len(spelling)), list(spelling)].sum())
            if row.call not in instead:
                instead[row.call] = _instead(logprobs_NV[0], whole.get(row.call), tokenizer)
    for n in {row.call for row in rows}:
        values = whole[n] if n in whole else summed(scores[n], spellings[n])
        little = option_mass(values) < LITTLE_MASS
        answers[n] = Answer(
            status="ok",
            logprobs=values,
            detail=instead[n] or None if little else None,
            prompt_tokens=len(prompts[n]),
            completion_tokens=1,
        )
    return [answer for answer in answers if answer is not None]


@dataclass(frozen=True, kw_only=True)
class _Row:
    """One sequence through the model: its request's number, the prompt's ids with the first part of a spelling, where
    that part begins, and the options that are read behind it."""

    call: int
    ids: list[int]
    start: int
    options: Spellings

    @property
    def positions(self) -> range:
        """The positions whose logits predict the answer."""
        return range(self.start - 1, len(self.ids))


def _instead(logprobs_V: torch.Tensor, found: tuple[float, ...] | None, tokenizer: Any) -> str:
    """The likeliest next tokens, where they are not the options."""
    if found is not None and option_mass(found) >= LITTLE_MASS:
        return ""
    values, ids = logprobs_V.topk(min(3, len(logprobs_V)))
    named = {tokenizer.decode([i]): lp for i, lp in zip(ids.tolist(), values.tolist(), strict=True)}
    return said_instead(named)[2:]


def _logprobs(model: Any, batch: Sequence[_Row], padding: int) -> list[torch.Tensor]:
    """Per row the log-probabilities (positions, V) of the next token, natural log, on the CPU."""
    width = max(len(row.ids) for row in batch)
    ids_BT = torch.tensor([row.ids + [padding] * (width - len(row.ids)) for row in batch])
    wanted = [row.positions for row in batch]
    kept = sorted({p for positions in wanted for p in positions})
    column = {p: c for c, p in enumerate(kept)}
    with torch.inference_mode():
        logits_BKV = model(
            input_ids=ids_BT.to(model.device),
            logits_to_keep=torch.tensor(kept, device=model.device),
            use_cache=False,
        ).logits
        rows = [r for r, positions in enumerate(wanted) for _ in positions]
        columns = [column[p] for positions in wanted for p in positions]
        logprobs_NV = torch.log_softmax(logits_BKV[rows, columns].float(), dim=-1).cpu()
    return list(logprobs_NV.split([len(positions) for positions in wanted]))


def _batches(rows: Sequence[_Row], tokens_per_batch: int) -> Iterator[list[_Row]]:
    """Consecutive rows whose padded size stays under `tokens_per_batch`; rows come sorted by length."""
    batch: list[_Row] = []
    for row in rows:
        if batch and (len(batch) + 1) * len(row.ids) > tokens_per_batch:
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch
