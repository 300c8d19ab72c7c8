"""Where the weights moved: by how much each layer of a model differs from the model that it was trained from.

The measure is the relative change of Frobenius norms, ||after - before|| / ||before||, of all weights of a layer (or of
a kind) together. Files are read block by block, so memory is bounded whatever the model's size.
"""

from __future__ import annotations

import json
import math
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from common.record import REST, Record
from common.statistics import RankCorrelation, rank_correlation
from flows.errors import FlowError
from flows.runs.models import is_hub_id
from flows.runs.progress import Progress
from training.errors import TrainingError
from training.models.files import check_safetensors

#: what a weight belongs to, by its name; the first that fits
KINDS = {
    "norms": re.compile(r"norm|(^|[._])ln(_|\d|\.)"),
    "embeddings": re.compile(r"embed|(^|\.)w[tp]e\.|lm_head"),
    "attention": re.compile(r"attn|attention"),
    "mlp": re.compile(r"mlp|feed_forward|ffn|moe|experts|(^|\.)fc\d"),
    "other": re.compile(""),
}
_LAYER = re.compile(r"(?:^|\.)(?:layers|layer|blocks|block|h)\.(\d+)\.")
_BLOCK = 1 << 22
"""Weights held at a time; in double precision 32 MB of each model."""
_NAMED = 10


@dataclass(frozen=True, kw_only=True)
class Layer(Record):
    """A layer, counted from 0: the change of all its weights, and by kind."""

    layer: int
    all: float | None
    kinds: Annotated[Mapping[str, float | None], REST]


@dataclass(frozen=True, kw_only=True)
class LeftOut(Record):
    """Tensors that were not measured: how many, and the first few with the reasons."""

    n: int
    first: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Movement(Record):
    """How far one model moved from another. Changes are relative, None where all weights were zero.

    `depth` is the rank correlation of the layers' changes with their numbers; `tensors` and `weights` count what was
    measured.
    """

    total: float | None
    kinds: Mapping[str, float | None]
    layers: tuple[Layer, ...]
    depth: RankCorrelation
    tensors: int
    weights: int
    left_out: LeftOut


def movement(before: str, after: str, progress: Progress = lambda done, total, text: None) -> Movement:
    """How far `after` moved from `before`; both are folders, or ids of models in the hub's local cache.

    Raises FlowError for a model that has no whole safetensors files, an adapter for example.
    """
    old, new = _tensors(before), _tensors(after)
    sums: dict[tuple[int | None, str], list[float]] = defaultdict(lambda: [0.0, 0.0])
    left_out = [f"{name}: only in {where}" for name, where in _unpaired(old, new)]
    measured = weights = 0
    both = sorted(old.keys() & new.keys(), key=lambda name: (new[name], name))
    with _Files() as files:
        for done, name in enumerate(both):
            progress(done, len(both), "tensors compared")
            problem, size, moved, norm = _difference(files, name, old[name], new[name])
            if problem:
                left_out.append(f"{name}: {problem}")
                continue
            layer = _LAYER.search(name)
            total = sums[int(layer[1]) if layer else None, kind_of(name)]
            total[0] += moved
            total[1] += norm
            measured, weights = measured + 1, weights + size
    return Movement(
        **_changes(sums),
        tensors=measured,
        weights=weights,
        left_out=LeftOut(n=len(left_out), first=tuple(sorted(left_out)[:_NAMED])),
    )


def kind_of(name: str) -> str:
    """What a weight belongs to: norms, embeddings (with the head), attention, mlp, or other."""
    return next(kind for kind, pattern in KINDS.items() if pattern.search(name.lower()))


