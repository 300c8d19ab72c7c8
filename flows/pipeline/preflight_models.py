"""The models that a run names, checked before anything is spent: folders, hub ids, tokenizers and templates."""

from __future__ import annotations

import json
from pathlib import Path

from flows.config import RunConfig
from flows.config.data import CriticEndpoints
from flows.errors import FlowError
from flows.pipeline.conformance import TOKENIZER_FILES, token_checks
from flows.runs.digests import cached_commit, is_hub_id, local_folder
from training.errors import TrainingError
from training.models.files import check_safetensors, continues_text

_WEIGHTS = ("*.safetensors", "*.safetensors.index.json")


def check_model(ref: str, field: str) -> None:
    """A model folder has config, safetensors weights and a tokenizer; a hub id is cached or reachable."""
    if is_hub_id(ref):
        check_hub_model(ref, field)
        return
    folder = Path(ref)
    if not folder.exists():
        raise FlowError(f"{field}: {ref}: no such folder (and not a hub id of the form organisation/name)")
    if not folder.is_dir():
        raise FlowError(
            f"{field}: {ref}: is a file; a model is a folder with config.json and safetensors weights"
        )
    path = folder / "config.json"
    if not path.is_file():
        reason = "is empty" if not any(folder.iterdir()) else "has no config.json"
        raise FlowError(f"{field}: {ref}: {reason}")
    try:
        architectures = json.loads(path.read_text(encoding="utf-8")).get("architectures") or []
    except (OSError, ValueError, AttributeError) as error:
        raise FlowError(f"{field}: {path}: is not a model configuration: {error}") from error
    if architectures and not any(map(continues_text, architectures)):
        raise FlowError(f"{field}: {ref}: {architectures[0]} is not a causal language model")
    if not any(any(folder.glob(pattern)) for pattern in _WEIGHTS):
        raise FlowError(f"{field}: {ref}: has no safetensors weights")
    for weights in sorted(folder.glob("*.safetensors")):
        try:
            check_safetensors(weights)
        except TrainingError as error:
            raise FlowError(f"{field}: {error}") from error
    if not any((folder / name).is_file() for name in TOKENIZER_FILES):
        raise FlowError(f"{field}: {ref}: has no tokenizer ({', '.join(TOKENIZER_FILES[:3])})")


def check_tokens(config: RunConfig) -> None:
    """The tokenizers and chat templates of the models that the run names pass the checks of `charter check`."""
    judge = config.judge
    critic = config.models.critic
    fields = {
        "models.base": config.models.base,
        "models.critic": critic.tokenizer if isinstance(critic, CriticEndpoints) else critic,
        "judge": judge.tokenizer if judge.kind == "openai" else judge.model,
    }
    tried: set[Path] = set()
    for field, ref in fields.items():
        folder = None if ref is None else local_folder(str(ref))
        if folder is None or folder in tried:  # a hub id that is not in the cache yet
            continue
        tried.add(folder)
        for check in token_checks(folder):
            if check.status == "fails":
                raise FlowError(
                    f"{field}: {ref}: {check.name}: {check.text} (charter check {ref} tells more)"
                )


def check_hub_model(ref: str, field: str) -> None:
    """A hub id is in the local cache, or the hub knows it and lets us in."""
    if cached_commit(ref) is not None:
        return
    from huggingface_hub import model_info
    from huggingface_hub.constants import HF_HUB_OFFLINE

    if HF_HUB_OFFLINE:
        raise FlowError(
            f"{field}: {ref}: no such folder, and not in the local hub cache (HF_HUB_OFFLINE is set)"
        )
    try:
        model_info(ref, timeout=10)
    except Exception as error:  # the hub's client raises many kinds, all of them mean the same to a user
        reason = " ".join(str(error).split())[:200]
        raise FlowError(f"{field}: {ref}: no such folder, and the hub does not give it: {reason}") from error
