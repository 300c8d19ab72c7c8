"""PPO, GRPO and RLOO as runs: exact losses, exact resume, learning, the leash, and what goes wrong."""

import json
import os
import signal

import pytest
import torch
from harness.rl_runs import METHODS, letters, make_config, rows, run, without_times

from common.chat import encode_prompt
from common.rows import read_prompts
from engines import Sampling
from engines.in_process import generate_ids
from training import Interrupted, TrainingError
from training.models.attention import backbone
from training.models.load import load_causal_lm, load_sequence_classifier, load_tokenizer
from training.models.policy import PolicyModule, ValueModule
from training.rl.algorithms import Minibatch, algorithm_of
from training.rl.experience import Rollout, measure, pack_rows, rows_of
from training.rl.models import Models, TrainedModule
from training.run.runtime import Runtime


def build_experience(config, tiny_dir, *, value=True):
    """A small batch of experience, and a policy that has since moved away from the one that sampled it."""
    tokenizer = load_tokenizer(str(tiny_dir))
    runtime = Runtime(config)
    model = load_causal_lm(str(tiny_dir))
    policy = TrainedModule(
        PolicyModule(model, temperature=config.temperature), config.optimizer, runtime, tokens=16384
    )
    reference = PolicyModule(load_causal_lm(str(tiny_dir), trainable=False), temperature=config.temperature)
    critic = None
    if value:
        classifier = load_sequence_classifier(str(tiny_dir), new_head=True, pad_token_id=0)
        critic = TrainedModule(ValueModule(classifier), config.optimizer, runtime, tokens=16384)
    prompts = [p for p in read_prompts(config.prompts)[:3] for _ in range(2)]
    ids = [tuple(encode_prompt(tokenizer, prompt.prompt)) for prompt in prompts]
    sampling = Sampling(max_new_tokens=9, temperature=config.temperature)
    completions = generate_ids(model, tokenizer, ids, sampling=sampling, seed=1)
    scores = letters([], [c.text for c in completions])
    rollouts = [
        Rollout(
            prompt=prompts[i],
            prompt_ids=ids[i],
            group=i // 2,
            completion=c,
            answer=c.text,
            reward=scores[i],
            parts={},
        )
        for i, c in enumerate(completions)
    ]
    with torch.no_grad():
        for parameter in reference.parameters():
            parameter.mul_(1.02)
    experience, _ = measure(
        rollouts, Models(model=model, policy=policy, reference=reference, value=critic), runtime, config
    )
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
    algorithm = algorithm_of(config)
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
    algorithm = algorithm_of(config)
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


def test_a_reward_sees_the_answer_behind_a_thought(tiny_dir, tmp_path, monkeypatch):
    from dataclasses import replace

    from engines.in_process import InProcessEngine
    from training import rloo
    from training.config.rl import RLOOConfig

    drawn, seen = InProcessEngine.generate, []
    texts = ["<think>\nA long thought.\n</think>\n\nYes.", "<think>\nNever ended", "Plain.", "No."]

    def generate(self, prompts, sampling, **more):
        return [
            replace(c, text=t) for c, t in zip(drawn(self, prompts, sampling, **more), texts, strict=True)
        ]

    def reward(prompts, responses):
        seen.extend(responses)
        return [float(len(r)) for r in responses]

    monkeypatch.setattr(InProcessEngine, "generate", generate)
    (tmp_path / "prompts.jsonl").write_text('{"prompt": "Hi"}\n')
    config = RLOOConfig(
        model=str(tiny_dir),
        prompts=[tmp_path / "prompts.jsonl"],
        output_dir=tmp_path / "out",
        rewards=[{"kind": "callable", "name": "seen"}],
        samples_per_prompt=4,
        batch_size=4,
        max_new_tokens=4,
        steps=1,
        log_samples=4,
    )
    result = rloo.train(config, reward_functions={"seen": reward})
    rows = [json.loads(line) for line in (tmp_path / "out" / "samples.jsonl").read_text().splitlines()]
    assert seen == ["Yes.", "Plain.", "No."] and result.metrics["missing_rewards"] == 1
    assert [(r["response"], "sampled" in r) for r in rows] == [
        ("Yes.", True),
        ("Plain.", False),
        ("No.", False),
    ]
