"""Two programs at the same work, by turns, in processes of their own.

A benchmark script names its sides, each a function `build(folder)` that gives a function `play(steps)`: one round of
the work, all of it or only so many steps, and what was measured. The script starts itself once per side; the sides
then take turns, so that a machine that slows down slows down both, and a side that waits uses no core.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.harness import figure, page
from benchmarks.harness.machine import REPOSITORY, RESULTS, THREADS

# Alike for all sides. Without the malloc settings the kernel maps and clears every large tensor anew.
ENVIRONMENT = {
    "OMP_NUM_THREADS": str(THREADS),
    "MKL_NUM_THREADS": str(THREADS),
    "MALLOC_TRIM_THRESHOLD_": "20000000000",
    "MALLOC_MMAP_THRESHOLD_": "20000000000",
    "TOKENIZERS_PARALLELISM": "false",
    "TRANSFORMERS_VERBOSITY": "error",
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "CUDA_VISIBLE_DEVICES": "",
    "PYTHONWARNINGS": "ignore",
    "PYTHONPATH": str(REPOSITORY),
}

Play = Callable[[int | None], dict[str, Any]]
Build = Callable[[Path], Play]


def arguments(description: str, *, size: int, unit: str) -> argparse.Namespace:
    """The options of every benchmark, and the hidden ones with which it starts its sides."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument("--size", type=int, default=size, help=f"{unit} in a round (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds a side (default: %(default)s)")
    parser.add_argument(
        "--sides", nargs="+", help="only these sides (ours among them), without writing the result"
    )
    parser.add_argument("--side", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def serve(build: Build, folder: Path) -> None:
    """Be a side: build, then play a round for each line of standard input, and answer with a line of JSON."""
    # What libraries print must not get between the answers.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    play = build(folder)
    start = memory_mb("VmRSS")
    play(2)
    print("ready", file=answers, flush=True)
    for _ in sys.stdin:
        result = play(None) | {"peak_mb": memory_mb("VmHWM"), "above_start_mb": memory_mb("VmHWM") - start}
        print(json.dumps(result), file=answers, flush=True)


def compete(
    script: str, sides: Sequence[str], folder: Path, *, rounds: int, options: Sequence[str] = ()
) -> dict[str, dict[str, Any]]:
    """Let the sides of `script` play by turns; per side its rounds' seconds, their median, the last round's rest."""
    environment = os.environ | ENVIRONMENT
    workers = {}
    for side in sides:
        command = [sys.executable, script, "--side", side, "--folder", str(folder), *options]
        workers[side] = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        # One at a time: a warm-up beside another side's would measure neither.
        if _answer(workers[side], side).strip() != "ready":
            raise SystemExit(f"{side}: did not start")
    played: dict[str, list[dict[str, Any]]] = {side: [] for side in sides}
    for number in range(rounds):
        for side, worker in workers.items():
            assert worker.stdin is not None
            worker.stdin.write("go\n")
            worker.stdin.flush()
            played[side].append(json.loads(_answer(worker, side)))
            print(f"round {number + 1}  {side:<24} {played[side][-1]['seconds']:8.2f} s", flush=True)
    for worker in workers.values():
        assert worker.stdin is not None
        worker.stdin.close()
        worker.wait()
    return {side: _summary(results) for side, results in played.items()}


def _answer(worker: subprocess.Popen[str], side: str) -> str:
    assert worker.stdout is not None
    line = worker.stdout.readline()
    if not line:
        raise SystemExit(f"{side}: ended with exit code {worker.wait()}; its errors stand above")
    return line


def _summary(results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    seconds = [result["seconds"] for result in results]
    return dict(results[-1]) | {
        "seconds": [round(value, 3) for value in seconds],
        "median_s": round(statistics.median(seconds), 3),
    }


def memory_mb(field: str) -> int:
    """A line of /proc/self/status in megabytes."""
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) // 1024
    raise KeyError(field)


def speeds(sides: Mapping[str, dict[str, Any]], units: int) -> dict[str, float]:
    """Each side's units a second in its median round; how many units a round has is noted with the side."""
    for found in sides.values():
        found["units"] = units
    return {side: round(units / found["median_s"], 2) for side, found in sides.items()}


def versions(*packages: str) -> dict[str, str]:
    """Installed versions of these packages and of what all sides run on."""
    return {
        name: importlib.metadata.version(name)
        for name in ("charter", "torch", "transformers", "accelerate", *packages)
    }


def against(ours: float, peer: float, side: str, *, ratio: float | None = None) -> dict[str, Any]:
    """What every result says of ours and of its peer, `side`; `ratio` where it is not that of the two figures."""
    if ratio is None:
        ratio = round(ours / peer, 2)
    return {"ours": ours, "peer": peer, "peer_side": side, "ratio": ratio}


def finish(name: str, result: Mapping[str, Any], *, partial: bool) -> None:
    """Print one benchmark's result and, unless only some sides took part, write it and draw it."""
    shown = {key: value for key, value in result.items() if key != "loss_curves"}
    print(json.dumps(shown, indent=1))
    if partial:
        return
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    figure.draw()
    page.write()
