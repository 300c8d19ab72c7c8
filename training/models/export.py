"""A copy of a policy for a vLLM server whose weights will be updated.

    python -m training.models.export MODEL DIRECTORY

Tied embeddings are untied in the copy: vLLM's CPU build packs an output head of its own when it starts and
does not renew it when tied weights are reloaded, so the server would go on with the old head.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import torch
from transformers.core_model_loading import revert_weight_conversion

from training.errors import TrainingError
from training.models.load import load_causal_lm, load_tokenizer, save_model


def save_untied(model: Any, tokenizer: Any, directory: Path) -> None:
    """Save `model` (without adapters) with an output head of its own."""
    directory.mkdir(parents=True, exist_ok=True)
    head = model.get_output_embeddings()
    name = next(name for name, module in model.named_modules() if module is head)
    state = dict(model.state_dict())
    state[f"{name}.weight"] = head.weight.detach().clone()
    config = model.config.get_text_config()
    tied, config.tie_word_embeddings = config.tie_word_embeddings, False
    try:
        save_model(model, tokenizer, directory, state=state)
    finally:
        config.tie_word_embeddings = tied


def served_weights(model: Any) -> dict[str, torch.Tensor]:
    """What `save_untied` writes, without a copy: a model's weights (without adapters) by their names in its files."""
    ignored = getattr(model, "_keys_to_ignore_on_save", None) or ()
    state = {name: tensor for name, tensor in model.state_dict().items() if name not in ignored}
    return revert_weight_conversion(model, state)


def main() -> int:
    """0 when copied, 2 with one line for what went wrong."""
    parser = argparse.ArgumentParser(description="Copy a policy for a vLLM server that will be updated.")
    parser.add_argument("model", help="a Hugging Face directory or hub id")
    parser.add_argument("directory", type=Path, help="where the copy goes; start vLLM from it")
    arguments = parser.parse_args()
    try:
        model = load_causal_lm(arguments.model, trainable=False)
        save_untied(model, load_tokenizer(arguments.model), arguments.directory)
    except TrainingError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{arguments.directory}: start vLLM from here, with VLLM_SERVER_DEV_MODE=1")
    return 0


if __name__ == "__main__":
    sys.exit(main())
