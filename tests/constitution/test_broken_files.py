"""Broken files, each with the exact line that its message must name."""

from __future__ import annotations

import time

import pytest

from constitution.loading import loads
from constitution.model import ConstitutionError

GOOD = """\
name: kindness
description: A small constitution.
critique:
  principles:
    - id: harm
      critique_request: Say whether the answer hurts.
      revision_request: Rewrite it so that it does not.
      dimension: harmless
      weight: 2
  exemplars:
    - conversation:
        - role: user
          content: Hello
      response: Go away.
      critique_request: Say whether the answer hurts.
      critique: It is rude.
      revision_request: Rewrite it so that it does not.
      revision: Hello!
comparison:
  principles:
    - id: kind
      question: Which answer is kinder?
      dimension: polite
      weight: 1
      enabled: true
      note: Tone.
    - id: short
      question: Which answer is shorter?
      dimension: concise
  exemplars:
    - conversation:
        - role: user
          content: Hello
      question: Which answer is kinder?
      a: Hello!
      b: What?
      better: a
metadata:
  authors: Somebody
"""


def edited(*edits: tuple[int, str | None]) -> str:
    """GOOD with lines replaced (by number, from 1), or dropped with None."""
    lines: list[str | None] = list(GOOD.split("\n"))
    for number, text in edits:
        lines[number - 1] = text
    return "\n".join(line for line in lines if line is not None)


LAUGHS = "a: &a [lol, lol, lol]\n" + "".join(
    f"{chr(98 + i)}: &{chr(98 + i)} [*{chr(97 + i)}, *{chr(97 + i)}, *{chr(97 + i)}]\n" for i in range(20)
)

