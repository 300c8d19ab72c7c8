"""Checkers: what counts as the expected answer within a longer one, and what is no expectation at all."""

import pytest

from training.rewards import checkers


@pytest.mark.parametrize(
    ("response", "answer", "expected"),
    [
        ("It is -3.", "-3", 1.0),
        ("It is −3.", "-3", 1.0),
        ("3", "-3", 0.0),
        ("-3", "3", 0.0),
        ("10-3", "-3", 0.0),
        ("3-7", "7", 1.0),
        ("1 5", "1.5", 0.0),
        ("about 1.5 m", "1.5", 1.0),
        ("1.5", "1", 0.0),
        ("1,000", "1", 0.0),
        ("0.3", "3", 0.0),
        ("3, then 4", 3, 1.0),
        ("x=3", "3", 1.0),
        ("15%", "5%", 0.0),
        ("I like C++.", "C++", 1.0),
        ("I like C.", "C++", 0.0),
        ("I like C++", "C", 0.0),
        ("C++11", "C", 0.0),
        ("**Paris**, of course", "Paris", 1.0),
        ("Paris's", "paris", 1.0),
        ("Hello, (world)!", "hello world", 1.0),
        ("hello world", "Hello, world.", 1.0),
        ("New\nYork", "new york", 1.0),
    ],
)
def test_contains_wants_whole_words_and_numbers(response, answer, expected):
    assert checkers.exact(answer="answer", contains=True)(response, {"answer": answer}) == expected


@pytest.mark.parametrize("contains", [False, True])
@pytest.mark.parametrize("answer", ["", " ", "."])
def test_an_empty_expectation_is_a_missing_reward(answer, contains):
    check = checkers.exact(answer="answer", contains=contains)
    assert check("", {"answer": answer}) is None and check("anything", {"answer": answer}) is None


def test_punctuation_alone_is_nothing_to_look_for():
    assert checkers.exact(answer="answer", contains=True)("anything", {"answer": "!"}) is None


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("3-7", 7),
        ("10-5", 5),
        ("f(2)-3", 3),
        ("-5", -5),
        ("x = -5", -5),
        ("(−5)", -5),
        ("5 to -.5", -0.5),
        ("1e-5", 1e-5),
        ("5+3", 3),
    ],
)
def test_a_hyphen_after_a_number_is_no_minus(text, number):
    assert checkers.last_number(text) == number
