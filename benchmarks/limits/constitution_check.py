"""`charter constitution check` on a file of 200 principles, against what any checker must pay.

    python -m benchmarks.limits.constitution_check [--rounds 11]

Each round runs three fresh processes in turn: the bare interpreter, the interpreter reading the file with
PyYAML's C loader, and the check. Writes benchmarks/results/constitution_check.json: medians in seconds of
wall time, and their ratio. What the ratio holds beyond 1 is our imports (jsonschema, click), the schema,
and lint over 9,900 pairs.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

from benchmarks.harness.machine import REPOSITORY, RESULTS, machine

WORDS = (REPOSITORY / "constitution" / "library" / "hhh.yaml").read_text(encoding="utf-8").split()


def big_constitution(seed: int = 0) -> str:
    """100 principles of each kind, each text 25 words drawn from hhh.yaml, so that no two are alike."""
    random_ = random.Random(seed)

    def text() -> str:
        return "About " + " ".join(random_.choice(WORDS) for _ in range(25))

    def principle(number: int, **texts: str) -> dict[str, object]:
        return {"id": f"p{number}", **texts, "dimension": "helpful", "weight": 1 + number % 5, "note": text()}

    critique = [principle(i, critique_request=text(), revision_request=text()) for i in range(100)]
    comparison = [principle(100 + i, question=text()) for i in range(100)]
    document = {"name": "big", "critique": {"principles": critique}, "comparison": {"principles": comparison}}
    return yaml.safe_dump(document, sort_keys=False, width=108)


def seconds(program: str) -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", program], check=True, cwd=REPOSITORY, stderr=subprocess.DEVNULL)
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=11)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "big.yaml"
        path.write_text(big_constitution(), encoding="utf-8")
        programs = {
            "interpreter": "pass",
            "interpreter_and_yaml": f"import yaml; yaml.load(open({str(path)!r}), Loader=yaml.CSafeLoader)",
            "check": f"from flows.cli import main; main(['constitution', 'check', {str(path)!r}])",
        }
        times: dict[str, list[float]] = {name: [] for name in programs}
        for _ in range(rounds):
            for name, program in programs.items():
                times[name].append(seconds(program))
        size = path.stat().st_size
    medians = {name: statistics.median(values) for name, values in times.items()}
    result = {
        "principles": 200,
        "file_bytes": size,
        "rounds": rounds,
        "median_s": {name: round(value, 4) for name, value in medians.items()},
        "check_beyond_interpreter_s": round(medians["check"] - medians["interpreter"], 4),
        "check_to_interpreter_and_yaml": round(medians["check"] / medians["interpreter_and_yaml"], 3),
        "machine": machine(),
    }
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / "constitution_check.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
