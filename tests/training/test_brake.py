"""The brake: it sees a fall, not noise; it keeps the peak; looking ahead changes no step."""

import json

import numpy as np
import pytest
from safetensors.torch import load_file

from training import TrainingError, ppo
from training.config.rl import PPOConfig
from training.rl.early_stopping import EarlyStopping, Evaluation, chance_of_fall


def evaluation(step, proxy, gold):
    return Evaluation(step=step, proxy=proxy, kl=float(step), gold_by_prompt=dict(enumerate(gold)))


def brake_after(proxies, golds, **settings):
    brake = EarlyStopping(**{"patience": 2, "confidence": 0.95, "planned": len(proxies), **settings})
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


def stop_of(brake, golds):
    """The step at which these evaluations (rows of answers' gold) stop a run whose proxy climbs, if they do."""
    for step, gold in enumerate(golds):
        brake.add(evaluation(step, step, gold))
        if brake.stop:
            return step
    return None


DRAWS = {
    "uniform": lambda rng, shape: rng.random(shape),
    "yes or no": lambda rng, shape: (rng.random(shape) < 0.5).astype(float),
}


@pytest.mark.parametrize("draw", DRAWS)
@pytest.mark.parametrize("prompts", [8, 64])
@pytest.mark.parametrize(("planned", "runs"), [(10, 200), (50, 60), (100, 60)])
def test_noise_alone_hardly_ever_stops_a_run(planned, runs, prompts, draw):
    """Evaluations of one unchanging policy whose proxy climbs: the peak is luck, and so is the fall from it.

    At 5% more false stops than these come in about one of a thousand tests. A greater patience stops less often.
    """
    rng = np.random.default_rng(planned)
    stops = 0
    for _ in range(runs):
        brake = EarlyStopping(patience=1, confidence=0.95, planned=planned)
        stops += stop_of(brake, DRAWS[draw](rng, (planned, prompts)).tolist()) is not None
    assert stops <= {60: 9, 200: 20}[runs]


@pytest.mark.parametrize("patience", [1, 2])
def test_a_fall_by_15_percent_stops_a_run(patience):
    """As seen in the microworld: gold, whose spread is 0.2, falls from 0.83 to 0.70 in 11 evaluations."""
    rng = np.random.default_rng(0)
    levels = np.concatenate([np.linspace(0.79, 0.83, 4), np.linspace(0.82, 0.70, 11)])
    for _ in range(20):
        brake = EarlyStopping(patience=patience, confidence=0.95, planned=15)
        stop = stop_of(brake, rng.normal(levels[:, None], 0.2, (15, 128)).tolist())
        assert stop is not None and 1 <= brake.best.step <= 6


@pytest.mark.parametrize("values", [8, 16, 64])
@pytest.mark.parametrize("chance", [1e-2, 1e-4, 1e-6])
def test_the_chance_is_that_of_a_t_test(values, chance):
    from scipy import stats

    t = stats.t.isf(chance, values - 1)
    noise = np.random.default_rng(0).normal(size=values)
    noise = (noise - noise.mean()) / noise.std(ddof=1)
    falls = (noise + t / values**0.5).tolist()
    assert chance <= chance_of_fall(falls) <= 1.25 * chance
    assert stats.ttest_1samp(falls, 0, alternative="greater").pvalue == pytest.approx(chance)


def test_answers_that_all_fall_alike_are_so_many_coins():
    assert chance_of_fall([0.3] * 8) == chance_of_fall([0.1 + 0.2, 0.3] * 4) == 0.5**8
    assert chance_of_fall([0.0] * 8) == chance_of_fall([-0.3] * 8) == 1.0


def test_the_state_comes_back():
    brake = brake_after((0, 1), ([0.5] * 9, [0.4] * 9))
    other = EarlyStopping(patience=2, confidence=0.95, planned=2)
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


def config(tiny_dir, files, output_dir, *, brake=True, held_out="held_out", every=2, patience=2, **changes):
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
        prompts = [files / f"{held_out}.jsonl"]
        settings["early_stopping"] = {"gold": gold, "prompts": prompts, "every": every, "patience": patience}
    return PPOConfig(**{**settings, **changes})


def train(settings, **options):
    return ppo.train(settings, reward_functions={"letters": letters, "moderation": moderation}, **options)


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_run_that_over_optimises_ends_at_its_peak(tiny_dir, files, tmp_path):
    found = train(config(tiny_dir, files, tmp_path / "braked")).metrics
    rows = lines(tmp_path / "braked/early_stopping.jsonl")
    kept, last = int(found["kept_step"]), int(found["last_step"])
    assert rows[-1]["step"] == last < 30 and rows[-1]["fallen"] and rows[-2]["fallen"]
    best = max(rows, key=lambda r: r["gold"])
    assert rows[0]["step"] == 0 and kept == best["step"]
    assert rows[-1]["proxy"] > rows[kept // 2]["proxy"]
    assert not (tmp_path / "braked/early_stopping").exists()
    # Looking ahead changes nothing: without a brake, the same number of steps gives the same policy.
    assert kept > 0
    train(config(tiny_dir, files, tmp_path / "plain", brake=False, steps=kept))
    ours, plain = (load_file(tmp_path / name / "model.safetensors") for name in ("braked", "plain"))
    assert ours.keys() == plain.keys() and all(ours[name].equal(plain[name]) for name in ours)
    # What is said of the policy is said of the one that was kept.
    step = lines(tmp_path / "braked/metrics.jsonl")[kept - 1]
    result = json.loads((tmp_path / "braked/result.json").read_text())
    assert found["stopped_early"] == 1.0 and found["held_out_gold"] == best["gold"]
    assert result["metrics"] == found and result["steps"] == kept
    assert all(found[name] == step[name] for name in ("kl", "reward", "length", "held_out_kl"))
    card = (tmp_path / "braked/README.md").read_text()
    assert f"PPO, {kept} optimiser steps" in card and f"| held out gold | {best['gold']:.6g} |" in card
    assert (
        f"Early stopping ended the run after step {last}" in card and f"after step {kept}, the best" in card
    )


@pytest.mark.parametrize(
    "changes",
    [{"steps": 12, "every": 2, "patience": 3}, {"steps": 30, "every": 5, "patience": 3, "max_kl": 34.0}],
    ids=["one evaluation short of the patience", "at a step that is not due"],
)
def test_a_fall_at_the_end_keeps_the_best_too(tiny_dir, files, tmp_path, changes):
    found = train(config(tiny_dir, files, tmp_path / "run", **changes)).metrics
    rows = lines(tmp_path / "run/early_stopping.jsonl")
    assert rows[-1]["fallen"] and rows[-1]["step"] == found["last_step"]
    assert (found["last_step"] % changes["every"] == 0) == ("max_kl" not in changes)
    best = max(rows, key=lambda r: r["gold"])
    assert found["stopped_early"] == 0.0 and found["kept_step"] == best["step"] < found["last_step"]
    assert found["held_out_gold"] == best["gold"]
    assert "The run ended after step" in (tmp_path / "run/README.md").read_text()


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
    assert (halved / "early_stopping.jsonl").read_text() == (whole / "early_stopping.jsonl").read_text()


def test_too_few_held_out_prompts_are_refused(tiny_dir, files, tmp_path):
    with pytest.raises(TrainingError, match=r"early_stopping\.prompts: 3 prompts are too few"):
        train(config(tiny_dir, files, tmp_path / "x", held_out="few"))
    assert not (tmp_path / "x").exists()
