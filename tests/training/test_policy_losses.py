"""Losses against slow plain-Python references."""

import math
import random

import pytest
import torch

from training.rl.objectives import clipped_policy_loss, clipped_value_loss, kl_k1, kl_k3, token_weights


def _numbers(n=200, scale=0.5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(n, generator=generator) * scale).requires_grad_()


@pytest.mark.parametrize("clip_high", [None, 0.4])
def test_clipped_policy_loss(clip_high):
    new, old, advantages = _numbers(seed=1), _numbers(seed=2).detach(), _numbers(seed=3).detach()
    loss, clipped = clipped_policy_loss(new, old, advantages, clip=0.2, clip_high=clip_high)
    high = 1.2 if clip_high is None else 1 + clip_high
    for n, o, a, value, flag in zip(
        *(t.tolist() for t in (new, old, advantages, loss, clipped)), strict=True
    ):
        ratio = math.exp(n - o)
        plain, bounded = ratio * a, min(max(ratio, 0.8), high) * a
        assert value == pytest.approx(-min(plain, bounded), abs=1e-5)
        assert flag == float(bounded < plain - 1e-7)
    loss.sum().backward()
    # Where the clipped branch is the smaller one, it is flat.
    assert not new.grad[clipped.bool()].any() and new.grad[~clipped.bool()].all()


@pytest.mark.parametrize("clip", [None, 0.2])
def test_clipped_value_loss(clip):
    new, old, returns = _numbers(seed=1), _numbers(seed=2).detach(), _numbers(seed=3).detach()
    loss, clipped = clipped_value_loss(new, old, returns, clip=clip)
    for n, o, r, value, flag in zip(*(t.tolist() for t in (new, old, returns, loss, clipped)), strict=True):
        plain = (n - r) ** 2
        near = plain if clip is None else (o + min(max(n - o, -clip), clip) - r) ** 2
        assert value == pytest.approx(0.5 * max(plain, near), abs=1e-5)
        assert flag == float(near > plain + 1e-6)


def test_kl_estimates_agree_with_the_divergence():
    torch.manual_seed(0)
    p, q = torch.randn(6).log_softmax(0), torch.randn(6).log_softmax(0)
    exact = float((p.exp() * (p - q)).sum())
    tokens = torch.multinomial(p.exp(), 400_000, replacement=True)
    for estimate in (kl_k1, kl_k3):
        values = estimate(p[tokens], q[tokens])
        assert float(values.mean()) == pytest.approx(exact, rel=0.02)
    assert kl_k3(p[tokens], q[tokens]).min() >= 0


def test_token_weights_add_up():
    random.seed(0)
    lengths = torch.tensor([3, 1, 8])
    settings = {"total_tokens": 12, "responses": 3, "max_new_tokens": 10}
    for reduction, expected in (("token", 1.0), ("sequence", 1.0), ("constant", 12 / 30)):
        weights = token_weights(lengths, reduction=reduction, **settings).repeat_interleave(lengths)
        assert float(weights.sum()) == pytest.approx(expected)
    # GRPO gives each response the same say, DAPO each token.
    by_response = token_weights(lengths, reduction="sequence", **settings) * lengths
    torch.testing.assert_close(by_response, torch.full((3,), 1 / 3))
