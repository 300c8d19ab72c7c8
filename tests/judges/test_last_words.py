"""What people last said of a pair, under whichever ids and whichever way round they saw it."""

from __future__ import annotations

import pytest

from judges import Pair
from judges.audit import last_words, last_words_digest
from judges.ledger import Verdict


def pair(n: int, *, name: str = "p", a: str = "yes", b: str = "no") -> Pair:
    return Pair(id=f"{name}{n}", prompt=({"role": "user", "content": f"Question {n}?"},), a=a, b=b)


@pytest.fixture
def say(ledger):
    """`say(pair, winner, who)`: one more verdict."""

    def said(about: Pair, winner: str, who: str = "ada") -> None:
        verdict = Verdict(pair_id=about.id, item=about.digest, winner=winner, who=who, why="", created_at=1.0)
        ledger.add_verdicts([verdict], [about])

    return said


def decided(ledger) -> dict[str, tuple[str, str]]:
    """The better answer and who had the last word, by question."""
    rows = [word.to_row() for word in last_words(ledger) if word.decided]
    return {row["prompt"][0]["content"]: (row["chosen"], row["who"]) for row in rows}


def test_a_pair_and_its_swap_are_one_content_and_no_other_is():
    one = pair(1)
    assert one.content == one.swap().content == pair(1, name="q").content
    assert one.content not in {pair(2).content, pair(1, a="no!").content}


def test_the_last_word_counts_whoever_had_it_and_whichever_way_round(ledger, say):
    say(pair(1), "a")
    say(pair(2), "a")
    say(pair(3), "a")
    say(pair(4, a="same", b="same"), "b")
    assert decided(ledger) == {f"Question {n}?": ("yes", "ada") for n in (1, 2, 3)}
    say(pair(1), "b", "bob")
    say(pair(2, name="other").swap(), "a", "eve")  # `a` of the swap is the pair's `b`
    say(pair(3), "tie", "bob")
    assert decided(ledger) == {"Question 1?": ("no", "bob"), "Question 2?": ("no", "eve")}
    assert len(last_words(ledger)) == 4


def test_the_digest_follows_what_people_said_and_not_who_or_how_often(ledger, say):
    empty = last_words_digest(last_words(ledger))
    say(pair(1), "a")
    first = last_words_digest(last_words(ledger))
    say(pair(1), "a", "bob")
    say(pair(1, name="other").swap(), "b", "eve")
    assert last_words_digest(last_words(ledger)) == first != empty
    say(pair(1), "tie", "bob")
    tied = last_words_digest(last_words(ledger))
    say(
        pair(1, name="other").swap(), "b", "eve"
    )  # nothing new of its own id, but the last word on the content
    assert tied != first == last_words_digest(last_words(ledger))
