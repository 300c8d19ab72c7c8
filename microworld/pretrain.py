"""Make the microworld's two models from a seed: `python -m microworld.pretrain --which base|feedback --out DIR`.

The **base** model (policy) completes text without manners; the **feedback** model (critic and judge) reads answers,
criticises, revises and chooses. Two sets of weights, because what makes a judge (hundreds of thousands of labelled
comparisons) would teach manners to a base model that must not have any, and because a smaller policy makes RL
cheap. Both are trained from scratch on examples drawn on the fly, so no example is seen twice.

Rows of like length are batched, right-padded under causal attention; Muon for the matrices (Jordan et al. 2024),
AdamW for the rest, on float32 master weights. The probes are thrown away at the end.

`make weights` trains both at once on two cores, one thread each. Forward and backward in pure bf16 with eager
attention reach 7,900 tokens/s on one core with AMX, bf16 autocast with fused attention 4,100; without AMX it is
float32. It also tells malloc to keep its pages, without which half of the time goes to the kernel's zeroing them again.
"""

from __future__ import annotations

import argparse
import copy
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from common.files import move_into
from microworld.batches import Batch, batches
from microworld.corpus import Corpus
from microworld.lessons import LESSONS, PHASES, Phase
from microworld.oracle import DIMENSIONS
from microworld.tokenizer import load_tokenizer, train_tokenizer
from training.config.base import fast_bfloat16

SHAPES: dict[str, dict[str, Any]] = {
    "base": {"hidden_size": 192, "num_hidden_layers": 4, "num_attention_heads": 6, "intermediate_size": 512},
    "feedback": {
        "hidden_size": 256,
        "num_hidden_layers": 5,
        "num_attention_heads": 4,
        "intermediate_size": 640,
    },
}
# Not among the config's declared arguments, though it takes it.
_EAGER: dict[str, Any] = {"attn_implementation": "eager"}


class Probes(torch.nn.Module):
    """Linear read-outs: gold scores of an answer and meaning of a principle from a middle layer, and from the layer
    before the last the one score that the principle asks for."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.answer = torch.nn.Linear(width, len(DIMENSIONS))
        self.principle = torch.nn.Linear(width, 2 * len(DIMENSIONS))
        self.asked = torch.nn.Linear(width, 1)

    def loss(self, middle_BTD: torch.Tensor, late_BTD: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Sum of the probes' cross-entropies on hidden states (B, T, D); zero for a batch without marks."""
        total = middle_BTD.new_zeros((), dtype=torch.float32)
        if len(batch.answer_at):
            at = batch.answer_at[:, 0], batch.answer_at[:, 1]
            read, asked = self.answer(middle_BTD[at]).float(), self.asked(late_BTD[at]).float()[:, 0]
            total = total + 2.0 * F.binary_cross_entropy_with_logits(read, batch.answer_gold)
            total = total + F.binary_cross_entropy_with_logits(asked, batch.answer_asked)
        if len(batch.principle_at):
            meant = self.principle(middle_BTD[batch.principle_at[:, 0], batch.principle_at[:, 1]])
            total = total + 0.5 * F.cross_entropy(meant.float(), batch.principle_is)
        return total


def losses(
    model: LlamaForCausalLM, probes: Probes, batch: Batch, letters: tuple[int, int]
) -> dict[str, torch.Tensor]:
    """`text` (weighted next-token loss), `judge` (soft-label cross-entropy over the letters), `probe`."""
    out = model.model(batch.ids_BT, output_hidden_states=True, use_cache=False)
    hidden = out.last_hidden_state
    middle, late = (out.hidden_states[len(model.model.layers) - below] for below in (2, 1))
    weights = batch.weights_BT[:, 1:]
    at = weights.nonzero(as_tuple=True)
    text = hidden.new_zeros((), dtype=torch.float32)
    if len(at[0]):
        logits = model.lm_head(hidden[at[0], at[1]]).float()
        each = F.cross_entropy(logits, batch.ids_BT[:, 1:][at], reduction="none")
        text = (each * weights[at]).sum() / weights[at].sum()
    judge = hidden.new_zeros((), dtype=torch.float32)
    if len(batch.judged):
        logits = model.lm_head(hidden[batch.judged[:, 0], batch.judged[:, 1]]).float()
        logprobs = logits.log_softmax(-1)[:, list(letters)]
        judge = -(batch.p_first * logprobs[:, 0] + (1 - batch.p_first) * logprobs[:, 1]).mean()
    return {"text": text, "judge": judge, "probe": probes.loss(middle, late, batch)}


