"""Bradley-Terry, Davidson's ties, win rates, length control: against published figures, statsmodels, simulation."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest
import statsmodels.api as sm

from common.statistics import bounded_mean
from flows.evaluation import Match, head_to_head, length_controlled, rate_models
from flows.evaluation.ratings import fit_davidson
from flows.evaluation.win_rates import logistic

TEAMS = ["Milwaukee", "Detroit", "Toronto", "New York", "Boston", "Cleveland", "Baltimore"]
# American League East 1987: row beat column (Agresti, Categorical Data Analysis, 2nd ed., table 10.10).
WINS = [
    [0, 7, 9, 7, 7, 9, 11],
    [6, 0, 7, 5, 11, 9, 9],
    [4, 6, 0, 7, 7, 8, 12],
    [6, 8, 6, 0, 6, 7, 10],
    [6, 2, 6, 7, 0, 7, 12],
    [4, 4, 5, 6, 6, 0, 6],
    [2, 4, 1, 3, 1, 7, 0],
]


def match(prompt, a, b, outcome, words=(10, 10)):
    return Match(prompt=str(prompt), a=a, b=b, outcome=outcome, words_a=words[0], words_b=words[1])


def test_bradley_terry_gives_the_published_strengths_of_baseball_teams():
    pairs = list(combinations(range(7), 2))
    counts = np.array([[WINS[i][j], WINS[j][i], 0] for i, j in pairs], dtype=float)
    strengths, nu = fit_davidson(7, pairs, counts)
    # Agresti 2002 (the data: page 438) and R's BradleyTerry2, relative to Baltimore.
    published = [1.581, 1.436, 1.294, 1.248, 1.108, 0.684, 0.0]
    assert strengths - strengths[-1] == pytest.approx(published, abs=6e-4)
    assert nu == 0.0


def test_ties_are_davidsons_log_linear_model():
    """Davidson's model is a Poisson log-linear one (Fienberg 1979), which statsmodels fits independently."""
    rng = np.random.default_rng(3)
    n, pairs = 5, list(combinations(range(5), 2))
    counts = rng.integers(3, 30, size=(len(pairs), 3)).astype(float)
    rows, outcomes = [], []
    for p, (i, j) in enumerate(pairs):
        for o in range(3):
            row = np.zeros(len(pairs) + n)
            row[p] = 1
            if o == 0:
                row[len(pairs) + i] = 1
            elif o == 1:
                row[len(pairs) + j] = 1
            else:
                row[[len(pairs) + i, len(pairs) + j]] = 0.5
            rows.append([*row[: len(pairs)], *row[len(pairs) + 1 :], float(o == 2)])
            outcomes.append(counts[p, o])
    fitted = sm.GLM(outcomes, np.array(rows), family=sm.families.Poisson()).fit().params
    expected = np.concatenate([[0.0], fitted[len(pairs) : -1]])
    strengths, nu = fit_davidson(n, pairs, counts)
    assert strengths == pytest.approx(expected - expected.mean(), abs=1e-6)
    assert math.log(nu) == pytest.approx(fitted[-1], abs=1e-6)


def simulated(rng, strengths, nu, prompts):
    """A round robin of models with these strengths on so many prompts."""
    names = [f"m{i}" for i in range(len(strengths))]
    matches = []
    for i, j in combinations(range(len(strengths)), 2):
        weights = np.exp([strengths[i], strengths[j], (strengths[i] + strengths[j]) / 2]) * [1, 1, nu]
        drawn = rng.choice([1.0, 0.0, 0.5], size=prompts, p=weights / weights.sum())
        matches += [match(p, names[i], names[j], float(o)) for p, o in enumerate(drawn)]
    return names, matches


@pytest.mark.parametrize("strongest,prompts", [(0.9, 120), (2.0, 60), (2.5, 30)])
def test_ratings_find_the_strengths_and_their_intervals_cover_them(strongest, prompts):
    rng = np.random.default_rng(prompts)
    truth = np.array([strongest, 0.0, -strongest])
    elo = 1000 + 400 / math.log(10) * truth
    covered, ties = np.zeros(3), []
    for _ in range(300):
        names, matches = simulated(rng, truth, 0.6, prompts)
        ratings = rate_models(names, matches)
        found = [ratings.models[m] for m in names]
        covered += [f.low <= e <= f.high for f, e in zip(found, elo, strict=True)]
        ties.append(ratings.tie_probability)
    # 300 data sets: one standard error of a model's coverage is 1.3 points, of the mean of the three below 1.
    assert 0.93 <= covered.mean() / 300 <= 0.97
    assert min(covered) / 300 >= 0.92
    assert np.mean(ties) == pytest.approx(0.6 / 2.6, abs=0.03)


