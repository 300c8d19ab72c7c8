"""Preference pairs ready for training: chosen by status, mixed between files, tokenized with a shared prompt."""

from __future__ import annotations

import json
import random
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.chat import naming, renderer_of
from common.rows import Preference, read_preferences, report_left_out
from training.config.supervised import PairsConfig
from training.data.packing import Tree
from training.errors import TrainingError


@dataclass(frozen=True, kw_only=True)
class PairItem:
    """A tokenized pair: the prompt, and as its branches the chosen and the rejected answer (or a lone answer)."""

    id: str
    tree: Tree
    p: float
    weight: float = 1.0


def load_pairs(tokenizer: Any, config: PairsConfig, *, lone_answers: bool = False) -> list[PairItem]:
    """Read, check, tokenize and mix the pairs of all data files; the shares are those of what is trained on.

    Raises TrainingError when the judge failed its exam, too many labels of a file failed, or nothing of a file is
    left to train on.
    """
    if config.exam is not None:
        check_exam(config.exam)
    read = [
        _usable(path, report_left_out(read_preferences(path, lone_answers=lone_answers)), config)
        for path in config.data
    ]
    files = [encode_pairs(tokenizer, pairs, config.max_length) for pairs in read]
    if config.shares is not None:
        # The largest mixture in which no pair occurs twice.
        size = min(len(pairs) / share for pairs, share in zip(files, config.shares, strict=True))
        drawn = []
        for number, (pairs, share) in enumerate(zip(files, config.shares, strict=True)):
            count = min(len(pairs), round(size * share))
            drawn.append(random.Random(f"{config.seed}/mixture/{number}").sample(pairs, count))
        files = drawn
    pairs = [pair for file in files for pair in file]
    if not pairs:
        raise TrainingError(f"{', '.join(map(str, config.data))}: the mixture of shares is empty")
    return pairs


def check_exam(path: Path) -> None:
    """Refuse an exam's report (`{"passed": bool, "checks": [{"name", "passed", …}]}`) that is not passed.

    Raises TrainingError, also for a file that is none.
    """
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
        passed, checks = report["passed"], report.get("checks", [])
        failed = [f"{check['name']} {check['value']}" for check in checks if not check["passed"]]
    except OSError as error:
        raise TrainingError(f"exam {path}: cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise TrainingError(f"exam {path}: is no exam's report: {type(error).__name__}: {error}") from error
    if passed is not True:
        what = f" ({', '.join(failed)})" if failed else ""
        raise TrainingError(f"exam {path}: the judge failed{what}; its labels are not trained on")


def encode_pairs(tokenizer: Any, pairs: Sequence[Preference], max_length: int) -> list[PairItem]:
    """Tokenize a file's pairs; those with an answer that ends beyond `max_length` are left out, with a line on stderr.

    Raises TrainingError when nothing is left.
    """
    items = []
    renderer = renderer_of(tokenizer)
    for pair in pairs:
        place = getattr(pair, "place", "") or f"{pair.source}: {pair.id}"
        texts = [pair.chosen] if pair.rejected is None else [pair.chosen, pair.rejected]
        with naming(place):
            prompt = tuple(renderer.prompt_ids(pair.prompt))
            answers = tuple(tuple(renderer.answer_ids(pair.prompt, text)) for text in texts)
        if len(prompt) + max(map(len, answers)) <= max_length:
            items.append(PairItem(id=pair.id, tree=Tree(prefix=prompt, branches=answers), p=pair.p))
    if not items:
        raise TrainingError(f"{pairs[0].source}: max_length {max_length}: every pair is longer")
    if len(items) < len(pairs):
        dropped = len(pairs) - len(items)
        print(
            f"{pairs[0].source}: {dropped} of {len(pairs)} pairs are longer than max_length and left out",
            file=sys.stderr,
        )
    return items


def _usable(path: Path, pairs: Sequence[Preference], config: PairsConfig) -> list[Preference]:
    counts = Counter(pair.status for pair in pairs)
    failed = len(pairs) - counts["ok"]
    if failed > config.max_not_ok * len(pairs):
        found = ", ".join(f"{status} {count}" for status, count in counts.most_common())
        raise TrainingError(
            f"{path}: {failed / len(pairs):.0%} of the labels are not ok ({found}); "
            f"max_not_ok allows {config.max_not_ok:.0%}"
        )
    usable = [pair for pair in pairs if pair.status in config.statuses]
    if config.targets == "hard":
        usable = [_hardened(pair) for pair in usable if pair.p != 0.5]
    if not usable:
        raise TrainingError(f"{path}: no label has a status in {', '.join(config.statuses)} and a preference")
    return usable


def _hardened(pair: Preference) -> Preference:
    return Preference(**{**vars(pair), "p": float(pair.p > 0.5)})
