"""Generation in process, against transformers' `generate`, in tokens a second.

    python -m benchmarks.peers.generation [--size 256] [--rounds 5]

The microworld's base model (2.0M parameters) answers in float32 on two threads, at most 64 tokens each, 64 answers at a
time. Three workloads: the prompts of hh-rlhf, greedy; prompts of its own world, greedy (short answers of like length);
and these sampled at temperature 1, as reinforcement learning does. `generate` gets left-padded batches of 64, prompts
as they come, and for hh-rlhf also sorted by length. Greedy outputs are compared token by token. Writes
benchmarks/results/generation.json.
"""

from __future__ import annotations

import json
import operator
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.harness import data, duel, world
from benchmarks.harness.machine import THREADS, machine
from benchmarks.harness.roofline import Work, decoding_bytes, flops, matmul_peak, read_bandwidth

BATCH = 64
NEW_TOKENS = 64
LONGEST = 512


def prepare(folder: Path, count: int) -> None:
    world.prepare(folder, count)
    rows = [{"prompt": pair["prompt"]} for pair in data.draw_pairs(2 * count)]
    (folder / "hh.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def load(folder: Path, workload: str) -> tuple[Any, Any, list[list[int]]]:
    """The model, its tokenizer, and encoded prompts; of hh-rlhf's, half as many, of at most LONGEST tokens."""
    from common.chat import encode_prompt
    from training.models.load import load_causal_lm, load_tokenizer

    model = load_causal_lm(str(world.MODEL), trainable=False)
    tokenizer = load_tokenizer(str(world.MODEL))
    name = "hh.jsonl" if workload == "hh" else "prompts.jsonl"
    rows = [json.loads(line) for line in (folder / name).read_text(encoding="utf-8").splitlines()]
    prompts = [encode_prompt(tokenizer, row["prompt"]) for row in rows]
    if workload == "hh":
        prompts = [prompt for prompt in prompts if len(prompt) <= LONGEST][: len(prompts) // 4]
    return model, tokenizer, prompts


def measured(seconds: float, answers: list[list[int]]) -> dict[str, Any]:
    return {"seconds": seconds, "tokens": sum(map(len, answers)), "answers": answers}


def ours(folder: Path, workload: str) -> duel.Play:
    from engines import Sampling
    from engines.in_process import generate_ids

    model, tokenizer, prompts = load(folder, workload)
    temperature = 1.0 if workload == "sampled" else 0.0
    sampling = Sampling(max_new_tokens=NEW_TOKENS, temperature=temperature)

    def play(steps: int | None) -> dict[str, Any]:
        chosen = prompts if steps is None else prompts[:BATCH]
        began = time.perf_counter()
        found = generate_ids(model, tokenizer, chosen, sampling=sampling, batch_size=BATCH)
        return measured(time.perf_counter() - began, [list(one.token_ids) for one in found])

    return play


def generate(folder: Path, workload: str, *, by_length: bool = False) -> duel.Play:
    import torch

    from common.chat import stop_token_ids

    model, tokenizer, prompts = load(folder, workload)
    temperature = 1.0 if workload == "sampled" else 0.0
    stops = list(stop_token_ids(tokenizer))

    def answer(batch: list[list[int]]) -> list[list[int]]:
        width = max(map(len, batch))
        ids = torch.tensor([[tokenizer.pad_token_id] * (width - len(row)) + row for row in batch])
        mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in batch])
        output = model.generate(
            input_ids=ids,
            attention_mask=mask,
            max_new_tokens=NEW_TOKENS,
            do_sample=temperature > 0,
            # A temperature without sampling, and top_k's default of 50, would be another distribution.
            **({"temperature": temperature, "top_k": 0} if temperature else {}),
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=stops,
        )
        cut = []
        for row in output[:, width:].tolist():
            end = next((place for place, token in enumerate(row) if token in stops), len(row) - 1)
            cut.append(row[: end + 1])
        return cut

    def play(steps: int | None) -> dict[str, Any]:
        chosen = prompts if steps is None else prompts[:BATCH]
        torch.manual_seed(0)
        began = time.perf_counter()
        order = sorted(range(len(chosen)), key=lambda i: len(chosen[i])) if by_length else range(len(chosen))
        places = list(order)
        answers: list[list[int]] = [[] for _ in chosen]
        with torch.no_grad():
            for start in range(0, len(places), BATCH):
                batch = places[start : start + BATCH]
                for place, found in zip(batch, answer([chosen[i] for i in batch]), strict=True):
                    answers[place] = found
        return measured(time.perf_counter() - began, answers)

    return play


