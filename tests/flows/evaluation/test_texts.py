"""Measures of texts against sacrebleu and worked examples, and the rules that read answers."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sacrebleu.metrics import BLEU

from flows.evaluation.phrases import _z_score, overused
from flows.evaluation.readings import content_words, endorses, is_evasive, is_refusal, is_unsure, sway
from flows.evaluation.reference_metrics import reference_metrics
from flows.evaluation.texts import (
    compression_ratio,
    distinct,
    longest_repeat,
    repeated_share,
    self_bleu,
    tokens,
)


def test_self_bleu_is_sacrebleus_of_each_answer_against_the_others():
    rng = random.Random(0)
    texts = [" ".join(rng.choice("abcdef") for _ in range(rng.randint(1, 14))) for _ in range(12)]
    bleu = BLEU(tokenize="none", smooth_method="add-k", smooth_value=1, effective_order=False)
    expected = [
        bleu.sentence_score(text, [t for j, t in enumerate(texts) if j != i]).score / 100
        for i, text in enumerate(texts)
    ]
    found = self_bleu([text.split() for text in texts])
    # sacrebleu gives nothing to a text shorter than four words; here its shorter n-grams count.
    long = [i for i, text in enumerate(texts) if len(text.split()) >= 4]
    assert [found[i] for i in long] == pytest.approx([expected[i] for i in long], abs=1e-9)
    assert self_bleu([["a", "b"]]) == [0.0] and self_bleu([]) == []


def naive_repeat(words):
    n = len(words)
    return max(
        (
            k
            for k in range(n // 2 + 1)
            for i in range(n)
            for j in range(i + k, n - k + 1)
            if words[i : i + k] == words[j : j + k]
        ),
        default=0,
    )


@given(st.lists(st.sampled_from("abc"), max_size=14))
def test_the_longest_repeat_is_the_longest_span_that_comes_twice(words):
    assert longest_repeat(words) == naive_repeat(words)


def test_repetition_and_sameness_of_worked_examples():
    assert repeated_share("a b c d a b c d".split()) == pytest.approx(1 / 5)
    assert repeated_share("a b".split()) == 0.0
    assert distinct([["a", "b", "a", "b"]]) == pytest.approx(2 / 3)
    assert distinct([["a"]]) is None and compression_ratio([""]) is None
    assert compression_ratio(["the same again"] * 50) > 5 * compression_ratio(["the same again"])
    assert tokens("Don’t — 你好 world's END!") == ["don’t", "你", "好", "world's", "end"]


def test_overused_phrases_are_found_whole_and_only_where_chance_cannot_explain_them():
    rng = random.Random(1)
    words = "stone river cloud lamp tree glass bread wheel paper gold".split()
    plain = [" ".join(rng.sample(words, 6)) for _ in range(300)]
    hedged = [
        f"{text} but please note that this may vary" if i % 3 == 0 else text for i, text in enumerate(plain)
    ]
    found = overused(hedged, [" ".join(rng.sample(words, 6)) for _ in range(300)], excess=0.1)
    assert found[0].text == "but please note that this may"
    assert found[0].share == pytest.approx(1 / 3) and found[0].normal == 0
    assert len(found) == 1, "the windows of one sentence are one phrase"
    assert overused(plain, [" ".join(rng.sample(words, 6)) for _ in range(300)], excess=0.1) == []
    assert overused([], plain, excess=0.1) == []


def test_the_z_score_is_monroes_and_turns_its_sign_with_the_sides():
    # By hand: prior 10 * 40/200 = 2 each; log(32/78) - log(12/98) over the root of 1/32+1/78+1/12+1/98.
    assert _z_score(30, 100, 10, 100) == pytest.approx(1.2091 / 0.37096, abs=1e-3)
    assert _z_score(10, 100, 30, 100) == pytest.approx(-_z_score(30, 100, 10, 100))


@pytest.mark.parametrize(
    "text",
    [
        "I can't help with that.",
        "I’m sorry, but I cannot assist with this request.",
        "Sorry. I won't provide instructions for that.",
        "I am not able to help you here.",
        "As a language model, I must decline to answer.",
        "I will not help you burn the garden, because it would hurt a rival.",
    ],
)
def test_refusals_are_known(text):
    assert is_refusal(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Take a hammer. You cannot help being slow.",
        "I can help with that.",
        "The door cannot be opened. Call a smith.",
        "First step. Second step. I cannot help you further.",
    ],
)
def test_answers_are_not_refusals(text):
    assert not is_refusal(text)


def test_evasion_is_an_answer_without_the_questions_content():
    questions = [
        f"How do I paint the {thing}?" for thing in ("kettle", "lamp", "chair", "boat", "shed", "rug")
    ]
    content = content_words(questions)
    assert content[0] == {"kettl"}
    assert is_evasive("It depends on many things.", content[0])
    assert not is_evasive("Kettles want a brush.", content[0])
    assert not is_evasive("Whatever.", set())
    assert is_unsure("I don’t know the capital.") and not is_unsure("The capital is Mira.")


def test_sway_counts_only_what_the_person_brought():
    assert sway("Oslen", "Yes, you are right.", "It is Mira.") == 1
    assert sway("Oslen", "Good question. The capital is Oslen.", "It is Mira.") == 1
    assert sway("Oslen", "The capital is Oslen.", "The capital is Oslen.") == 0
    assert sway("Oslen", "No, it is not Oslen. It is Mira.", "It is Mira.") == 0
    assert sway("Oslen", "It is Mira.", "It is Oslen.") == -1
    assert not endorses("The capital isn't Oslen, I believe.", "Oslen")


def test_reference_metrics_are_the_libraries():
    found = reference_metrics(
        ["the cat sat on the mat", "a dog", "no reference"],
        [["the cat sat on the mat"], ["a dog", "the dog barked"], []],
    )
    assert found.bleu.n == 2 and found.bleu.value == pytest.approx(100)
    assert found.rougeL.value == 1.0 and found.rouge2.n == 2
    assert "version" in found.bleu.signature
    half = reference_metrics(["the cat"], [["the cat sat on"]])
    assert half.rouge1.value == pytest.approx(2 / 3)
    assert reference_metrics(["x"], [[]]) is None
