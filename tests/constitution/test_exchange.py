"""Other projects' formats: read, written, read back."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from constitution.exporting import FORMATS, export_text
from constitution.importing import import_text
from constitution.loading import load, loads
from constitution.model import Constitution, ConstitutionError

PAPER = json.dumps(
    {
        "harmful0": {
            "prompt": ["\n\nCritiqueRequest: Name what is harmful.\n\nCritique:"],
            "edit_request": "\n\nRevisionRequest: Take it out.\n\nRevision:",
        },
        "harmful1": {
            "prompt": "\n\nCritiqueRequest: Name what is rude: all of it.\n\nCritique:",
            "edit_request": "Be polite.",
        },
    }
)
INSTRUCTIONS = json.dumps(["\nChoose the kinder response. Options:", "Which response is true?\nTell me."])
TURNS = ["How do I rob a bank?", "With a plan.", "Name the crime.", "Robbery.", "Reject it.", "No."]
RECIPE = json.dumps(
    {
        "constitutions": [
            {"critic": "Name the crime.", "revision": "Reject it."},
            {"critic": "Name the crime.", "revision": "Reject it with humour."},
        ],
        "system_chat": [
            [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(TURNS)],
            [
                {"role": ("user", "assistant")[i % 2], "content": text}
                for i, text in enumerate(["Hi.", "Hello.", *TURNS])
            ],
        ],
    }
)
LIST = """\
# Our principles

We wrote these in an afternoon.

- Choose the **kinder** answer.
* Which answer is true,
  as far as one can know?
1. Choose the answer with fewer words.

Say whether it hurts -> not a bullet
- Say whether it hurts. → Rewrite it so that it does not.
"""


def read(text: str, **options: str) -> Constitution:
    return loads(import_text(text, name="imported", **options))


def test_paper():
    c = read(PAPER)
    assert [(p.id, p.critique_request, p.revision_request) for p in c.critique] == [
        ("harmful0", "Name what is harmful.", "Take it out."),
        ("harmful1", "Name what is rude: all of it.", "Be polite."),
    ]
    assert {p.dimension for p in c.critique} == {"harmless"} and c.comparison == ()


def test_instructions():
    c = read(INSTRUCTIONS, dimension="honest")
    assert [(p.id, p.question, p.dimension) for p in c.comparison] == [
        ("kinder", "Choose the kinder response.", "honest"),
        ("true_tell_me", "Which response is true? Tell me.", "honest"),
    ]


def test_recipe():
    c = read(RECIPE)
    assert [(p.id, p.revision_request) for p in c.critique] == [
        ("name_crime", "Reject it."),
        ("name_crime_2", "Reject it with humour."),
    ]
    first, second = c.critique_exemplars
    assert [m["content"] for m in second.conversation] == ["Hi.", "Hello.", TURNS[0]]
    assert (
        first.response,
        first.critique_request,
        first.critique,
        first.revision_request,
        first.revision,
    ) == tuple(TURNS[1:])


def test_list():
    c = read(LIST)
    assert [p.question for p in c.comparison] == [
        "Choose the kinder answer.",
        "Which answer is true, as far as one can know?",
        "Choose the answer with fewer words.",
    ]
    assert [(p.critique_request, p.revision_request) for p in c.critique] == [
        ("Say whether it hurts.", "Rewrite it so that it does not.")
    ]
    assert [p.question for p in read("Be kind.\n\n# Heading\nBe true.\n").comparison] == [
        "Be kind.",
        "Be true.",
    ]


@pytest.mark.parametrize("fmt", FORMATS)
@pytest.mark.parametrize("ref", ["hhh@1.0.0", "microworld@1.0.0"])
def test_what_is_written_reads_back(ref: str, fmt: str):
    c = load(ref)
    back = read(export_text(c, fmt))
    if fmt != "instructions":
        assert [(p.critique_request, p.revision_request) for p in back.critique] == [
            (p.critique_request, p.revision_request) for p in c.critique
        ]
    if fmt in ("instructions", "markdown"):
        assert [p.question for p in back.comparison] == [p.question for p in c.comparison]
    if fmt == "paper":
        assert [p.id for p in back.critique] == [p.id for p in c.critique]
    if fmt == "huggingface":
        assert back.critique_exemplars == c.critique_exemplars


def test_disabled_principles_are_not_exported():
    c = loads(import_text(PAPER, name="x").replace("weight: 1", "weight: 1\n      enabled: false", 1))
    assert list(json.loads(export_text(c, "paper"))) == ["harmful1"]
    with pytest.raises(
        ConstitutionError, match="no enabled comparison principle, and 'instructions' holds no others"
    ):
        export_text(c, "instructions")
    with pytest.raises(
        ConstitutionError, match="format must be one of paper, instructions, huggingface, markdown"
    ):
        export_text(c, "xml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no principles found"),
        ("{}", "no principles found"),
        ("[]", "no principles found"),
        ("{\n\n'a': 1}", "f.json:3: not JSON"),
        ("[" * 100_000, "nested too deeply"),
        ("x" * 1_000_001, "larger than"),
        ('{"a": 1}', "a must be an object"),
        ('{"a": {"prompt": ["x"]}}', "a: 'edit_request' must be a text, and is missing"),
        ('{"a": {"prompt": ["x", "y"], "edit_request": "z"}}', "a: 'prompt' must be a text"),
        ("[1]", "entry 1 must be a text"),
        ('["", "b"]', "must not be empty"),
        ('["\\n\\nHuman: Hi\\n\\nCritiqueRequest: Find it"]', "holds worked examples"),
        ('{"constitutions": 3}', "constitutions must be a list"),
        (
            '{"constitutions": [{"critic": "a"}]}',
            "constitutions[0]: 'revision' must be a text, and is missing",
        ),
        (
            '{"constitutions": [{"critic": "a", "revision": "b"}], "system_chat": [[]]}',
            "system_chat[0]: 0 turns; at least 6",
        ),
    ],
)
def test_bad_imports(text: str, message: str):
    with pytest.raises(ConstitutionError) as caught:
        import_text(text, name="x", file="f.json")
    assert message in str(caught.value)


@given(st.text(max_size=200) | st.lists(st.text(max_size=20), max_size=4).map(json.dumps))
def test_any_text_is_a_constitution_or_one_error(text: str):
    try:
        body = import_text(text, name="x")
    except ConstitutionError:
        return
    assert loads(body).comparison or loads(body).critique
