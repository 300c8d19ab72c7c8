"""What ships with Charter: the schema, the constitutions, and the room's own rules."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from jsonschema import Draft202012Validator

from constitution.check import check_library
from constitution.library import SHIPPED
from constitution.loading import load
from constitution.reference import field_reference, update
from constitution.schema import schema

REPOSITORY = Path(__file__).parents[2]


def test_the_schema_is_a_schema():
    Draft202012Validator.check_schema(schema())


@pytest.mark.parametrize("path", sorted(SHIPPED.rglob("*.yaml")), ids=lambda p: str(p.relative_to(SHIPPED)))
def test_an_editor_accepts_every_shipped_file(path: Path):
    text = path.read_text(encoding="utf-8")
    assert list(Draft202012Validator(schema()).iter_errors(yaml.safe_load(text))) == []
    header, reference = text.splitlines()[0].split("$schema=")
    assert header == "# yaml-language-server: "
    assert (
        path.parent / reference
    ).resolve() == REPOSITORY / "constitution" / "schema" / "constitution.schema.json"


def test_shipped_constitutions_have_no_problems():
    reports = check_library(SHIPPED)
    assert [problem for report in reports for problem in report.errors + report.warnings] == []
    assert {
        report.constitution.ref for report in reports if report.constitution and report.constitution.published
    } >= {
        "hhh@1.0.0",
        "microworld@1.0.0",
        "microworld-detailed@1.0.0",
    }


@pytest.mark.parametrize("name", ["hhh", "microworld", "microworld-detailed"])
def test_working_files_are_published(name: str):
    assert load(name).digest == load(f"{name}@^1.0").digest


def test_hhh():
    c = load("hhh@1.0.0")
    assert (len(c.critique), len(c.comparison)) == (16, 16)
    assert all(len(p.note) > 10 for p in (*c.critique, *c.comparison))
    assert (
        {p.dimension for p in c.critique}
        == {p.dimension for p in c.comparison}
        == {"helpful", "honest", "harmless"}
    )
    assert len(c.critique_exemplars) >= 3 and any(len(e.conversation) > 1 for e in c.critique_exemplars)
    assert sorted({e.better for e in c.comparison_exemplars}) == ["a", "b"]


def test_microworld_detailed_changes_one_principle():
    base, detailed = load("microworld@1.0.0"), load("microworld-detailed@1.0.0")
    differing = [
        a.id for a, b in zip(base.comparison, detailed.comparison, strict=True) if a.digest != b.digest
    ]
    assert differing == ["brevity"] and base.critique_digest == detailed.critique_digest


def test_the_documentation_lists_the_fields_of_the_schema():
    text = (REPOSITORY / "docs" / "constitution.md").read_text(encoding="utf-8")
    assert update(text) == text, "run: python -m constitution.reference docs/constitution.md"


def test_every_field_is_described():
    for line in field_reference().splitlines():
        if line.startswith("| `"):
            assert len(line.split("|")[3].strip()) > 5, line


def test_neither_torch_nor_prefect_is_imported():
    program = (
        "import sys, constitution, constitution.check, constitution.plan, constitution.views, flows.cli.constitution\n"
        "constitution.load('hhh@1.0.0')\n"
        "bad = {'torch', 'prefect', 'numpy', 'pandas', 'judges', 'training'} & set(sys.modules)\n"
        "assert not bad, bad"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=REPOSITORY)