def _changes(sums: dict[tuple[int | None, str], list[float]]) -> dict[str, Any]:
    def relative(wanted: Any) -> float | None:
        moved, norm = (sum(s[i] for key, s in sums.items() if wanted(*key)) for i in (0, 1))
        # Six digits, so that the order in which threads add up leaves no trace.
        return float(f"{math.sqrt(moved / norm):.6g}") if norm else None

    layers = []
    for number in sorted({layer for layer, _ in sums if layer is not None}):
        kinds = {
            k: relative(lambda layer, kind, n=number, k=k: (layer, kind) == (n, k))
            for k in KINDS
            if (number, k) in sums
        }
        change = relative(lambda layer, _, n=number: layer == n)
        layers.append(Layer(layer=number, all=change, kinds=kinds))
    moved = [(one.layer, one.all) for one in layers if one.all is not None]
    return {
        "total": relative(lambda layer, kind: True),
        "kinds": {
            k: relative(lambda _, kind, k=k: kind == k) for k in KINDS if any(kind == k for _, kind in sums)
        },
        "layers": tuple(layers),
        "depth": rank_correlation([layer for layer, _ in moved], [change for _, change in moved]),
    }


def _difference(files: _Files, name: str, before: Path, after: Path) -> tuple[str | None, int, float, float]:
    """(why it was not measured, weights, squared norm of the difference, squared norm before) of one tensor."""
    import torch

    old, new = files.of(before), files.of(after)
    shape, now = (list(file.get_slice(name).get_shape()) for file in (old, new))
    if shape != now:
        return f"has the shape {shape} before, {now} after", 0, 0.0, 0.0
    moved = norm = 0.0
    for block in _blocks(shape):
        a, b = (f.get_slice(name)[block] if shape else f.get_tensor(name) for f in (old, new))
        if not (a.is_floating_point() and b.is_floating_point()):
            return "holds no floating-point numbers", 0, 0.0, 0.0
        # A model saved in another precision has not moved by the rounding alone.
        start, end = a.to(b.dtype).to(torch.float64), b.to(torch.float64)
        moved += float((end - start).square().sum())
        norm += float(start.square().sum())
    if not (math.isfinite(moved) and math.isfinite(norm)):
        return "is not finite", 0, 0.0, 0.0
    return None, math.prod(shape), moved, norm


def _blocks(shape: list[int]) -> Iterator[slice]:
    """Slices of the first dimension that hold at most so many weights each."""
    if not shape:
        yield slice(None)
        return
    rows = max(1, _BLOCK // max(1, math.prod(shape[1:])))
    for start in range(0, shape[0], rows):
        yield slice(start, start + rows)


def _unpaired(old: dict[str, Path], new: dict[str, Path]) -> Iterator[tuple[str, str]]:
    yield from ((name, "the model before") for name in old.keys() - new.keys())
    yield from ((name, "the model after") for name in new.keys() - old.keys())


def _tensors(ref: str) -> dict[str, Path]:
    """Tensor name to the file that holds it. Raises FlowError."""
    folder = _folder(ref)
    if (folder / "adapter_config.json").exists():
        raise FlowError(
            f"{ref}: is a LoRA adapter; its movement can be measured once it is merged into its base"
        )
    index = folder / "model.safetensors.index.json"
    try:
        if index.exists():
            shards = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
            names = sorted(set(shards.values()))
        else:
            names = ["model.safetensors"]
        # An index may name anything; what lies elsewhere is not the model's.
        paths = [folder / name for name in names if Path(name).name == name]
        for path in paths:
            check_safetensors(path)
        with _Files() as files:
            return {name: path for path in paths for name in files.of(path).keys()}  # noqa: SIM118
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, TrainingError):
            raise FlowError(str(error)) from error
        raise FlowError(f"{folder}: has no readable safetensors weights: {error}") from error


def _folder(ref: str) -> Path:
    if not is_hub_id(ref):
        return Path(ref)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(ref, local_files_only=True))
    except (LocalEntryNotFoundError, HfHubHTTPError, ValueError) as error:
        raise FlowError(f"{ref}: is not in the hub's local cache") from error


class _Files(ExitStack):
    """safetensors files, each opened when it is first asked for."""

    def __init__(self) -> None:
        super().__init__()
        self._open: dict[Path, Any] = {}

    def of(self, path: Path) -> Any:
        """The open file."""
        if path not in self._open:
            from safetensors import safe_open

            self._open[path] = self.enter_context(safe_open(path, framework="pt"))
        return self._open[path]
