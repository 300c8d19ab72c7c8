"""The model card: what a model was trained from, and how it measured."""

from __future__ import annotations

import json
from collections.abc import Mapping

import yaml

from training.config import TrainConfig

_TAGS = {"reward model": "text-classification"}


def model_card(method: str, config: TrainConfig, metrics: Mapping[str, float], *, steps: int) -> str:
    """Markdown with the front matter that the Hugging Face hub reads."""
    front = {
        "library_name": "transformers",
        "pipeline_tag": _TAGS.get(method, "text-generation"),
        "tags": ["charter", method.replace(" ", "-")],
    }
    facts = "".join(
        f"| {name.replace('_', ' ')} | {_cell(value)} |\n" for name, value in config.metadata.items()
    )
    measures = "".join(f"| {name.replace('_', ' ')} | {value:.6g} |\n" for name, value in metrics.items())
    parts = [
        f"---\n{yaml.safe_dump(front, sort_keys=False)}---\n",
        f"# {config.output_dir.name}\n",
        f"Trained by {method}, {steps} optimiser steps, starting from `{_cell(config.model)}`.\n",
    ]
    if facts:
        parts.append(f"## Where it comes from\n\n| | |\n|---|---|\n{facts}")
    if measures:
        parts.append(f"## Metrics\n\n| | |\n|---|---|\n{measures}")
    settings = json.dumps(config.model_dump(mode="json", exclude={"metadata"}), indent=2, ensure_ascii=False)
    parts.append(f"## Settings\n\n```json\n{settings}\n```\n")
    return "\n".join(parts)


def _cell(value: object) -> str:
    return str(value).replace("|", "\\|").replace("`", "'").replace("<", "&lt;").replace("\n", " ")
