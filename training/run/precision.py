"""Which number format a machine computes in fast."""

from __future__ import annotations

from functools import cache
from pathlib import Path


@cache
def fast_bfloat16() -> bool:
    """Whether bfloat16 saves time here: on GPUs that have it, and on CPUs that multiply it in tiles (AMX).

    A CPU without instructions of its own emulates it, many times slower than float32.
    """
    import torch

    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    info = Path("/proc/cpuinfo")
    return info.is_file() and " amx_bf16" in info.read_text()


def in_bfloat16(precision: str) -> bool:
    """What a config's `precision` (auto, float32 or bf16) means on this machine."""
    return precision == "bf16" or (precision == "auto" and fast_bfloat16())
