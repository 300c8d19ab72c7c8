"""The model card: what a model was trained from, and how it measured, in the form that the Hugging Face hub reads.

The trainer writes one with what it knows. Whoever evaluates the model later has `finished_card` write it again.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from training.config.base import TrainConfig
from training.errors import TrainingError

NAME = "README.md"
_TAGS = {"reward model": "text-classification"}
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_FRONT = re.compile(r"\A---\n(.*?\n)---\n", re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class Result:
    """One measured figure: on which data (`dataset` names them), under which name, its value and, where there is one,
    its 95% interval."""

    dataset: str
    metric: str
    value: float
    low: float | None = None
    high: float | None = None
    n: int | None = None


def model_card(method: str, config: TrainConfig, metrics: Mapping[str, float], *, steps: int) -> str:
    """The card as the trainer leaves it: `config.metadata` says where the model comes from, `metrics` are its last."""
    settings = config.model_dump(mode="json")
    facts = {name.replace("_", " "): value for name, value in settings.pop("metadata").items()}
    held_out = [
        Result(dataset="held-out share of the training data", metric=name.removeprefix("eval_"), value=value)
        for name, value in metrics.items()
        if name.startswith("eval_") and math.isfinite(value)
    ]
    return _card(
        method=method,
        title=config.output_dir.name,
        settings=settings,
        metrics=metrics,
        steps=steps,
        facts=list(facts.items()),
        results=held_out,
        notes=(),
    )


def finished_card(
    directory: Path,
    *,
    title: str,
    facts: Sequence[tuple[str, object]],
    results: Sequence[Result],
    notes: Sequence[str] = (),
) -> str:
    """The card of a finished output directory with more than its trainer knew; nothing is written.

    `facts` say where the model comes from, `results` how it was measured afterwards, `notes` what a user should know.
    Raises TrainingError where no training was finished.
    """
    try:
        settings = yaml.safe_load((directory / "config.yaml").read_text(encoding="utf-8"))
        record = json.loads((directory / "result.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise TrainingError(
            f"{directory}: holds no finished training: {' '.join(str(error).split())}"
        ) from error
    settings.pop("metadata", None)
    return _card(
        method=record["method"],
        title=title,
        settings=settings,
        metrics=record["metrics"],
        steps=record["steps"],
        facts=facts,
        results=results,
        notes=notes,
    )


def _card(
    *,
    method: str,
    title: str,
    settings: Mapping[str, Any],
    metrics: Mapping[str, float],
    steps: int,
    facts: Sequence[tuple[str, object]],
    results: Sequence[Result],
    notes: Sequence[str],
) -> str:
    front = {
        "library_name": "transformers",
        "pipeline_tag": _TAGS.get(method, "text-generation"),
        **_inherited(str(settings["model"])),
        "tags": ["charter", method.replace(" ", "-")],
        **_model_index(title, _TAGS.get(method, "text-generation"), results),
    }
    start = f"Trained by {method}, {steps} optimiser steps, starting from `{_cell(settings['model'])}`."
    start += f"{_kept_words(metrics)}\n"
    parts = [
        f"---\n{yaml.safe_dump(front, sort_keys=False, allow_unicode=True)}---\n",
        f"# {_cell(title)}\n",
        start,
    ]
    if notes:
        parts.append("".join(f"- {_cell(note)}\n" for note in notes))
    if facts:
        parts.append(_section("Where it comes from", [["", ""], *([_cell(n), _cell(v)] for n, v in facts)]))
    if results:
        parts.append(
            _section(
                "Evaluation", [["on", "figure", "value", "95% interval", "n"], *map(_result_row, results)]
            )
        )
    if metrics:
        rows = [[name.replace("_", " "), f"{value:.6g}"] for name, value in metrics.items()]
        parts.append(_section("Metrics", [["", ""], *rows]))
    text = json.dumps(settings, indent=2, ensure_ascii=False)
    parts.append(f"## Settings\n\n```json\n{text}\n```\n")
    return "\n".join(parts)


def _kept_words(metrics: Mapping[str, float]) -> str:
    """What early stopping did, if the weights that were kept are not the last ones."""
    kept, last = (int(metrics.get(name, 0)) for name in ("kept_step", "last_step"))
    if kept == last:
        return ""
    if "stopped_early" not in metrics:
        return f" These are the weights after step {kept}, the best on held-out data, and so are the metrics."
    how = "Early stopping ended the run" if metrics["stopped_early"] else "The run ended"
    return (
        f" {how} after step {last}: held-out gold had fallen while the proxy climbed. This is the policy after step "
        f"{kept}, the best by gold, and so are its metrics."
    )


def _inherited(model: str) -> dict[str, str]:
    """`base_model` and `license`, where they are known: from the hub id that training started from, or from the card
    of a local model."""
    known: dict[str, str] = {}
    if _HUB_ID.fullmatch(model) and not Path(model).exists():
        known["base_model"] = model
        card = _cached_card(model)
    else:
        card = Path(model) / NAME
    front = _front_matter(card) if card is not None else {}
    for name in ("base_model", "license"):
        if isinstance(front.get(name), str):
            known.setdefault(name, front[name])
    return known


def _cached_card(model: str) -> Path | None:
    """The card of a hub model, where it lies in the local cache; nothing is downloaded."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(model, NAME)
    return Path(found) if isinstance(found, str) else None


def _front_matter(card: Path) -> dict[str, Any]:
    try:
        match = _FRONT.match(card.read_text(encoding="utf-8"))
        front = yaml.safe_load(match.group(1)) if match else {}
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return front if isinstance(front, dict) else {}


def _model_index(title: str, task: str, results: Sequence[Result]) -> dict[str, Any]:
    if not results:
        return {}
    datasets: dict[str, list[dict[str, Any]]] = {}
    for result in results:
        figure = {"type": result.metric.replace(" ", "_"), "name": result.metric, "value": result.value}
        datasets.setdefault(result.dataset, []).append(figure)
    entries = [
        {"task": {"type": task}, "dataset": {"type": _slug(name), "name": name}, "metrics": figures}
        for name, figures in datasets.items()
    ]
    return {"model-index": [{"name": title, "results": entries}]}


def _result_row(result: Result) -> list[str]:
    interval = "" if result.low is None or result.high is None else f"{result.low:.4g} to {result.high:.4g}"
    shown = "" if result.n is None else f"{result.n:,}"
    return [_cell(result.dataset), _cell(result.metric), f"{result.value:.4g}", interval, shown]


def _section(heading: str, rows: Sequence[Sequence[str]]) -> str:
    def lines() -> Iterator[str]:
        for number, row in enumerate(rows):
            yield "| " + " | ".join(row) + " |" if any(row) else "|" + " |" * len(row)
            if number == 0:
                yield "|" + "---|" * len(row)

    return f"## {heading}\n\n" + "\n".join(lines()) + "\n"


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def _cell(value: object) -> str:
    """One line of Markdown in which no table ends, no HTML begins and no link or image is made."""
    text = " ".join(str(value).split()).replace("`", "'").replace("<", "&lt;")
    return text.replace("|", "\\|").replace("[", "\\[")