# name: (text, line, part of the message)
BROKEN: dict[str, tuple[str | bytes, int, str]] = {
    # --- not readable as YAML
    "empty file": ("", 1, "the file is empty"),
    "only comments": ("# nothing\n# here\n", 1, "the file is empty"),
    "tab as indentation": (edited((4, "\tprinciples:")), 4, "a tab; indent with spaces"),
    "tab deeper": (edited((22, "\t\t\tquestion: Which?")), 22, "a tab; indent with spaces"),
    "unclosed double quote": (edited((22, '      question: "Which answer is kinder?')), 22, "never closed"),
    "unclosed single quote": (edited((22, "      question: 'Which answer is kinder?")), 22, "never closed"),
    "unclosed bracket": (edited((3, "critique: [")), 5, "that opens on line 3"),
    "colon inside a text": (
        edited((22, "      question: Which answer: the kinder?")),
        22,
        "put a text that contains ': '",
    ),
    "percent sign first": (edited((22, "      question: %kinder?")), 22, "a text cannot start with '%'"),
    "at sign first": (edited((22, "      question: @kinder?")), 22, "a text cannot start with '@'"),
    "backtick first": (edited((22, "      question: `kinder`")), 22, "a text cannot start with '`'"),
    "star first": (edited((22, "      question: *Which* answer?")), 22, "a text cannot start with '*'"),
    "alias in a text": (edited((22, "      question: *which answer?")), 22, "aliases are not allowed"),
    "ampersand first": (edited((22, "      question: &Which answer?")), 22, "anchors are not allowed"),
    "exclamation mark first": (edited((22, "      question: !Which answer?")), 22, "tags are not allowed"),
    "wrong indentation": (edited((22, "     question: Which?")), 22, "YAML"),
    "line without a colon": (edited((2, "description")), 3, "YAML"),
    "key given twice": (
        edited((9, "      dimension: honest")),
        9,
        "'dimension' is given twice (first on line 8)",
    ),
    "section given twice": (
        GOOD + "comparison:\n  principles: []\n",
        40,
        "'comparison' is given twice (first on line 19)",
    ),
    "list as a key": (edited((2, "? [a, b]\n: c")), 2, "a key must be a plain word"),
    "second document": (GOOD + "---\nname: other\n", 40, "a second YAML document"),
    "unknown escape": (edited((22, r'      question: "Which \q answer"')), 22, "YAML"),
    "python tag": (
        edited((22, "      question: !!python/object/apply:os.system ['true']")),
        22,
        "tags are not allowed",
    ),
    "merge key": (edited((21, "    - <<: *other")), 21, "aliases are not allowed"),
    "not UTF-8": (GOOD.replace("kinder?", "kinder? é", 1).encode("latin-1"), 22, "not UTF-8: byte 0xe9"),
    "UTF-16": (GOOD.encode("utf-16"), 1, "not UTF-8"),
    "binary": (b"\x00\x01\x02" * 100, 1, "control character U+0000"),
    "control character": (edited((22, "      question: Which \x07 answer?")), 22, "control character U+0007"),
    "ten megabytes": (b"# " + b"x" * 10_000_000, 1, "larger than 1,000,000 bytes"),
    "anchor and alias": (edited((21, "    - &p\n      id: kind")), 21, "anchors are not allowed"),
    "billion laughs": (LAUGHS, 1, "anchors are not allowed"),
    "nested without end": ("a: " + "[" * 5000, 1, "nested deeper than 16 levels"),
    "nested blocks": ("".join(f"{' ' * i}a:\n" for i in range(40)), 17, "nested deeper than 16 levels"),
    # --- the wrong shape
    "a list at the top": ("- name: kindness\n", 1, "expected a mapping (key: value), got a list"),
    "a text at the top": ("kindness\n", 1, 'expected a mapping (key: value), got "kindness"'),
    "no name": (edited((1, None)), 1, "missing 'name'"),
    "no principles at all": ("name: kindness\n", 1, "no principles"),
    "empty half": (
        edited((3, "critique: {}"), *[(n, None) for n in range(4, 19)]),
        3,
        "critique: missing 'principles'",
    ),
    "half is nothing": (
        edited((3, "critique:"), *[(n, None) for n in range(4, 19)]),
        3,
        "expected a mapping (key: value), got nothing",
    ),
    "no entries": (
        edited((4, "  principles: []"), *[(n, None) for n in range(5, 10)]),
        4,
        "0 entries; at least 1",
    ),
    "principles as a mapping": (
        edited((20, "  principles:\n    kind:"), *[(n, None) for n in range(21, 30)]),
        20,
        "expected a list, got a mapping",
    ),
    "principle as a text": (
        edited((21, "    - be kind"), *[(n, None) for n in range(22, 27)]),
        21,
        'expected a mapping (key: value), got "be kind"',
    ),
    "missing id": (edited((21, "    - note: Tone."), (26, None)), 21, "missing 'id'"),
    "missing question": (edited((22, None)), 21, "comparison.principles[kind]: missing 'question'"),
    "missing dimension": (edited((29, None)), 27, "comparison.principles[short]: missing 'dimension'"),
    "critique without revision": (
        edited((7, None)),
        5,
        "critique.principles[harm]: missing 'revision_request'",
    ),
    "revision without critique": (
        edited((6, None)),
        5,
        "critique.principles[harm]: missing 'critique_request'",
    ),
    # --- unknown fields
    "unknown top field": (
        edited((2, "desription: Small.")),
        2,
        "unknown field 'desription'; did you mean 'description'?",
    ),
    "unknown half": (edited((19, "comparisons:")), 19, "did you mean 'comparison'?"),
    "unknown principle field": (
        edited((24, "      wieght: 1")),
        24,
        "comparison.principles[kind]: unknown field 'wieght'; did you mean 'weight'?",
    ),
    "question among critiques": (
        edited((6, "      question: Which?")),
        6,
        "unknown field 'question'; known: id, critique_request",
    ),
    "unknown exemplar field": (
        edited((14, "      answer: Go away.")),
        14,
        "unknown field 'answer'; known: conversation, response",
    ),
    "unknown message field": (
        edited((13, "          text: Hello")),
        13,
        "unknown field 'text'; known: role, content",
    ),
    "unknown section": (edited((10, "  examples:")), 10, "unknown field 'examples'"),
    # --- wrong values
    "name with spaces": (edited((1, "name: My Constitution")), 1, "must be lower-case letters"),
    "name is a number": (
        edited((1, "name: 2026")),
        1,
        "expected a text, got the number 2026; put it in quotes",
    ),
    "name is a path": (edited((1, "name: ../../etc/passwd")), 1, "must be lower-case letters"),
    "name with a line break": (edited((1, 'name: "kindness\\n"')), 1, "must be lower-case letters"),
    "id with a capital": (edited((21, "    - id: Kind")), 21, "must be lower-case letters"),
    "id is true": (edited((21, "    - id: true")), 21, "expected a text, got true; put it in quotes"),
    "id too long": (edited((21, "    - id: " + "k" * 65)), 21, "65 characters; at most 64"),
    "weight as a word": (edited((24, "      weight: heavy")), 24, 'expected a number, got "heavy"'),
    "weight in quotes": (edited((24, "      weight: '2'")), 24, 'expected a number, got "2"'),
    "weight below zero": (edited((24, "      weight: -1")), 24, "-1 is out of range"),
    "weight without end": (edited((24, "      weight: .inf")), 24, 'expected a number, got ".inf"'),
    "weight not a number": (edited((24, "      weight: .nan")), 24, 'expected a number, got ".nan"'),
    "weight overflows": (edited((24, "      weight: 1e999")), 24, "inf is out of range"),
    "weight is true": (edited((24, "      weight: true")), 24, "expected a number, got true"),
    "weight is nothing": (edited((24, "      weight:")), 24, "expected a number, got nothing"),
    "enabled as yes": (edited((25, "      enabled: yes")), 25, 'expected true or false, got "yes"'),
    "enabled as a number": (edited((25, "      enabled: 1")), 25, "expected true or false, got the number 1"),
    "question empty": (edited((22, "      question: ''")), 22, "must not be empty"),
    "question is blank": (edited((22, "      question: '  '")), 22, "must not be empty"),
    "question is nothing": (edited((22, "      question:")), 22, "expected a text, got nothing"),
    "question is a number": (edited((22, "      question: 42")), 22, "expected a text, got the number 42"),
    "question is a list": (edited((22, "      question: [Which?]")), 22, "expected a text, got a list"),
    "question is a mapping": (
        edited((22, "      question: {Which: kinder}")),
        22,
        "got a mapping; a text that contains ': ' needs quotes",
    ),
    "question too long": (edited((22, "      question: " + "word " * 900)), 22, "at most 4,000"),
    "dimension with a space": (
        edited((23, "      dimension: very polite")),
        23,
        "must be lower-case letters",
    ),
    "metadata is a list": (edited((38, "metadata: [a]"), (39, None)), 38, "metadata: expected a mapping"),
    "metadata holds a number": (
        edited((39, "  year: 2026")),
        39,
        "metadata.year: expected a text, got the number 2026; put it in quotes",
    ),
    "version of two numbers": (
        edited((2, "version: 1.2")),
        2,
        "version: expected a text, got the number 1.2; put it in quotes",
    ),
    "version in words": (
        edited((2, "version: first")),
        2,
        'version: "first" must be three numbers, such as 1.2.0',
    ),
    "version with a v": (edited((2, "version: v1.2.0")), 2, "must be three numbers"),
    "version with leading zeros": (edited((2, "version: 01.2.0")), 2, "must be three numbers"),
    "extends a name": (edited((2, "extends: hhh")), 2, "must be one published version, such as hhh@1.0.0"),
    "extends a range": (
        edited((2, "extends: hhh@^1.0")),
        2,
        "must be one published version, such as hhh@1.0.0",
    ),
    "extends what is not there": (edited((2, "extends: nobody@1.0.0")), 2, "no constitution named 'nobody'"),
    "extends a version that is not there": (
        edited((2, "extends: hhh@99.0.0")),
        2,
        "hhh@99.0.0 is not published; published: 1.0.0",
    ),
    # --- well-formed and still unusable
    "id used twice": (
        edited((27, "    - id: kind")),
        27,
        "comparison principle 'kind' exists already (line 21)",
    ),
    "all weights zero": (edited((9, "      weight: 0")), 4, "critique: no principle can be drawn"),
    "all disabled": (edited((9, "      enabled: false")), 4, "critique: no principle can be drawn"),
    "role unknown": (
        edited((12, "        - role: human")),
        12,
        'expected system or user or assistant, got "human"',
    ),
    "conversation empty": (
        edited((11, "    - conversation: []"), (12, None), (13, None)),
        11,
        "0 entries; at least 1",
    ),
    "conversation ends with the assistant": (
        edited((13, "          content: Hello\n        - role: assistant\n          content: Yes?")),
        11,
        "must end with the user's turn",
    ),
    "two user turns": (
        edited((13, "          content: Hello\n        - role: user\n          content: You!")),
        14,
        "turn 2 is the user's",
    ),
    "system in the middle": (
        edited((13, "          content: Hello\n        - role: system\n          content: You!")),
        14,
        "turn 2 is the system's",
    ),
    "assistant first": (edited((12, "        - role: assistant")), 12, "turn 1 is the assistant's"),
    "exemplar without a revision": (edited((18, None)), 11, "critique.exemplars[1]: missing 'revision'"),
    "better is neither": (edited((37, "      better: c")), 37, 'expected a or b, got "c"'),
    "better is a capital": (edited((37, "      better: A")), 37, 'expected a or b, got "A"'),
}


