"""A small real model that was taught to think before it names a letter, as a judge in process and on vLLM."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from harness.chat_tokenizers import QWEN3
from harness.chat_tokenizers import make as make_tokenizer

from constitution import loads
from engines.settings import VllmSettings
from judges import InProcessJudge, JudgeIdentity, LabelSettings, Ledger, Pair, VllmJudge, label_pairs
from judges.asking.questions import Questionnaire
from judges.ledger.reading import labelled_pairs
from judges.thinking import ThinkingBudget

ROOT = Path(__file__).parents[2]
GOOD, BAD = "The capital is Paris, as far as I know.", "Who knows. Go away."
PAIRS = [
    Pair(id=f"p{n}", prompt=({"role": "user", "content": f"Question {n}?"},), a=a, b=b)
    for n in range(6)
    for a, b in ([(GOOD, BAD)] if n % 2 else [(BAD, GOOD)])
]
SETTINGS = LabelSettings(templates="microworld")
CONSTITUTION = loads(
    "name: x\ncritique: {principles: [{id: s, critique_request: S?, revision_request: R., dimension: harmless}]}\n"
    "comparison: {principles: [{id: h, question: Which is more helpful?, dimension: helpful}]}\n"
)
TEACHER = JudgeIdentity(kind="scripted", model="teacher", revision="1")


@pytest.fixture(scope="module")
def thinking_model(tmp_path_factory) -> Path:
    """Taught on the very prompts: it thinks which answer is the helpful one, then names it; without a thought it
    opens one instead of a letter."""
    from transformers import LlamaConfig, LlamaForCausalLM

    from common.chat import ChatRenderer

    tokenizer = make_tokenizer("bytes", QWEN3)
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=512,
            eos_token_id=tokenizer.eos_token_id,
            bos_token_id=None,
        )
    )
    renderer, rows = ChatRenderer(tokenizer, thinking="on"), []
    asking = Questionnaire(CONSTITUTION, [TEACHER], SETTINGS)
    for pair in PAIRS:
        for vote in asking.question(pair).votes:
            letter = "A" if (pair.a == GOOD) == (vote.order == "ab") else "B"
            told = f"<think>\nThe helpful one is {letter}.\n</think>\n\n{letter}"
            prompt = renderer.prompt_ids(vote.call.messages)
            rows.append((prompt, renderer.tokens.following(told)))
    longest = max(len(p) + len(a) for p, a in rows)
    ids = torch.zeros(len(rows), longest, dtype=torch.long)
    labels = torch.full_like(ids, -100)
    for n, (prompt, answer) in enumerate(rows):
        ids[n, : len(prompt) + len(answer)] = torch.tensor(prompt + answer)
        labels[n, len(prompt) : len(prompt) + len(answer)] = torch.tensor(answer)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(400):
        loss = model(input_ids=ids, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if loss.item() < 5e-3:
            break
    assert loss.item() < 0.02, loss.item()
    folder = tmp_path_factory.mktemp("thinks")
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def labelled(judge, ledger):
    return label_pairs(PAIRS, constitution=CONSTITUTION, judge=judge, ledger=ledger, settings=SETTINGS)


def winners(ledger, report):
    return {x.label.pair_id: x.label.winner for x in labelled_pairs(ledger, report.label_set)}


@pytest.fixture
def ledger(tmp_path):
    with Ledger.open(f"sqlite:///{tmp_path / 'ledger.db'}") as opened:
        yield opened


RIGHT = {pair.id: "a" if pair.a == GOOD else "b" for pair in PAIRS}


@pytest.mark.slow
def test_it_thinks_then_names_the_right_letter(thinking_model, ledger):
    judge = InProcessJudge(thinking_model, dtype="float32", thinking="on")
    report = labelled(judge, ledger)
    assert report.statuses == {"ok": len(PAIRS)} and winners(ledger, report) == RIGHT
    (label,) = labelled_pairs(ledger, report.label_set, pair_ids=["p0"])
    reading = ledger.readings(label.label.judgements)[label.label.judgements[0]]
    assert reading.text.startswith("<think>\nThe helpful one is") and reading.text.endswith("</think>")
    # A budget that is too short closes the thought, and says so.
    short = InProcessJudge(thinking_model, dtype="float32", thinking=ThinkingBudget(budget=3))
    calls = [v.call for v in Questionnaire(CONSTITUTION, [short.identity], SETTINGS).question(PAIRS[0]).votes]
    assert all("closed after 3 tokens" in r.detail for r in short.ask(calls))


@pytest.mark.vllm
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_on_vllm_too(thinking_model, ledger, require):
    place = ROOT / ".venv-vllm"
    require("vLLM", (place / "bin" / "python").is_file(), "run `make vllm`")
    judge = VllmJudge(thinking_model, VllmSettings(vllm_environment=place), thinking="on")
    report = labelled(judge, ledger)
    judge.close()
    assert report.statuses == {"ok": len(PAIRS)} and winners(ledger, report) == RIGHT
    again = InProcessJudge(thinking_model, dtype="float32", thinking="on")
    assert labelled(again, ledger).asked == 0  # the same judge
