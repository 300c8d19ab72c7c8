"""Loading and saving models in Hugging Face format, with one clear line for each way it can fail."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from common.chat import renderer_of, stop_token_ids
from common.files import move_into
from engines.in_process.model import context_length
from training.errors import TrainingError
from training.models.files import check_model

# Where a config keeps the dropout that it came with while that is switched off.
OWN_DROPOUT = "charter_own_dropout"


def load_tokenizer(ref: str) -> Any:
    """The tokenizer of a model; one without a padding token pads with its unknown or end-of-sequence token.

    Padding is masked everywhere in training, so which token pads changes nothing there.

    Raises TrainingError.
    """
    from transformers import AutoTokenizer

    if Path(ref).is_dir() and not any(Path(ref).glob("tokenizer*")):
        raise TrainingError(f"tokenizer of {ref}: the directory holds no tokenizer files")
    with _one_line(f"tokenizer of {ref}"):
        tokenizer = AutoTokenizer.from_pretrained(ref, trust_remote_code=False)
    if len(tokenizer) == 0:
        raise TrainingError(f"tokenizer of {ref}: the vocabulary is empty")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.unk_token or tokenizer.eos_token
    if tokenizer.pad_token_id is None:
        raise TrainingError(f"tokenizer of {ref}: has no pad, unk or eos token; set pad_token in its config")
    return tokenizer


def load_causal_lm(ref: str, *, dtype: torch.dtype = torch.float32, trainable: bool = True) -> Any:
    """A causal language model. With `trainable` false it is frozen and in eval mode, a reference.

    Raises TrainingError when the directory is missing, empty, unreadable or has another head.
    """
    from transformers import AutoModelForCausalLM

    check_model(ref, head="causal")
    with _one_line(f"model {ref}"):
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            ref,
            dtype=dtype,
            **_attention(ref),
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
        )
    model, info = loaded
    if info["missing_keys"]:
        missing = sorted(info["missing_keys"])
        raise TrainingError(f"model {ref}: {len(missing)} weights are missing, {missing[0]} first")
    return model.train() if trainable else model.requires_grad_(False).eval()


def load_sequence_classifier(
    ref: str,
    *,
    dtype: torch.dtype = torch.float32,
    pad_token_id: int | None = None,
    new_head: bool = False,
    seed: int = 0,
) -> Any:
    """A model with one output per sequence: a saved reward model, or with `new_head` any backbone given one.

    A new head starts at zero-mean normal with standard deviation 1/sqrt(hidden size + 1), so that
    first scores are of order one (Stiennon et al. 2020, arXiv 2009.01325, appendix B.1).

    Raises TrainingError.
    """
    from transformers import AutoModelForSequenceClassification

    check_model(ref, head=None if new_head else "reward")
    with _one_line(f"model {ref}"):
        loaded: Any = AutoModelForSequenceClassification.from_pretrained(
            ref,
            num_labels=1,
            dtype=dtype,
            **_attention(ref),
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
        )
    model, info = loaded
    missing = set(info["missing_keys"])
    head = score_head(model)
    head_names = {name for name, parameter in model.named_parameters() if parameter is head.weight}
    if not new_head and missing:
        raise TrainingError(f"model {ref}: {len(missing)} weights are missing, {min(missing)} first")
    # A language model has no pooler; the one that BERT's classifier reads through is as new as the head.
    trunk = f"{model.base_model_prefix}."
    backbone = {name for name in missing if name.startswith(trunk) and not name.startswith(f"{trunk}pooler.")}
    if backbone:
        raise TrainingError(f"model {ref}: {len(backbone)} weights are missing, {min(backbone)} first")
    if new_head and missing & head_names:
        generator = torch.Generator().manual_seed(seed)
        std = (head.in_features + 1) ** -0.5
        with torch.no_grad():
            head.weight.copy_(torch.randn(head.weight.shape, generator=generator) * std)
            if head.bias is not None:
                head.bias.zero_()
    if pad_token_id is not None:
        model.config.pad_token_id = pad_token_id
    return model


def _attention(ref: str) -> dict[str, str]:
    """The attention that the model's own config asks for, as arguments of `from_pretrained`.

    transformers picks its own default, and for a config that caps attention scores (Gemma 2 and its relatives) that
    default leaves the cap out; the eager form has it.
    """
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(ref, trust_remote_code=False).get_text_config()
    capped = getattr(config, "attn_logit_softcapping", None)
    return {"attn_implementation": "eager"} if capped else {}


def score_head(model: Any) -> torch.nn.Linear:
    """The last linear layer of a sequence classifier: `score` in decoders, `classifier` in most encoders."""
    for name in ("score", "classifier", "logits_proj"):
        module = getattr(model, name, None)
        if isinstance(module, torch.nn.Linear):
            return module
        if module is not None:
            return [m for m in module.modules() if isinstance(m, torch.nn.Linear)][-1]
    raise TrainingError(f"{type(model).__name__} has no head that this program knows (score or classifier)")


def reward_pad_token(tokenizer: Any) -> int:
    """The padding token a reward model is saved with, set on the tokenizer too.

    transformers reads a sequence's score at its last token that is not padding, so padding must not be the
    token that ends a turn, as it is where tokenizers pad with their end-of-sequence token.
    """
    ends = stop_token_ids(tokenizer)
    candidates = [
        tokenizer.pad_token_id,
        tokenizer.unk_token_id,
        *sorted(tokenizer.added_tokens_decoder),
        0,
        1,
    ]
    pad = next(token for token in candidates if token is not None and token not in ends)
    tokenizer.pad_token = tokenizer.convert_ids_to_tokens(pad)
    return pad


def is_decoder(model: Any) -> bool:
    """Whether attention is causal: the classifiers of decoders, and only they, call their head `score`."""
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    return hasattr(inner, "score")


def check_fit(model: Any, tokenizer: Any, longest: int) -> None:
    """Raises TrainingError when the model's vocabulary or positions are too few for what it shall read."""
    config = model.config.get_text_config()
    if len(tokenizer) > config.vocab_size:
        raise TrainingError(
            f"model {config.name_or_path}: has {config.vocab_size} embeddings, its tokenizer {len(tokenizer)} tokens"
        )
    positions = context_length(model)
    if longest > positions:
        raise TrainingError(
            f"max_length: the longest example has {longest} tokens, model {config.name_or_path} takes {positions}"
        )


