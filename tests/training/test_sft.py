"""SFT: the loss is a plain slow one, falls where it should, and resumes bit for bit."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from common.chat import encode_conversation
from training.errors import Diverged, Interrupted, TrainingError
from training.models.load import load_causal_lm
from training.run.logs import read_metrics
from training.sft import SftConfig, SftObjective, encode, train

VERBS = ("boil", "paint", "sell", "draw", "read")
THINGS = ("egg", "house", "cat", "story")


def rows():
    """20 conversations in two turns, with answers that can be learnt."""
    for verb in VERBS:
        for thing in THINGS:
            yield {
                "id": f"{verb}-{thing}",
                "messages": [
                    {"role": "user", "content": f"How do I {verb} a {thing}?"},
                    {"role": "assistant", "content": f"Take the {thing} and {verb} it."},
                    {"role": "user", "content": "Thanks"},
                    {"role": "assistant", "content": "You are welcome."},
                ],
            }


@pytest.fixture
def data(tmp_path):
    path = tmp_path / "sft.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows()))
    return path


@pytest.fixture
def config(tiny_dir, tmp_path, data):
    def make(**changes):
        settings = {
            "model": str(tiny_dir),
            "data": [data],
            "output_dir": tmp_path / "out",
            "precision": "float32",
            "batch_size": 8,
            "optimizer": {"learning_rate": 3e-3},
        }
        return SftConfig(**{**settings, **changes})

    return make


def losses(output_dir):
    return [row["loss"] for row in read_metrics(output_dir / "metrics.jsonl")]


def slow_loss(model, tokenizer, conversations, prompt_weight, only_last=False):
    total = weight = 0.0
    for messages in conversations:
        ids, mask = encode_conversation(tokenizer, messages)
        if only_last:
            first = max(i for i in range(len(mask)) if mask[i] and not mask[i - 1])
            mask = [m and i >= first for i, m in enumerate(mask)]
        logprobs = model(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
        for t in range(1, len(ids)):
            w = 1.0 if mask[t] else prompt_weight
            total = total - w * logprobs[t - 1, ids[t]]
            weight += w
    return total, weight


@pytest.mark.parametrize("layout", ["packed", "rows"])
@pytest.mark.parametrize(("train_on", "prompt_weight"), [("all", 0.0), ("all", 0.1), ("last", 0.0)])
def test_loss_and_gradients_equal_a_plain_slow_reference(
    tiny_model, tiny_tokenizer, config, layout, train_on, prompt_weight
):
    from common.rows import read_examples

    settings = config(train_on=train_on, prompt_weight=prompt_weight)
    examples = read_examples(settings.data)[:5]
    expected, weight = slow_loss(
        tiny_model, tiny_tokenizer, [e.messages for e in examples], prompt_weight, train_on == "last"
    )
    expected.backward()
    gradients = [p.grad.clone() for p in tiny_model.parameters()]
    tiny_model.zero_grad()
    items = encode(tiny_tokenizer, examples, settings)
    objective = SftObjective(tiny_model)
    objective.layout = layout
    loss, _ = objective(items)
    loss.backward()
    assert sum(item.weight for item in items) == pytest.approx(weight)
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-5)
    for parameter, gradient in zip(tiny_model.parameters(), gradients, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-4, atol=2e-4)


def test_logits_of_prompt_and_padding_have_no_gradient(tiny_model, tiny_tokenizer, config):
    from common.rows import read_examples

    settings = config()
    items = encode(tiny_tokenizer, read_examples(settings.data)[:3], settings)
    objective = SftObjective(tiny_model)
    objective.layout = "rows"
    seen = {}

    def keep(module, arguments):
        arguments[0].retain_grad()
        seen["hidden"] = arguments[0]

    # Registered first, so it sees the hidden states of all tokens before the head's are picked out.
    tiny_model.lm_head.register_forward_pre_hook(keep)
    objective(items)[0].backward()
    norms = seen["hidden"].grad.norm(dim=-1)
    for row, item in enumerate(items):
        predicts = [*(w > 0 for w in item.weights[1:]), *[False] * (norms.shape[1] - len(item.weights) + 1)]
        assert (norms[row] > 0).tolist() == predicts


def test_it_learns_and_saves_a_hugging_face_model(config, tiny_tokenizer):
    settings = config(epochs=30, held_out=0.1, metadata={"constitution": "hhh 1.0.0"})
    result = train(settings)
    found = losses(settings.output_dir)
    assert len(found) == 30 * 3
    assert found[-1] < 0.3 < 3 < found[0]
    assert result.metrics["accuracy"] > 0.9
    assert "eval_loss" in result.metrics
    assert not (settings.output_dir / "checkpoints").exists()
    card = (settings.output_dir / "README.md").read_text()
    assert "| constitution | hhh 1.0.0 |" in card
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(settings.output_dir)
    tokenizer = AutoTokenizer.from_pretrained(settings.output_dir)
    from common.chat import decode_response, encode_prompt

    prompt = encode_prompt(tokenizer, [{"role": "user", "content": "How do I paint a cat?"}])
    ids = model.generate(torch.tensor([prompt]), max_new_tokens=30, do_sample=False)[0, len(prompt) :]
    assert decode_response(tokenizer, ids.tolist()) == "Take the cat and paint it."


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("stop_at", [1, 3, 4])
def test_resume_at_any_step_gives_the_same_losses(config, tmp_path, monkeypatch, stop_at, optimizer):
    # Dropout in the adapters makes the random state matter.
    common = {
        "epochs": 2,
        "held_out": 0.1,
        "optimizer": {"name": optimizer, "learning_rate": 3e-3},
        "lora": {"r": 4, "dropout": 0.2} if optimizer == "adamw" else None,
    }
    whole = config(**common, output_dir=tmp_path / "whole")
    train(whole)
    parts = config(**common, output_dir=tmp_path / "parts")
    with monkeypatch.context() as patch:
        asked = iter([None] * (stop_at - 1) + [int(signal.SIGTERM)])
        patch.setattr("training.supervised.StopRequest.agreed", lambda self: next(asked))
        with pytest.raises(Interrupted) as caught:
            train(parts)
    assert (caught.value.step, caught.value.exit_code) == (stop_at, 143)
    with pytest.raises(TrainingError, match="pass --resume"):
        train(parts)
    result = train(parts, resume=True)
    assert losses(parts.output_dir) == losses(whole.output_dir)
    names = [(row["step"], row.get("eval_loss")) for row in read_metrics(parts.output_dir / "metrics.jsonl")]
    assert names == [
        (row["step"], row.get("eval_loss")) for row in read_metrics(whole.output_dir / "metrics.jsonl")
    ]
    first, second = (load_causal_lm(str(c.output_dir)).state_dict() for c in (whole, parts))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert train(parts, resume=True) == result


def test_resuming_with_another_config_is_refused(config, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("training.supervised.StopRequest.agreed", lambda self: int(signal.SIGTERM))
        with pytest.raises(Interrupted):
            train(config())
    with pytest.raises(TrainingError, match="cannot resume: batch_size was 8 and is now 4"):
        train(config(batch_size=4), resume=True)
    # Other rows under the same name are another run, too; a file beside the model is not.
    data = Path(config().data[0])
    before = data.read_bytes()
    data.write_bytes(before.replace(b"egg", b"cat"))
    with pytest.raises(
        TrainingError, match=rf"cannot resume: {data} has other contents than when the run began"
    ):
        train(config(), resume=True)
    data.write_bytes(before)
    weights = Path(config().model) / "model.safetensors"
    kept = weights.read_bytes()
    weights.write_bytes(kept[:-1] + bytes([kept[-1] ^ 1]))
    with pytest.raises(TrainingError, match="has other contents"):
        train(config(), resume=True)
    weights.write_bytes(kept)
    (weights.parent / "notes.md").write_text("seen")
    train(config(), resume=True)


def test_micro_batches_and_gradient_checkpointing_change_no_loss(config, tmp_path):
    runs = [
        config(output_dir=tmp_path / "a"),
        config(output_dir=tmp_path / "b", micro_batch_tokens=64),
        config(output_dir=tmp_path / "c", gradient_checkpointing=True),
    ]
    for run in runs:
        train(run)
    first, *others = (losses(run.output_dir) for run in runs)
    for other in others:
        assert other == pytest.approx(first, rel=1e-5)


def test_patience_stops_early_and_keeps_the_best_weights(config):
    settings = config(
        epochs=40,
        held_out=0.2,
        eval_every=2,
        patience=2,
        optimizer={"learning_rate": 5e-2, "schedule": "constant"},
    )
    result = train(settings)
    rows = read_metrics(settings.output_dir / "metrics.jsonl")
    evaluations = [row["eval_loss"] for row in rows if "eval_loss" in row]
    # What is reported is of the weights that are saved, not of the last step's.
    assert result.metrics["eval_loss"] == min(evaluations)
    assert result.metrics["kept_step"] == rows[-1]["step"] - 4
    assert rows[-1]["step"] < 80
    assert min(evaluations) == evaluations[-3]
    model = load_causal_lm(str(settings.output_dir))
    assert all(torch.isfinite(p).all() for p in model.parameters())


def test_divergence_stops_with_the_batch_saved(config):
    unstable = {"learning_rate": 1.0, "schedule": "constant", "warmup": 0}
    settings = config(epochs=5, divergence_factor=1.5, optimizer=unstable)
    with pytest.raises(Diverged, match=r"3 times; the batch is in .*diverged\.json"):
        train(settings)
    saved = json.loads((settings.output_dir / "diverged.json").read_text())
    assert len(saved["batch"]) in (4, 8)
    assert {"id", "tree", "weights"} <= saved["batch"][0].keys()


def test_a_loss_that_is_not_finite_stops_before_the_weights_change(config, monkeypatch):
    def broken(self, items):
        loss, stats = forward(self, items)
        return loss * float("nan"), stats

    forward = SftObjective.forward
    monkeypatch.setattr(SftObjective, "forward", broken)
    with pytest.raises(Diverged, match="step 1: the loss is nan"):
        train(config())


def test_bad_input_is_one_line_before_the_model_loads(config, tmp_path, data, monkeypatch):
    monkeypatch.setattr("training.sft.load_causal_lm", lambda *_, **__: pytest.fail("the model was loaded"))
    (tmp_path / "empty").mkdir()
    for changes, expected in (
        ({"model": str(tmp_path / "none")}, "no such directory"),
        ({"model": str(tmp_path / "empty")}, "the directory is empty"),
        ({"data": [tmp_path / "none.jsonl"]}, "no such file"),
        ({"max_length": 8}, "every example is longer"),
        ({"lora": {"target_modules": ["nothing"]}}, r"lora\.target_modules"),
    ):
        with pytest.raises(ValueError, match=expected) as caught:
            train(config(**changes))
        assert "\n" not in str(caught.value)


def test_the_command_line_stops_at_sigterm_with_143_and_resumes(config, tmp_path):
    from training.config.base import save_config

    settings = config(epochs=200)
    save_config(settings, tmp_path / "sft.yaml")
    command = [sys.executable, "-m", "training.sft", "--config", str(tmp_path / "sft.yaml")]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    metrics = settings.output_dir / "metrics.jsonl"
    for _ in range(1200):
        if len(read_metrics(metrics)) >= 2:
            break
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 143, process.stderr.read()
    done = len(read_metrics(metrics))
    assert (settings.output_dir / "checkpoints" / f"step-{done:08d}").is_dir()
    again = subprocess.run(command, capture_output=True, text=True, check=False)
    assert again.returncode == 2
    assert again.stderr.strip().splitlines()[-1].startswith("error: output_dir")
    assert "Traceback" not in again.stderr
