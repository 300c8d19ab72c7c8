"""PPO, GRPO and RLOO as runs: exact losses, exact resume, learning, the leash, and what goes wrong."""

import json
import os
import signal
import subprocess
import sys

import pytest
import torch
import yaml

from training import Diverged, Interrupted, TrainingError, grpo, learner, ppo, rloo
from training.attention import backbone
from training.chat import encode_prompt
from training.collect import prompts_of_step
from training.config import load_config
from training.data import read_prompts
from training.experience import Rollout, pack_rows, rows_of
from training.measure import measure
from training.models import load_causal_lm, load_sequence_classifier, load_tokenizer, save_model
from training.policy import PolicyModule, ValueModule
from training.rl_algorithm import Minibatch
from training.rl_config import GRPOConfig, PPOConfig, RLOOConfig
from training.rl_update import Trained
from training.rollouts import Sampling, generate_ids
from training.runtime import Runtime

TEXTS = ("egg", "a cat and a dog", "What is the capital of France?", "house", "Что?", "Tell me a story")
METHODS = {"ppo": (ppo, PPOConfig), "grpo": (grpo, GRPOConfig), "rloo": (rloo, RLOOConfig)}


@pytest.fixture(scope="module")
def prompts_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("prompts") / "prompts.jsonl"
    rows = [{"id": f"p{i}", "prompt": [{"role": "user", "content": t}]} for i, t in enumerate(TEXTS)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def reward_dir(tiny_dir, tmp_path_factory):
    directory = tmp_path_factory.mktemp("reward")
    tokenizer = load_tokenizer(str(tiny_dir))
    model = load_sequence_classifier(str(tiny_dir), new_head=True, seed=5, pad_token_id=0)
    save_model(model, tokenizer, directory)
    return str(directory)


def letters(conversations, responses):
    """The share of the letter e: something that a random policy can learn in seconds."""
    return [response.count("e") / max(1, len(response)) for response in responses]


def make_config(method, tiny_dir, prompts_file, output_dir, **changes):
    settings = {
        "model": str(tiny_dir),
        "prompts": [prompts_file],
        "output_dir": output_dir,
        "rewards": [{"kind": "callable", "name": "letters"}],
        "precision": "float32",
        "steps": 4,
        "batch_size": 8,
        "samples_per_prompt": 1 if method == "ppo" else 4,
        "minibatches": 2,
        "epochs": 2,
        "max_new_tokens": 8,
        "optimizer": {"learning_rate": 3e-3},
    }
    if method == "ppo":
        settings["value"] = {"start_from": "policy", "optimizer": {"learning_rate": 3e-3}}
    return METHODS[method][1](**{**settings, **changes})


def run(config, function=letters, **settings):
    module = next(m for m, c in METHODS.values() if c is type(config))
    return module.train(config, reward_functions={"letters": function}, **settings)


def rows(directory):
    return [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]


def without_times(directory):
    return [{k: v for k, v in row.items() if k not in learner.TIMINGS} for row in rows(directory)]


def build_experience(config, tiny_dir, *, value=True):
    """A small batch of experience, and a policy that has since moved away from the one that sampled it."""
    tokenizer = load_tokenizer(str(tiny_dir))
    runtime = Runtime(config)
    model = load_causal_lm(str(tiny_dir))
    policy = Trained(
        PolicyModule(model, temperature=config.temperature), config.optimizer, runtime, tokens=16384
    )
    reference = PolicyModule(load_causal_lm(str(tiny_dir), trainable=False), temperature=config.temperature)
    critic = None
    if value:
        classifier = load_sequence_classifier(str(tiny_dir), new_head=True, pad_token_id=0)
        critic = Trained(ValueModule(classifier), config.optimizer, runtime, tokens=16384)
    prompts = [p for p in read_prompts(config.prompts)[:3] for _ in range(2)]
    ids = [tuple(encode_prompt(tokenizer, prompt.prompt)) for prompt in prompts]
    sampling = Sampling(max_new_tokens=9, temperature=config.temperature)
    completions = generate_ids(model, tokenizer, ids, sampling=sampling, seed=1)
    scores = letters([], [c.text for c in completions])
    rollouts = [
        Rollout(prompt=prompts[i], prompt_ids=ids[i], group=i // 2, completion=c, reward=scores[i], parts={})
        for i, c in enumerate(completions)
    ]
    with torch.no_grad():
        for parameter in reference.parameters():
            parameter.mul_(1.02)
    experience, _ = measure(rollouts, policy, reference, critic, runtime, config)
    with torch.no_grad():
        torch.manual_seed(3)
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.01)
    return experience, policy, critic


def alone(model, rollout, temperature=1.0):
    """Log-probabilities of a response's tokens from a pass of its own."""
    ids = torch.tensor([[*rollout.prompt_ids, *rollout.completion.token_ids]])
    start = len(rollout.prompt_ids)
    logits = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0, start - 1 : -1] / temperature
    return logits.log_softmax(-1).gather(1, ids[0, start:, None]).squeeze(1)


