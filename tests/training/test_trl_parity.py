"""Our losses and gradients beside TRL's own trainers, on the same batch and the same weights, in float32.

TRL's losses run as they are: its trainers are built on the tiny model and asked for the loss of a batch made by
hand. What TRL lacks (soft labels, PPO) has its reference in the other tests.
"""

from __future__ import annotations

import copy
import random

import pytest
import torch

from common.rows import Example, Prompt
from engines.protocol import Completion
from training.config.rl import GRPOConfig, RLOOConfig
from training.data.pairs import encode_pairs
from training.dpo.train import DpoConfig, DpoObjective, make_items, with_reference
from training.models.attention import choose_layout
from training.models.load import load_causal_lm, load_sequence_classifier, load_tokenizer
from training.models.policy import PolicyModule
from training.reward_model import RewardObjective
from training.rl.algorithms import Minibatch, algorithm_of
from training.rl.experience import Rollout, measure, pack_rows, rows_of
from training.rl.models import Models, TrainedModule
from training.run.runtime import Runtime
from training.sft import SftConfig, SftObjective, encode

pytestmark = pytest.mark.slow

ANSWERS = (
    "Take the egg and boil it.",
    "Paris is the capital.",
    "You are welcome.",
    "No",
    "I cannot help with that.",
    "Go and ask a dog in a red house.",
)


@pytest.fixture(scope="module")
def trl():
    return pytest.importorskip("trl", minversion="1.16")


@pytest.fixture(scope="module")
def pairs(tiny_dir):
    from common.rows import Preference

    draw = random.Random(0)
    found = []
    for number in range(4):
        chosen, rejected = draw.sample(ANSWERS, 2)
        prompt = [{"role": "user", "content": f"Question {number}: tell me a short story"}]
        found.append(Preference(id=str(number), prompt=prompt, chosen=chosen, rejected=rejected, p=1.0))
    return encode_pairs(load_tokenizer(str(tiny_dir)), found, 512)


def moved(directory, seed):
    """The tiny policy, some way from where it started."""
    model = load_causal_lm(str(directory))
    push(model, seed)
    return model


def push(model, seed, by=0.02):
    """Move all weights by normal noise of this size."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * by)


def arguments(output_dir, **more):
    return {
        "output_dir": str(output_dir),
        "use_cpu": True,
        "bf16": False,
        "gradient_checkpointing": False,
        "report_to": [],
        **more,
    }


def padded(sequences, masks):
    """Right-padded ids, attention mask and completion mask of sequences and their completions' masks."""
    pad = torch.nn.utils.rnn.pad_sequence
    ids = pad([torch.tensor(s) for s in sequences], batch_first=True)
    attention = pad([torch.ones(len(s), dtype=torch.long) for s in sequences], batch_first=True)
    completion = pad([torch.tensor(m) for m in masks], batch_first=True)
    return {"input_ids": ids, "attention_mask": attention, "completion_mask": completion}


def rows_of_answers(trees, branches):
    """One row per (tree, branch): the tree's prefix and that answer."""
    sequences = [[*tree.prefix, *branch] for tree, branch in zip(trees, branches, strict=True)]
    masks = [[0] * len(t.prefix) + [1] * len(b) for t, b in zip(trees, branches, strict=True)]
    return padded(sequences, masks)


def pair_rows(pairs):
    """Chosen answers first, then rejected ones."""
    trees = [pair.tree for pair in pairs]
    return rows_of_answers(trees * 2, [t.branches[0] for t in trees] + [t.branches[1] for t in trees])


def same(ours, theirs, model, peer):
    """Values to 1e-5; gradients relative to the largest one."""
    assert float(ours) == pytest.approx(float(theirs), abs=1e-5, rel=1e-5)
    ours.backward()
    theirs.backward()
    expected = {name.removeprefix("module."): p.grad for name, p in peer.named_parameters()}
    scale = max(float(g.abs().max()) for g in expected.values() if g is not None)
    assert scale > 1e-4
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad / scale, expected[name] / scale, rtol=1e-4, atol=2e-5)


def dataset(rows):
    import datasets

    return datasets.Dataset.from_list(rows)


TRIVIAL_PAIR = [{"prompt": "a", "chosen": "b", "rejected": "c"}]


