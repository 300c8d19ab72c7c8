"""Where measurements stand, and what they were made on."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
RESULTS = REPOSITORY / "benchmarks" / "results"
IMAGES = REPOSITORY / "docs" / "images"
THREADS = int(os.environ.get("OMP_NUM_THREADS", "2"))


def machine() -> dict[str, Any]:
    """The day, the processor and the versions that every measurement rests on."""
    flags, name = "", platform.machine()
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            name = line.partition(":")[2].strip()
        if line.startswith("flags"):
            flags = line
    known = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "processor": name,
        "cores": os.cpu_count(),
        "threads": THREADS,
        "instructions": [flag for flag in known if f" {flag}" in flags],
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in ("torch", "transformers")},
    }
