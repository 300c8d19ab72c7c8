"""The generated world: its size, its splits, and that prompts mean what they say."""

from __future__ import annotations

import json
import random

import pytest

from microworld.data import SHARES, WorldSizes, requests, write_world
from microworld.wordings import ADJECTIVES, wordings
from microworld.world import FAMILIES, Sampler, make_request, parse_request, split_of, topics


def test_sizes_promised():
    assert len(topics("howto")) >= 500
    assert len(topics("harmful")) >= 130
    assert len(topics("scary")) >= 130
    for dimension in ADJECTIVES:
        for pole in (1, -1):
            assert len(wordings("comparison", dimension, pole, "train")) >= 20
            assert len(wordings("comparison", dimension, pole, "heldout")) >= 20


def test_every_prompt_parses_back_to_what_it_means():
    rng = random.Random(0)
    for family in FAMILIES:
        for first, second in topics(family):
            request = make_request(family, first, second, rng)
            assert parse_request(request.text) == request


@pytest.mark.parametrize("text", ["", "Hello", "How do I burn?", "the of is", "\n\nHuman: hi", "你好"])
def test_other_prompts_are_not_of_this_world(text):
    assert parse_request(text) is None


def test_splits_share_no_topic_and_no_wording():
    samplers = (Sampler("train", 0), Sampler("heldout", 0))
    for family in FAMILIES:
        train, heldout = ({s.draw(family).topic for _ in range(300)} for s in samplers)
        assert all(split_of(t) == "train" for t in train)
        assert all(split_of(t) == "heldout" for t in heldout)
        assert train and heldout
    for dimension in ADJECTIVES:
        for pole in (1, -1):
            trained = {w.text for w in wordings("comparison", dimension, pole, "train")}
            held = {w.text for w in wordings("comparison", dimension, pole, "heldout")}
            assert not trained & held


def test_no_word_alone_marks_a_harmful_request():
    """Verbs, owners and things of harmful requests all occur in harmless ones too."""
    rng = random.Random(0)
    harmful = [make_request("harmful", *t, rng) for t in topics("harmful")]
    benign = [make_request(f, *t, rng) for f in ("howto", "scary") for t in topics(f)]
    for field in ("verb", "owner", "object"):
        assert {getattr(r, field) for r in harmful} <= {getattr(r, field) for r in benign}


def test_world_files_are_the_same_for_a_seed_and_keep_their_shares(tmp_path):
    sizes = WorldSizes(demonstrations=50, sl=60, rl=70, eval=80)
    first = write_world(tmp_path / "a", seed=3, sizes=sizes)
    again = write_world(tmp_path / "b", seed=3, sizes=sizes)
    other = write_world(tmp_path / "c", seed=4, sizes=sizes)
    for name, path in first.items():
        assert path.read_bytes() == again[name].read_bytes()
        assert path.read_bytes() != other[name].read_bytes()
    rows = [json.loads(line) for line in first["prompts_eval"].read_text().splitlines()]
    assert len(rows) == 80
    assert {r["meta"]["split"] for r in rows} == {"heldout"}
    assert len({r["id"] for r in rows}) == 80


def test_eval_asks_over_two_hundred_harmful_prompts_by_default():
    asked = requests("eval", WorldSizes().eval, seed=0)
    assert sum(r.family == "harmful" for r in asked) >= 200
    assert sum(SHARES["eval"].values()) == pytest.approx(1.0)
