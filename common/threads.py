"""How torch's threads wait for each other on a CPU, settled before torch is loaded.

OpenMP threads spin at every barrier, by default for about a millisecond. Beside another busy process a spinning
thread holds the core that the one it waits for needs: training then runs at a fifth of its speed (docs/log.md).
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from statistics import median

_LOAD = Path("/proc/loadavg")
_MINE = "CHARTER_THREADS"
"""Holds what an earlier process of ours chose, so that its children look again; a user's own setting stands."""

_SLEEP = ("OMP_WAIT_POLICY", "PASSIVE")
"""Sleep at once: half of the speed lost to others comes back; on an idle machine it costs a tenth."""
_SPIN = ("GOMP_SPINCOUNT", "3000")
"""Spin for some microseconds, then sleep: as fast as the default where nobody else is busy."""


def settle_threads(load: Path = _LOAD) -> None:
    """Choose how this process's OpenMP threads wait, unless the environment says it. No effect once torch is loaded."""
    if "torch" in sys.modules:
        return
    chosen = os.environ.pop(_MINE, None)
    if chosen is not None:
        os.environ.pop(chosen, None)
    if _SLEEP[0] in os.environ or _SPIN[0] in os.environ:
        return
    name, value = _SLEEP if _others_run(load) else _SPIN
    os.environ.update({name: value, _MINE: name})


def _others_run(load: Path, looks: int = 5) -> bool:
    """Whether other processes are running now, by the kernel's count of what is runnable; this process is one."""
    seen: list[int] = []
    for _ in range(looks):
        try:
            seen.append(int(load.read_text().split()[3].partition("/")[0]))
        except (OSError, ValueError, IndexError):
            return False
        time.sleep(0.002)
    return median(seen) > 1
