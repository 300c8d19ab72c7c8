"""The brake: it sees a fall, not noise; it keeps the peak; looking ahead changes no step."""

import json
import random

import pytest
from safetensors.torch import load_file

from training import TrainingError, ppo
from training.brake import Brake, Evaluation
from training.rl_config import PPOConfig


def evaluation(step, proxy, gold):
    return Evaluation(step=step, proxy=proxy, kl=float(step), gold_by_prompt=dict(enumerate(gold)))


def brake_after(proxies, golds, **settings):
    brake = Brake(**{"patience": 2, "confidence": 0.95, **settings})
    for step, (proxy, gold) in enumerate(zip(proxies, golds, strict=True)):
        brake.add(evaluation(step, proxy, gold))
    return brake


def test_a_fall_under_a_climbing_proxy_stops_and_names_the_peak():
    spread = [0.1 * (n % 5) for n in range(40)]
    golds = [
        [level + s * (1 + 0.1 * step) for s in spread] for step, level in enumerate((0.5, 0.8, 0.6, 0.4))
    ]
    brake = brake_after((0, 1, 2, 3), golds)
    assert brake.stop and brake.best.step == 1
    assert [row["fallen"] for row in brake.rows()] == [False, False, True, True]


def test_patience_wants_falls_in_a_row():
    spread = [0.01 * (n % 5) for n in range(40)]
    golds = [[level + s * (step + 1) for s in spread] for step, level in enumerate((0.8, 0.4, 0.9, 0.5))]
    assert not brake_after((0, 1, 2, 3), golds).stop
    assert brake_after((0, 1, 2, 3), golds, patience=1).stop


@pytest.mark.parametrize(
    ("proxies", "levels"),
    [((0, 1, 2, 3), (0.5, 0.6, 0.7, 0.8)), ((3, 2, 1, 0), (0.8, 0.6, 0.4, 0.2)), ((0, 1, 2, 3), (0.5,) * 4)],
    ids=["both rise", "the proxy falls too", "gold stays"],
)
def test_no_stop_without_over_optimisation(proxies, levels):
    spread = [0.1 * (n % 5) for n in range(40)]
    assert not brake_after(proxies, [[level + s for s in spread] for level in levels], patience=1).stop


def test_noise_alone_hardly_ever_stops_a_run():
    """Ten evaluations of one unchanging policy whose proxy climbs: the peak is luck, and so is the fall from it."""
    stops = 0
    for trial in range(400):
        draw = random.Random(trial)
        golds = [[draw.random() for _ in range(64)] for _ in range(10)]
        brake = Brake(patience=2, confidence=0.95)
        for step, gold in enumerate(golds):
            brake.add(evaluation(step, step, gold))
            if brake.stop:
                stops += 1
                break
    assert stops / 400 <= 0.05


def test_the_state_comes_back():
    brake = brake_after((0, 1), ([0.5] * 9, [0.4] * 9))
    other = Brake(patience=2, confidence=0.95)
    other.restore(json.loads(json.dumps(brake.state())))
    assert [(e.step, e.gold, e.proxy) for e in other.evaluations] == [(0, 0.5, 0.0), (1, 0.4, 1.0)]


def letters(conversations, responses):
    return [response.count("e") / max(1, len(response)) for response in responses]


def moderation(conversations, responses):
    """Gold likes a few of them; the proxy wants them all."""
    return [1 - abs(share - 0.25) for share in letters(conversations, responses)]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    directory = tmp_path_factory.mktemp("brake")
    for name, count in (("train", 8), ("held_out", 24), ("few", 3)):
        rows = [
            {"id": f"{n}", "prompt": [{"role": "user", "content": f"{name} {n} egg"}]} for n in range(count)
        ]
        (directory / f"{name}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    return directory


def config(tiny_dir, files, output_dir, *, brake=True, held_out="held_out", **changes):
    settings = {
        "model": str(tiny_dir),
        "prompts": [files / "train.jsonl"],
        "output_dir": output_dir,
        "rewards": [{"kind": "callable", "name": "letters"}],
        "precision": "float32",
        "steps": 30,
        "batch_size": 16,
        "max_new_tokens": 8,
        "kl": {"beta": 0.0},
        "optimizer": {"learning_rate": 1e-2, "schedule": "constant"},
        "value": {"start_from": "policy", "optimizer": {"learning_rate": 1e-2, "schedule": "constant"}},
    }
    if brake:
        gold = {"kind": "callable", "name": "moderation"}
        settings["brake"] = {"gold": gold, "prompts": [files / f"{held_out}.jsonl"], "every": 2}
    return PPOConfig(**{**settings, **changes})


def train(settings, **options):
    return ppo.train(settings, reward_functions={"letters": letters, "moderation": moderation}, **options)


def test_a_run_that_over_optimises_ends_at_its_peak(tiny_dir, files, tmp_path):
    found = train(config(tiny_dir, files, tmp_path / "braked"))
    rows = [json.loads(line) for line in (tmp_path / "braked/brake.jsonl").read_text().splitlines()]
    kept = int(found.metrics["kept_step"])
    assert rows[-1]["step"] < 30 and rows[-1]["fallen"] and rows[-2]["fallen"]
    assert rows[0]["step"] == 0 and kept == max(rows, key=lambda r: r["gold"])["step"]
    assert rows[-1]["proxy"] > rows[kept // 2]["proxy"]
    assert not (tmp_path / "braked/brake").exists()
    # Looking ahead changes nothing: without a brake, the same number of steps gives the same policy.
    assert kept > 0
    train(config(tiny_dir, files, tmp_path / "plain", brake=False, steps=kept))
    ours, plain = (load_file(tmp_path / name / "model.safetensors") for name in ("braked", "plain"))
    assert ours.keys() == plain.keys() and all(ours[name].equal(plain[name]) for name in ours)
    assert "PPO" in (tmp_path / "braked/README.md").read_text()


def test_a_resumed_run_has_the_same_evaluations(tiny_dir, files, tmp_path, monkeypatch):
    whole, halved = tmp_path / "whole", tmp_path / "halved"
    train(config(tiny_dir, files, whole, steps=6))

    class Stop(Exception):
        pass

    calls = []

    def failing(conversations, responses):
        calls.append(1)
        if len(calls) == 9:
            raise Stop
        return letters(conversations, responses)

    settings = config(tiny_dir, files, halved, steps=6, checkpoint_every=3)
    with pytest.raises(Stop):
        ppo.train(settings, reward_functions={"letters": failing, "moderation": moderation})
    train(settings, resume=True)
    assert (halved / "brake.jsonl").read_text() == (whole / "brake.jsonl").read_text()


def test_too_few_held_out_prompts_are_refused(tiny_dir, files, tmp_path):
    with pytest.raises(TrainingError, match=r"brake\.prompts: 3 prompts are too few"):
        train(config(tiny_dir, files, tmp_path / "x", held_out="few"))
    assert not (tmp_path / "x").exists()
