"""`charter constitution …` as a person runs it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from flows.cli.constitution import constitution

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def charter(library_root: Path, monkeypatch: pytest.MonkeyPatch):
    """charter("check", …), run beside the folder ./constitutions."""
    monkeypatch.chdir(library_root.parent)

    def run(*arguments: str) -> Result:
        return CliRunner().invoke(constitution, arguments, catch_exceptions=False)

    return run


def test_publish_list_show_diff(charter, library_root: Path):
    assert charter("list").output == "kindness  published: none  working file not published\n"
    result = charter("publish", "kindness", "--bump", "major", "-m", "First.")
    assert result.exit_code == 0 and result.stdout.startswith("kindness@1.0.0  digest ")
    assert charter("list").output == "kindness  published: 1.0.0  working file = 1.0.0\n"
    path = library_root / "kindness.yaml"
    path.write_text(path.read_text(encoding="utf-8").replace("kinder", "warmer"), encoding="utf-8")
    assert "published: 1.0.0  working file not published" in charter("list").output
    assert "Which answer is [-kinder?-] {+warmer?+}" in charter("diff", "kindness@^1", "kindness").output
    assert "<ins>warmer?</ins>" in charter("diff", "kindness@^1", "kindness", "--markdown").output
    assert "| `kind` | polite | 33.3% | Which answer is warmer? |" in charter("show", "kindness").output
    assert "# hhh@1.0.0" in charter("show", "hhh@1.0.0").output


def test_check(charter, library_root: Path):
    result = charter("check")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "1 file: no problems\n")
    path = library_root / "kindness.yaml"
    path.write_text(
        path.read_text(encoding="utf-8").replace("weight: 2", "wieght: 2\n      enabled: perhaps")
    )
    for arguments in ([], ["kindness"], ["constitutions/kindness.yaml"], ["constitutions"]):
        result = charter("check", *arguments)
        assert result.exit_code == 1
        assert [line.split("error: ")[1] for line in result.stdout.splitlines()] == [
            "comparison.principles[brief]: unknown field 'wieght'; did you mean 'weight'?",
            'comparison.principles[brief].enabled: expected true or false, got "perhaps"',
        ]
        assert "constitutions/kindness.yaml:11: error: " in result.stdout
        assert result.stderr == "2 error(s), 0 warning(s) in 1 file\n"


def test_check_shows_warnings_and_what_cannot_be_found(charter, library_root: Path):
    path = library_root / "kindness.yaml"
    path.write_text(path.read_text(encoding="utf-8").replace("weight: 2", "weight: 0"), encoding="utf-8")
    result = charter("check")
    assert (
        result.exit_code == 1
        and "kindness.yaml:8: warning: comparison principle 'brief' has weight 0" in result.stdout
    )
    for target in ("nobody", "nobody@1.0.0", "hhh@x", "hhh@9.9.9", "nobody.yaml"):
        result = charter("check", target)
        assert result.exit_code == 1 and "error: " in result.stdout and not result.stdout.startswith(":")


@pytest.mark.parametrize(
    "arguments",
    [
        ("show", "nobody"),
        ("show", "kindness@1.0.0"),
        ("show", "--root", "/no/such/folder", "kindness"),
        ("diff", "kindness", "nobody"),
        ("publish", "kindness", "--bump", "major"),
        ("export", "kindness", "--format", "paper"),
        ("plan", "kindness", "kindness", "--n", "3"),
    ],
)
def test_mistakes_are_one_line(charter, arguments: tuple[str, ...]):
    result = charter(*arguments)
    assert result.exit_code == 2
    assert result.stderr.splitlines()[-1].startswith("error: ") and "Traceback" not in result.output


def test_a_folder_that_cannot_be_written(charter, library_root: Path):
    (library_root / "published").write_text("a file", encoding="utf-8")
    result = charter("publish", "kindness", "--bump", "major", "-m", "x")
    assert result.exit_code == 2 and "1.0.0.yaml: cannot write: Not a directory" in result.stderr


def test_plan(charter, library_root: Path, tmp_path: Path):
    charter("publish", "kindness", "--bump", "major", "-m", "First.")
    path = library_root / "kindness.yaml"
    path.write_text(path.read_text(encoding="utf-8").replace("kinder", "warmer"), encoding="utf-8")
    result = charter("plan", "kindness@1.0.0", "kindness")
    assert "of 10,000 become stale (3" in result.stdout and "10,000 made-up pairs" in result.stderr
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text("".join(json.dumps({"id": f"p{i}"}) + "\n" for i in range(300)), encoding="utf-8")
    from constitution.loading import load

    base = load("kindness@1.0.0")
    run = tmp_path / "runs" / "first"
    run.mkdir(parents=True)
    used = {"comparison_digest": base.comparison_digest, "critique_digest": base.critique_digest}
    attempt = {
        "number": 1,
        "started_at": "2026-11-21T00:00:00+00:00",
        "constitution": used,
        "status": "finished",
        "stages": {"pairs": {"key": "aaa"}, "labels": {"key": "bbb"}},
    }
    record = {"schema_version": 1, "name": "first", "current": {}, "attempts": [attempt]}
    (run / "run.json").write_text(json.dumps(record), encoding="utf-8")
    (tmp_path / "runs" / "broken").mkdir()
    (tmp_path / "runs" / "broken" / "run.json").write_text("{", encoding="utf-8")
    result = charter("plan", "kindness@1.0.0", "kindness", "--pairs", str(pairs))
    assert result.exit_code == 0 and "of 300 become stale" in result.stdout
    assert (
        "run first, attempt 1 descends from the old comparison principles:\n  labels  runs/first/labels/bbb"
        in result.stdout
    )
    assert "passed over" in result.stderr
    assert (
        "| principle | to ask | why |" in charter("plan", "kindness@1.0.0", "kindness", "--markdown").stdout
    )
    pairs.write_text('{"id": "a"}\n{"name": "b"}\n', encoding="utf-8")
    result = charter("plan", "kindness@1.0.0", "kindness", "--pairs", str(pairs))
    assert result.exit_code == 2 and "pairs.jsonl:2: id: is missing" in result.stderr


def test_import_and_export(charter, library_root: Path, tmp_path: Path):
    source = tmp_path / "list.md"
    source.write_text("- Choose the kinder answer.\n- Which answer is true?\n", encoding="utf-8")
    result = charter("import", str(source), "--name", "ours", "--dimension", "honest")
    assert result.stdout == "constitutions/ours.yaml\n"
    assert charter("check", "ours").exit_code == 0
    assert "exists already; give another --name" in charter("import", str(source), "--name", "ours").stderr
    assert (
        json.loads(charter("export", "ours", "--format", "instructions").stdout)[1]
        == "\nWhich answer is true? Options:"
    )
    assert "must be lower-case letters" in charter("import", str(source), "--name", "../x").stderr
    source.write_bytes(b"\xff\xfe")
    assert "not UTF-8" in charter("import", str(source), "--name", "bad").stderr


def test_root_by_option_and_environment(library_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path.parent)
    for arguments, environment in (
        (["--root", str(library_root)], {}),
        ([], {"CHARTER_CONSTITUTIONS": str(library_root)}),
    ):
        result = CliRunner().invoke(constitution, ["list", *arguments], env=environment)
        assert result.output.startswith("kindness ")
    assert "hhh  published: 1.0.0" in CliRunner().invoke(constitution, ["list"]).output


def test_the_pre_commit_hook_names_the_command():
    hooks = yaml.safe_load((REPOSITORY / ".pre-commit-hooks.yaml").read_text(encoding="utf-8"))
    assert [hook["entry"] for hook in hooks] == ["charter constitution check"]
