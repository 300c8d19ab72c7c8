"""Working files, published versions, the lock between them, and references to all of these."""

from __future__ import annotations

import datetime
import json
from pathlib import Path

import pytest

from constitution.check import check_library
from constitution.library import Library
from constitution.loading import load, require_published
from constitution.model import ConstitutionError
from constitution.publish import publish, relock
from constitution.versions import Range, Version

DAY = datetime.date(2026, 11, 21)


def edit(root: Path, old: str, new: str, name: str = "kindness") -> None:
    path = root / f"{name}.yaml"
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


@pytest.fixture
def published(library_root: Path) -> Path:
    """kindness@1.0.0 and @1.1.0; the working file says what 1.1.0 says."""
    publish("kindness", message="First.", bump="major", root=library_root, today=DAY)
    edit(library_root, "kinder?", "kinder in tone?")
    publish("kindness", message="Says what kind of kind.", bump="minor", root=library_root, today=DAY)
    return library_root


@pytest.mark.parametrize(
    ("text", "inside", "outside"),
    [
        ("1.2.0", ["1.2.0"], ["1.2.1", "1.1.9"]),
        ("^1", ["1.0.0", "1.9.9"], ["0.9.9", "2.0.0"]),
        ("^1.2", ["1.2.0", "1.3.1"], ["1.1.9", "2.0.0"]),
        ("^1.2.3", ["1.2.3", "1.9.0"], ["1.2.2", "2.0.0"]),
        ("^0", ["0.0.1", "0.9.0"], ["1.0.0"]),
        ("^0.2", ["0.2.0", "0.2.9"], ["0.3.0", "0.1.9"]),
        ("^0.0.3", ["0.0.3"], ["0.0.4"]),
        ("^0.0", ["0.0.9"], ["0.1.0"]),
    ],
)
def test_ranges(text: str, inside: list[str], outside: list[str]):
    wanted = Range.parse(text)
    for version in inside:
        assert wanted.best([Version.parse(version)]) is not None
    for version in outside:
        assert wanted.best([Version.parse(version)]) is None


@pytest.mark.parametrize(
    "text", ["", "^", "1", "1.2", "^1.2.3.4", "^a", ">=1", "~1.2", "1.2.0-rc1", "^01", "١.٢.٣"]
)
def test_bad_ranges(text: str):
    with pytest.raises(ValueError, match="must"):
        Range.parse(text)


def test_references(published: Path):
    assert load("kindness@1.0.0", root=published).ref == "kindness@1.0.0"
    assert load("kindness@^1.0", root=published).version == "1.1.0"
    working = load("kindness", root=published)
    assert (working.published, working.version) == (False, None)
    assert working.ref == f"kindness (working file {working.digest[:8]})"
    assert working.digest == load("kindness@1.1.0", root=published).digest
    by_path = load(published / "published" / "kindness" / "1.0.0.yaml")
    assert by_path == load("kindness@1.0.0", root=published)
    assert not load(str(published / "kindness.yaml")).published


@pytest.mark.parametrize(
    ("ref", "message"),
    [
        ("nobody", "no constitution named 'nobody'; known: checked, hhh, kindness"),
        ("kindness@2.0.0", "no such version; published: 1.0.0, 1.1.0"),
        ("kindness@^2", "charter constitution publish kindness --bump"),
        ("kindness@latest", "version 'latest' must be three numbers"),
        ("kindness@", "version '' must be three numbers"),
        ("missing.yaml", "cannot read: No such file"),
        ("../kindness@1.0.0/x", "cannot read"),
    ],
)
def test_bad_references(published: Path, ref: str, message: str):
    with pytest.raises(ConstitutionError) as caught:
        load(ref, root=published)
    assert message in str(caught.value)


def test_working_files_are_refused_where_a_version_is_due(published: Path):
    version = load("kindness@1.1.0", root=published)
    assert require_published(version) is version
    with pytest.raises(ConstitutionError, match=r"charter constitution publish kindness --bump minor"):
        require_published(load("kindness", root=published))


