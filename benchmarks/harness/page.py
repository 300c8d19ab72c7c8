"""The table of docs/benchmarks.md, from the results against peers that are there."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from benchmarks.harness.machine import REPOSITORY, RESULTS
from common.files import write_atomically

PAGE = REPOSITORY / "docs" / "benchmarks.md"
BEGIN, END = "<!-- written by benchmarks/harness/page.py -->", "<!-- end -->"
WORK = {
    "reward_model": ("Reward model", "pairs/s"),
    "dpo": ("DPO", "pairs/s"),
    "sft": ("SFT", "conversations/s"),
    "grpo": ("GRPO", "samples/s"),
    "generation": ("Generation", "tokens/s"),
}
PEERS = {
    "trl_defaults": "TRL, defaults",
    "trl_no_checkpointing": "TRL, no gradient checkpointing",
    "trl_length_sorted": "TRL, no checkpointing, batches of like length",
    "trl_padding_free": "TRL, no checkpointing, padding-free",
    "trl_packed": "TRL, no checkpointing, packed",
    "generate_hh": "`generate`, hh-rlhf's prompts, greedy",
    "generate_hh_sorted": "the same, prompts sorted by length",
    "generate_greedy": "`generate`, short answers of like length, greedy",
    "generate_sampled": "the same prompts, sampled",
}


def write() -> None:
    """Renew the table between its marks."""
    rows = [
        "| | against | ours | peer | ratio | target | peak memory, MB (ours, peer) | threads, date |",
        "|---|---|---:|---:|---:|---:|---:|---|",
    ]
    for name in WORK:
        path = RESULTS / f"{name}.json"
        if path.exists():
            rows += table_rows(name, json.loads(path.read_text(encoding="utf-8")))
    text = PAGE.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    after = rest.partition(END)[2]
    write_atomically(PAGE, "\n".join([before + BEGIN, "", *rows, "", END + after]))


def table_rows(name: str, result: Mapping[str, Any]) -> list[str]:
    """A row for each of the peer's sides, those with a target first."""
    title, unit = WORK[name]
    sides, targets, machine = result["sides"], result["targets"], result["machine"]
    rows = []
    for side in sorted(result["ratios"], key=lambda side: side not in targets):
        # generation has one of ours for each workload
        own = sides.get("ours") or sides["ours_" + side.split("_")[1]]
        target = f"{targets[side]:.1f}" if side in targets else ""
        rows.append(
            f"| {title}, {unit} | {PEERS[side]} | {speed(own):.1f} | {speed(sides[side]):.1f} "
            f"| **{result['ratios'][side]:.2f}** | {target} | {own['peak_mb']}, {sides[side]['peak_mb']} "
            f"| {machine['threads']}, {machine['date']} |"
        )
    return rows


def speed(side: Mapping[str, Any]) -> float:
    """Units a second, of the median round."""
    return side["units"] / side["median_s"]


if __name__ == "__main__":
    write()
