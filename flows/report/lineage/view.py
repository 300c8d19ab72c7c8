"""Where a policy comes from, as sentences and tables; `lineage_facts` has the facts, `lineage_picture` the drawing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from flows.report.lineage.facts import SHORT, Lineage


def lineage_sentences(found: Lineage) -> list[str]:
    """What a person should know first; nothing without a lineage."""
    if not found:
        return []
    said = [f"Warning: {gap}." for gap in found["gaps"]]
    labels = sum(record["trained"]["labels"] for record in found["labels"])
    if labels:
        drawn = _drawn(found)
        people = _people(found)
        checked = sum(people.values())
        by = f"a person looked at {checked:,} of them" if checked else "no person looked at any of them"
        said.append(
            f"The policy comes from {labels:,} labels under {len([n for n in drawn.values() if n])} principles; {by}."
        )
    if found["judge_rewards"]:
        said.append("The judge's own marks were part of the policy's reward.")
    return said


def principle_rows(found: Lineage) -> list[list[str]]:
    """One row a comparison principle: how often the labels that trained drew it, and its share of all draws."""
    drawn = _drawn(found)
    dimensions = {p["id"]: p["dimension"] for record in found["labels"] for p in record["principles"]}
    total = sum(drawn.values())
    return [
        ["principle", "dimension", "drawn", "% of draws"],
        *(
            [name, dimensions[name] or "-", f"{n:,}", f"{100 * n / total:.1f}" if total else "-"]
            for name, n in sorted(drawn.items(), key=lambda item: (-item[1], item[0]))
        ),
    ]


def step_rows(found: Lineage) -> list[list[str]]:
    """One row a step from what came from outside to the policy: its folder, its result, and what it read."""
    rows = [["step", "under", "made from", "digest of the result"]]
    times = Counter(step["stage"] for step in found["steps"])
    for step in found["steps"]:
        under = step["constitution"]
        rows.append(
            [
                step["id"],
                f"{under['ref']} ({under['half']})" if under else "",
                ", ".join(dict.fromkeys(_source(name, read, times) for name, read in step["inputs"].items()))
                or "nothing",
                _short(_result(step["outputs"])),
            ]
        )
    return rows


def _drawn(found: Lineage) -> Counter[str]:
    drawn: Counter[str] = Counter()
    for record in found["labels"]:
        for principle in record["principles"]:
            drawn[principle["id"]] += principle["drawn"]
    return drawn


def _people(found: Lineage) -> Counter[str]:
    people: Counter[str] = Counter()
    for record in found["labels"]:
        people.update(record["people"])
    return people


def _source(name: str, read: Mapping[str, Any], times: Mapping[str, int]) -> str:
    """A step by its stage where there is one of it, else with its key; what came from outside with its role."""
    if read["step"] is None:
        return f"{name.replace('_', ' ')}: {PurePath(read['path']).name}"
    stage = read["step"].partition("/")[0]
    return stage if times[stage] == 1 else read["step"]


def _result(outputs: Mapping[str, str]) -> str | None:
    """The digest that says most of a step: of its model, else of its first output."""
    return outputs.get("model") or outputs.get("preferences") or next(iter(outputs.values()), None)


def _short(digest: str | None) -> str:
    return digest[:SHORT] if digest else "-"
