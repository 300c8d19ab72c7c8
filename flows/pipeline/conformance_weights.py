"""Whether a model's weights load, sample, pack and save as Charter takes them: what of `charter check` needs torch.

Everything runs in float32 on the CPU, one copy of the model at a time.
"""

from __future__ import annotations

import json
import math
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import torch
from transformers import GenerationConfig

from common.chat import renderer_of
from engines import Sampling
from engines.in_process import generate_ids
from engines.in_process.model import context_length
from engines.stops import stop_ids
from flows.pipeline.conformance import Check, Finding, tried
from training.models.attention import choose_layout, same_in_training
from training.models.files import check_model, check_safetensors
from training.models.load import (
    load_causal_lm,
    load_sequence_classifier,
    load_tokenizer,
    reward_pad_token,
    save_model,
)
from training.models.policy import switch_dropout_off

_QUESTIONS = ("How do I boil an egg?", "Name a city, and say in a few words what it is known for.")
_NEW_TOKENS = 8
_TOLERANCE = 1e-4
# The weights in float32, and room for one layer's states and for what loading holds besides.
_ROOM = 1.3


def weight_checks(folder: Path) -> Iterator[Check]:
    """What a model folder's weights say of it; skipped with a note where they are not there or too large."""
    files = tried("files", lambda: _files(folder))
    yield files
    if files.status == "fails":
        return
    if (too_large := _too_large(folder)) is not None:
        yield Check(name="weights", status="note", text=too_large)
        return
    trial = _Trial(folder)
    loads = tried("loads", trial.load)
    yield loads
    if loads.status == "fails":
        return
    yield tried("samples", trial.sample)
    yield tried("packs", trial.pack)
    yield tried("dropout", trial.dropout)
    yield tried("saves", trial.save)
    yield tried("reward head", trial.reward_head)


def _files(folder: Path) -> Finding:
    check_model(str(folder), head="causal")
    found = sorted(folder.glob("*.safetensors"))
    for file in found:
        check_safetensors(file)
    return (
        "ok",
        f"{len(found)} safetensors file{'s' * (len(found) != 1)}, {_float32_bytes(folder) // 4:,} weights",
    )


def _float32_bytes(folder: Path) -> int:
    """What all weights take in float32, read off the files' headers."""
    total = 0
    for file in folder.glob("*.safetensors"):
        with file.open("rb") as opened:
            header = json.loads(opened.read(int.from_bytes(opened.read(8), "little")))
        total += sum(4 * math.prod(e["shape"]) for name, e in header.items() if name != "__metadata__")
    return total


def _too_large(folder: Path) -> str | None:
    """Why the weights are not tried here; None where they fit."""
    size = _float32_bytes(folder)
    memory = psutil.virtual_memory().available
    disk = shutil.disk_usage(tempfile.gettempdir()).free
    for what, needed, free in (
        ("memory", _ROOM * size, memory),
        (f"disk in {tempfile.gettempdir()}", size, disk),
    ):
        if needed > free:
            return (
                f"not tried: in float32 they need {needed / 1e9:.1f} GB of {what}, {free / 1e9:.1f} GB are free; "
                "check on a larger machine, or serve the model and check its endpoint"
            )
    return None


