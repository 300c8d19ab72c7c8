"""A causal language model from a folder, as sampling and scoring need it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from engines.errors import EngineError

Dtype = Literal["auto", "float32", "bfloat16", "float16"]


@dataclass(frozen=True, kw_only=True)
class LoadedModel:
    """A model in evaluation mode with its tokenizer."""

    model: Any
    tokenizer: Any


def load(path: Path, *, device: str = "auto", dtype: Dtype = "auto") -> LoadedModel:
    """The model of a folder in Hugging Face format; safetensors only. Raises EngineError in one line."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    chosen = chosen_dtype(device, dtype)
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=False)
        model: Any = AutoModelForCausalLM.from_pretrained(
            path, dtype=getattr(torch, chosen), use_safetensors=True, trust_remote_code=False
        )
    except (OSError, ValueError, KeyError) as error:
        raise EngineError(f"{path}: cannot load the model: {str(error).splitlines()[0]}") from error
    model.eval().to(device)
    _float32_head(model)
    return LoadedModel(model=model, tokenizer=tokenizer)


def chosen_dtype(device: str, dtype: Dtype) -> str:
    """What "auto" means: bfloat16 on a GPU and on CPUs that multiply it in tiles (AMX: 2.4 times as fast as float32,
    measured), float32 elsewhere."""
    if dtype != "auto":
        return dtype
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    info = Path("/proc/cpuinfo")
    fast = device != "cpu" or (info.is_file() and " amx_bf16" in info.read_text())
    return "bfloat16" if fast else "float32"


def backbone(model: Any) -> Any:
    """The decoder without its head, adapters included."""
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    return getattr(inner, inner.base_model_prefix)


def context_length(model: Any) -> int:
    """The most tokens that the model's positions allow; unbounded models give 2**31 - 1."""
    for module in model.modules():
        table = getattr(module, "position_embeddings", None)
        if isinstance(table, torch.nn.Embedding) and table.padding_idx is not None:
            # RoBERTa and its relatives number positions from the one after the padding token's.
            return table.num_embeddings - table.padding_idx - 1
    return getattr(model.config.get_text_config(), "max_position_embeddings", None) or 2**31 - 1


def _float32_head(model: Any) -> None:
    """Lets the output layer compute in float32: at a logit of 10, bfloat16 knows p only to 1.6%."""
    head = model.get_output_embeddings()
    if head is None or head.weight.dtype == torch.float32:
        return
    weight = head.weight.detach().float()
    bias = None if head.bias is None else head.bias.detach().float()
    head.forward = lambda hidden: torch.nn.functional.linear(hidden.float(), weight, bias)
