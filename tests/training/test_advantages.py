"""Advantages and returns against examples worked by hand."""

import math

import pytest
import torch

from training.config.rl_sections import KLConfig
from training.rl.objectives import KLController, gae, group_relative, leave_one_out, token_rewards, whiten

MASK = torch.tensor([[True, True, True], [True, True, False]])


def test_token_rewards_carry_the_score_at_the_last_token():
    kl = torch.tensor([[0.1, -0.2, 0.3], [1.0, 2.0, 99.0]])
    rewards = token_rewards(torch.tensor([5.0, -1.0]), kl, MASK, beta=0.5)
    torch.testing.assert_close(rewards, torch.tensor([[-0.05, 0.1, 4.85], [-0.5, -2.0, 0.0]]))


def test_gae_by_hand():
    # gamma = 0.9, lambda = 0.5, so gamma lambda = 0.45.
    # Row 0: rewards 0, 0, 1; values 0.5, 0.6, 0.7.
    #   delta_2 = 1 - 0.7                = 0.3     A_2 = 0.3
    #   delta_1 = 0 + 0.9 * 0.7 - 0.6    = 0.03    A_1 = 0.03 + 0.45 * 0.3   = 0.165
    #   delta_0 = 0 + 0.9 * 0.6 - 0.5    = 0.04    A_0 = 0.04 + 0.45 * 0.165 = 0.11425
    # Row 1 ends after two tokens: rewards -1, 2; values 1, -1; what lies beyond does not count.
    #   delta_1 = 2 + 1                  = 3       A_1 = 3
    #   delta_0 = -1 + 0.9 * -1 - 1      = -2.9    A_0 = -2.9 + 0.45 * 3     = -1.55
    rewards = torch.tensor([[0.0, 0.0, 1.0], [-1.0, 2.0, 77.0]])
    values = torch.tensor([[0.5, 0.6, 0.7], [1.0, -1.0, 55.0]])
    advantages, returns = gae(rewards, values, MASK, gamma=0.9, lam=0.5)
    torch.testing.assert_close(advantages, torch.tensor([[0.11425, 0.165, 0.3], [-1.55, 3.0, 0.0]]))
    torch.testing.assert_close(returns, torch.tensor([[0.61425, 0.765, 1.0], [-0.55, 2.0, 0.0]]))


def test_gae_with_lambda_one_is_the_return_less_the_value():
    torch.manual_seed(0)
    rewards, values = torch.randn(2, 3), torch.randn(2, 3)
    advantages, returns = gae(rewards, values, MASK, gamma=1.0, lam=1.0)
    expected = (rewards * MASK).flip(1).cumsum(1).flip(1) * MASK
    torch.testing.assert_close(returns, expected)
    torch.testing.assert_close(advantages, (expected - values) * MASK)


def test_whiten():
    values = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 100.0]])
    whitened = whiten(values, MASK)
    chosen = whitened[MASK]
    assert abs(float(chosen.mean())) < 1e-6 and abs(float(chosen.std(unbiased=False)) - 1) < 1e-6
    assert whitened[1, 2] == 0
    kept = whiten(values, MASK, shift_mean=False)
    assert abs(float(kept[MASK].mean()) - 3) < 1e-5
    one = torch.zeros_like(MASK)
    one[0, 1] = True
    assert whiten(values, one)[0, 1] == 0
    assert not whiten(values, torch.zeros_like(MASK)).any()


def test_group_relative_by_hand():
    scores = torch.tensor([1.0, 3.0, 2.0, 6.0, 7.0])
    groups = torch.tensor([4, 4, 9, 9, 5])
    # Group 4: mean 2, deviations -1 and 1, standard deviation sqrt(2). Group 9: mean 4, sqrt(8). 5 is alone.
    a, b = 1 / (math.sqrt(2) + 1e-4), 2 / (math.sqrt(8) + 1e-4)
    torch.testing.assert_close(group_relative(scores, groups), torch.tensor([-a, a, -b, b, 0.0]))
    torch.testing.assert_close(
        group_relative(scores, groups, scale="none"), torch.tensor([-1.0, 1.0, -2.0, 2.0, 0.0])
    )
    std = float(scores.std()) + 1e-4
    torch.testing.assert_close(
        group_relative(scores, groups, scale="batch"), torch.tensor([-1.0, 1.0, -2.0, 2.0, 0.0]) / std
    )


def test_groups_with_equal_rewards_teach_nothing():
    scores = torch.tensor([0.3, 0.3, 0.3])
    groups = torch.zeros(3, dtype=torch.long)
    assert group_relative(scores, groups).abs().max() < 1e-3
    assert leave_one_out(scores, groups).abs().max() < 1e-6


def test_leave_one_out_by_hand():
    scores = torch.tensor([1.0, 2.0, 6.0, 5.0])
    groups = torch.tensor([0, 0, 0, 1])
    torch.testing.assert_close(leave_one_out(scores, groups), torch.tensor([-3.0, -1.5, 4.5, 0.0]))


@pytest.mark.parametrize(
    ("kl", "expected"), [(6.0, 0.1), (60.0, 0.1 * 1.02), (0.0, 0.1 * 0.98), (6.6, 0.1 * 1.01)]
)
def test_adaptive_kl(kl, expected):
    controller = KLController(KLConfig(kind="adaptive", beta=0.1, target=6.0, horizon=1000))
    controller.update(kl, 100)
    assert controller.beta == pytest.approx(expected)
    fixed = KLController(KLConfig(beta=0.1))
    fixed.update(kl, 100)
    assert fixed.beta == 0.1
