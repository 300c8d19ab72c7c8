"""Rewards: what composes, what is missing, and what goes wrong in one line."""

import math

import pytest
from pydantic import TypeAdapter

from common.rows import Prompt
from training import TrainingError
from training.config.rewards import RewardTerm
from training.models.load import load_sequence_classifier
from training.rewards import checkers
from training.rewards.compose import Reward, build_reward, check_terms, combine


def _prompts(*metas):
    return [
        Prompt(id=str(i), prompt=[{"role": "user", "content": "?"}], meta=meta)
        for i, meta in enumerate(metas)
    ]


def _terms(*terms):
    return TypeAdapter(tuple[RewardTerm, ...]).validate_python(terms)


def test_a_weighted_sum_and_its_parts():
    terms = _terms(
        {"kind": "length", "unit": "words", "free": 2, "weight": 10},
        {"kind": "regex", "pattern": "(?i)paris", "weight": 2, "name": "paris"},
    )
    scored = build_reward(terms)(_prompts({}, {}), ["it is PARIS", "no"])
    assert scored.parts == {"length": [-0.01, 0.0], "paris": [1.0, 0.0]}
    assert scored.total == pytest.approx([1.9, 0.0])


def test_one_missing_part_makes_the_reward_missing():
    terms = _terms({"kind": "exact"}, {"kind": "length"})
    scored = build_reward(terms)(_prompts({"answer": "4"}, {}), ["4", "4"])
    assert scored.parts["exact"] == [1.0, None]
    assert scored.total == [pytest.approx(0.99), None]


def test_what_is_not_a_finite_number_is_missing():
    terms = _terms({"kind": "callable", "name": "judge"})
    reward = build_reward(
        terms, functions={"judge": lambda conversations, responses: [math.nan, math.inf, None, 1]}
    )
    assert reward(_prompts({}, {}, {}, {}), list("abcd")).total == [None, None, None, 1.0]


def test_parts_of_one_kind_are_numbered():
    terms = _terms({"kind": "regex", "pattern": "a"}, {"kind": "regex", "pattern": "b"})
    assert set(build_reward(terms).parts) == {"regex_1", "regex_2"}


@pytest.mark.parametrize(
    ("response", "answer", "contains", "expected"),
    [
        ("Paris.", "paris", False, 1.0),
        (" the  CAPITAL ", "the capital", False, 1.0),
        ("It is Paris.", "Paris", False, 0.0),
        ("It is Paris.", "Paris", True, 1.0),
        ("It is Parisian.", "Paris", True, 0.0),
        ("", "Paris", True, 0.0),
        ("Москва", "москва", False, 1.0),
        ("4", 4, False, 1.0),
        ("x", None, False, None),
        ("x", ["x"], False, None),
    ],
)
def test_exact(response, answer, contains, expected):
    check = checkers.exact(answer="answer", contains=contains)
    assert check(response, {} if answer is None else {"answer": answer}) == expected


@pytest.mark.parametrize(
    ("response", "answer", "expected"),
    [
        ("3 + 4 = 7", 7, 1.0),
        ("7, or perhaps 8", 7, 0.0),
        ("1,234.50 euros", "1234.5", 1.0),
        ("about 1,234", 1234, 1.0),
        ("−3", -3, 1.0),
        ("1e3", 1000, 1.0),
        ("no idea", 7, 0.0),
        ("7", "seven", None),
        ("7", None, None),
    ],
)
def test_numeric(response, answer, expected):
    check = checkers.numeric(answer="answer", tolerance=1e-6)
    assert check(response, {} if answer is None else {"answer": answer}) == expected


def test_ensembles():
    members = [[1.0, 2.0, None], [3.0, 2.0, 1.0]]
    assert combine(members, how="mean", penalty=0) == [2.0, 2.0, None]
    assert combine(members, how="min", penalty=0) == [1.0, 2.0, None]
    assert combine(members, how="uncertainty", penalty=0.5) == [1.5, 2.0, None]


@pytest.fixture(scope="module")
def reward_dirs(tiny_dir, tmp_path_factory):
    from training.models.load import load_tokenizer, save_model

    directories = []
    for seed in (1, 2):
        directory = tmp_path_factory.mktemp(f"reward{seed}")
        model = load_sequence_classifier(str(tiny_dir), new_head=True, seed=seed, pad_token_id=0)
        model.config.reward_mean, model.config.reward_std = 0.5, 2.0
        save_model(model, load_tokenizer(str(tiny_dir)), directory)
        directories.append(str(directory))
    return directories


def test_reward_models_and_ensembles_of_them(reward_dirs):
    prompts, responses = _prompts({}, {}, {}), ["yes", "", "кот " * 400]
    first, second = (
        build_reward(_terms({"kind": "model", "path": path}))(prompts, responses).total
        for path in reward_dirs
    )
    assert first[2] is None, "an answer that does not fit the reward model's context has no score"
    assert first[0] != second[0]
    both = build_reward(_terms({"kind": "ensemble", "paths": reward_dirs, "combine": "min"}))
    assert both(prompts, responses).total[:2] == [min(first[0], second[0]), min(first[1], second[1])]
    assert both(prompts, responses).total[2] is None


def test_users_functions(tmp_path, monkeypatch):
    (tmp_path / "my_reward.py").write_text(
        "def check(response, meta):\n    return meta['wanted'] in response\n"
        "def batch(conversations, responses):\n    return [len(c) for c in conversations]\n"
        "def breaks(response, meta):\n    raise KeyError('x')\n"
        "def short(conversations, responses):\n    return [1]\n"
        "def words(conversations, responses):\n    return ['a', 'b']\n"
        "value = 3\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    prompts, responses = _prompts({"wanted": "a"}, {"wanted": "b"}), ["a", "a"]

    def total(kind, name):
        terms = _terms({"kind": kind, "function": f"my_reward:{name}"})
        check_terms(terms, {})
        return build_reward(terms)(prompts, responses).total

    assert total("checker", "check") == [1.0, 0.0]
    assert total("function", "batch") == [1.0, 1.0]
    for kind, name, message in (
        ("checker", "breaks", "reward my_reward:breaks: KeyError"),
        ("function", "short", "reward function: gave 1 scores for 2 responses"),
        ("function", "words", "reward function: expected numbers or None"),
        ("function", "value", "the module has no function value"),
        ("function", "nothing", "the module has no function nothing"),
    ):
        with pytest.raises(TrainingError, match=message):
            total(kind, name)
    with pytest.raises(TrainingError, match="no_such_module:f: cannot be imported"):
        check_terms(_terms({"kind": "function", "function": "no_such_module:f"}), {})
    with pytest.raises(TrainingError, match="no function 'judge' was given; have none"):
        check_terms(_terms({"kind": "callable", "name": "judge"}), {})


@pytest.mark.parametrize(
    "term",
    [
        {"kind": "regex", "pattern": "("},
        {"kind": "ensemble", "paths": ["one"]},
        {"kind": "checker", "function": "not a target"},
        {"kind": "nothing"},
        {"kind": "length", "free": -1},
    ],
)
def test_bad_terms(term):
    with pytest.raises(ValueError):
        _terms(term)


def test_no_responses():
    assert Reward({}).parts == {}
    assert build_reward(_terms({"kind": "length"}))([], []).total == []