def test_sft(trl, tiny_dir, tmp_path):
    tokenizer = load_tokenizer(str(tiny_dir))
    peer, model = moved(tiny_dir, 1), moved(tiny_dir, 1)
    trainer = trl.SFTTrainer(
        model=peer,
        args=trl.SFTConfig(**arguments(tmp_path)),
        train_dataset=dataset([{"prompt": "a", "completion": "b"}]),
        processing_class=tokenizer,
    )
    examples = [
        Example(
            id=str(i),
            messages=[{"role": "user", "content": f"Question {i}"}, {"role": "assistant", "content": text}],
        )
        for i, text in enumerate(ANSWERS)
    ]
    config = SftConfig(model=str(tiny_dir), data=["-"], output_dir=tmp_path)
    items = encode(tokenizer, examples, config)
    batch = padded([i.tree.prefix for i in items], [[int(w > 0) for w in i.weights] for i in items])
    labels = batch["input_ids"].masked_fill(batch.pop("completion_mask") == 0, -100)
    theirs = trainer.compute_loss(peer, {**batch, "labels": labels})
    ours = SftObjective(model)(items)[0] / sum(item.weight for item in items)
    same(ours, theirs, model, peer)


@pytest.mark.parametrize("centring", [0.0, 0.01])
def test_reward(trl, tiny_dir, tmp_path, pairs, centring):
    tokenizer = load_tokenizer(str(tiny_dir))
    peer = load_sequence_classifier(str(tiny_dir), pad_token_id=0, new_head=True, seed=3)
    model = copy.deepcopy(peer)
    trainer = trl.RewardTrainer(
        model=peer,
        args=trl.RewardConfig(**arguments(tmp_path, center_rewards_coefficient=centring or None)),
        train_dataset=dataset(TRIVIAL_PAIR),
        processing_class=tokenizer,
    )
    batch = pair_rows(pairs)
    del batch["completion_mask"]
    theirs = trainer.compute_loss(peer, batch)
    ours = RewardObjective(model, centring=centring)(pairs)[0] / len(pairs)
    same(ours, theirs, model, peer)


def our_preference_loss(tiny_dir, output_dir, pairs, *, baseline_from=None, **changes):
    """Our loss per pair with the untouched tiny model as its reference, and the policy."""
    config = DpoConfig(model=str(tiny_dir), data=["-"], output_dir=output_dir, precision="float32", **changes)
    model = moved(tiny_dir, 2)
    reference = load_causal_lm(str(tiny_dir), trainable=False)
    items = make_items(pairs, mismatched=config.loss == "kto")
    layout = choose_layout(reference)
    items = with_reference(reference, items, Runtime(config), layout=layout, tokens=4096)
    objective = DpoObjective(model, config, choose_layout(model))
    if config.loss == "kto":
        with torch.no_grad():
            objective.baseline = max(0.0, float(objective(items, mismatched=True)[0]) / len(items))
    return objective(items)[0] / len(items), model, items


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ({"loss_type": "sigmoid", "beta": 0.1}, {"loss": "dpo"}),
        ({"loss_type": "sigmoid", "beta": 0.5}, {"loss": "dpo", "beta": 0.5}),
        ({"loss_type": "ipo", "beta": 0.1}, {"loss": "ipo"}),
        ({"loss_type": "robust", "beta": 0.1, "label_smoothing": 0.2}, {"loss": "robust", "flip_rate": 0.2}),
        # Without a peer's name: exponentiated labels of conservative DPO are p = 1 - epsilon of every pair.
        ({"loss_type": "aot", "beta": 0.1, "label_smoothing": 0.3}, {"loss": "dpo", "p": 0.7}),
    ],
    ids=lambda value: "-".join(map(str, value.values())),
)
def test_dpo(trl, tiny_dir, tmp_path, pairs, theirs, ours):
    p = ours.get("p", 1.0)
    settings = {name: value for name, value in ours.items() if name != "p"}
    # TRL's aot sorts log-ratios over the batch, which does nothing to a single pair: there it is conservative DPO.
    chosen = pairs[:1] if theirs["loss_type"] == "aot" else pairs
    chosen = [type(pair)(id=pair.id, tree=pair.tree, p=p) for pair in chosen]
    peer = moved(tiny_dir, 2)
    trainer = trl.DPOTrainer(
        model=peer,
        ref_model=load_causal_lm(str(tiny_dir)),
        args=trl.DPOConfig(**arguments(tmp_path, **theirs)),
        train_dataset=dataset(TRIVIAL_PAIR),
        processing_class=load_tokenizer(str(tiny_dir)),
    )
    loss = trainer.compute_loss(peer, pair_rows(chosen))
    mine, model, _ = our_preference_loss(tiny_dir, tmp_path, chosen, **settings)
    same(mine, loss, model, peer)


