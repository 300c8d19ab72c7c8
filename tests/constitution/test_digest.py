"""Digests: the same for the same meaning, another for another, and the same for ever."""

from __future__ import annotations

import pytest

from constitution.loading import loads

TEXT = """\
name: kindness
description: A small constitution that is here to be varied.
critique:
  principles:
    - id: harm
      critique_request: Say whether the answer hurts anyone, and how.
      revision_request: Rewrite it so that it does not.
      dimension: harmless
comparison:
  principles:
    - id: kind
      question: Which answer is kinder to the person who asked?
      dimension: polite
      weight: 2
      note: Tone.
    - id: off
      question: Which answer is louder?
      dimension: polite
      enabled: false
  exemplars:
    - conversation: [{role: user, content: Hello}]
      question: Which answer is kinder?
      a: Hello!
      b: What?
      better: a
"""

FORMATTING = {
    "comments": TEXT.replace("critique:\n", "# a comment\ncritique:  # another\n", 1),
    "quotes": TEXT.replace("question: Which answer is louder?", 'question: "Which answer is louder?"'),
    "re-wrapped": TEXT.replace(
        "question: Which answer is kinder to the person who asked?",
        "question: >-\n        Which answer is kinder\n        to the person who asked?",
    ),
    "literal block": TEXT.replace(
        "question: Which answer is kinder to the person who asked?",
        "question: |\n        Which answer is kinder\n        to the person who asked?",
    ),
    "keys reordered": TEXT.replace(
        "    - id: kind\n      question: Which answer is kinder to the person who asked?\n",
        "    - question: Which answer is kinder to the person who asked?\n      id: kind\n",
    ),
    "sections reordered": "comparison:" + TEXT.split("comparison:")[1] + TEXT.split("comparison:")[0],
    "defaults written out": TEXT.replace(
        "dimension: harmless", "dimension: harmless\n      weight: 1\n      enabled: true"
    ),
    "weight as a float": TEXT.replace("weight: 2", "weight: 2.0"),
    "CR LF": TEXT.replace("\n", "\r\n"),
    "byte order mark": "\ufeff" + TEXT,
}

# edit: (old, new, which digests change: whole, critique half, comparison half)
MEANING = {
    "a word": ("kinder to the person", "kind to the person", "w.c"),
    "a word of a critique": ("hurts anyone", "harms anyone", "wk."),
    "a capital": ("Which answer is kinder to", "which answer is kinder to", "w.c"),
    "a weight": ("weight: 2", "weight: 3", "w.c"),
    "a dimension": ("dimension: harmless", "dimension: safe", "wk."),
    "an id": ("id: kind", "id: kindness", "w.c"),
    "switched off": ("dimension: harmless", "dimension: harmless\n      enabled: false", "wk."),
    "switched on": ("enabled: false", "enabled: true", "w.c"),
    "an exemplar": ("b: What?", "b: Pardon?", "w.c"),
    "a note": ("note: Tone.", "note: Tone only.", "w.."),
    "a disabled principle": ("louder", "noisier", "w.."),
    "the description": ("small", "little", "w.."),
}


@pytest.mark.parametrize("name", FORMATTING)
def test_formatting_changes_nothing(name: str):
    text = FORMATTING[name]
    assert text != TEXT
    a, b = loads(TEXT), loads(text)
    assert (a.digest, a.critique_digest, a.comparison_digest) == (
        b.digest,
        b.critique_digest,
        b.comparison_digest,
    )


@pytest.mark.parametrize("name", MEANING)
def test_meaning_changes_the_halves_it_concerns(name: str):
    old, new, expected = MEANING[name]
    assert TEXT.count(old) == 1
    text = TEXT.replace(old, new)
    if name == "switched off":
        text = text.replace(
            "comparison:\n",
            "    - {id: x, critique_request: A?, revision_request: B., dimension: c}\ncomparison:\n",
        )
    a, b = loads(TEXT), loads(text)
    changed = [
        letter if getattr(a, digest) != getattr(b, digest) else "."
        for letter, digest in zip("wkc", ("digest", "critique_digest", "comparison_digest"), strict=True)
    ]
    assert "".join(changed) == expected


def test_a_principle_digest_is_of_its_words_alone():
    a = loads(TEXT).comparison[0]
    b = loads(
        TEXT.replace("id: kind", "id: other").replace("weight: 2", "weight: 9").replace("Tone.", "X.")
    ).comparison[0]
    assert a.digest == b.digest and a.id != b.id


def test_order_of_principles_does_not_matter():
    head, tail = TEXT.split("    - id: off\n")
    off, exemplars = tail.split("  exemplars:")
    start, kind = head.split("    - id: kind\n")
    swapped = f"{start}    - id: off\n{off}    - id: kind\n{kind}  exemplars:{exemplars}"
    assert loads(swapped).comparison[0].id == "off"
    assert loads(swapped).digest == loads(TEXT).digest


def test_digests_never_change():
    """Published versions are locked by these values: a change here breaks every lock in the world."""
    c = loads(TEXT)
    assert c.digest == "4f1b01007611edaa825c7c84899adc6d9246b9b2cb49d8a8f5c1a11bcb23edd6"
    assert c.comparison[0].digest == "290c5377e8878e579a8cd2c11fc0c283096c8c59eba05bb55f7f4b5ecf74ced5"
