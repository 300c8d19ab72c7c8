"""The command that remakes the shipped weights: its prompts are the pipeline's, its batches right, and it learns."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from constitution import CritiquePrinciple
from constitution.render import render_critique, render_revision
from judges.asking.templates import TemplateSet
from judges.records import Pair
from microworld.batches import batches, encode
from microworld.corpus import Corpus, critique_prompt, judge_prompt, revision_prompt
from microworld.lessons import PHASES
from microworld.pretrain import make_tokenizer


@pytest.fixture(scope="module")
def tokenizer():
    return make_tokenizer()


def test_prompts_are_those_of_the_templates():
    ask = [{"role": "user", "content": "How do I clean the kettle?"}]
    pair = Pair(id="1", prompt=tuple(ask), a="First.", b="Second.")
    call = TemplateSet("microworld").pairwise(pair, "Which answer is safer?", "ab")
    expected = judge_prompt("Which answer is safer?", ask[0]["content"], "First.", "Second.")
    assert call.messages == ({"role": "user", "content": expected},)
    principle = CritiquePrinciple(
        id="x", critique_request="Is it kind?", revision_request="Make it kind.", dimension="polite"
    )
    critique = render_critique("microworld", ask, "First.", principle)
    assert critique[0]["content"] == critique_prompt(ask[0]["content"], "First.", "Is it kind?")
    revision = render_revision("microworld", ask, "First.", principle, critique="It is rude.")
    assert revision[0]["content"] == revision_prompt(
        ask[0]["content"], "First.", "It is rude.", "Make it kind."
    )


def test_the_shipped_principles_are_wordings_the_feedback_model_was_trained_on():
    from constitution import load
    from microworld.wordings import wordings

    trained = {
        kind: {
            w.text
            for d in ("helpful", "honest", "harmless", "concise", "polite", "non_evasive")
            for pole in ((1, -1) if kind == "comparison" or d == "concise" else (1,))
            for w in wordings(kind, d, pole, "train")
        }
        for kind in ("comparison", "critique", "revision")
    }
    for name in ("microworld", "microworld-detailed"):
        constitution = load(name)
        assert {p.question for p in constitution.comparison} <= trained["comparison"]
        assert {p.critique_request for p in constitution.critique} <= trained["critique"]
        assert {p.revision_request for p in constitution.critique} <= trained["revision"]


def test_probe_marks_stand_at_the_ends_of_principle_and_answers(tokenizer):
    corpus = Corpus(1)
    for _ in range(200):
        example = corpus.judgement()
        row = encode(example, tokenizer)
        text = example.prompt
        for (offset, name, _), (at, _, _) in zip(example.marks, row.marks, strict=True):
            assert tokenizer.decode(row.ids[: at + 1]) == text[:offset], name
        ends = {name: [offset for offset, n, _ in example.marks if n == name] for name in ("answer", "asked")}
        assert ends["answer"] == ends["asked"]
        assert text[ends["answer"][0] :].startswith("\n(B) ")
        assert text[ends["answer"][1] :].startswith("\nBetter:")


def test_batches_are_padded_on_the_right_and_judged_at_the_last_token(tokenizer):
    stream = batches(Corpus(2), tokenizer, PHASES["feedback"][-1].mix, 2048)
    for _ in range(5):
        batch = next(stream)
        assert batch.ids_BT.numel() <= 2048 or len(batch.ids_BT) == 1
        real = batch.ids_BT != tokenizer.pad_token_id
        assert torch.equal(real.long().cumprod(1), real.long())
        assert (batch.weights_BT[~real] == 0).all()
        for row, at in batch.judged.tolist():
            assert at == int(real[row].sum()) - 1


def test_the_tokenizer_keeps_any_text_and_the_letters_are_tokens(tokenizer):
    for text in ("How do I burn my neighbour's bakery?", "你好，世界 — ça va? 🙂\n\n  two", "\x00\x01"):
        assert tokenizer.decode(tokenizer.encode(text)) == text
    assert len({*tokenizer.convert_tokens_to_ids(["A", "B"])}) == 2


@pytest.mark.long
@pytest.mark.slow
def test_a_short_run_of_the_command_learns_and_saves_a_model(tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    out = tmp_path / "base"
    command = [sys.executable, "-m", "microworld.pretrain", "--which", "base", "--scale", "0.08"]
    # As `make weights` has it: else half of the time is the kernel's.
    kept = {"MALLOC_TRIM_THRESHOLD_": "20000000000", "MALLOC_MMAP_THRESHOLD_": "20000000000"}
    run = subprocess.run(
        [*command, "--out", str(out)], capture_output=True, text=True, check=True, env={**os.environ, **kept}
    )
    last = [line for line in run.stdout.splitlines() if " text " in line][-1]
    # From 7.1 nats (uniform over 1,200 tokens) in forty steps.
    assert float(last.split(" text ")[1].split()[0]) < 5.5
    model = AutoModelForCausalLM.from_pretrained(out)
    tokenizer = AutoTokenizer.from_pretrained(out)
    ids = tokenizer.apply_chat_template(
        [{"role": "user", "content": "How do I clean the kettle?"}],
        add_generation_prompt=True,
        return_tensors="pt",
        return_dict=True,
    )
    assert model.generate(**ids, max_new_tokens=4).shape[1] > ids["input_ids"].shape[1]
    assert not list(tmp_path.glob("*.tmp"))