def generation_config(ref: str) -> Any:
    """A model's own generation config, None where it has none."""
    from transformers import GenerationConfig

    try:
        return GenerationConfig.from_pretrained(ref)
    except (OSError, ValueError):
        return None


def save_model(
    model: Any,
    tokenizer: Any,
    output_dir: Path,
    *,
    card: str = "",
    state: dict[str, torch.Tensor] | None = None,
) -> None:
    """Save weights (safetensors), config and tokenizer into `output_dir`, each file whole or not at all.

    generation_config.json lists every token that ends a turn, and a tokenizer without a chat template is saved with
    the transcript form that it was used with: transformers and vLLM then render and stop as training did.
    A LoRA model that was not merged is saved as its adapter. `state` replaces the model's own weights where
    those are sharded.
    """
    temporary = output_dir / ".saving"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    chat = renderer_of(tokenizer)
    with _quiet(), _ends_at(model, chat.stop_ids):
        model.save_pretrained(temporary, state_dict=state)
    _restore_dropout(temporary / "config.json")
    own = tokenizer.chat_template
    tokenizer.chat_template = own or chat.template.source
    try:
        tokenizer.save_pretrained(temporary)
    finally:
        tokenizer.chat_template = own
    if card:
        (temporary / "README.md").write_text(card, encoding="utf-8")
    move_into(temporary, output_dir)


def _restore_dropout(path: Path) -> None:
    """The dropout that was switched off for training is the model's own again in what is saved."""
    if path.exists():
        config = json.loads(path.read_text(encoding="utf-8"))
        if own := config.pop(OWN_DROPOUT, {}):
            path.write_text(json.dumps(config | own, indent=2, sort_keys=True) + "\n", encoding="utf-8")


@contextmanager
def _ends_at(model: Any, stops: tuple[int, ...]) -> Iterator[None]:
    """Save a language model with the end tokens that sampling stops at, so that others stop there too."""
    config = getattr(model, "generation_config", None)
    if config is None or not stops:
        yield
        return
    own = config.eos_token_id
    listed = set(own if isinstance(own, list) else [own]) - {None}
    wanted = sorted(listed | set(stops))
    if wanted != sorted(listed):
        config.eos_token_id = wanted if len(wanted) > 1 else wanted[0]
    try:
        yield
    finally:
        config.eos_token_id = own


@contextmanager
def _one_line(what: str) -> Iterator[None]:
    try:
        with _quiet():
            yield
    except TrainingError:
        raise
    except Exception as error:  # whatever a damaged file raises in safetensors, json or transformers
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise TrainingError(f"{what}: cannot be loaded: {reason}") from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep transformers' progress bars and reports, which repeat for every model, off the terminal."""
    from transformers.utils import logging as hf_logging

    level, bars = hf_logging.get_verbosity(), hf_logging.is_progress_bar_enabled()
    hf_logging.set_verbosity_error()
    hf_logging.disable_progress_bar()
    try:
        yield
    finally:
        hf_logging.set_verbosity(level)
        if bars:
            hf_logging.enable_progress_bar()