def test_the_frozen_file_keeps_the_text(published: Path):
    text = (published / "published" / "kindness" / "1.0.0.yaml").read_text(encoding="utf-8")
    assert text.startswith("# Ours.\nname: kindness\nversion: 1.0.0\ncomparison:\n")
    assert "Which answer is kinder?" in text


def test_changelog_and_lock(published: Path):
    lock = json.loads((published / "lock.json").read_text(encoding="utf-8"))
    entry = lock["kindness"]["1.1.0"]
    assert entry["digest"] == load("kindness@1.1.0", root=published).digest
    assert entry["changes"] == ["comparison kind: question changed"]
    changelog = (published / "published" / "kindness" / "CHANGELOG.md").read_text(encoding="utf-8")
    assert changelog.index("## 1.1.0 (2026-11-21)") < changelog.index("## 1.0.0 (2026-11-21)")
    assert "Says what kind of kind." in changelog and "- comparison kind: question changed" in changelog
    assert all(report.ok for report in check_library(published))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"bump": "minor"}, "nothing to publish"),
        ({"version": "1.1.0"}, "kindness@1.1.0 is published already, and a version is never reused"),
        ({"version": "1.0.5"}, "is older than kindness@1.1.0"),
        ({"version": "1.2"}, "must be three numbers"),
        ({"bump": "huge"}, "must be major, minor or patch"),
        ({}, "say either --bump"),
        ({"bump": "minor", "version": "2.0.0"}, "say either --bump"),
        ({"bump": "minor", "message": " "}, "needs a message"),
        ({"bump": "minor", "name": "nobody"}, "no working file nobody.yaml"),
    ],
)
def test_publish_refuses(published: Path, arguments: dict[str, str], message: str):
    before = {path: path.read_bytes() for path in published.rglob("*") if path.is_file()}
    with pytest.raises(ConstitutionError) as caught:
        publish(**{"name": "kindness", "message": "x", **arguments}, root=published)  # type: ignore[arg-type]
    assert message in str(caught.value)
    assert before == {path: path.read_bytes() for path in published.rglob("*") if path.is_file()}


def test_reused_version_names_the_command(published: Path):
    with pytest.raises(ConstitutionError, match=r"publish kindness --bump patch .* makes 1\.1\.1"):
        publish("kindness", message="x", version="1.1.0", root=published)


def test_first_versions(library_root: Path):
    assert publish("kindness", message="x", bump="minor", root=library_root).version == "0.1.0"
    edit(library_root, "kinder", "nicer")
    assert publish("kindness", message="x", version="2.0.0", root=library_root).version == "2.0.0"
    edit(library_root, "nicer", "kinder")
    assert publish("kindness", message="x", bump="patch", root=library_root).version == "2.0.1"


def test_a_changed_published_file_is_an_error(published: Path):
    path = published / "published" / "kindness" / "1.0.0.yaml"
    original = path.read_text(encoding="utf-8")
    path.write_text(original.replace("# Ours.", "# Reformatted."), encoding="utf-8")
    load("kindness@1.0.0", root=published)  # a comment means nothing
    path.write_text(original.replace("kinder", "nicer"), encoding="utf-8")
    with pytest.raises(ConstitutionError) as caught:
        load("kindness@1.0.0", root=published)
    message = str(caught.value)
    assert "was changed after it was published" in message
    assert f"git checkout -- {path}" in message and "publish kindness --bump minor" in message
    assert [r.file for r in check_library(published) if r.errors] == [str(path)]
    path.write_text(original.replace("version: 1.0.0", "version: 1.0.1"), encoding="utf-8")
    with pytest.raises(ConstitutionError, match=r"1\.0\.0\.yaml:3: version: must be 1\.0\.0"):
        load("kindness@1.0.0", root=published)