def test_ratings_intervals_see_that_answers_to_one_prompt_are_alike():
    rng = np.random.default_rng(4)
    names, matches = simulated(rng, np.array([0.5, 0.0, -0.5]), 0.6, 100)
    once, thrice = rate_models(names, matches).models, rate_models(names, matches * 3).models
    widths = [[found[m].high - found[m].low for m in names] for found in (once, thrice)]
    assert widths[1] == pytest.approx(widths[0], rel=0.1)


def test_a_model_that_always_wins_has_a_finite_rating_and_unconnected_models_have_none():
    always = [match(p, "a", "b", 1.0) for p in range(30)]
    ratings = rate_models(["a", "b"], always).models
    assert 1000 < ratings["a"].value < 2000 and math.isfinite(ratings["b"].low)
    assert rate_models(["a", "b", "c"], always) is None
    assert rate_models(["a", "b"], [match(0, "a", "b", None)]) is None
    only_ties = rate_models(["a", "b"], [match(p, "a", "b", 0.5) for p in range(9)]).models
    assert only_ties["a"].value == pytest.approx(1000)


def test_logistic_regression_is_statsmodels_with_its_sandwich():
    rng = np.random.default_rng(2)
    design = np.column_stack([np.ones(150), rng.normal(size=150)])
    outcomes = rng.choice([0.0, 0.5, 1.0], size=150)
    fitted = sm.GLM(outcomes, design, family=sm.families.Binomial()).fit(cov_type="HC0")
    beta, covariance = logistic(design, outcomes)
    assert beta == pytest.approx(fitted.params, abs=1e-7)
    assert covariance == pytest.approx(np.asarray(fitted.cov_params()), rel=1e-5)


def test_a_model_that_wins_by_length_alone_has_half_at_equal_length():
    rng = np.random.default_rng(7)
    lengths = [
        (float(a), float(b))
        for a, b in zip(rng.integers(20, 60, 600), rng.integers(10, 40, 600), strict=True)
    ]
    p = [1 / (1 + math.exp(-2.5 * math.log((a + 1) / (b + 1)))) for a, b in lengths]
    outcomes = [float(rng.random() < q) for q in p]
    plain, controlled = bounded_mean(outcomes), length_controlled(outcomes, lengths)
    assert plain.low > 0.65
    assert controlled.low < 0.5 < controlled.high and controlled.slope > 0.5


def test_length_controlled_intervals_cover_and_turn_with_the_models():
    rng = np.random.default_rng(8)
    covered = 0
    for _ in range(200):
        lengths = rng.integers(5, 50, size=(100, 2)).astype(float)
        x = (lengths[:, 0] - lengths[:, 1]) / lengths.sum(axis=1)
        x = x / np.sqrt(np.mean(x**2))
        outcomes = (rng.random(100) < 1 / (1 + np.exp(-(0.6 + 0.8 * x)))).astype(float)
        found = length_controlled(outcomes.tolist(), [(a, b) for a, b in lengths.tolist()])
        covered += found.low <= 1 / (1 + math.exp(-0.6)) <= found.high
    assert 0.90 <= covered / 200 <= 0.99
    turned = length_controlled((1 - outcomes).tolist(), [(b, a) for a, b in lengths.tolist()])
    assert turned.value == pytest.approx(1 - found.value, abs=1e-9)
    assert turned.low == pytest.approx(1 - found.high, abs=1e-9)


def test_length_control_stays_finite_where_length_or_skill_separates_everything():
    by_length = length_controlled([1.0] * 10 + [0.0] * 10, [(30.0, 10.0)] * 10 + [(10.0, 30.0)] * 10)
    assert by_length.value == pytest.approx(0.5, abs=0.01)
    always = length_controlled([1.0] * 10, [(12.0, 12.0)] * 10)
    assert 0.9 < always.value < 1 and always.slope is None
    assert length_controlled([], []).value is None


def test_head_to_head_counts_failures_apart_and_prompts_once():
    matches = [
        match(0, "a", "b", 1.0),
        match(0, "a", "b", 0.0),
        match(1, "a", "b", 0.5),
        match(2, "a", "b", None),
    ]
    found = head_to_head(matches)
    assert (found.wins, found.ties, found.losses, found.undecided) == (1, 1, 1, 1)
    assert found.win_rate.n == 2 and found.win_rate.value == 0.5
    turned = match(0, "a", "b", 1.0, (3, 9)).seen_from("b")
    assert (turned.a, turned.outcome, turned.words_a) == ("b", 0.0, 9)
