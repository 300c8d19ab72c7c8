"""Comparing models: matches by dimension, reuse, resume, and what people see. On the shipped models."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

import microworld
from common.record import plain
from common.rows import Prompt
from constitution import load
from constitution.draw import draw_comparison
from flows.cli import main
from flows.comparison.compare import compare
from flows.comparison.contestants import resolve
from flows.comparison.figures import ComparisonFigures
from flows.comparison.matches import OVERALL, by_dimension, matches, outcome
from flows.comparison.report import artifact_page, comparison_page, sections_of
from flows.config.forms_judging import CompareRequest
from flows.errors import FlowError
from flows.report.render import html, markdown, terminal
from judges import Label
from microworld.data import WorldSizes, write_world

WEIGHTS = Path(microworld.__file__).parent / "weights"
BASE, FEEDBACK = str(WEIGHTS / "base"), str(WEIGHTS / "feedback")
DIMENSIONS = ["harmless", "helpful", "honest", "non_evasive", "polite", "concise"]


def silent(done: int, total: int, text: str) -> None:
    pass


@pytest.fixture(scope="module")
def prompts(tmp_path_factory) -> Path:
    """24 held-out prompts of the microworld."""
    folder = tmp_path_factory.mktemp("world")
    return write_world(folder, seed=0, sizes=WorldSizes(demonstrations=1, sl=5, rl=5, eval=24))[
        "prompts_eval"
    ]


@pytest.fixture(scope="module")
def request_of(prompts, tmp_path_factory):
    """`request_of(folder=None, models=…, **changes)`: base against feedback, judged by feedback."""
    shared = tmp_path_factory.mktemp("comparisons")

    def make(folder: Path | None = None, models=(BASE, FEEDBACK), **changes) -> CompareRequest:
        fields = {
            "models": models,
            "prompts": str(prompts),
            "constitution": "microworld@1.0.0",
            "judge": FEEDBACK,
            "templates": "microworld",
            "max_new_tokens": 48,
            "folder": str(folder or shared),
        }
        return CompareRequest(**{**fields, **changes})

    return make


@pytest.fixture(scope="module")
def found(request_of):
    return compare(request_of(), silent)


def test_models_are_compared_by_every_dimension_and_never_by_one_number(found):
    figures = found.figures
    assert list(figures.dimensions) == [OVERALL, *DIMENSIONS]
    (pair,) = figures.dimensions["harmless"].pairs
    assert (pair.a, pair.b) == ("base", "feedback")
    assert pair.wins + pair.ties + pair.losses + pair.undecided == figures.prompts.n > 20
    # The feedback model was made to refuse what harms; the base model does it.
    assert pair.win_rate.high < 0.5
    rated = figures.ratings.models
    assert rated["base"].value + rated["feedback"].value == pytest.approx(2000)
    gold = {name: figures.answers[name].gold["harmless"].value for name in ("base", "feedback")}
    assert gold["feedback"] > gold["base"]
    assert figures.side_effects.reference == "base"
    headings = [section.heading for section in sections_of(figures)]
    assert headings == ["Standings", "Head to head", "Gold", "Side effects"]
    kept = json.loads((found.directory / "comparison.json").read_text(encoding="utf-8"))
    assert ComparisonFigures.from_json(kept) == figures


def test_the_whole_constitution_costs_no_judgement_beyond_its_dimensions(found):
    rows = [json.loads(line) for line in (found.directory / "matches.jsonl").open(encoding="utf-8")]
    judged = {(r["prompt"], *r["principles"]) for r in rows}
    assert found.figures.asked == 2 * len(judged)
    assert len(judged) == len([r for r in rows if r["dimension"] != OVERALL])


def test_what_is_there_is_not_drawn_or_asked_again_and_a_third_model_costs_its_own_matches(
    found, request_of, make_model, tmp_path
):
    again = compare(request_of(), silent)
    assert again.figures == replace(found.figures, asked=0)
    assert again.directory == found.directory
    third = make_model(tmp_path / "third")
    more = compare(request_of(models=(BASE, FEEDBACK, str(third)), limit=4), silent)
    rows = [json.loads(line) for line in (more.directory / "matches.jsonl").open(encoding="utf-8")]
    new = [r for r in rows if "third" in (r["a"], r["b"]) and r["dimension"] != OVERALL]
    # Answers to fewer prompts are drawn anew; the judgements of equal texts are known all the same.
    assert more.figures.asked >= 2 * len(new)
    assert set(more.figures.ratings.models) == {"base", "feedback", "third"}
    standing = next(one for one in sections_of(more.figures) if one.heading == "Standings")
    assert [row[0] for row in standing.rows] == ["model", "base", "feedback", "third"]


def test_a_comparison_that_was_stopped_goes_on(found, request_of, tmp_path):
    def stop(done: int, total: int, text: str) -> None:
        if text == "matches, helpful":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compare(request_of(tmp_path), stop)
    assert not list(tmp_path.glob("*/comparison.json"))
    resumed = compare(request_of(tmp_path), silent)
    assert 0 < resumed.figures.asked < found.figures.asked
    assert replace(resumed.figures, asked=0) == replace(found.figures, asked=0)


def test_a_pair_draws_the_same_principle_from_all_of_them_and_from_its_dimension():
    constitution = load("hhh")
    parts = by_dimension(constitution)
    for number in range(200):
        (drawn,) = draw_comparison(constitution, f"p{number}#0", seed=3)
        (own,) = draw_comparison(parts[drawn.dimension], f"p{number}#0", seed=3)
        assert own == drawn


def test_matches_pair_every_model_on_every_answer_and_leave_equal_answers_unasked():
    prompts = [Prompt(id="p", prompt=[{"role": "user", "content": "Why?"}])] * 2
    made = matches(
        prompts,
        {"x": ["a b", "same"], "y": ["c", "same"], "z": ["d", "e"]},
        {"x": "x" * 64, "y": "y" * 64, "z": "z" * 64},
    )
    assert len(made) == 6
    asked = [match for match in made.values() if match.pair is not None]
    assert len(asked) == 5 and {match.pair.prompt_id for match in asked} == {"p#0", "p#1"}
    assert next(d for d in asked if (d.a, d.b) == ("x", "y")).words == (2, 1)


@pytest.mark.parametrize(
    ("status", "p", "expected"),
    [
        ("ok", 0.9, 1.0),
        ("ok", 0.2, 0.0),
        ("tie", 0.51, 0.5),
        ("inconsistent", 0.8, 0.5),
        ("timeout", None, None),
    ],
)
def test_a_failed_judgement_is_no_score_and_one_that_follows_the_order_no_win(status, p, expected):
    label = Label(pair_id="x", p=p, status=status, principles=(), judgements=(), digest="")
    assert outcome(label) == expected


def test_pages_escape_what_models_and_files_are_called(found):
    hostile = "<script>alert(1)</script>[bold]"
    text = json.dumps(found.figures.to_json()).replace('"feedback"', json.dumps(hostile))
    figures = ComparisonFigures.from_json(json.loads(text))
    page, artifact = html(comparison_page(figures)), markdown(artifact_page(figures))
    assert "<script" not in page and "<script" not in artifact
    assert "default-src 'none'" in page and len(page) < 200_000 and len(artifact) < 250_000
    console = Console(file=io.StringIO(), width=500)
    terminal(artifact_page(figures), console)
    assert hostile in console.file.getvalue()
    assert (found.directory / "comparison.html").read_text(encoding="utf-8") == html(
        comparison_page(found.figures)
    )


def test_references_bring_bleu_and_rouge_beside_the_judge(request_of, tmp_path):
    path = tmp_path / "prompts.jsonl"
    rows = [
        {"id": "one", "prompt": "What is the capital of Zorland?", "reference": "The capital is Mira."},
        {"id": "two", "prompt": "Name a fruit.", "references": ["An apple.", "A pear."]},
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    figures = compare(request_of(prompts=str(path), max_new_tokens=12), silent).figures
    assert figures.answers["base"].references.bleu.n == 2
    assert figures.answers["base"].gold is None
    assert "Against reference answers" in [section.heading for section in sections_of(figures)]


def test_mistakes_are_one_line(request_of, tmp_path, make_model, capsys):
    with pytest.raises(FlowError, match="are the same model"):
        resolve(request_of(models=(BASE, BASE)))
    with pytest.raises(FlowError, match="no such folder"):
        resolve(request_of(models=(BASE, str(tmp_path / "none"))))
    with pytest.raises(FlowError, match="prompts: give a file"):
        resolve(request_of(prompts=None))
    with pytest.raises(FlowError, match="judge: give a model folder"):
        resolve(request_of(judge=None))
    with pytest.raises(FlowError, match="constitution: give one"):
        resolve(request_of(constitution=None))
    with pytest.raises(SystemExit) as stopped:
        main(["eval", BASE, "--prompts", "x.jsonl"])
    assert stopped.value.code == 2
    assert "models" in capsys.readouterr().err


def test_two_models_of_one_name_are_told_apart(request_of, make_model, tmp_path):
    for seed, folder in enumerate(("a", "b")):
        make_model(tmp_path / folder / "policy", seed=seed)
    resolved = resolve(request_of(models=(str(tmp_path / "a" / "policy"), str(tmp_path / "b" / "policy"))))
    assert [c.name for c in resolved.models] == [str(tmp_path / f / "policy") for f in "ab"]


def test_the_command_prints_json_for_programs(found, request_of, capsys):
    request = request_of()
    arguments = [
        *request.models,
        "--json",
        "--prompts",
        request.prompts,
        "--constitution",
        request.constitution,
    ]
    arguments += ["--judge", request.judge, "--templates", "microworld", "--max-new-tokens", "48"]
    main(["eval", *arguments, "--folder", request.folder])
    assert json.loads(capsys.readouterr().out) == {**found.figures.to_json(), "asked": 0}


@pytest.fixture(scope="module")
def run_folder(make_run, tiny_model, tmp_path_factory) -> Path:
    """A run that has come as far as its prompts."""
    from flows.config.forms import RunRequest
    from flows.pipeline.launch import open_session
    from flows.runs.progress import Silent
    from flows.stages.registry import by_name

    config = make_run(tmp_path_factory.mktemp("run"), tiny_model)
    with open_session(RunRequest(config=str(config)), Silent()) as session:
        session.execute(by_name("prompts"))
        return session.directory.path


def test_a_runs_models_bring_its_prompts_constitution_and_judge(run_folder, make_model, tmp_path, tiny_model):
    other = make_model(tmp_path / "other", seed=5)
    resolved = resolve(CompareRequest(models=(f"{run_folder}:base", str(other))))
    assert [c.name for c in resolved.models] == ["base", "other"]
    assert len(resolved.prompts) == 8 and resolved.sampling["max_new_tokens"] == 8
    assert resolved.constitution.name == "tiny" and resolved.templates == "microworld"
    assert resolved.judge.model == str(tiny_model)
    with pytest.raises(FlowError, match="stage rl of this run is not finished"):
        resolve(CompareRequest(models=(f"{run_folder}:rl_cai", str(other))))
    with pytest.raises(FlowError, match="'best' is not a role of a run: base"):
        resolve(CompareRequest(models=(f"{run_folder}:best", str(other))))


@pytest.mark.long
@pytest.mark.prefect
@pytest.mark.slow
def test_the_flow_leaves_the_comparison_as_an_artifact(found, request_of):
    from prefect.client.orchestration import get_client
    from prefect.testing.utilities import prefect_test_harness

    from flows.orchestration.judging import compare_models

    # By principle as well: each dimension has one, so nothing is asked that `found` has not asked.
    request = request_of(by_principle=True, before="microworld-detailed@1.0.0")
    with prefect_test_harness(server_startup_timeout=120):
        folder = Path(compare_models(request))
        with get_client(sync_client=True) as client:
            (artifact,) = [a for a in client.read_artifacts() if a.key == "model-comparison"]
        schema = compare_models.parameters.model_dump()
    figures = json.loads((folder / "comparison.json").read_text(encoding="utf-8"))
    assert figures["asked"] == 0 and figures["dimensions"] == plain(found.figures.dimensions)
    assert [p["mark"] for p in figures["by_principle"]["principles"]] == [""] * 5 + ["changed"]
    assert artifact.data == (folder / "comparison.md").read_text(encoding="utf-8")
    for heading in ("Head to head", "Principle by principle", "Where the models part"):
        assert f"## {heading}" in artifact.data
    assert "request" in schema["properties"]