def plain_loss(method, config, experience, model, beta):
    """Each method's loss written down token by token."""
    total = torch.zeros(())
    tokens = sum(len(r.completion.token_ids) for r in experience.rollouts)
    for i, rollout in enumerate(experience.rollouts):
        n = len(rollout.completion.token_ids)
        new, old = alone(model, rollout, config.temperature), experience.logprobs_RT[i, :n]
        reference, advantages = experience.reference_RT[i, :n], experience.advantages_RT[i, :n]
        if method == "rloo":
            ratio = (new - old).sum().exp()
            bounded = ratio.clamp(1 - config.clip, 1 + config.clip)
            total = total - torch.minimum(ratio * advantages[0], bounded * advantages[0]) / len(
                experience.rollouts
            )
            continue
        for t in range(n):
            ratio = (new[t] - old[t]).exp()
            bounded = ratio.clamp(1 - config.clip, 1 + config.clip)
            loss = -torch.minimum(ratio * advantages[t], bounded * advantages[t])
            if method == "ppo":
                total = total + loss / tokens
            else:
                gap = reference[t] - new[t]
                loss = loss + beta * (gap.exp() - gap - 1)
                total = total + loss / (n * len(experience.rollouts))
    return total


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("method", METHODS)
def test_loss_and_gradient_equal_a_plain_reference(method, temperature, tiny_dir, prompts_file, tmp_path):
    config = make_config(method, tiny_dir, prompts_file, tmp_path, temperature=temperature, clip=0.05)
    algorithm = {"ppo": ppo.PPO, "grpo": grpo.GRPO, "rloo": rloo.RLOO}[method](config)
    experience, policy, _ = build_experience(config, tiny_dir)
    algorithm.advantages(experience, 0.3)
    model = policy.bare.model
    expected = plain_loss(method, config, experience, model, 0.3)
    expected.backward()
    gradients = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    # In two parts, as micro-batches would have it: they add up.
    minibatch = Minibatch(experience, range(len(experience.rollouts)), 0.3)
    items = rows_of(experience.rollouts)
    total = 0.0
    for part in (items[:2] + items[5:], items[2:5]):
        packed, order = pack_rows(part, policy.layout, "cpu")
        logprobs, _ = policy.bare(packed, packed.predictors_N, packed.targets_N)
        loss, stats = algorithm.policy_loss(minibatch, order, logprobs)
        loss.backward()
        total += loss.item()
        assert 0 <= float(stats["clip_fraction"]) <= 1
    assert total == pytest.approx(float(expected.detach()), abs=1e-5)
    for gradient, parameter in zip(gradients, model.parameters(), strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-4, atol=1e-5)


