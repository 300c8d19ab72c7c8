"""What stops or refuses a run of reinforcement learning, and what it leaves on its way."""

import json
import subprocess
import sys

import pytest
import torch
import yaml
from harness.rl_runs import make_config, rows, run

from training import Diverged, TrainingError
from training.config.base import load_config
from training.config.rl import GRPOConfig, PPOConfig
from training.models.load import load_causal_lm
from training.rl import algorithms, train
from training.rl.rollout import prompts_of_step


def test_prompts_that_fill_the_context_are_dropped(tiny_dir, tmp_path):
    path = tmp_path / "prompts.jsonl"
    long = {"id": "long", "prompt": [{"role": "user", "content": "cat " * 1000}]}
    short = {"id": "short", "prompt": [{"role": "user", "content": "cat"}]}
    path.write_text(json.dumps(long) + "\n" + json.dumps(short) + "\n")
    config = make_config("ppo", tiny_dir, path, tmp_path / "run", steps=1)
    assert run(config).metrics["prompts_too_long"] == 4


def test_not_a_number_stops_with_the_batch(tiny_dir, prompts_file, tmp_path, monkeypatch):
    monkeypatch.setattr(
        algorithms,
        "clipped_policy_loss",
        lambda logprobs, *rest, **named: (logprobs * float("nan"), logprobs * 0),
    )
    config = make_config("ppo", tiny_dir, prompts_file, tmp_path)
    with pytest.raises(Diverged, match="step 1: the policy's loss is nan"):
        run(config)
    saved = json.loads((tmp_path / "diverged.json").read_text())
    assert saved["step"] == 1 and len(saved["batch"]) == 4 and saved["batch"][0]["token_ids"]


def test_a_policy_that_runs_away_stops_with_the_batch(tiny_dir, prompts_file, tmp_path):
    """A far too high learning rate makes noise of the policy; three steps far from the reference end the run."""
    config = make_config(
        "grpo",
        tiny_dir,
        prompts_file,
        tmp_path,
        steps=40,
        epochs=1,
        optimizer={"learning_rate": 0.1, "schedule": "constant", "warmup": 0},
        divergence_kl=0.5,
        checkpoint_every=1,
    )
    with pytest.raises(Diverged, match=r"step \d+: the KL per token, now .* nats, was over 0.5 3 times"):
        run(config)
    saved = json.loads((tmp_path / "diverged.json").read_text())
    assert saved["step"] < 40 and len(saved["batch"]) == 8 and saved["batch"][0]["token_ids"]
    assert [row["kl_per_token"] > 0.5 for row in rows(tmp_path)][-2:] == [True, True]
    # The count is in the checkpoint: a resumed run stops at the same step.
    with pytest.raises(Diverged, match=f"step {saved['step']}: "):
        run(config, resume=True)


