"""Divergence guards: what they count, and who writes what they found."""

import json
from types import SimpleNamespace

import pytest

from training import Diverged
from training.run.stopping import DivergenceGuard, KLGuard, stop_diverged


def test_high_losses_must_come_in_a_row():
    guard = DivergenceGuard(5.0)
    assert [guard.problem(loss, 1.0) for loss in (1.0, 6.0, 6.0, 4.0, 6.0, 6.0)] == [None] * 6
    assert guard.problem(7.0, 1.0) == "the loss, now 7, was over 5 times the first, 1, 3 times"
    assert guard.problem(1.0, float("inf")) == "the gradient's norm is inf"


def test_high_kl_must_come_in_a_row():
    guard = KLGuard(10.0)
    assert [guard.problem(kl) for kl in (11.0, 11.0, 9.0, 11.0, 11.0)] == [None] * 5
    assert guard.problem(12.5) == "the KL per token, now 12.5 nats, was over 10 3 times"
    assert KLGuard(10.0).problem(float("nan")) == "the KL per token is nan"


@pytest.mark.parametrize("is_main", [True, False])
def test_the_main_process_writes_and_the_others_wait(is_main, tmp_path):
    waited = []
    runtime = SimpleNamespace(is_main=is_main, barrier=lambda: waited.append(list(tmp_path.iterdir())))
    with pytest.raises(Diverged, match="step 4: the loss is nan; the batch is in"):
        stop_diverged(runtime, tmp_path, 4, "the loss is nan", [{"id": "a"}])
    assert waited == [[tmp_path / "diverged.json"] if is_main else []]
    if is_main:
        assert json.loads((tmp_path / "diverged.json").read_text())["batch"] == [{"id": "a"}]
