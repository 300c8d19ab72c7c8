"""Schedules, the grouping of parameters, and Muon."""

from __future__ import annotations

import pytest
import torch

from training.config.base import OptimizerConfig
from training.errors import TrainingError
from training.run.optim import Muon, build_optimizer, clip_gradients, orthogonalize, schedule


def test_schedules_rise_and_fall():
    cosine = [schedule(step, 100, OptimizerConfig(warmup=0.1, final_ratio=0.1)) for step in range(100)]
    assert cosine[0] == pytest.approx(1 / 11)
    assert max(cosine) == cosine[10] == 1.0
    assert cosine[10:] == sorted(cosine[10:], reverse=True)
    assert 0.1 < cosine[-1] < 0.11
    linear = [
        schedule(step, 10, OptimizerConfig(schedule="linear", warmup=0, final_ratio=0)) for step in range(10)
    ]
    assert linear == pytest.approx([1 - step / 10 for step in range(10)])
    assert schedule(9, 10, OptimizerConfig(schedule="constant")) == 1.0


def test_muon_takes_the_inner_matrices_alone(tiny_model):
    optimizer = build_optimizer(tiny_model, OptimizerConfig(name="muon", weight_decay=0.1))
    inner = {id(p) for group in optimizer.members["muon"].param_groups for p in group["params"]}
    named = {name for name, p in tiny_model.named_parameters() if id(p) in inner}
    assert len(named) == 2 * 7
    assert all(".layers." in name and "norm" not in name for name in named)
    decayed = {
        group["weight_decay"]: len(group["params"]) for group in optimizer.members["adamw"].param_groups
    }
    assert decayed == {0.1: 1, 0.0: 5}
    everything = sum(len(group["params"]) for group in optimizer.param_groups)
    assert everything == len(list(tiny_model.parameters()))


def test_nothing_to_train_is_one_line(tiny_model):
    with pytest.raises(TrainingError, match="no trainable parameters"):
        build_optimizer(tiny_model.requires_grad_(False), OptimizerConfig())


@pytest.mark.parametrize("shape", [(24, 24), (16, 40), (40, 16)])
def test_orthogonalize_brings_singular_values_near_one(shape):
    torch.manual_seed(0)
    found = orthogonalize(torch.randn(3, *shape)).float()
    assert found.shape == (3, *shape)
    values = torch.linalg.svdvals(found)
    # A square random matrix has singular values near zero, which five iterations do not lift all the way.
    assert values.quantile(0.1) > 0.6
    assert values.max() < 1.3


def test_matrices_of_one_shape_are_updated_as_if_alone():
    torch.manual_seed(0)
    together = [torch.nn.Parameter(torch.randn(6, 4)) for _ in range(3)]
    alone = [torch.nn.Parameter(p.detach().clone()) for p in together]
    optimizers = [Muon(together, weight_decay=0.1), *(Muon([p], weight_decay=0.1) for p in alone)]
    for _ in range(3):
        for first, second in zip(together, alone, strict=True):
            first.grad = torch.randn(6, 4)
            second.grad = first.grad.clone()
        for optimizer in optimizers:
            optimizer.step()
    for first, second in zip(together, alone, strict=True):
        torch.testing.assert_close(first, second, rtol=0, atol=1e-3)
    with pytest.raises(ValueError, match="Muon takes matrices"):
        Muon([torch.nn.Parameter(torch.zeros(3))])


def test_clipping_reports_the_norm_before():
    layer = torch.nn.Linear(2, 2, bias=False)
    layer.weight.grad = torch.full((2, 2), 3.0)
    assert clip_gradients(layer, 1.0) == pytest.approx(6.0)
    assert float(layer.weight.grad.norm()) == pytest.approx(1.0, rel=1e-4)
