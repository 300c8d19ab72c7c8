"""Checkpoints: whole or absent, exact, the last n kept; metrics that fit them."""

from __future__ import annotations

import random

import pytest
import torch

from training.errors import TrainingError
from training.run.checkpoint import Checkpoints, load_tree, rng_state, save_tree, set_rng_state
from training.run.logs import MetricsLog, read_metrics


def test_a_tree_comes_back_as_it_was(tmp_path):
    weight = torch.randn(3, 4)
    tree = {
        "tied": [weight, weight],
        "transposed": weight.T,
        "bf16": weight.bfloat16(),
        "step": torch.tensor(3.0),
        "empty": torch.zeros(0),
        1: {"lr": 1e-3, "betas": (0.9, 0.95), "none": None, "text": "ä", "flag": True},
    }
    save_tree(tmp_path, "state", tree)
    found = load_tree(tmp_path, "state")
    assert found[1] == {"lr": 1e-3, "betas": [0.9, 0.95], "none": None, "text": "ä", "flag": True}
    for name in ("transposed", "bf16", "step", "empty"):
        assert torch.equal(found[name], tree[name])
    assert torch.equal(found["tied"][1], weight)
    with pytest.raises(TypeError, match="cannot hold a set"):
        save_tree(tmp_path, "bad", {"a": {1}})


def test_the_last_n_are_kept_and_an_unfinished_one_is_not_seen(tmp_path, monkeypatch):
    checkpoints = Checkpoints(tmp_path, keep=2)
    for step in (5, 10, 15):
        checkpoints.save(step, {"state": {"step": step}})
    assert checkpoints.steps() == [10, 15]

    def killed(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("common.files.os.replace", killed)
        with pytest.raises(KeyboardInterrupt):
            checkpoints.save(20, {"state": {"step": 20}})
    assert checkpoints.latest() == 15
    assert checkpoints.load(15) == {"state": {"step": 15}}
    checkpoints.save(20, {"state": {"step": 20}})
    assert checkpoints.steps() == [15, 20]


def test_a_damaged_checkpoint_is_one_line(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    directory = checkpoints.save(1, {"state": {"w": torch.ones(3)}})
    (directory / "state.safetensors").write_bytes(b"\x00")
    with pytest.raises(TrainingError, match="state cannot be read") as caught:
        checkpoints.load(1)
    assert "\n" not in str(caught.value)
    with pytest.raises(TrainingError, match=r"contents\.json cannot be read"):
        checkpoints.load(2)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda d: (d / "guard.json").unlink(), r"has no guard\.json"),
        (lambda d: (d / "guard.safetensors").unlink(), r"has no guard\.safetensors"),
        (lambda d: [path.unlink() for path in d.glob("guard.*")], r"has no guard\.json"),
        (lambda d: (d / "contents.json").unlink(), r"contents\.json cannot be read"),
        (lambda d: (d / "contents.json").write_text('["gua'), r"contents\.json cannot be read"),
        (lambda d: (d / "model.json").write_text('{"items": [["w", {"ten'), "model cannot be read"),
        (
            lambda d: (d / "model.json").write_text('{"items": [["w", {"tensor": "7"}]]}'),
            "model cannot be read",
        ),
        (lambda d: (d / "model.safetensors").write_bytes(b"\x00"), "is not a whole safetensors file"),
    ],
)
def test_a_check_finds_whatever_a_resume_would_stumble_over(damage, message, tmp_path):
    checkpoints = Checkpoints(tmp_path)
    directory = checkpoints.save(1, {"model": {"w": torch.ones(3)}, "guard": {"first": 1.0}})
    checkpoints.check(1)
    damage(directory)
    with pytest.raises(TrainingError, match=message) as caught:
        checkpoints.check(1)
    assert "\n" not in str(caught.value)


def test_random_states_go_on_where_they_were(tmp_path):
    save_tree(tmp_path, "rng", rng_state())
    expected = random.random(), torch.rand(3)
    set_rng_state(load_tree(tmp_path, "rng"))
    assert random.random() == expected[0]
    assert torch.equal(torch.rand(3), expected[1])


def test_metrics_drop_what_came_after_the_checkpoint(tmp_path):
    log = MetricsLog(tmp_path)
    for step in range(1, 5):
        log.write({"step": step, "loss": float("nan") if step == 2 else step / 2})
    log.close()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 5, "lo')
    log = MetricsLog(tmp_path, resume_at=3)
    log.write({"step": 4, "loss": 9.0})
    log.close()
    rows = read_metrics(tmp_path / "metrics.jsonl")
    assert [(row["step"], row["loss"]) for row in rows] == [(1, 0.5), (2, None), (3, 1.5), (4, 9.0)]


def test_tensorboard_events_are_written(tmp_path, require):
    try:
        import tensorboard  # noqa: F401
    except ImportError:
        require("tensorboard", False, "pip install tensorboard")
    log = MetricsLog(tmp_path, tensorboard=True)
    log.write({"step": 1, "loss": 0.5})
    log.close()
    assert list((tmp_path / "events").iterdir())
