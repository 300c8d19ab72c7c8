"""`extends`: what is inherited, what is changed, and what goes wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from constitution.check import check_file
from constitution.loading import load
from constitution.model import ConstitutionError
from constitution.publish import publish


@pytest.fixture
def root(library_root: Path) -> Path:
    publish("kindness", message="First.", bump="major", root=library_root)
    return library_root


def write(root: Path, name: str, body: str) -> Path:
    path = root / f"{name}.yaml"
    path.write_text(f"name: {name}\n{body}", encoding="utf-8")
    return path


def test_change_disable_and_add_by_id(root: Path):
    write(
        root,
        "mine",
        "extends: kindness@1.0.0\ncomparison:\n  principles:\n"
        "    - {id: true_, question: Which is true?, dimension: honest}\n"
        "    - {id: kind, enabled: false}\n"
        "    - {id: brief, weight: 5}\n",
    )
    base, mine = load("kindness@1.0.0", root=root), load("mine", root=root)
    assert [p.id for p in mine.comparison] == ["kind", "brief", "true_"]
    assert mine.comparison[0].question == base.comparison[0].question and not mine.comparison[0].enabled
    assert mine.comparison[1].weight == 5 and mine.comparison[1].digest == base.comparison[1].digest
    assert mine.comparison[2].dimension == "honest"


def test_without_changes_it_means_the_same(root: Path):
    write(root, "mine", "extends: kindness@1.0.0\n")
    base, mine = load("kindness@1.0.0", root=root), load("mine", root=root)
    assert mine.comparison_digest == base.comparison_digest and mine.digest != base.digest


def test_exemplars_replace_the_base_s(root: Path):
    exemplar = "{conversation: [{role: user, content: Hi}], question: Q?, a: x, b: y, better: a}"
    write(root, "one", f"extends: kindness@1.0.0\ncomparison:\n  exemplars: [{exemplar}]\n")
    publish("one", message="x", bump="major", root=root)
    write(root, "two", "extends: one@1.0.0\n")
    write(root, "three", "extends: one@1.0.0\ncomparison:\n  exemplars: []\n")
    assert len(load("two", root=root).comparison_exemplars) == 1
    assert len(load("three", root=root).comparison_exemplars) == 0


def test_one_s_own_can_extend_a_shipped_one(root: Path):
    write(root, "mine", "extends: hhh@1.0.0\ncritique:\n  principles: [{id: preaching, weight: 9}]\n")
    assert len(load("mine", root=root).critique) == 16


@pytest.mark.parametrize(
    ("body", "line", "message"),
    [
        ("extends: kindness@9.0.0\n", 2, "extends: kindness@9.0.0 is not published; published: 1.0.0"),
        (
            "extends: kindness@1.0.0\ncomparison:\n  principles:\n    - {id: kindd, weight: 2}\n",
            5,
            "'kindd' is not in kindness@1.0.0, and as a new principle it lacks question, dimension",
        ),
        (
            "extends: kindness@1.0.0\ncomparison:\n  principles:\n"
            "    - {id: kind, enabled: false}\n    - {id: brief, enabled: false}\n",
            4,
            "comparison: no principle can be drawn",
        ),
    ],
)
def test_errors(root: Path, body: str, line: int, message: str):
    report = check_file(write(root, "mine", body), root=root)
    assert [(p.line, p.message) for p in report.errors if message in p.message] == [
        (line, p.message) for p in report.errors
    ] and len(report.errors) == 1


def test_a_changed_base_is_an_error_at_extends(root: Path):
    path = write(root, "mine", "extends: kindness@1.0.0\n")
    frozen = root / "published" / "kindness" / "1.0.0.yaml"
    frozen.write_text(frozen.read_text(encoding="utf-8").replace("kinder", "nicer"), encoding="utf-8")
    with pytest.raises(ConstitutionError) as caught:
        load(path, root=root)
    assert caught.value.problems[0].line == 2
    assert "was changed after it was published" in str(caught.value)


def test_cycles_are_named(root: Path):
    for name, base in (("a", "b"), ("b", "c"), ("c", "a")):
        folder = root / "published" / name
        folder.mkdir()
        (folder / "1.0.0.yaml").write_text(
            f"name: {name}\nversion: 1.0.0\nextends: {base}@1.0.0\n", encoding="utf-8"
        )
    path = write(root, "mine", "extends: a@1.0.0\n")
    with pytest.raises(
        ConstitutionError, match=r"a cycle: a@1\.0\.0 → b@1\.0\.0 → c@1\.0\.0 → a@1\.0\.0"
    ) as caught:
        load(path, root=root)
    assert caught.value.problems[0].line == 2


def test_extending_oneself_is_a_cycle(root: Path):
    (root / "published" / "a").mkdir()
    (root / "published" / "a" / "1.0.0.yaml").write_text("name: a\nversion: 1.0.0\nextends: a@1.0.0\n")
    with pytest.raises(ConstitutionError, match=r"a cycle: a@1\.0\.0 → a@1\.0\.0"):
        load("a@1.0.0", root=root)