def test_kto(trl, tiny_dir, tmp_path, pairs):
    peer = moved(tiny_dir, 2)
    trainer = trl.KTOTrainer(
        model=peer,
        ref_model=load_causal_lm(str(tiny_dir)),
        args=trl.KTOConfig(
            **arguments(
                tmp_path,
                beta=0.1,
                desirable_weight=1.5,
                undesirable_weight=0.5,
                per_device_train_batch_size=2,
            )
        ),
        train_dataset=dataset(
            [{"prompt": f"a{i}", "completion": f"b{i}", "label": bool(i % 2)} for i in range(4)]
        ),
        processing_class=load_tokenizer(str(tiny_dir)),
    )
    mine, model, items = our_preference_loss(
        tiny_dir, tmp_path, pairs, loss="kto", desirable_weight=1.5, undesirable_weight=0.5
    )
    mismatched = rows_of_answers([i.tree for i in items], [i.mismatched for i in items])
    batch = pair_rows(pairs) | {f"KL_{name}": value for name, value in mismatched.items()}
    batch["label"] = torch.tensor([True] * len(pairs) + [False] * len(pairs))
    same(mine, trainer.compute_loss(peer, batch), model, peer)


def unshared(pair):
    """A pair as TRL's experimental trainers take it; their loss is on the answer alone."""
    batch = {}
    for name, answer in zip(("chosen", "rejected"), pair.tree.branches, strict=True):
        rows = rows_of_answers([pair.tree], [answer])
        batch[f"{name}_input_ids"] = rows["input_ids"]
        batch[f"{name}_attention_mask"] = rows["attention_mask"]
        batch[f"{name}_labels"] = rows["input_ids"].masked_fill(rows["completion_mask"] == 0, -100)
    return batch


def test_simpo(trl, tiny_dir, tmp_path, pairs):
    cpo = pytest.importorskip("trl.experimental.cpo")
    peer = moved(tiny_dir, 2)
    trainer = cpo.CPOTrainer(
        model=peer,
        args=cpo.CPOConfig(
            **arguments(tmp_path, loss_type="simpo", cpo_alpha=0.0, beta=2.0, simpo_gamma=1.0)
        ),
        train_dataset=dataset(TRIVIAL_PAIR),
        processing_class=load_tokenizer(str(tiny_dir)),
    )
    theirs = torch.stack([trainer.get_batch_loss_metrics(peer, unshared(pair))[0] for pair in pairs]).mean()
    mine, model, _ = our_preference_loss(tiny_dir, tmp_path, pairs, loss="simpo", margin=1.0)
    same(mine, theirs, model, peer)


def test_orpo(trl, tiny_dir, tmp_path, pairs):
    """Pair by pair, so that TRL's likelihood term, a mean over a batch's tokens, is the mean over one answer's."""
    orpo = pytest.importorskip("trl.experimental.orpo")
    peer = moved(tiny_dir, 2)
    trainer = orpo.ORPOTrainer(
        model=peer,
        args=orpo.ORPOConfig(**arguments(tmp_path, beta=0.1)),
        train_dataset=dataset(TRIVIAL_PAIR),
        processing_class=load_tokenizer(str(tiny_dir)),
    )

    def their_loss(pair):
        chosen, rejected, _, _, _ = trainer.concatenated_forward(peer, unshared(pair))[:5]
        odds_ratio = trainer.odds_ratio_loss(chosen, rejected)[0]
        # TRL's likelihood term covers the prompt too; the paper's, equation 6, is the answer's.
        return (-chosen - odds_ratio).mean()

    theirs = torch.stack([their_loss(pair) for pair in pairs]).mean()
    mine, model, _ = our_preference_loss(tiny_dir, tmp_path, pairs, loss="orpo")
    same(mine, theirs, model, peer)


REWARDS = (0.5, -1.0, 2.0, 0.1, 0.4, 0.0, 0.7, -0.3)


def policies(trainer_class, config, tiny_dir):
    """A TRL trainer whose `generate` gives the answers below, with rewards that are ours to choose."""
    tokenizer = load_tokenizer(str(tiny_dir))
    peer = moved(tiny_dir, 4)
    texts = ["Question 1", "What is the capital of France?"]
    prompts = [[{"role": "user", "content": text}] for text in texts for _ in range(4)]
    trainer = trainer_class(
        model=peer,
        reward_funcs=lambda completions, **_: list(REWARDS[: len(completions)]),
        args=config,
        train_dataset=dataset([{"prompt": prompts[0]}, {"prompt": prompts[4]}]),
        processing_class=tokenizer,
    )
    draw = random.Random(1)
    answers = [[draw.randrange(5, 300) for _ in range(draw.randrange(2, 9))] + [1] for _ in prompts]
    return trainer, peer, tokenizer, prompts, answers


