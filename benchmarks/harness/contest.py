"""A benchmark from its sides to its result."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.harness import duel, figure, pairs
from benchmarks.harness.machine import THREADS, machine
from benchmarks.harness.roofline import Work, flops, matmul_peak


def ratios(
    speed: Mapping[str, float], targets: Mapping[str, float], sides: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """Ours over every other side's speed, and the targets. The first target's side is the peer.

    The ratios are those of the medians; beside them, those of each side's fastest round, which other work on the
    machine disturbs least.
    """
    peer = next(iter(targets))
    least = {side: min(found["seconds"]) for side, found in sides.items()}
    return {
        **duel.against(speed["ours"], speed[peer], peer),
        "ratios": {side: round(speed["ours"] / speed[side], 2) for side in speed if side != "ours"},
        "ratios_of_fastest_rounds": {
            side: round(least[side] / least["ours"], 2) for side in speed if side != "ours"
        },
        "targets": dict(targets),
    }


def roofline(
    config: Any, work: Mapping[str, Work], passes: Mapping[str, float], sides: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """How near each side came to the fastest matrix product of this machine, measured now."""
    peak = matmul_peak(THREADS)
    found: dict[str, Any] = {"matmul_gflops": round(peak / 1e9, 1)}
    for side, one in work.items():
        needed = flops(config, one, passes=passes[side])
        found[side] = {
            "tokens": one.tokens,
            "gflop": round(needed / 1e9, 1),
            "share_of_peak": round(needed / sides[side]["median_s"] / peak, 3),
            "least_s": round(needed / peak, 2),
        }
    return found


def preference_contest(
    script: str,
    options: argparse.Namespace,
    builds: Mapping[str, duel.Build],
    *,
    name: str,
    head: bool,
    passes: Mapping[str, float],
    targets: Mapping[str, float],
) -> None:
    """The whole of a benchmark over preference pairs; or, where the options say so, one of its sides."""
    if options.side:
        duel.serve(builds[options.side], options.folder)
        return
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory)
        pairs.prepare(folder, options.size)
        items = pairs.load_items(folder)
        sides = duel.compete(script, options.sides or list(builds), folder, rounds=options.rounds)
        from transformers import AutoConfig

        config = AutoConfig.from_pretrained(folder / "model")
    speed = duel.speeds(sides, len(items))
    curves = {side: found.pop("losses") for side, found in sides.items()}
    work = {side: one for side, one in pairs.work(items, head=head).items() if side in sides}
    peer = next(iter(targets))
    result = {
        "what": f"pairs a second: {len(items)} pairs of hh-rlhf, {pairs.BATCH} a step, 3.7M-parameter Llama, float32",
        **ratios(speed, {side: target for side, target in targets.items() if side in sides}, sides),
        "largest_loss_difference": figure.largest_difference(curves["ours"], curves[peer]),
        "roofline": roofline(config, work, passes, sides),
        "sides": sides,
        "machine": machine(),
        "versions": duel.versions("trl"),
        "loss_curves": {side: curves[side] for side in ("ours", peer)},
    }
    duel.finish(name, result, partial=bool(options.sides))