def test_a_lost_lock_entry_is_an_error_and_can_be_made_again(published: Path):
    path = published / "lock.json"
    lock = json.loads(path.read_text(encoding="utf-8"))
    entry = lock["kindness"].pop("1.0.0")
    path.write_text(json.dumps(lock), encoding="utf-8")
    with pytest.raises(ConstitutionError, match=r"publish kindness --relock 1\.0\.0"):
        load("kindness@1.0.0", root=published)
    with pytest.raises(ConstitutionError, match="has a lock entry"):
        relock("kindness", "1.1.0", root=published)
    relock("kindness", "1.0.0", root=published)
    assert json.loads(path.read_text(encoding="utf-8"))["kindness"]["1.0.0"]["digest"] == entry["digest"]
    assert list(json.loads(path.read_text(encoding="utf-8"))["kindness"]) == ["1.0.0", "1.1.0"]


def test_a_lost_published_file_is_an_error(published: Path):
    path = published / "published" / "kindness" / "1.0.0.yaml"
    path.unlink()
    with pytest.raises(ConstitutionError, match="its file is gone; take it back: `git checkout"):
        load("kindness@1.0.0", root=published)
    assert [r.file for r in check_library(published) if r.errors] == [str(path)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "lock.json:1: damaged lock"),
        ("[]", "damaged lock"),
        ('{"kindness": {"1.0": {}}}', "must be three numbers"),
        ('{"kindness": {"1.0.0": {"date": "", "message": "", "changes": []}}}', "missing 'digest'"),
        (
            '{"kindness": {"1.0.0": {"digest": 1, "date": "", "message": "", "changes": []}}}',
            "must be a text",
        ),
    ],
)
def test_a_damaged_lock_is_an_error(published: Path, text: str, message: str):
    (published / "lock.json").write_text(text, encoding="utf-8")
    with pytest.raises(ConstitutionError, match="git checkout") as caught:
        load("kindness@1.0.0", root=published)
    assert message in str(caught.value)
    assert any(report.errors for report in check_library(published))


def test_an_interrupted_publish_is_completed(published: Path):
    """Whatever was written before the interruption, the same command again ends where it would have."""
    edit(published, "kinder in tone?", "warmer?")
    publish("kindness", message="Warm.", bump="minor", root=published, today=DAY)
    done = {path: path.read_bytes() for path in published.rglob("*") if path.is_file()}
    lock = json.loads((published / "lock.json").read_text(encoding="utf-8"))
    del lock["kindness"]["1.2.0"]
    (published / "lock.json").write_text(json.dumps(lock), encoding="utf-8")
    publish("kindness", message="Warm.", bump="minor", root=published, today=DAY)
    assert done == {path: path.read_bytes() for path in published.rglob("*") if path.is_file()}


def test_an_unlocked_file_that_says_something_else_is_not_overwritten(published: Path):
    edit(published, "kinder in tone?", "warmer?")
    stray = published / "published" / "kindness" / "1.2.0.yaml"
    stray.write_text((published / "published" / "kindness" / "1.1.0.yaml").read_text(encoding="utf-8"))
    with pytest.raises(ConstitutionError, match=r"--relock 1\.2\.0.*if not, delete it"):
        publish("kindness", message="x", bump="minor", root=published)


def test_name_must_be_the_file_s(library_root: Path):
    edit(library_root, "name: kindness", "name: other")
    with pytest.raises(ConstitutionError, match=r"kindness\.yaml:2: name: must be 'kindness'"):
        load("kindness", root=library_root)


def test_a_flow_style_name_cannot_be_frozen(library_root: Path):
    (library_root / "flow.yaml").write_text(
        "{name: flow, comparison: {principles: [{id: a, question: b, dimension: c}]}}\n", encoding="utf-8"
    )
    with pytest.raises(ConstitutionError, match=r"flow\.yaml:1: name: put it on a line of its own"):
        publish("flow", message="x", bump="major", root=library_root)
    assert Library(library_root).versions("flow") == []