class _Trial:
    """A model put through what a run does with it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.model: Any = None

    def load(self) -> Finding:
        self.tokenizer = load_tokenizer(str(self.folder))
        renderer = renderer_of(self.tokenizer)
        self.prompts = [renderer.prompt_ids([{"role": "user", "content": text}]) for text in _QUESTIONS]
        self.model = load_causal_lm(str(self.folder), trainable=False)
        context = context_length(self.model)
        longest = max(map(len, self.prompts)) + _NEW_TOKENS
        if longest > context:
            return (
                "fails",
                f"the model takes {context} tokens; a prompt and {_NEW_TOKENS} tokens need {longest}",
            )
        self.logits = self._logits(self.model)
        if not torch.isfinite(self.logits).all():
            return (
                "fails",
                "logits are not finite: the weights are damaged or do not belong to this config.json",
            )
        return "ok", f"{type(self.model).__name__}, logits finite"

    @torch.no_grad()
    def sample(self) -> Finding:
        """Greedy tokens beside those of transformers' own `generate`, and their log-probabilities."""
        sampling = Sampling(max_new_tokens=_NEW_TOKENS, temperature=0.0)
        found = generate_ids(self.model, self.tokenizer, self.prompts, sampling=sampling)
        for prompt, completion in zip(self.prompts, found, strict=True):
            ids, own = list(completion.token_ids), self._greedy(prompt)
            if ids != own and (apart := self._apart(prompt, ids, own)) is not None:
                return "fails", f"greedy tokens differ from transformers' generate: {apart}; please report it"
            row = torch.tensor([prompt + ids])
            logits = self.model(input_ids=row, use_cache=False).logits[0, len(prompt) - 1 : -1].float()
            expected = logits.log_softmax(-1)[range(len(ids)), ids]
            logprobs = torch.tensor(completion.logprobs)
            if not torch.isfinite(logprobs).all():
                return "fails", "log-probabilities of sampled tokens are not finite"
            if not torch.allclose(logprobs, expected, rtol=1e-3, atol=1e-3):
                apart = f"{float((logprobs - expected).abs().max()):.1e}"
                return (
                    "fails",
                    f"log-probabilities differ from the model's own forward pass by {apart}; please report it",
                )
        count = sum(len(completion.token_ids) for completion in found)
        return "ok", f"{count} greedy tokens as transformers' generate, log-probabilities as the forward pass"

    def pack(self) -> Finding:
        if choose_layout(self.model) == "packed":
            return "ok", "sequences are packed: hidden states are those of separate rows"
        return (
            "note",
            "its attention cannot be packed exactly: training pads rows, which is as exact but slower",
        )

    def dropout(self) -> Finding:
        had = not same_in_training(self.model)
        switch_dropout_off(self.model)
        if had:
            return "ok", "has dropout, which is switched off wherever a policy is compared with a reference"
        return "ok", "training mode computes what evaluation mode does"

    def save(self) -> Finding:
        """Save and load again: the same logits, the same prompts, every stop listed."""
        renderer = renderer_of(self.tokenizer)
        stops = set(renderer.stop_ids)
        with tempfile.TemporaryDirectory(prefix="charter-check-") as place:
            save_model(self.model, self.tokenizer, Path(place))
            self.model = None
            again = load_causal_lm(place, trainable=False)
            logits = self._logits(again)
            tokenizer = load_tokenizer(place)
            listed = set(stop_ids(tokenizer, again.generation_config))
            turns = [{"role": "user", "content": _QUESTIONS[0]}]
            prompt = renderer_of(tokenizer).prompt_ids(turns)
        spread = float(self.logits.abs().max())
        difference = float((logits - self.logits).abs().max())
        if not difference <= _TOLERANCE * spread:
            return "fails", f"saved and loaded again its logits differ by {difference:.1e}; please report it"
        if prompt != self.prompts[0]:
            return "fails", "saved and loaded again its tokenizer gives other ids; please report it"
        if not stops <= listed:
            return (
                "fails",
                f"saved and loaded again it does not stop at {sorted(stops - listed)}; please report it",
            )
        return "ok", "saved and loaded again: the same logits, prompts and stops"

    def reward_head(self) -> Finding:
        self.model = None
        tokenizer = load_tokenizer(str(self.folder))
        pad = reward_pad_token(tokenizer)
        model = load_sequence_classifier(str(self.folder), pad_token_id=pad, new_head=True).eval()
        with torch.no_grad():
            scores = [float(model(input_ids=torch.tensor([ids])).logits.reshape(())) for ids in self.prompts]
        if not all(map(math.isfinite, scores)):
            return "fails", "a new reward head gives scores that are not finite"
        return "ok", f"{type(model).__name__} takes one, padding with {tokenizer.pad_token}"

    @torch.no_grad()
    def _logits(self, model: Any) -> torch.Tensor:
        """Logits (2, V) behind both prompts."""
        rows = [
            model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1].float()
            for ids in self.prompts
        ]
        return torch.stack(rows)

    def _greedy(self, prompt: list[int]) -> list[int]:
        """What `generate` answers with no setting of the model's own but its stops."""
        stops = list(stop_ids(self.tokenizer, self.model.generation_config))
        row = torch.tensor([prompt])
        own, self.model.generation_config = self.model.generation_config, GenerationConfig()
        try:
            output = self.model.generate(
                input_ids=row,
                attention_mask=torch.ones_like(row),
                max_new_tokens=_NEW_TOKENS,
                do_sample=False,
                eos_token_id=stops,
                pad_token_id=stops[0],
            )
        finally:
            self.model.generation_config = own
        return output[0, len(prompt) :].tolist()

    @torch.no_grad()
    def _apart(self, prompt: list[int], ids: list[int], own: list[int]) -> str | None:
        """Where two greedy answers part; None where the two tokens are equally likely, to rounding."""
        at = next((n for n, (x, y) in enumerate(zip(ids, own, strict=False)) if x != y), None)
        if at is None:
            return f"{len(ids)} tokens, {len(own)} there"
        logits = (
            self.model(input_ids=torch.tensor([prompt + ids[:at]]), use_cache=False).logits[0, -1].float()
        )
        if float((logits[ids[at]] - logits[own[at]]).abs()) <= _TOLERANCE * float(logits.abs().max()):
            return None
        return f"token {at + 1} is {ids[at]}, there {own[at]}"
