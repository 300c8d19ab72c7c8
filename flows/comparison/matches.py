"""Matches of a comparison: which answers meet, and what the judge says of them, dimension by dimension."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

from common.rows import Prompt
from constitution import Constitution
from constitution.draw import drawable
from flows.evaluation import Match as PlayedMatch
from flows.evaluation.texts import tokens
from flows.runs.digests import digest_json
from flows.runs.progress import Progress
from judges import Judge, JudgeIdentity, Label, LabelSettings, Ledger, Pair, label_pairs
from judges.ledger.reading import labelled_pairs

OVERALL = "overall"
# Two answers between which the judge does not decide, or follows the slot: MT-Bench counts the latter so as well
# (Zheng et al. 2023, arXiv 2306.05685, section 3.4).
_TIES = ("tie", "inconsistent")


@dataclass(frozen=True, kw_only=True)
class Match:
    """Two models' answers to one prompt. `pair` is None where they are the same: a tie that needs no judge."""

    prompt: str
    a: str
    b: str
    words: tuple[int, int]
    pair: Pair | None

    def played(self, outcome: float | None) -> PlayedMatch:
        """What was played, with its outcome for a."""
        return PlayedMatch(
            prompt=self.prompt,
            a=self.a,
            b=self.b,
            outcome=outcome,
            words_a=self.words[0],
            words_b=self.words[1],
        )


@dataclass(frozen=True, kw_only=True)
class Judged:
    """Matches and counts of statuses by part of the constitution; `rows` say of each judged match what was read."""

    matches: Mapping[str, Sequence[PlayedMatch]]
    statuses: Mapping[str, Mapping[str, int]]
    rows: Sequence[Mapping[str, Any]]
    label_sets: Sequence[str]
    judge: JudgeIdentity
    asked: int


def matches(
    prompts: Sequence[Prompt], texts: Mapping[str, Sequence[str]], digests: Mapping[str, str]
) -> dict[str, Match]:
    """Every model against every other on every prompt, by an id that names prompt, models and content.

    `prompts` may come several times each, with an answer of every model each time; the part of the id before the
    first "|" says which time of which prompt, and draws the principle: all matches about it are asked the same.
    """
    found: dict[str, Match] = {}
    times: Counter[str] = Counter()
    for index, prompt in enumerate(prompts):
        item = f"{prompt.id}#{times[prompt.id]}"
        times[prompt.id] += 1
        for a, b in combinations(texts, 2):
            mine, other = texts[a][index], texts[b][index]
            name = f"{item}|{digests[a][:8]}-{digests[b][:8]}|{digest_json([mine, other])[:8]}"
            row = {"id": name, "prompt_id": item, "prompt": prompt.prompt, "a": mine, "b": other}
            found[name] = Match(
                prompt=prompt.id,
                a=a,
                b=b,
                words=(len(tokens(mine)), len(tokens(other))),
                pair=Pair.from_row(row) if mine != other else None,
            )
    return found


def by_dimension(constitution: Constitution) -> dict[str, Constitution]:
    """The whole constitution under "overall", then each dimension of its comparison principles on its own.

    Principles are drawn by rendezvous hashing, so the one that a pair draws from all of them is also the one that it
    draws from its own dimension: the overall labels cost no judgement beyond the dimensions'.
    """
    enabled = drawable(constitution.comparison)
    found = {OVERALL: constitution}
    for dimension in dict.fromkeys(p.dimension for p in enabled):
        own = tuple(p for p in enabled if p.dimension == dimension)
        found[dimension] = replace(constitution, comparison=own)
    return found


def judge_matches(
    matches: Mapping[str, Match],
    parts: Mapping[str, Constitution],
    judge: Judge,
    ledger: Ledger,
    settings: LabelSettings,
    progress: Progress,
    *,
    by: str,
) -> Judged:
    """Ask the judge in both orders about every match, once by each part; what the ledger knows is not asked.

    `by` is what the rows call a part: "dimension" or "principle".
    Raises JudgeError when the judge is down; what was judged stays.
    """
    pairs = {name: match.pair for name, match in matches.items() if match.pair is not None}
    drawn_by = {name: pair.prompt_id for name, pair in pairs.items()}
    same = [match for match in matches.values() if match.pair is None]
    judged: dict[str, list[PlayedMatch]] = {}
    statuses: dict[str, dict[str, int]] = {}
    rows: list[dict[str, Any]] = []
    label_sets: list[str] = []
    asked = 0
    for name, part in parts.items():
        report = label_pairs(
            list(pairs.values()),
            constitution=part,
            judge=judge,
            ledger=ledger,
            settings=settings,
            on_progress=lambda now, of=name: progress(now.pairs, len(pairs), f"matches, {of}"),  # type: ignore[misc]
            purpose="exam",  # judged, but no labels of a run
            drawn_by=drawn_by,
        )
        asked += report.asked
        label_sets.append(report.label_set)
        labels = [found.label for found in labelled_pairs(ledger, report.label_set, pair_ids=list(pairs))]
        judged[name] = [match.played(0.5) for match in same]
        judged[name] += [matches[label.pair_id].played(outcome(label)) for label in labels]
        counts = Counter({"identical": len(same)}) + Counter(label.status for label in labels)
        statuses[name] = dict(counts)
        rows += [{by: name, **_row(matches[label.pair_id], label)} for label in labels]
    return Judged(
        matches=judged,
        statuses=statuses,
        rows=rows,
        label_sets=label_sets,
        judge=judge.identity,
        asked=asked,
    )


def outcome(label: Label) -> float | None:
    """1 where a won, 0 where b did, one half for a tie or a verdict that follows the order, None after a failure."""
    if label.status in _TIES:
        return 0.5
    return None if label.status != "ok" else {"a": 1.0, "b": 0.0, None: 0.5}[label.winner]


def _row(match: Match, label: Label) -> dict[str, Any]:
    return {
        "pair": label.pair_id,
        "prompt": match.prompt,
        "a": match.a,
        "b": match.b,
        "outcome": outcome(label),
        "status": label.status,
        "p": label.p,
        "p_ab": label.p_ab,
        "p_ba": label.p_ba,
        "principles": list(label.principles),
        "detail": label.detail,
    }
