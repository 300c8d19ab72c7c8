"""Stages that sample, called as plain functions: awkward models and prompts, parts that survive a kill."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from constitution import loads
from flows.errors import FlowError
from flows.pipeline import isolation
from flows.stages import critique_revision, pairs, prompts
from flows.stages.contract import StageInput
from flows.stages.samplers import Answer, Sampler
from flows.stages.sampling import sample_in_parts

SAMPLING = {"temperature": 1.0, "top_p": 1.0, "max_new_tokens": 6}
CONSTITUTION = loads(
    "name: x\ncritique:\n  principles:\n"
    "    - {id: safe, critique_request: Safe?, revision_request: Make it safe., dimension: harmless}\n"
)


def work(directory: Path, stage: str, inputs: dict[str, object], settings: dict, tuning: dict) -> StageInput:
    directory.mkdir(parents=True, exist_ok=True)
    return StageInput(
        stage=stage,
        directory=directory,
        run_directory=directory,
        seed=0,
        settings=settings,
        tuning=tuning,
        inputs={name: str(path) for name, path in inputs.items()},
        digests={},
        constitution=CONSTITUTION,
        progress=lambda done, total, text: None,
    )


def write_prompts(path: Path, *texts: str) -> Path:
    rows = [
        {"id": f"p{i}", "prompt": [{"role": "user", "content": text}], "meta": {}}
        for i, text in enumerate(texts)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def read(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]


def make_pairs(directory: Path, model: Path, prompts_file: Path, **sampling) -> list[dict]:
    made = pairs.run(
        work(
            directory,
            "pairs",
            {"model": model, "prompts": prompts_file},
            {"sampling": {**SAMPLING, **sampling}, "dtype": "float32", "contrast_share": 0.0},
            {"batch_size": 4},
        )
    )
    return read(directory / made.outputs["pairs"])


def revise(directory: Path, model: Path, prompts_file: Path, **settings):
    kinds = ("response", "critique", "revision")
    return critique_revision.run(
        work(
            directory,
            "critique_revision",
            {"model": model, "critic": model, "prompts_sl": prompts_file},
            {
                "revisions": 1,
                "keep_truncated": True,
                "keep_unchanged": True,
                "dtype": "float32",
                **{kind: SAMPLING for kind in kinds},
                **settings,
            },
            {"templates": "microworld", "batch_size": {kind: 4 for kind in kinds}},
        )
    )


def test_a_model_without_a_chat_template_answers(tmp_path, make_model):
    model = make_model(tmp_path / "model", template=None)
    rows = make_pairs(tmp_path / "out", model, write_prompts(tmp_path / "p.jsonl", "Hello?", "如何煮鸡蛋？"))
    assert len(rows) == 2 and all(row["a"] != row["b"] for row in rows)


def test_prompts_longer_than_the_context_are_left_out_and_counted(tmp_path, make_model):
    model = make_model(tmp_path / "model", context=64)
    files = {p: write_prompts(tmp_path / f"{p}.jsonl", "short", "long " * 40) for p in ("sl", "rl", "eval")}
    settings = {"room": dict.fromkeys(files, 8), "limits": dict.fromkeys(files)}
    made = prompts.run(work(tmp_path / "out", "prompts", {"base": model, **files}, settings, {}))
    assert made.metrics == {"sl": 1, "rl": 1, "eval": 1, "too_long": 3}
    assert {row["purpose"] for row in read(tmp_path / "out" / "too_long.jsonl")} == set(files)


def test_a_file_of_nothing_but_long_prompts_is_named(tmp_path, make_model):
    model = make_model(tmp_path / "model", context=16)
    path = write_prompts(tmp_path / "sl.jsonl", "a b c d e f g h i j k l m n o p")
    made = work(
        tmp_path / "out",
        "prompts",
        {"base": model, "sl": path},
        {"room": {"sl": 4}, "limits": {"sl": None}},
        {},
    )
    with pytest.raises(FlowError, match=r"sl\.jsonl: none of its 1 prompts fits the model's context"):
        prompts.run(made)


def test_a_critique_that_does_not_fit_ends_its_chain_with_a_reason(tmp_path, make_model):
    model = make_model(tmp_path / "model", context=80)
    path = write_prompts(tmp_path / "p.jsonl", "short", "x" * 60)
    made = revise(tmp_path / "out", model, path, response={**SAMPLING, "max_new_tokens": 4})
    assert made.metrics["left_out"] == {"critique_prompt_too_long": 1}
    chains = {chain["id"]: chain["status"] for chain in read(tmp_path / "out" / "chains.jsonl")}
    assert chains == {"p0": "ok", "p1": "critique_prompt_too_long"}
    assert [row["id"] for row in read(tmp_path / "out" / "sft.jsonl")] == ["p0"]


class Scripted(Sampler):
    """Says what a test wants, in order."""

    def __init__(self, answers):
        self.answers, self.asked = list(answers), []

    keeps_each = False

    def close(self):
        pass

    def draw(self, conversations, settings, **_):
        self.asked += conversations
        return [self.answers.pop(0) for _ in conversations]


def scripted_chain(tmp_path, monkeypatch, *answers, keep_truncated=False, keep_unchanged=True):
    said = Scripted([Answer(text=text, finish=finish) for text, finish in answers])
    monkeypatch.setattr(critique_revision, "sampler_of", lambda work, role: said)
    path = write_prompts(tmp_path / "p.jsonl", "one", "two")
    kept = {"keep_truncated": keep_truncated, "keep_unchanged": keep_unchanged}
    return revise(tmp_path / "out", tmp_path, path, **kept), said


def test_an_empty_answer_trains_nothing_and_is_counted(tmp_path, monkeypatch):
    made, _ = scripted_chain(
        tmp_path,
        monkeypatch,
        *[("fine", "stop"), (" \n", "stop")],
        *[("critique", "stop")],
        *[("better", "stop")],
    )
    assert made.metrics["left_out"] == {"response_empty": 1} and made.metrics["revised"] == 1


@pytest.mark.parametrize("keep", [False, True])
def test_an_answer_cut_off_trains_only_when_asked(tmp_path, monkeypatch, keep):
    answers = [
        ("one", "stop"),
        ("two", "stop"),
        ("c", "length"),
        ("c", "stop"),
        ("r", "length"),
        ("r", "stop"),
    ]
    made, _ = scripted_chain(tmp_path, monkeypatch, *answers, keep_truncated=keep)
    assert made.metrics["revised"] == (2 if keep else 1)
    assert made.metrics["left_out"] == ({} if keep else {"revision_truncated": 1})


LOOP = "It is good to be kind and it is good to be safe. " * 6
CRITIQUE = (
    "The answer does not say how long the eggs should boil, nor that they go into cold water after that."
)


@pytest.mark.parametrize(
    ("critique", "revision", "status"),
    [
        (LOOP, "r", "critique_looping"),
        (CRITIQUE, LOOP, "revision_looping"),
        (CRITIQUE, "Critique: " + CRITIQUE, "revision_copied"),
        (CRITIQUE, "", "revision_empty"),
        (CRITIQUE, "a1", "revision_unchanged"),
    ],
)
def test_a_loop_a_copy_and_an_unchanged_answer_are_statuses_and_train_nothing(
    tmp_path, monkeypatch, critique, revision, status
):
    answers = [
        "a1",
        "a2",
        critique,
        CRITIQUE,
        *([] if status.startswith("critique") else [revision]),
        "better",
    ]
    made, _ = scripted_chain(
        tmp_path, monkeypatch, *((text, "stop") for text in answers), keep_unchanged=False
    )
    assert made.metrics["left_out"] == {status: 1} and made.metrics["revised"] == 1
    assert [row["id"] for row in read(tmp_path / "out" / "sft.jsonl")] == ["p1"]
    assert [row["pair_id"] for row in read(tmp_path / "out" / "rewrites.jsonl")] == ["p1.rewrite"]


def test_an_error_over_cut_off_answers_names_the_knobs(tmp_path, monkeypatch):
    knobs = "raise critique_revision.response.max_new_tokens, or set critique_revision.keep_truncated"
    with pytest.raises(FlowError, match=f"2 response_truncated.; {knobs}; see"):
        scripted_chain(tmp_path, monkeypatch, ("a", "length"), ("b", "length"))


def test_nothing_left_to_train_on_is_an_error_that_says_why(tmp_path, monkeypatch):
    with pytest.raises(FlowError, match=r"no revision can be trained on \(2 response_empty\)"):
        scripted_chain(tmp_path, monkeypatch, ("", "stop"), ("", "stop"))


def test_the_revision_sees_the_critique_and_the_answer(tmp_path, monkeypatch):
    answers = [("A1", "stop"), ("A2", "stop"), ("C1", "stop"), ("C2", "stop"), ("R1", "stop"), ("R2", "stop")]
    _, said = scripted_chain(tmp_path, monkeypatch, *answers)
    texts = [conversation[-1]["content"] for conversation in said.asked]
    assert texts[2] == "Question: one\nAnswer: A1\nSafe?"
    assert texts[5] == "Question: two\nAnswer: A2\nCritique: C2\nMake it safe."


def test_identical_answers_are_no_pair(tmp_path, monkeypatch):
    answers = ["x", "y", "x", "z"]
    said = Scripted([Answer(text=text, finish="stop") for text in answers])
    monkeypatch.setattr(pairs, "sampler_of", lambda work, role: said)
    path = write_prompts(tmp_path / "p.jsonl", "one", "two")
    rows = make_pairs(tmp_path / "out", tmp_path, path)
    assert [(row["prompt_id"], row["a"], row["b"]) for row in rows] == [("p1", "y", "z")]


def test_nothing_but_identical_answers_is_an_error(tmp_path, make_model):
    path = write_prompts(tmp_path / "p.jsonl", "one", "two")
    with pytest.raises(FlowError, match=r"all 2 pairs of answers are identical: raise pairs\.sampling"):
        make_pairs(tmp_path / "out", make_model(tmp_path / "model"), path, temperature=0.0)


def test_finished_parts_are_not_drawn_again(tmp_path, monkeypatch):
    monkeypatch.setattr("flows.stages.sampling.PART", 2)
    conversations = [[{"role": "user", "content": str(i)}] for i in range(5)]
    made = work(tmp_path, "pairs", {}, {}, {})

    class Dies(Scripted):
        def draw(self, conversations, *args, **kwargs):
            if len(self.asked) >= 4:
                raise KeyboardInterrupt
            return super().draw(conversations, *args, **kwargs)

    first = Dies([Answer(text=f"a{i}", finish="stop") for i in range(5)])
    with pytest.raises(KeyboardInterrupt):
        sample_in_parts(made, "answers", first, conversations, SAMPLING, batch_size=4)
    second = Scripted([Answer(text="last", finish="length")])
    answers = sample_in_parts(made, "answers", second, conversations, SAMPLING, batch_size=4)
    assert [a.text for a in answers] == ["a0", "a1", "a2", "a3", "last"]
    assert second.asked == conversations[4:]


def test_some_second_answers_come_from_the_contrast_model(tmp_path, monkeypatch):
    def sampler(work, role):
        return Scripted([Answer(text=f"{work.inputs[role]}{i}", finish="stop") for i in range(99)])

    monkeypatch.setattr(pairs, "sampler_of", sampler)
    path = write_prompts(tmp_path / "p.jsonl", *(f"prompt {i}" for i in range(40)))
    made = pairs.run(
        work(
            tmp_path / "out",
            "pairs",
            {"model": "own", "contrast": "other", "prompts": path},
            {"sampling": SAMPLING, "dtype": "float32", "contrast_share": 0.5},
            {"batch_size": 4},
        )
    )
    rows = read(tmp_path / "out" / "pairs.jsonl")
    assert all(row["a"].startswith("own") for row in rows)
    assert sum(row["b"].startswith("other") for row in rows) == made.metrics["contrasted"]
    assert 8 <= made.metrics["contrasted"] <= 32


def test_two_processes_share_the_parts_and_come_to_the_same_answers(tmp_path, monkeypatch):
    monkeypatch.setattr("flows.stages.sampling.PART", 2)
    conversations = [[{"role": "user", "content": str(i)}] for i in range(7)]
    samplers = [Scripted([Answer(text=f"{rank}{i}", finish="stop") for i in range(7)]) for rank in range(2)]
    made = work(tmp_path, "pairs", {}, {}, {})

    def run(rank: int) -> list[Answer]:
        mine = replace(made, rank=rank, world=2)
        return sample_in_parts(mine, "answers", samplers[rank], conversations, SAMPLING, batch_size=4)

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(run, range(2))
    assert first == second
    assert [a.text for a in first] == ["00", "01", "10", "11", "02", "03", "12"]


@pytest.mark.slow
def test_an_isolated_stage_in_two_processes_gives_the_same_file(tmp_path, make_model, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    model = make_model(tmp_path / "model")
    path = write_prompts(tmp_path / "p.jsonl", *(f"prompt {i}" for i in range(520)))
    settings = {"sampling": {**SAMPLING, "max_new_tokens": 2}, "dtype": "float32", "contrast_share": 0.0}
    inputs = {"model": model, "prompts": path}
    files = []
    for workers in (1, 2):
        made = work(tmp_path / f"out{workers}", "pairs", inputs, settings, {"batch_size": 128})
        result = isolation.run_isolated(replace(made, constitution=None), workers=workers)
        files.append((made.directory / result.outputs["pairs"]).read_bytes())
    assert files[0] == files[1]
    assert (tmp_path / "out2" / "log-1.txt").exists()


def test_a_mistake_in_an_isolated_stage_is_one_line(tmp_path, make_model):
    made = work(
        tmp_path / "out",
        "pairs",
        {"model": tmp_path / "none", "prompts": write_prompts(tmp_path / "p.jsonl", "x")},
        {"sampling": SAMPLING, "dtype": "float32", "contrast_share": 0.0},
        {"batch_size": 4},
    )
    with pytest.raises(
        FlowError, match=r"stage pairs failed with exit code 2: model .*none: no such directory"
    ):
        isolation.run_isolated(replace(made, constitution=None))