def experience_of(config, algorithm, tiny_dir, tokenizer, prompts, answers, *, by):
    """The same answers and rewards as our loop measures them, and the policy moved on from there."""
    from common.chat import encode_prompt

    runtime = Runtime(config)
    model = moved(tiny_dir, 4)
    policy = TrainedModule(PolicyModule(model, temperature=1.0), config.optimizer, runtime, tokens=16384)
    reference = PolicyModule(load_causal_lm(str(tiny_dir), trainable=False), temperature=1.0)
    rollouts = [
        Rollout(
            prompt=Prompt(id=str(i), prompt=prompt),
            prompt_ids=tuple(encode_prompt(tokenizer, prompt)),
            group=i // 4,
            completion=Completion(
                token_ids=tuple(answer), logprobs=(0.0,) * len(answer), text="", finish_reason="stop"
            ),
            answer="",
            reward=REWARDS[i],
            parts={},
        )
        for i, (prompt, answer) in enumerate(zip(prompts, answers, strict=True))
    ]
    experience, _ = measure(
        rollouts, Models(model=model, policy=policy, reference=reference, value=None), runtime, config
    )
    algorithm.advantages(experience, config.kl.beta)
    push(model, 5, by)
    items = rows_of(rollouts)
    packed, order = pack_rows(items, policy.layout, "cpu")
    logprobs, _ = policy.bare(packed, packed.predictors_N, packed.targets_N)
    minibatch = Minibatch(experience, range(len(items)), config.kl.beta)
    return experience, algorithm.policy_loss(minibatch, order, logprobs)[0], model


@pytest.mark.parametrize("scale", ["group", "batch", "none"])
@pytest.mark.parametrize(
    ("loss_type", "reduction"), [("grpo", "sequence"), ("dapo", "token"), ("dr_grpo", "constant")]
)
def test_grpo(trl, tiny_dir, tmp_path, loss_type, reduction, scale):
    settings = trl.GRPOConfig(
        **arguments(
            tmp_path,
            loss_type=loss_type,
            scale_rewards=scale,
            beta=0.3,
            epsilon=0.1,
            epsilon_high=0.2,
            num_generations=4,
            per_device_train_batch_size=8,
            num_iterations=2,
            max_completion_length=16,
            # TRL's default since 1.16 weighs the KL by the ratio (DeepSeek-V3.2); ours is GRPO's, equation 4.
            use_bias_correction_kl=False,
        )
    )
    trainer, peer, tokenizer, prompts, answers = policies(trl.GRPOTrainer, settings, tiny_dir)
    trainer._generate_single_turn = lambda *_, **__: (answers, None)
    batch = trainer._generate_and_score_completions([{"prompt": prompt} for prompt in prompts])
    push(peer, 5)
    trainer.current_gradient_accumulation_steps = 1
    theirs = trainer.compute_loss(peer, batch)
    config = GRPOConfig(
        model=str(tiny_dir),
        prompts=["-"],
        output_dir=tmp_path,
        rewards=[{"kind": "callable", "name": "x"}],
        precision="float32",
        batch_size=8,
        samples_per_prompt=4,
        kl={"beta": 0.3},
        clip=0.1,
        clip_high=0.2,
        max_new_tokens=16,
        reduction=reduction,
        scale=scale,
    )
    algorithm = algorithm_of(config)
    experience, ours, model = experience_of(config, algorithm, tiny_dir, tokenizer, prompts, answers, by=0.02)
    torch.testing.assert_close(experience.advantages_RT[:, 0], batch["advantages"], rtol=1e-5, atol=1e-5)
    same(ours, theirs, model, peer)


def test_rloo(trl, tiny_dir, tmp_path):
    """Whitened advantages are left out: TRL divides by the sample's standard deviation, ours by the batch's own."""
    settings = trl.RLOOConfig(
        **arguments(
            tmp_path,
            beta=0.3,
            epsilon=0.1,
            epsilon_high=0.2,
            num_generations=4,
            per_device_train_batch_size=8,
            max_completion_length=16,
        )
    )
    trainer, peer, tokenizer, prompts, answers = policies(trl.RLOOTrainer, settings, tiny_dir)
    trainer._generate_single_turn = lambda *_, **__: answers
    batch = trainer._generate_and_score_completions([{"prompt": prompt} for prompt in prompts])
    push(peer, 5, by=0.002)
    theirs = trainer.compute_loss(peer, batch)
    config = RLOOConfig(
        model=str(tiny_dir),
        prompts=["-"],
        output_dir=tmp_path,
        rewards=[{"kind": "callable", "name": "x"}],
        precision="float32",
        batch_size=8,
        samples_per_prompt=4,
        kl={"beta": 0.3},
        clip=0.1,
        clip_high=0.2,
    )
    algorithm = algorithm_of(config)
    experience, ours, model = experience_of(
        config, algorithm, tiny_dir, tokenizer, prompts, answers, by=0.002
    )
    torch.testing.assert_close(experience.advantages_RT[:, 0], batch["advantages"], rtol=1e-5, atol=1e-5)
    same(ours, theirs, model, peer)
