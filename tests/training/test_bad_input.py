"""The user's mistakes, as the command line tells them: one line and exit code 2, before any model is loaded."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import pytest
import transformers
import yaml
from harness.tiny import TEMPLATE

from training import best_of_n, cli, grpo, ppo, reward_model, rloo, sft
from training.config.rl import GRPOConfig, PPOConfig, RLOOConfig
from training.config.supervised import DpoConfig, RewardModelConfig, SftConfig
from training.dpo import train as dpo
from training.models.load import load_sequence_classifier, load_tokenizer, save_model

TRAINERS = {
    "sft": (SftConfig, sft.train),
    "reward_model": (RewardModelConfig, reward_model.train),
    "dpo": (DpoConfig, dpo.train),
    "ppo": (PPOConfig, ppo.train),
    "grpo": (GRPOConfig, grpo.train),
    "rloo": (RLOOConfig, rloo.train),
    "best_of_n": (best_of_n.BestOfNConfig, best_of_n.train),
}
MESSAGES = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
PAIR = {"prompt": "Hi", "chosen": "Hello", "rejected": "No"}


@pytest.fixture(scope="module")
def folder(tiny_dir, tmp_path_factory):
    """Models and data sets, whole ones and broken ones."""
    directory = tmp_path_factory.mktemp("input")
    tokenizer = load_tokenizer(str(tiny_dir))
    scorer = load_sequence_classifier(str(tiny_dir), new_head=True, pad_token_id=0)
    save_model(scorer, tokenizer, directory / "scorer")
    scorer.config.num_labels = 3
    shutil.copytree(directory / "scorer", directory / "three_labels")
    scorer.config.save_pretrained(directory / "three_labels")
    shutil.copytree(tiny_dir, directory / "policy")
    for name in ("cut", "pointer", "encoder", "bodiless"):
        shutil.copytree(tiny_dir, directory / name)
    weights = (directory / "cut" / "model.safetensors").read_bytes()
    (directory / "cut" / "model.safetensors").write_bytes(weights[:-100])
    (directory / "pointer" / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\n")
    (directory / "bodiless" / "model.safetensors").unlink()
    shutil.copytree(directory / "bodiless", directory / "sharded")
    shards = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    shutil.copy(tiny_dir / "model.safetensors", directory / "sharded" / shards["a"])
    (directory / "sharded" / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))
    settings = json.loads((tiny_dir / "config.json").read_text())
    settings["architectures"] = ["BertForMaskedLM"]
    (directory / "encoder" / "config.json").write_text(json.dumps(settings))

    def write(name, *rows):
        (directory / name).write_text("".join(json.dumps(row) + "\n" for row in rows))

    write("sft.jsonl", {"messages": MESSAGES})
    write("pairs.jsonl", *[PAIR] * 10)
    write("prompts.jsonl", {"prompt": "Hi"})
    write("unanswered.jsonl", PAIR, {"prompt": "Hi", "chosen": "Hello"})
    write("refused.jsonl", PAIR, *[{**PAIR, "p": None, "status": "refused"}] * 3)
    (directory / "broken.jsonl").write_text(json.dumps({"prompt": "Hi"}) + '\n{"prompt": "H')
    checks = [
        {"name": "accuracy", "value": 0.51, "passed": False},
        {"name": "flips", "value": 0.1, "passed": True},
    ]
    write("paper.jsonl", {"prompt": "Hi"}, {"prompt": "The paper"})
    write("papers.jsonl", {"messages": MESSAGES}, {"prompt": "The paper", "completion": "Yes"})
    write("paper_pairs.jsonl", PAIR, {**PAIR, "prompt": "The paper"})
    shutil.copytree(tiny_dir, directory / "refusing")
    refusing = (
        "{% if 'paper' in messages[0].content %}{{ raise_exception('no paper here') }}{% endif %}" + TEMPLATE
    )
    (directory / "refusing" / "chat_template.jinja").write_text(refusing)
    write("failed.json", {"passed": False, "checks": checks})
    write("passed.json", {"passed": True, "checks": checks[1:]})
    write("notes.json", {"hello": 1})
    return directory


REWARD = {"reward_model": "scorer"}


@pytest.mark.parametrize(
    ("trainer", "changes", "expected"),
    [
        # An unreadable checkpoint.
        ("sft", {"model": "cut"}, "model.safetensors: is not a whole safetensors file: it has "),
        (
            "dpo",
            {"model": "pointer"},
            "model.safetensors: is not a whole safetensors file: it ends within its header",
        ),
        ("grpo", {"model": "sharded", **REWARD}, "sharded: has no model-00002-of-00002.safetensors"),
        ("grpo", {"model": "bodiless", **REWARD}, "bodiless: has no safetensors weights"),
        ("ppo", {"reward_model": "cut"}, "cut/model.safetensors: is not a whole"),
        # A model without the right head.
        ("sft", {"model": "scorer"}, "LlamaForSequenceClassification has a classification head"),
        ("dpo", {"reference": "scorer"}, "LlamaForSequenceClassification has a classification head"),
        ("rloo", {"model": "encoder", **REWARD}, "BertForMaskedLM does not continue a text"),
        ("ppo", {"reward_model": "policy"}, "LlamaForCausalLM has no reward head"),
        ("grpo", {"reward_model": "three_labels"}, "has 3 labels; a reward model has one"),
        ("best_of_n", {"reward_model": "policy"}, "LlamaForCausalLM has no reward head"),
        # A data set with a missing column.
        (
            "sft",
            {"data": ["pairs.jsonl"]},
            "pairs.jsonl:1: holds pairs (chosen, prompt, rejected), no demonstration",
        ),
        (
            "reward_model",
            {"data": ["unanswered.jsonl"]},
            "unanswered.jsonl:2: holds prompts (chosen, prompt), no two answers to compare (rejected is missing",
        ),
        ("dpo", {"data": ["sft.jsonl"]}, "sft.jsonl:1: holds messages (messages), no two answers to compare"),
        (
            "rloo",
            {"prompts": ["notes.json"], **REWARD},
            "notes.json:1: has hello, which is no known format; known",
        ),
        ("ppo", {"prompts": ["broken.jsonl"], **REWARD}, "broken.jsonl:2: is not JSON"),
        (
            "grpo",
            {"pretrain": {"data": ["pairs.jsonl"]}, **REWARD},
            "pairs.jsonl:1: holds pairs",
        ),
        # A server that is not there.
        (
            "rloo",
            {"rollouts": {"kind": "vllm", "url": "http://127.0.0.1:9"}, **REWARD},
            "http://127.0.0.1:9: no server answers at",
        ),
        # Labels whose statuses exceed the threshold, and a judge that failed its exam.
        (
            "reward_model",
            {"data": ["refused.jsonl"]},
            "75% of the labels are not ok (refused 3, ok 1); max_not_ok",
        ),
        ("dpo", {"data": ["refused.jsonl"], "max_not_ok": 0.7}, "75% of the labels are not ok"),
        (
            "reward_model",
            {"exam": "failed.json"},
            "failed.json: the judge failed (accuracy 0.51); its labels are not",
        ),
        ("dpo", {"exam": "notes.json"}, "notes.json: is no exam's report: KeyError: 'passed'"),
        ("dpo", {"exam": "none.json"}, "none.json: cannot be read: No such file or directory"),
        # A config that contradicts itself.
        ("sft", {"patience": 2}, "patience needs held_out above 0"),
        ("dpo", {"eval_every": 5}, "eval_every needs held_out above 0"),
        (
            "reward_model",
            {"lora": {"merge": False}},
            "lora.merge must be true: an adapter alone has no place",
        ),
        ("reward_model", {"lora": {"target_modules": ["nothing"]}}, "lora.target_modules: "),
        ("dpo", {"lora": {"target_modules": ["nothing"]}}, "lora.target_modules: "),
        ("reward_model", {"shares": [0.5, 0.5]}, "shares has 2 numbers for 1 data files"),
        ("dpo", {"loss": "simpo", "reference": "policy"}, "reference is set, but loss simpo has none"),
        ("dpo", {"loss": "dpo", "flip_rate": 0.2}, "flip_rate belongs to loss robust, not to dpo"),
        ("ppo", {}, "give reward_model or rewards: there is nothing to learn from"),
        (
            "ppo",
            {"rewards": [{"kind": "length"}]},
            "there is no reward model to start from; set it to policy",
        ),
        (
            "grpo",
            {"batch_size": 12, **REWARD},
            "batch_size (12) must be a multiple of samples_per_prompt (8)",
        ),
        ("rloo", {"samples_per_prompt": 1, **REWARD}, ":5: samples_per_prompt: 1 is not allowed"),
        (
            "rloo",
            {"rewards": [{"kind": "regex", "pattern": "("}]},
            ":7: rewards.0.pattern: '(' is not allowed",
        ),
        (
            "ppo",
            {"kl": {"kind": "adaptive", "beta": 0}, **REWARD},
            "kind: adaptive multiplies beta, and 0 would stay 0",
        ),
        (
            "ppo",
            {
                "early_stopping": {
                    "gold": {"kind": "model", "path": "./scorer"},
                    "prompts": ["prompts.jsonl"],
                },
                **REWARD,
            },
            "early_stopping.gold is a part of rewards too",
        ),
        ("best_of_n", {}, "give reward_model or rewards: nothing says which answer is best"),
        ("best_of_n", {"output": "pairs.csv", **REWARD}, "must end in .jsonl"),
    ],
    ids=lambda value: value if isinstance(value, str) and " " not in value else "",
)
def test_one_line_before_a_model_loads(trainer, changes, expected, folder, tmp_path, monkeypatch, capsys):
    data = {"sft": "sft.jsonl"}.get(trainer, "pairs.jsonl")
    config = {"model": "policy", "output_dir": str(tmp_path / "out")}
    if trainer in ("sft", "reward_model", "dpo"):
        config["data"] = [data]
    else:
        config["prompts"] = ["prompts.jsonl"]
    if trainer == "best_of_n":
        config["output"] = str(tmp_path / "pairs.jsonl")
        del config["output_dir"]
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump({**config, **changes}, sort_keys=False))
    monkeypatch.chdir(folder)
    for name in ("AutoModelForCausalLM", "AutoModelForSequenceClassification"):
        monkeypatch.setattr(
            getattr(transformers, name), "from_pretrained", lambda *_, **__: pytest.fail("a model was loaded")
        )
    monkeypatch.setattr(sys, "argv", ["trainer", "--config", str(path)])
    assert cli.main(*TRAINERS[trainer], "") == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and expected in error, error
    assert not (tmp_path / "out").exists() and not (tmp_path / "pairs.jsonl").exists()


@pytest.mark.parametrize(
    ("trainer", "changes", "place"),
    [
        ("sft", {"data": ["papers.jsonl"]}, "papers.jsonl:2"),
        ("dpo", {"data": ["paper_pairs.jsonl"]}, "paper_pairs.jsonl:2"),
        ("rloo", {"prompts": ["paper.jsonl"], "samples_per_prompt": 2, "batch_size": 4}, "paper.jsonl:2"),
        ("rloo", {"prompts": ["prompts.jsonl"], "pretrain": {"data": ["papers.jsonl"]}}, "papers.jsonl:2"),
    ],
)
def test_what_the_template_refuses_is_named_by_its_line(
    trainer, changes, place, folder, tmp_path, monkeypatch, capsys
):
    rewards = {"rewards": [{"kind": "length"}], "max_new_tokens": 2} if trainer == "rloo" else {}
    path = tmp_path / "config.yaml"
    path.write_text(
        yaml.safe_dump(
            {"model": "refusing", "output_dir": str(tmp_path / "out"), **rewards, **changes}, sort_keys=False
        )
    )
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["trainer", "--config", str(path)])
    assert cli.main(*TRAINERS[trainer], "") == 2
    [error] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert error == f"error: {place}: the chat template refused the conversation: no paper here"


def test_a_damaged_checkpoint_is_one_line_before_the_model_loads(folder, tmp_path, monkeypatch):
    from training.errors import Interrupted, TrainingError

    config = SftConfig(
        model=str(folder / "policy"), data=[folder / "sft.jsonl"], output_dir=tmp_path / "out", epochs=3
    )
    with monkeypatch.context() as patch:
        patch.setattr("training.supervised.StopRequest.agreed", lambda self: 15)
        with pytest.raises(Interrupted):
            sft.train(config)
    monkeypatch.setattr("training.sft.load_causal_lm", lambda *_, **__: pytest.fail("the model was loaded"))
    weights = tmp_path / "out" / "checkpoints" / "step-00000001" / "optimizer.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(
        TrainingError, match=r"optimizer\.safetensors: is not a whole safetensors file: it has"
    ) as caught:
        sft.train(config, resume=True)
    assert "\n" not in str(caught.value)
    weights.unlink()
    with pytest.raises(TrainingError, match=r"step-00000001: has no optimizer\.safetensors"):
        sft.train(config, resume=True)


def test_a_passed_exam_trains(folder, tmp_path):
    config = RewardModelConfig(
        model=str(folder / "policy"),
        data=[folder / "pairs.jsonl"],
        output_dir=tmp_path / "out",
        exam=folder / "passed.json",
        max_steps=1,
    )
    assert reward_model.train(config).metrics["loss"] > 0


@pytest.mark.slow
def test_the_program_itself(folder, tmp_path):
    """One of them as a user sees it."""
    path = tmp_path / "dpo.yaml"
    config = {"model": "cut", "data": ["pairs.jsonl"], "output_dir": str(tmp_path / "out")}
    path.write_text(yaml.safe_dump(config))
    command = [sys.executable, "-m", "training.dpo", "--config", str(path)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: cut/model.safetensors: is not a whole")
