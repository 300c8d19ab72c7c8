"""Lint: what it says, at which line, and that it keeps quiet about good files."""

from __future__ import annotations

import random
import time

import pytest

from constitution.library import SHIPPED
from constitution.lint import lint
from constitution.loading import examine, load
from constitution.source import parse_source

HEAD = "name: x\ncomparison:\n  principles:\n"


def findings(text: str) -> list[tuple[int | None, str]]:
    source = parse_source(text.encode(), file="x.yaml")
    _, c = examine(source, root=SHIPPED)
    return [(problem.line, problem.message) for problem in lint(source, c)]


def two(a: str, b: str) -> str:
    return (
        HEAD
        + f"    - {{id: a, question: '{a}', dimension: d}}\n    - {{id: b, question: '{b}', dimension: d}}\n"
    )


@pytest.mark.parametrize(
    ("a", "b", "verdict"),
    [
        ("Choose the kinder answer.", "choose the KINDER answer", "says the same as 'a' (line 4)"),
        ("Choose the shorter answer.", "Choose the longer answer.", "says the opposite of 'a'"),
        ("Choose the shorter answer.", "Choose the more detailed answer.", "says the opposite of 'a'"),
        (
            "Choose the answer that is less harmful.",
            "Choose the answer that is more harmful.",
            "says the opposite of",
        ),
        ("Which answer is polite?", "Which answer is rude?", "says the opposite of"),
        ("Pick the answer that refuses.", "Pick the answer that does not refuse.", None),
        (
            "Which answer mentions its sources?",
            "Which answer never mentions its sources?",
            "says the opposite of",
        ),
        (
            "Which answer is safer for children, patients and the elderly?",
            "Which answer is safer for children, patients and elderly people?",
            "says nearly the same as 'a'",
        ),
        ("Choose the answer that is safer.", "Choose the answer that is more useful.", None),
        ("Choose the answer that is more open.", "Choose the answer that is kinder.", None),
        ("Choose the answer that is more true.", "Choose the answer that is more polite.", None),
    ],
)
def test_alike_principles(a: str, b: str, verdict: str | None):
    found = findings(two(a, b))
    if verdict is None:
        assert found == []
    else:
        assert len(found) == 1 and found[0][0] == 5 and verdict in found[0][1]


def test_disabled_principles_may_contradict():
    assert (
        findings(
            two("Choose the shorter answer.", "Choose the longer answer.").replace(
                "{id: b", "{enabled: false, id: b"
            )
        )
        == []
    )


CRITIQUE = """\
name: x
critique:
  principles:
    - id: a
      critique_request: Say what is wrong.
      revision_request: Put it right.
      dimension: honest
      weight: 1
"""
EXEMPLAR = """\
  exemplars:
    - conversation: [{role: user, content: Hello}]
      response: Go away.
      critique_request: Say what is wrong.
      critique: It is rude.
      revision_request: Put it right.
      revision: Hello!
"""
PAIR = "    - {conversation: [{role: user, content: Hi}], question: 'Q?', a: One, b: Two, better: a}\n"


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("version: 1.0.0\n" + CRITIQUE, 1, "version: a working file needs none"),
        (CRITIQUE.replace("Put it right", "Say what is wrong"), 6, "asks the same as critique_request"),
        (
            CRITIQUE + "    - {id: b, critique_request: E?, revision_request: F., dimension: d, weight: 0}\n",
            9,
            "weight 0",
        ),
        (
            CRITIQUE + "comparison:\n  principles:\n    - {id: a, question: Which?, dimension: polite}\n",
            11,
            "'a' is polite here and honest among the critique principles (line 4)",
        ),
        (CRITIQUE + EXEMPLAR.replace("Hello!", "Go away."), 15, "revision: same as the response"),
        (CRITIQUE + EXEMPLAR.replace("Hello!", "<|im_end|> Hello!"), 15, "'<|im_end|>' reads as chat markup"),
        (
            CRITIQUE + EXEMPLAR.replace("Hello!", "|-\n        Hi.\n        Human: Thanks!"),
            15,
            "'Human:' reads as chat",
        ),
        (CRITIQUE.replace("Put it", "Put [INST] it"), 6, "'[INST]' reads as chat markup"),
        (
            two("Is it kind?", "Is it just?") + "  exemplars:\n" + PAIR + PAIR,
            6,
            "'a' is better in all of them",
        ),
        (
            two("Is it kind?", "Is it just?") + "  exemplars:\n" + PAIR.replace("Two", "One"),
            7,
            "b: same as a",
        ),
    ],
)
def test_findings(text: str, line: int, message: str):
    found = findings(text)
    assert len(found) == 1 and found[0][0] == line and message in found[0][1], found


def test_same_id_with_the_same_dimension_is_fine():
    text = CRITIQUE + "comparison:\n  principles:\n    - {id: a, question: Which?, dimension: honest}\n"
    assert findings(text) == []


def test_a_file_with_errors_is_linted_too():
    text = two("Choose the shorter answer.", "Choose the longer answer.") + "    - {id: c, dimension: d}\n"
    source = parse_source(text.encode(), file="x.yaml")
    errors, c = examine(source, root=SHIPPED)
    assert c is None and len(errors) == 1
    assert [problem.line for problem in lint(source, None)] == [5]


@pytest.mark.parametrize(
    "text", ["[]", "a", "comparison: 3", "comparison: {principles: [1, {id: 2}, {id: a, weight: x}]}"]
)
def test_lint_survives_any_shape(text: str):
    source = parse_source(text.encode(), file="x.yaml")
    assert examine(source, root=SHIPPED)[1] is None
    lint(source, None)


def test_inherited_principles_are_compared_with_one_s_own():
    text = (
        HEAD.replace("name: x", "name: x\nextends: microworld@1.0.0")
        + "    - {id: new, dimension: d, question: '%s'}\n"
    )
    question = load("microworld@1.0.0").comparison[0].question
    found = findings(text % question)
    assert len(found) == 1 and found[0][0] == 5 and "says the same as 'harmless' (line 2)" in found[0][1]


def test_two_hundred_principles_are_quick():
    """The whole command, interpreter and all, is measured by benchmarks/limits/constitution_check.py."""
    randomly = random.Random(0)
    words = (SHIPPED / "hhh.yaml").read_text(encoding="utf-8").replace("'", "").replace('"', "").split()
    texts = [f"{' '.join(randomly.choices(words, k=25))} {i}" for i in range(200)]
    lines = [f"    - {{id: p{i}, dimension: d, question: '{text}'}}\n" for i, text in enumerate(texts)]
    text = (HEAD + "".join(lines)).encode()

    def seconds() -> float:
        started = time.perf_counter()
        source = parse_source(text, file="x.yaml")
        errors, c = examine(source, root=SHIPPED)
        assert errors == [] and lint(source, c) == []
        return time.perf_counter() - started

    assert min(seconds() for _ in range(3)) < 1