class Master:
    """Float32 master weights of the modules, with their optimisers: bf16 alone would round small updates away."""

    def __init__(self, model: LlamaForCausalLM, probes: Probes) -> None:
        self.worker = [*model.parameters(), *probes.parameters()]
        self.weights = [torch.nn.Parameter(p.detach().clone().float()) for p in self.worker]
        names = [n for n, _ in model.named_parameters()] + ["probe"] * len(list(probes.parameters()))
        matrices = [w for n, w in zip(names, self.weights, strict=True) if ".layers." in n and w.ndim == 2]
        chosen = {id(w) for w in matrices}
        rest = [w for w in self.weights if id(w) not in chosen]
        self.optimizers = [
            torch.optim.Muon(matrices, lr=2.5e-3, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
            torch.optim.AdamW(rest, lr=3e-3, betas=(0.9, 0.98), weight_decay=0.0),
        ]
        self.groups = [g for o in self.optimizers for g in o.param_groups]
        self.peak = [g["lr"] for g in self.groups]
        for module in (model, probes):
            torch.nn.Module.to(module, torch.bfloat16 if fast_bfloat16() else torch.float32)

    def step(self, lr_factor: float) -> None:
        """Take the workers' gradients, clip them to norm 1, update, and give the new weights back."""
        for weight, worker in zip(self.weights, self.worker, strict=True):
            weight.grad = None if worker.grad is None else worker.grad.float()
            worker.grad = None
        torch.nn.utils.clip_grad_norm_(self.weights, 1.0)
        for peak, group in zip(self.peak, self.groups, strict=True):
            group["lr"] = peak * lr_factor
        for optimizer in self.optimizers:
            optimizer.step()
        with torch.no_grad():
            for weight, worker in zip(self.weights, self.worker, strict=True):
                worker.copy_(weight)


def lr_factor(done: float, *, falls: bool) -> float:
    """Warm up over the first hundredth; where it falls, hold to 60%, then linearly to 2%; `done` in [0, 1]."""
    return min(done / 0.01 + 0.02, 1.0) * (max(0.02, (1.0 - done) / 0.4) if falls and done > 0.6 else 1.0)


def pretrain(
    which: str,
    out: Path,
    *,
    seed: int = 0,
    scale: float = 1.0,
    first_phase: int = 0,
    batch_tokens: int = 8192,
    log_every: float = 30.0,
) -> dict[str, float]:
    """Train one of the two models, phase by phase, and save it to `out` in Hugging Face format (bf16).

    `scale` multiplies the tokens of every phase. `first_phase` > 0 goes on from the model in `out`. Returns the last
    losses. Raises FloatingPointError when the loss is not finite.
    """
    torch.manual_seed(seed)
    if first_phase:
        tokenizer = load_tokenizer(out)
        model = LlamaForCausalLM.from_pretrained(out, dtype=torch.float32, attn_implementation="eager")
    else:
        tokenizer = make_tokenizer()
        model = LlamaForCausalLM(_config(which, tokenizer))
    probes = Probes(model.config.hidden_size)
    last: dict[str, float] = {}
    for number, phase in enumerate(PHASES[which][first_phase:], start=first_phase):
        torch.manual_seed(seed + number)
        stream = batches(Corpus(f"{which}:{seed}:{number}"), tokenizer, phase.mix, batch_tokens)
        last = _train_phase(model, probes, phase, stream, tokenizer, out, scale * 1e6, log_every)
    return last


def _train_phase(
    model: LlamaForCausalLM,
    probes: Probes,
    phase: Phase,
    stream: Iterator[Batch],
    tokenizer: PreTrainedTokenizerFast,
    out: Path,
    scale: float,
    log_every: float,
) -> dict[str, float]:
    master = Master(model, probes)
    first, second = cast(list[int], tokenizer.convert_tokens_to_ids(["A", "B"]))
    total = phase.tokens * scale
    seen, step, started, last = 0, 0, time.monotonic(), 0.0
    smooth: dict[str, float] = {}
    while seen < total:
        batch = next(stream)
        parts = losses(model, probes, batch, (first, second))
        loss = parts["text"] + parts["judge"] + parts["probe"]
        loss.backward()
        if not math.isfinite(loss.item()):
            raise FloatingPointError(f"the loss is {loss.item()} at step {step}")
        master.step(lr_factor(seen / total, falls=phase.falls))
        seen, step = seen + batch.tokens, step + 1
        for name, part in parts.items():
            if value := part.item():
                smooth[name] = 0.97 * smooth.get(name, value) + 0.03 * value
        if time.monotonic() - last > log_every or seen >= total:
            last = time.monotonic()
            said = " ".join(f"{k} {v:.3f}" for k, v in smooth.items())
            rate = seen / (last - started)
            print(f"step {step}, {seen / 1e6:.2f}M tokens, {rate:.0f} tokens/s, {said}", flush=True)
            save(model, tokenizer, out)
    return smooth


def _config(which: str, tokenizer: PreTrainedTokenizerFast) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=len(tokenizer),
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
        **SHAPES[which],
        **_EAGER,
    )


def make_tokenizer() -> PreTrainedTokenizerFast:
    """The one tokenizer of both models: trained on a fixed sample of everything they read."""
    corpus = Corpus("tokenizer")
    kinds = [*PHASES["base"][0].mix, *LESSONS]
    examples = [getattr(corpus, kind)() for kind in kinds for _ in range(1500)]
    strip = ("<|user|>", "<|end|>", "<|assistant|>")
    texts = [e.prompt + "\n" + e.target for e in examples]
    for mark in strip:
        texts = [t.replace(mark, "\n") for t in texts]
    return train_tokenizer(texts)


def save(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, out: Path) -> None:
    """Hugging Face format, bf16, replacing what was there file by file."""
    beside = out.with_name(out.name + ".tmp")
    saved = copy.deepcopy(model)
    torch.nn.Module.to(saved, torch.bfloat16)
    saved.save_pretrained(beside)
    tokenizer.save_pretrained(beside)
    move_into(beside, out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--which", choices=sorted(SHAPES), required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scale", type=float, default=1.0, help="multiplies the tokens of every phase")
    parser.add_argument(
        "--first-phase", type=int, default=0, help="go on from the model in --out with this phase"
    )
    args = parser.parse_args()
    pretrain(args.which, args.out, seed=args.seed, scale=args.scale, first_phase=args.first_phase)


if __name__ == "__main__":
    main()
