"""The plan against the truth: label everything under the old constitution, then under the new, and count."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from constitution.descent import affected_runs
from constitution.draw import draw_comparison, draw_critique
from constitution.loading import load
from constitution.model import ComparisonPrinciple, Constitution, ConstitutionError, CritiquePrinciple
from constitution.plan import plan
from constitution.views import plan_markdown, plan_text

PAIRS = [f"pair-{i}" for i in range(400)]


@dataclass
class Ledger:
    """Judgements by (pair, digest), as a labelling run fills it."""

    known: dict[tuple[str, str], str] = field(default_factory=dict)

    def label(self, c: Constitution, *, n: int = 1, pairs: Iterable[str] = PAIRS) -> Counter[str]:
        asked: Counter[str] = Counter()
        for pair in pairs:
            for principle in draw_comparison(c, pair, seed=0, n=n):
                if (pair, principle.digest) not in self.known:
                    self.known[pair, principle.digest] = principle.id
                    asked[principle.id] += 1
        return asked

    def judged(self) -> list[tuple[str, str, str]]:
        return [(pair, name, digest) for (pair, digest), name in self.known.items()]

    def calls_per_judgement(self) -> float:
        return 2.0

    def tokens_per_call(self) -> float:
        return 150.0

    def seconds_per_call(self) -> float:
        return 0.01


def changed(c: Constitution, name: str, **fields: object) -> Constitution:
    return replace(c, comparison=tuple(replace(p, **fields) if p.id == name else p for p in c.comparison))  # type: ignore[arg-type]


def test_editing_one_principle_of_sixteen_costs_one_principle():
    old = load("hhh@1.0.0")
    new = changed(old, "no_preaching", question="Which answer moralises less?")
    drew_it = [pair for pair in PAIRS if draw_comparison(old, pair, seed=0)[0].id == "no_preaching"]
    ledger = Ledger()
    ledger.label(old)
    result = plan(old, new, pair_ids=PAIRS, seed=0, statistics=ledger)
    asked = ledger.label(new)
    assert asked == Counter(no_preaching=len(drew_it))
    assert result.labels.judgements == result.labels.stale == len(drew_it)
    assert [(cost.id, cost.edited, cost.moved) for cost in result.labels.by_principle] == [
        ("no_preaching", len(drew_it), 0)
    ]
    assert (result.calls, result.tokens, result.seconds) == (
        2 * len(drew_it),
        300 * len(drew_it),
        0.02 * len(drew_it),
    )
    # Weight 2 of 32: the share is that, within five standard errors.
    assert abs(len(drew_it) / len(PAIRS) - 2 / 32) < 5 * (2 / 32 * 30 / 32 / len(PAIRS)) ** 0.5
    # The label of everything else stands, and taking the edit back costs nothing.
    assert result.labels.kept == len(PAIRS) - len(drew_it)
    back = plan(new, old, pair_ids=PAIRS, seed=0, statistics=ledger)
    assert back.labels.judgements == 0 and back.labels.already_known == len(drew_it)
    assert ledger.label(old) == Counter()


def test_the_microworld_s_edit():
    """The shipped example of an edit: only brevity is asked again."""
    old, new = load("microworld@1.0.0"), load("microworld-detailed@1.0.0")
    ledger = Ledger()
    ledger.label(old)
    result = plan(old, new, pair_ids=PAIRS, seed=0, statistics=ledger)
    assert ledger.label(new) == Counter(brevity=result.labels.judgements)
    assert result.labels.dropped == {"brevity": result.labels.judgements}


ids = st.sampled_from("abcdef")
files = st.dictionaries(
    ids, st.tuples(st.sampled_from(["old words", "new words"]), st.sampled_from([0, 1, 3])), min_size=3
)


def build(content: dict[str, tuple[str, float]]) -> Constitution:
    comparison = tuple(
        ComparisonPrinciple(id=i, question=f"{i} {text}", dimension="d", weight=w)
        for i, (text, w) in content.items()
    )
    critique = tuple(
        CritiquePrinciple(id=i, critique_request=f"{i} {text}", revision_request="r", dimension="d", weight=w)
        for i, (text, w) in content.items()
    )
    return Constitution(name="c", metadata={}, comparison=comparison, critique=critique)


@settings(max_examples=60, deadline=None)
@given(files, files, st.integers(1, 2))
def test_the_plan_foretells_every_edit_exactly(a: dict, b: dict, n: int):
    old, new = build(a), build(b)
    pairs = PAIRS[:60]
    ledger = Ledger()
    try:
        ledger.label(old, n=n, pairs=pairs)
        expected = replace_ledger(ledger).label(new, n=n, pairs=pairs)
    except ConstitutionError:
        return
    for statistics in (None, ledger):
        result = plan(old, new, pair_ids=pairs, seed=0, n=n, statistics=statistics)
        assert {cost.id: cost.total for cost in result.labels.by_principle} == dict(expected)
        assert result.labels.judgements == expected.total()
    stale = sum(
        {p.digest for p in draw_comparison(old, pair, seed=0, n=n)}
        != {p.digest for p in draw_comparison(new, pair, seed=0, n=n)}
        for pair in pairs
    )
    assert result.labels.stale == stale


def replace_ledger(ledger: Ledger) -> Ledger:
    return Ledger(dict(ledger.known))


@settings(max_examples=40, deadline=None)
@given(files, files, st.integers(1, 3))
def test_a_stale_step_makes_the_later_steps_stale(a: dict, b: dict, steps: int):
    old, new = build(a), build(b)
    prompts = PAIRS[:40]
    try:
        result = plan(old, new, prompt_ids=prompts, seed=0, revisions=steps).critiques
    except ConstitutionError:
        return
    if not any(w for _, w in a.values()) or not any(w for _, w in b.values()):
        return
    stale = 0
    for prompt in prompts:
        differs = [
            draw_critique(old, prompt, step, seed=0).digest != draw_critique(new, prompt, step, seed=0).digest
            for step in range(steps)
        ]
        stale += steps - differs.index(True) if any(differs) else 0
    assert result.stale == result.judgements == stale
    assert result.judgements == sum(cost.total for cost in result.by_principle) + result.follow_on


def test_other_exemplars_make_the_whole_half_stale():
    old = load("hhh@1.0.0")
    new = replace(old, comparison_exemplars=old.comparison_exemplars[:2], critique_exemplars=())
    ledger = Ledger()
    ledger.label(old)
    result = plan(old, new, pair_ids=PAIRS, prompt_ids=PAIRS, seed=0, statistics=ledger)
    assert result.labels.stale == result.labels.judgements == len(PAIRS)
    assert result.critiques.stale == len(PAIRS)
    assert sum(cost.exemplars for cost in result.labels.by_principle) == len(PAIRS)


def test_a_constitution_without_a_half():
    old = load("hhh@1.0.0")
    result = plan(old, replace(old, comparison=()), pair_ids=PAIRS, seed=0)
    assert (result.labels.judgements, result.labels.stale) == (0, len(PAIRS))
    result = plan(replace(old, comparison=()), old, pair_ids=PAIRS, seed=0)
    assert result.labels.judgements == len(PAIRS)


def manifest(c: Constitution, name: str) -> dict:
    stages = {
        stage: {"dir": f"runs/{name}/{stage}"}
        for stage in ("critique", "sl", "pairs", "label", "reward", "policy")
    }
    used = {"ref": c.ref, "critique_digest": c.critique_digest, "comparison_digest": c.comparison_digest}
    return {"name": name, "constitution": used, "stages": stages}


def test_affected_runs():
    old = load("hhh@1.0.0")
    labels = changed(old, "economy", question="Which is shorter?")
    critiques = replace(old, critique=old.critique[:-1])
    manifests = [
        manifest(old, "one"),
        manifest(labels, "two"),
        {},
        {"constitution": "x", "stages": []},
        {"stages": {}},
    ]
    runs = affected_runs(old, labels, manifests)
    assert [(run.name, run.half, list(run.stages)) for run in runs] == [
        ("one", "comparison", ["label", "reward", "policy"])
    ]
    runs = affected_runs(old, critiques, manifests)
    assert [(run.name, run.half, len(run.stages)) for run in runs] == [
        ("one", "critique", 6),
        ("two", "critique", 6),
    ]
    assert affected_runs(old, old, manifests) == []


@pytest.mark.parametrize("view", [plan_text, plan_markdown])
def test_views_say_the_numbers(view):
    old = load("hhh@1.0.0")
    new = changed(old, "economy", question="Which is shorter?")
    ledger = Ledger()
    ledger.label(old)
    result = plan(old, new, pair_ids=PAIRS, prompt_ids=PAIRS, seed=0, statistics=ledger)
    text = view(result, affected_runs(old, new, [manifest(old, "run <b>")]))
    count = result.labels.judgements
    assert (
        f"labels: {count} of 400 become stale" in text
        and f"{2 * count} calls, {300 * count:,} tokens" in text
    )
    assert "economy" in text and "its words changed" in text and "critiques and revisions: 0 of 400" in text
    assert "<b>" not in text or view is plan_text