def test_measured_values_and_entropies_equal_separate_passes(tiny_dir, prompts_file, tmp_path):
    config = make_config("ppo", tiny_dir, prompts_file, tmp_path)
    experience, _, critic = build_experience(config, tiny_dir)
    original = load_causal_lm(str(tiny_dir), trainable=False)
    for i, rollout in enumerate(experience.rollouts):
        n = len(rollout.completion.token_ids)
        assert not experience.logprobs_RT[i, n:].any() and not experience.values_RT[i, n:].any()
        torch.testing.assert_close(
            experience.logprobs_RT[i, :n], alone(original, rollout), atol=1e-5, rtol=1e-5
        )
        ids = torch.tensor([[*rollout.prompt_ids, *rollout.completion.token_ids]])
        with torch.no_grad():
            hidden = backbone(critic.bare.model)(input_ids=ids).last_hidden_state[0]
            values = critic.bare.model.score(hidden)[len(rollout.prompt_ids) - 1 : -1, 0]
        torch.testing.assert_close(experience.values_RT[i, :n], values, atol=1e-5, rtol=1e-4)


def test_no_gradient_on_prompt_and_end(tiny_dir, prompts_file, tmp_path):
    """Only the states that choose a response's tokens are pushed; the prompt's others and the last are not."""
    config = make_config("ppo", tiny_dir, prompts_file, tmp_path)
    experience, policy, _ = build_experience(config, tiny_dir)
    algorithm = ppo.PPO(config)
    algorithm.advantages(experience, 0.1)
    kept = []

    def keep(module, inputs, output):
        output.last_hidden_state.retain_grad()
        kept.append(output.last_hidden_state)

    backbone(policy.bare.model).register_forward_hook(keep)
    items = rows_of(experience.rollouts)
    packed, order = pack_rows(items, policy.layout, "cpu")
    logprobs, _ = policy.bare(packed, packed.predictors_N, packed.targets_N)
    algorithm.policy_loss(Minibatch(experience, range(len(items)), 0.1), order, logprobs)[0].backward()
    touched = kept[0].grad.flatten(0, 1).abs().sum(-1).nonzero().squeeze(-1).tolist()
    assert set(touched) <= set(packed.predictors_N.tolist())
    assert len(touched) > len(items)


@pytest.mark.parametrize("method", METHODS)
def test_resume_is_bit_for_bit(method, tiny_dir, prompts_file, tmp_path):
    common = {"kl": {"kind": "adaptive", "beta": 0.1, "target": 0.5, "horizon": 100}, "minibatches": 1}
    run(make_config(method, tiny_dir, prompts_file, tmp_path / "whole", **common))
    config = make_config(method, tiny_dir, prompts_file, tmp_path / "broken", **common)
    calls = []

    def interrupting(conversations, responses):
        calls.append(1)
        if len(calls) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return letters(conversations, responses)

    with pytest.raises(Interrupted) as stop:
        run(config, interrupting)
    assert stop.value.exit_code == 143 and stop.value.step == 2
    with pytest.raises(TrainingError, match="pass --resume"):
        run(config)
    # Past its checkpoint an aborted run may have logged more.
    for name in ("metrics.jsonl", "samples.jsonl"):
        with (tmp_path / "broken" / name).open("a") as file:
            file.write('{"step": 3, "reward": 1}\n{"step": 4, "rew')
    run(config, resume=True)
    assert without_times(tmp_path / "broken") == without_times(tmp_path / "whole")
    samples = [(tmp_path / name / "samples.jsonl").read_text() for name in ("broken", "whole")]
    assert samples[0] == samples[1] and len(samples[0].splitlines()) == 4 * 8
    weights = [load_causal_lm(str(tmp_path / name)).state_dict() for name in ("broken", "whole")]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert run(config, resume=True).metrics["reward"] == rows(tmp_path / "whole")[-1]["reward"]