SIDES: dict[str, duel.Build] = {
    "ours_hh": lambda folder: ours(folder, "hh"),
    "generate_hh": lambda folder: generate(folder, "hh"),
    "generate_hh_sorted": lambda folder: generate(folder, "hh", by_length=True),
    "ours_greedy": lambda folder: ours(folder, "greedy"),
    "generate_greedy": lambda folder: generate(folder, "greedy"),
    "ours_sampled": lambda folder: ours(folder, "sampled"),
    "generate_sampled": lambda folder: generate(folder, "sampled"),
}


TARGETS = {"generate_hh": 1.5, "generate_greedy": 1.5, "generate_sampled": 1.5}


def own_side(side: str) -> str:
    """Our side at the workload of one of `generate`'s."""
    return f"ours_{side.split('_')[1]}"


def fastest(found: dict[str, Any]) -> float:
    """Tokens a second in a side's fastest round."""
    return found["tokens"] / min(found["seconds"])


def roofline(
    config: Any, played: dict[str, tuple[list[list[int]], list[list[int]]]], sides: dict[str, dict[str, Any]]
) -> dict[str, Any]:
    """The least time of each workload: its operations at the peak of a matrix product, and its reads from memory.

    Prompts and answers, with no padding; prompts pass once, and of their tokens only the last has logits.
    """
    peak, bandwidth = matmul_peak(THREADS), read_bandwidth(THREADS)
    found: dict[str, Any] = {
        "matmul_gflops": round(peak / 1e9, 1),
        "read_gb_per_s": round(bandwidth / 1e9, 1),
    }
    for side, (prompts, answers) in played.items():
        sizes = list(map(len, prompts)), list(map(len, answers))
        work = Work.of_rows(map(sum, zip(*sizes, strict=True)), sum(sizes[1]))
        weights, cached = decoding_bytes(config, *sizes, at_once=BATCH)
        products, reads = flops(config, work, passes=1.0) / peak, (weights + cached) / bandwidth
        found[side] = {
            "tokens": work.tokens,
            "gflop": round(flops(config, work, passes=1.0) / 1e9, 1),
            "weights_gb": round(weights / 1e9, 2),
            "keys_and_values_gb": round(cached / 1e9, 2),
            "least_s": round(products + reads, 2),
            "products_s": round(products, 2),
            "reads_s": round(reads, 2),
            "share": round((products + reads) / sides[side]["median_s"], 3),
        }
    return found


def main() -> None:
    options = duel.arguments(__doc__ or "", size=256, unit="prompts")
    if options.side:
        duel.serve(SIDES[options.side], options.folder)
        return
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory)
        prepare(folder, options.size)
        prompts = {workload: load(folder, workload)[2] for workload in ("hh", "greedy")}
        sides = duel.compete(__file__, options.sides or list(SIDES), folder, rounds=options.rounds)
        from transformers import AutoConfig

        config = AutoConfig.from_pretrained(world.MODEL)
    answers = {side: found.pop("answers") for side, found in sides.items()}
    speed: dict[str, float] = {}
    for side, found in sides.items():
        speed |= duel.speeds({side: found}, found["tokens"])
    peers = {
        side: own_side(side) for side in sides if side.startswith("generate") and own_side(side) in sides
    }
    first = next(iter(peers))
    result = {
        "what": "tokens a second, microworld's base model (2.0M parameters), at most 64 a prompt, 64 prompts at a time",
        "ours": speed[peers[first]],
        "peer": speed[first],
        "ratio": round(speed[peers[first]] / speed[first], 2),
        "ratios": {side: round(speed[own] / speed[side], 2) for side, own in peers.items()},
        "ratios_of_fastest_rounds": {
            side: round(fastest(sides[own]) / fastest(sides[side]), 2) for side, own in peers.items()
        },
        "targets": {side: target for side, target in TARGETS.items() if side in peers},
        "equal_greedy_outputs": {
            side: f"{sum(map(operator.eq, answers[own], answers[side]))} of {len(answers[own])}"
            for side, own in peers.items()
            if side != "generate_sampled"
        },
        "roofline": roofline(
            config,
            {own: (prompts["hh" if own == "ours_hh" else "greedy"], answers[own]) for own in peers.values()},
            sides,
        ),
        "sides": sides,
        "machine": machine(),
        "versions": duel.versions(),
    }
    duel.finish("generation", result, partial=bool(options.sides))


if __name__ == "__main__":
    main()
