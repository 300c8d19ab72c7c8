"""A policy served by vLLM, as training connects to it."""

from pathlib import Path
from typing import Any

from common.chat import decode_response
from engines.stops import stop_ids
from engines.update import ServedPolicy
from training.models import export


def serve_policy(url: str, tokenizer: Any, weights_dir: Path, **more: Any) -> ServedPolicy:
    """`ServedPolicy` with the trainer's exporter, stops and decoding."""
    return ServedPolicy(
        url,
        tokenizer,
        exporter=export,
        weights_dir=weights_dir,
        stop_ids=stop_ids(tokenizer),
        decode=lambda ids: decode_response(tokenizer, ids),
        **more,
    )