def test_a_resumed_run_refuses_another_config(tiny_dir, prompts_file, tmp_path):
    config = make_config("ppo", tiny_dir, prompts_file, tmp_path, steps=1)
    run(config)
    with pytest.raises(TrainingError, match="cannot resume: clip was"):
        run(make_config("ppo", tiny_dir, prompts_file, tmp_path, steps=1, clip=0.3), resume=True)
    with pytest.raises(TrainingError, match="already holds a trained model"):
        run(config)


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_a_random_policy_learns_what_the_reward_likes(method, tiny_dir, prompts_file, tmp_path):
    optimizer = {"learning_rate": 1e-2, "warmup": 0}
    changes = {"steps": 16, "batch_size": 48, "minibatches": 4, "optimizer": optimizer}
    if method == "ppo":
        changes["value"] = {"start_from": "policy", "optimizer": {"learning_rate": 1e-2}}
    run(make_config(method, tiny_dir, prompts_file, tmp_path, kl={"beta": 0.01}, **changes))
    rewards = [row["reward"] for row in rows(tmp_path)]
    assert sum(rewards[-3:]) > 1.7 * sum(rewards[:3])


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_a_higher_beta_keeps_the_policy_nearer(method, tiny_dir, prompts_file, tmp_path):
    final = {}
    for beta in (0.0, 2.0):
        config = make_config(
            method, tiny_dir, prompts_file, tmp_path / str(beta), kl={"beta": beta}, steps=12, batch_size=64
        )
        final[beta] = run(config).metrics["kl"]
    assert final[2.0] < 0.7 * final[0.0]


def test_value_model_from_the_reward_model(tiny_dir, reward_dir, prompts_file, tmp_path):
    config = make_config(
        "ppo",
        tiny_dir,
        prompts_file,
        tmp_path,
        rewards=[],
        reward_model=reward_dir,
        value={"start_from": "reward_model"},
        steps=2,
        whiten_rewards=True,
        reward_clip=0.5,
        missing_eos_penalty=1.0,
        precision="bf16",
    )
    result = run(config)
    assert result.metrics["value"] != 0 and -10 < result.metrics["explained_variance"] <= 1
    assert result.metrics["return"] < 0, "unfinished responses are penalised"


def test_missing_rewards_are_dropped_and_counted(tiny_dir, prompts_file, tmp_path):
    def some(conversations, responses):
        return [None if i % 4 == 0 else 1.0 for i in range(len(responses))]

    config = make_config("grpo", tiny_dir, prompts_file, tmp_path, steps=1)
    assert run(config, some).metrics["missing_rewards"] == 2
    samples = (tmp_path / "samples.jsonl").read_text().splitlines()
    assert len(samples) == 6 and all(json.loads(line)["reward"] == 1.0 for line in samples)
    config = make_config("grpo", tiny_dir, prompts_file, tmp_path / "none", steps=1)
    with pytest.raises(
        TrainingError, match="step 1: none of 8 responses has a reward: 8 could not be scored"
    ):
        run(config, lambda conversations, responses: [None] * len(responses))


def test_prompts_that_fill_the_context_are_dropped(tiny_dir, tmp_path):
    path = tmp_path / "prompts.jsonl"
    long = {"id": "long", "prompt": [{"role": "user", "content": "cat " * 1000}]}
    short = {"id": "short", "prompt": [{"role": "user", "content": "cat"}]}
    path.write_text(json.dumps(long) + "\n" + json.dumps(short) + "\n")
    config = make_config("ppo", tiny_dir, path, tmp_path / "run", steps=1)
    assert run(config).metrics["prompts_too_long"] == 4


def test_not_a_number_stops_with_the_batch(tiny_dir, prompts_file, tmp_path, monkeypatch):
    monkeypatch.setattr(
        ppo, "clipped_policy_loss", lambda logprobs, *rest, **named: (logprobs * float("nan"), logprobs * 0)
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
        patch.setattr("training.rl_loop.save_model", killed)
        with pytest.raises(Killed):
            run(config)
    done = rows(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr("training.learner.Learner._one_step", killed)
        result = run(config, resume=True)
    assert rows(tmp_path) == done and result.metrics["reward"] == done[-1]["reward"]
    assert (tmp_path / "model.safetensors").exists() and not (tmp_path / "checkpoints").exists()


def test_the_progress_line_of_a_step(tiny_dir, prompts_file, tmp_path, monkeypatch):
    shown = []
    monkeypatch.setattr(learner.Progress, "update", lambda self, step, **values: shown.append((step, values)))
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
            "brake.gold is a part of rewards",
        ),
        (
            GRPOConfig,
            {"rewards": [judge | {"weight": 0.5}], "brake": gold | {"gold": judge | {"name": "gold"}}},
            "brake.gold is a part of rewards",
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
