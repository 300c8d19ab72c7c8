"""Reading rows: one figure of one job over all seeds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from studies.replication.intervals import Estimate, Verdict, difference, estimate

Figures = dict[int, float]
"""One number a seed."""


@dataclass(frozen=True, kw_only=True)
class Claim:
    """What was claimed, what was found, and whether the two agree. Without rows, `result` says why not asked."""

    claim: str
    source: str
    result: str
    verdict: Verdict | None
    estimates: Mapping[str, Estimate]

    def record(self) -> dict[str, Any]:
        found = {name: value.record() for name, value in self.estimates.items()}
        return {"claim": self.claim, "source": self.source, "verdict": self.verdict, "estimates": found}


class Results:
    """All rows of a study; a job's name ends in its seed."""

    def __init__(self, rows: Iterable[Mapping[str, Any]]) -> None:
        self.rows = list(rows)
        self._by_name: dict[str, dict[int, Mapping[str, Any]]] = {}
        for row in self.rows:
            self._by_name.setdefault(row["job"].rpartition("-")[0], {})[row["seed"]] = row

    def has(self, *names: str) -> bool:
        """Whether some seed has all of these jobs."""
        return bool(set.intersection(*(set(self._by_name.get(name, {})) for name in names)))

    def metrics(self, name: str) -> dict[int, Mapping[str, Any]]:
        return {seed: row["metrics"] for seed, row in self._by_name.get(name, {}).items()}

    def figures(self, name: str, *path: str) -> Figures:
        """The figure at this path of the metrics, by seed; of a figure with an interval, its value."""
        return self.each(name, lambda metrics: _at(metrics, path))

    def each(self, name: str, of: Callable[[Mapping[str, Any]], float]) -> Figures:
        """A function of the metrics, by seed."""
        return {seed: of(metrics) for seed, metrics in sorted(self.metrics(name).items())}

    def averaged(self, names: Sequence[str], *path: str) -> Figures:
        """The mean over several jobs of a seed, over the seeds that have all of them."""
        found = [self.figures(name, *path) for name in names]
        seeds = sorted(set.intersection(*(set(f) for f in found)))
        return {seed: sum(f[seed] for f in found) / len(found) for seed in seeds}

    def estimate(self, name: str, *path: str) -> Estimate | None:
        """Mean over seeds with its interval; of a single seed its value with the interval over prompts, if any."""
        values = self.figures(name, *path)
        if not values:
            return None
        if len(values) == 1:
            (metrics,) = self.metrics(name).values()
            found = _inside(metrics, path)
            if isinstance(found, Mapping):
                return Estimate(
                    mean=found["value"], low=found["low"], high=found["high"], values=(found["value"],)
                )
        return estimate(list(values.values()))

    def gain(self, name: str, over: str, *path: str) -> Estimate | None:
        """How much higher a figure is for one job than for another of the same seed."""
        return difference(self.figures(name, *path), self.figures(over, *path))


def _at(metrics: Any, path: Sequence[str]) -> float:
    found = _inside(metrics, path)
    return float(found["value"] if isinstance(found, Mapping) else found)


def _inside(metrics: Any, path: Sequence[str]) -> Any:
    for key in path:
        metrics = metrics[key]
    return metrics


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return (
        "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
        + "\n"
    )