@pytest.mark.parametrize("changes", [{}, {"max_kl": 1e-9}], ids=["all steps", "ended by max_kl"])
def test_what_ends_the_process_while_the_model_is_saved_loses_nothing(
    changes, tiny_dir, prompts_file, tmp_path, monkeypatch
):
    config = make_config("grpo", tiny_dir, prompts_file, tmp_path, **changes)
    assert config.checkpoint_every == 10

    class Killed(BaseException):
        pass

    def killed(*arguments, **settings):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr("training.rl.train.save_model", killed)
        with pytest.raises(Killed):
            run(config)
    done = rows(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr("training.rl.learner.Learner.step", killed)
        result = run(config, resume=True)
    assert rows(tmp_path) == done and result.metrics["reward"] == done[-1]["reward"]
    assert (tmp_path / "model.safetensors").exists() and not (tmp_path / "checkpoints").exists()


def test_the_progress_line_of_a_step(tiny_dir, prompts_file, tmp_path, monkeypatch):
    shown = []
    monkeypatch.setattr(train.Progress, "update", lambda self, step, **values: shown.append((step, values)))
    run(make_config("rloo", tiny_dir, prompts_file, tmp_path, steps=1))
    (row,) = rows(tmp_path)
    names = ("reward", "kl", "length", "tokens_per_second")
    assert shown == [(1, {"loss": row["policy_loss"], **{name: row[name] for name in names}})]


def test_snapshots_samples_and_early_stop(tiny_dir, prompts_file, tmp_path):
    config = make_config(
        "ppo", tiny_dir, prompts_file, tmp_path, snapshot_every=1, log_samples=3, max_kl=0.01, steps=40
    )
    result = run(config)
    done = len(rows(tmp_path))
    assert done < 40 and result.metrics["kl"] > 0.01
    names = sorted(path.name for path in (tmp_path / "snapshots").iterdir())
    assert names == [f"step-{step:06d}" for step in range(1, done + 1)]
    last = load_causal_lm(str(tmp_path / "snapshots" / names[-1])).state_dict()
    assert all(torch.equal(last[k], v) for k, v in load_causal_lm(str(tmp_path)).state_dict().items())
    samples = [json.loads(line) for line in (tmp_path / "samples.jsonl").read_text().splitlines()]
    assert len(samples) == 3 * done
    assert set(samples[0]) >= {"step", "prompt_id", "prompt", "response", "reward", "kl"}


def test_pretraining_mix_keeps_the_language(tiny_dir, prompts_file, tmp_path):
    data = tmp_path / "text.jsonl"
    turns = [
        {"role": "user", "content": "egg"},
        {"role": "assistant", "content": "Put the egg in hot water."},
    ]
    data.write_text(json.dumps({"id": "a", "messages": turns}) + "\n")
    mix = {"data": [data], "coefficient": 1.0}
    config = make_config("ppo", tiny_dir, prompts_file, tmp_path / "run", pretrain=mix, steps=6)
    run(config)
    losses = [row["pretrain_loss"] for row in rows(tmp_path / "run")]
    assert losses[-1] < losses[0] - 0.5
    # The likelihood is the model's own, whatever temperature answers are drawn at.
    found = []
    for temperature in (0.5, 1.0):
        once = {"pretrain": mix, "steps": 1, "epochs": 1, "minibatches": 1, "temperature": temperature}
        run(make_config("ppo", tiny_dir, prompts_file, tmp_path / str(temperature), **once))
        found.append(rows(tmp_path / str(temperature))[0]["pretrain_loss"])
    assert found[0] == pytest.approx(found[1], rel=1e-5)


def test_lora_trains_the_adapter_and_saves_a_merged_model(tiny_dir, prompts_file, tmp_path):
    pytest.importorskip("peft")
    config = make_config(
        "ppo", tiny_dir, prompts_file, tmp_path, lora={"r": 4}, steps=2, optimizer={"learning_rate": 1e-2}
    )
    run(config)
    first, second = rows(tmp_path)
    assert first["kl"] == pytest.approx(0, abs=1e-4) and second["kl"] != 0
    before, after = load_causal_lm(str(tiny_dir)).state_dict(), load_causal_lm(str(tmp_path)).state_dict()
    changed = [name for name in before if not torch.equal(before[name], after[name])]
    assert changed and all("proj" in name for name in changed)


def test_prompts_go_round_in_shuffled_passes():
    seen = [place for step in range(10) for place in prompts_of_step(7, step, 3, seed=1)]
    for start in range(0, 28, 7):
        assert sorted(seen[start : start + 7]) == list(range(7))
    assert seen[:7] != seen[7:14]
    assert sorted(prompts_of_step(2, 0, 5, seed=0))[:2] == [0, 0]


def test_contradicting_configs_are_one_line(tiny_dir, prompts_file, tmp_path):
    base = {"model": str(tiny_dir), "prompts": [str(prompts_file)], "output_dir": str(tmp_path / "x")}
    path = tmp_path / "ppo.yaml"
    gold = {"prompts": [str(prompts_file)]}
    judge = {"kind": "function", "function": "judge:marks", "arguments": {"strict": True}}
    for config_class, changes, message in (
        (PPOConfig, {}, "nothing to learn from"),
        (PPOConfig, {"rewards": [{"kind": "length"}]}, "no reward model to start from"),
        (GRPOConfig, {"reward_model": "x", "batch_size": 10}, "must be a multiple of samples_per_prompt"),
        (GRPOConfig, {"reward_model": "x", "samples_per_prompt": 1}, "greater than or equal to 2"),
        (PPOConfig, {"reward_model": "x", "minibatches": 200}, "minibatches .200. must be at most"),
        (PPOConfig, {"reward_model": "x", "lora": {"dropout": 0.1}}, "lora.dropout .0.1. must be 0"),
        (PPOConfig, {"reward_model": "x", "rollouts": {"kind": "vllm"}}, "url belongs to kind: vllm"),
        (PPOConfig, {"reward_model": "x", "kl": {"kind": "adaptive", "beta": 0}}, "would stay 0"),
        (
            PPOConfig,
            {"reward_model": "a/x", "brake": gold | {"gold": {"kind": "model", "path": "a/../a/x"}}},
            "early_stopping.gold is a part of rewards",
        ),
        (
            GRPOConfig,
            {
                "rewards": [judge | {"weight": 0.5}],
                "early_stopping": gold | {"gold": judge | {"name": "gold"}},
            },
            "early_stopping.gold is a part of rewards",
        ),
        (PPOConfig, {"rewards": [{"kind": "modell", "path": "x"}]}, "modell"),
        (PPOConfig, {"reward_model": "x", "clips": 0.1}, "did you mean clip"),
    ):
        path.write_text(yaml.safe_dump(base | changes))
        with pytest.raises(TrainingError, match=message) as error:
            load_config(path, config_class)
        assert "\n" not in str(error.value)


@pytest.mark.slow
def test_command_line(tiny_dir, reward_dir, prompts_file, tmp_path):
    values = {
        "model": str(tiny_dir),
        "reward_model": str(tmp_path / "missing"),
        "prompts": [str(prompts_file)],
        "output_dir": str(tmp_path / "run"),
        "steps": 1,
        "batch_size": 4,
        "max_new_tokens": 4,
    }
    path = tmp_path / "ppo.yaml"

    def command():
        path.write_text(yaml.safe_dump(values))
        return subprocess.run(
            [sys.executable, "-m", "training.ppo", "--config", str(path)], capture_output=True, text=True
        )

    wrong = command()
    assert wrong.returncode == 2 and wrong.stderr.startswith("error: ") and wrong.stderr.count("\n") == 1
    assert not (tmp_path / "run").exists()
    values["reward_model"] = reward_dir
    right = command()
    assert right.returncode == 0 and "reward" in right.stdout, right.stderr
    assert json.loads((tmp_path / "run" / "result.json").read_text())["steps"] == 1
