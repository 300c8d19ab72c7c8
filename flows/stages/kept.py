"""Parts of a stage's result that are kept by the digest of what they depend on, and found again by later results."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from common.files import replacing
from flows.stages.contract import Work


def once(work: Work, name: str, make: Callable[[Path], None]) -> Path:
    """The file of that name: from the stage's folder, from an earlier result of this run, or made now."""
    path = work.directory / name
    if not path.exists():
        earlier = next(iter(work.directory.parent.glob(f"*/{name}")), None)
        if earlier is None:
            make(path)
        else:
            with replacing(path) as beside:
                shutil.copyfile(earlier, beside)
    return path
