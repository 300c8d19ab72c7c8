"""Free text from a model in this process: rationales, in batches of similar length."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from judges.records import Sampling


@dataclass(frozen=True, kw_only=True)
class Written:
    """A generated text, its length in tokens, and whether the model ended it by itself."""

    text: str
    tokens: int
    ended: bool


def generate(
    model: Any, tokenizer: Any, prompts: Sequence[Sequence[int]], sampling: Sampling, *, padding: int
) -> list[Written]:
    """Continues `prompts` (token ids), all in one batch. The same seed on another batch gives other texts."""
    import torch

    width = max(map(len, prompts))
    ids_BT = torch.tensor([[padding] * (width - len(ids)) + list(ids) for ids in prompts])
    mask_BT = torch.tensor([[0] * (width - len(ids)) + [1] * len(ids) for ids in prompts])
    options: dict[str, Any] = {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
    if sampling.temperature > 0:
        options |= {
            "do_sample": True,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "top_k": 0,
        }
    devices = [model.device] if model.device.type == "cuda" else []
    with torch.random.fork_rng(devices), torch.inference_mode():
        torch.manual_seed(sampling.seed)
        output = model.generate(
            input_ids=ids_BT.to(model.device),
            attention_mask=mask_BT.to(model.device),
            max_new_tokens=sampling.max_tokens,
            pad_token_id=padding,
            **options,
        )
    ends = model.generation_config.eos_token_id
    stops = {tokenizer.eos_token_id} | set(ends if isinstance(ends, list) else [ends])
    written = []
    for row in output[:, width:].tolist():
        length = next((n for n, i in enumerate(row) if i in stops), None)
        ids = row[:length]
        text = tokenizer.decode(ids, skip_special_tokens=True).strip()
        written.append(Written(text=text, tokens=len(ids), ended=length is not None))
    return written
