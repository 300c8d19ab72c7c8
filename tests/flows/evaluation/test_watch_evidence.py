"""The watch flags what there is evidence for: not chance among few prompts, not length taken for sameness."""

from __future__ import annotations

import random

import pytest

from flows.evaluation import Answered, watch, watch_steps
from flows.evaluation.side_effects import SideEffects
from flows.evaluation.texts import diversity_change

WORDS = [f"w{i}" for i in range(60)]
REFUSAL = "I am sorry but I cannot help with that."


def drawn(rng: random.Random, n: int, *, refusals: float = 0.3, words: int = 40) -> list[Answered]:
    """A model's answers to n prompts: some refusals, otherwise words at random."""
    found = []
    for i in range(n):
        refused = rng.random() < refusals
        text = REFUSAL if refused else " ".join(rng.choices(WORDS, k=rng.randint(5, words)))
        found.append(
            Answered(
                prompt=f"p{i}",
                text=text,
                benign=True,
                refused=refused,
                evasive=not refused and rng.random() < 0.2,
                wrong=rng.random() < 0.2,
            )
        )
    return found


def compared(rng: random.Random, n: int) -> SideEffects:
    return watch({"a": drawn(rng, n), "b": drawn(rng, n)}, reference="a")


@pytest.mark.parametrize("n", [1, 2, 5, 9])
def test_fewer_than_ten_prompts_earn_no_flag(n):
    rng = random.Random(n)
    for _ in range(20):
        watched = compared(rng, n)
        assert watched.flags["b"] == ()
        measured = {
            "length",
            "refusals",
            "evasions",
            "wrong",
            "repetition",
            "sameness",
            "distinct_2",
            "boilerplate",
        }
        assert set(watched.too_few["b"]) == measured
    everything = drawn(rng, n, refusals=1.0)
    assert watch({"a": drawn(rng, n), "b": everything}, reference="a").flags["b"] == ()


@pytest.mark.parametrize("n,comparisons", [(10, 100), (25, 40)])
def test_two_equal_models_are_seldom_flagged(n, comparisons):
    rng = random.Random(n)
    flagged = sum(bool(compared(rng, n).flags["b"]) for _ in range(comparisons))
    # About 5% of comparisons at ten prompts, all nine effects together.
    assert flagged / comparisons <= 0.10


def test_shares_without_a_case_keep_a_width():
    rng = random.Random(0)
    watched = watch({m: drawn(rng, 40, refusals=0.0) for m in "ab"}, reference="a")
    refusals = watched.models["b"].effects["refusals"]
    assert refusals.value == refusals.low == 0 and 0.05 < refusals.high < 0.12
    assert refusals.difference.low < 0 < refusals.difference.high


def test_fewer_different_phrases_are_named_where_self_bleu_is_blind():
    """Answers from one template: self-BLEU is near its ceiling however many things they name."""
    rng = random.Random(1)

    def said(things: int) -> list[str]:
        named = [[f"thing{rng.randrange(things)}" for _ in range(2)] for _ in range(200)]
        return [f"To mend the {one}, take the {other} and press." for one, other in named]

    models = {"plain": said(12), "again": said(12), "narrow": said(8)}
    read = {
        model: [
            Answered(prompt=f"p{i}", text=t, benign=True, refused=False, evasive=False, wrong=None)
            for i, t in enumerate(texts)
        ]
        for model, texts in models.items()
    }
    found = watch(read, reference="plain")
    assert found.models["narrow"].effects["sameness"].flag is None
    assert found.models["narrow"].distinct_2.flag == "fewer different phrases"
    assert any("in as many words -" in sentence for sentence in found.flags["narrow"])
    assert found.models["again"].distinct_2.flag is None


def test_longer_answers_alone_are_not_less_diverse():
    rng = random.Random(3)
    short = {f"p{i}": [" ".join(rng.choices(WORDS, k=20))] for i in range(60)}
    long = {f"p{i}": [" ".join(rng.choices(WORDS, k=40))] for i in range(60)}
    change = diversity_change(long, short)
    assert change.low < 0 < change.high and change.n == 60
    assert diversity_change({"p": ["a b"]}, {"p": ["a b"]}).value is None
    assert diversity_change({p: ["a"] for p in short}, short).value is None


def test_steps_want_ten_prompts_and_name_the_phrase():
    rng = random.Random(4)
    few = [(step, a) for step in (0, 1) for a in drawn(rng, 3, refusals=float(step))]
    assert [s.flags for s in watch_steps(few)] == [None, None]
    # Four answers to each of five prompts are no twenty prompts.
    assert (
        watch_steps([(step, a) for step in (0, 1) for _ in range(4) for a in drawn(rng, 5)])[1].flags is None
    )
    many = [(step, a) for step in (0, 1) for a in drawn(rng, 40, refusals=float(step))]
    first, last = watch_steps(many)
    assert first.flags == () and first.boilerplate is None
    assert {"refusals", "hedging and boilerplate"} <= set(last.flags)
    assert last.boilerplate.text in REFUSAL.lower() and last.boilerplate.share == 1.0