def test_good_file_loads():
    c = loads(GOOD)
    assert [p.id for p in c.comparison] == ["kind", "short"]
    assert len(BROKEN) >= 60


@pytest.mark.parametrize("name", BROKEN)
def test_broken_file_names_its_line(name: str):
    text, line, fragment = BROKEN[name]
    started = time.perf_counter()
    with pytest.raises(ConstitutionError) as caught:
        loads(text, file="broken.yaml")
    assert time.perf_counter() - started < 2
    found = [(problem.line, problem.message) for problem in caught.value.problems]
    assert any(at == line and fragment in message for at, message in found), found
    assert all(problem.file == "broken.yaml" for problem in caught.value.problems)
    assert str(caught.value).startswith("broken.yaml:") and "\n" not in str(caught.value)


def test_one_mistake_is_one_message():
    """A mistake of the user's is not reported again from another rule of the schema."""
    several = {name for name, (text, _, _) in BROKEN.items() if len(problems(text)) > 1}
    # A field renamed is one unknown and one missing; the others break a whole structure.
    assert several <= {
        "unknown half",
        "unknown section",
        "question among critiques",
        "unknown exemplar field",
        "unknown message field",
        "key given twice",
    }


def problems(text: str | bytes) -> list:
    with pytest.raises(ConstitutionError) as caught:
        loads(text)
    return caught.value.problems


def test_every_problem_of_a_file_in_one_go():
    text = edited(
        (1, "name: Bad Name"), (9, "      weight: heavy"), (22, "      question: ''"), (37, "      better: c")
    )
    with pytest.raises(ConstitutionError) as caught:
        loads(text, file="f.yaml")
    assert [problem.line for problem in caught.value.problems] == [1, 9, 22, 37]
    assert "(and 3 more: charter constitution check f.yaml)" in str(caught.value)
