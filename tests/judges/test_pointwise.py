from __future__ import annotations

import math

import pytest

from engines.options import ambiguous, summed
from judges import Call, InProcessJudge, JudgeError, Reading, ScriptedJudge
from judges.asking.scoring import PointwiseScorer
from judges.asking.templates import SCORES

HELLO = [{"role": "user", "content": "Hello"}]


def scores_by_length(call: Call):
    """All weight on the score that is the response's length, a little on 1."""
    text = call.messages[-1]["content"]
    tag = text.split("<<response ")[1].split(">>")[0]
    length = len(text.split(f"<<response {tag}>>\n")[1].split(f"\n<</response {tag}>>")[0])
    weights = [0.9 * (n == length) + 0.1 * (n == 1) for n in range(1, 11)]
    return tuple(math.log(w) if w else -math.inf for w in weights)


@pytest.fixture
def scorer(make_constitution):
    return PointwiseScorer(ScriptedJudge(scores_by_length), make_constitution(long="Is it long?"))


def test_the_score_is_an_expectation(scorer):
    score = scorer.scores([HELLO], ["x" * 10])[0]
    assert (score.value, score.status, score.principle) == (pytest.approx(9.1), "ok", "long")


def test_rewards_lie_between_0_and_1_and_grow_with_the_score(scorer):
    rewards = scorer([HELLO] * 10, ["x" * n for n in range(1, 11)])
    assert rewards == sorted(rewards)
    assert rewards[0] == pytest.approx(0.0)
    assert rewards[-1] == pytest.approx(0.9)


def test_a_failed_score_is_missing_and_not_zero(make_constitution):
    c = make_constitution(long="Is it long?")
    for answer in (None, Reading(status="timeout"), tuple(math.log(0.01) for _ in SCORES), (math.nan,) * 10):
        scorer = PointwiseScorer(ScriptedJudge(lambda call, answer=answer: answer), c)
        assert scorer([HELLO], ["x"]) == [None]
        assert scorer.scores([HELLO], ["x"])[0].status != "ok"


def test_a_set_without_the_template_says_so(make_constitution):
    scorer = PointwiseScorer(
        ScriptedJudge(scores_by_length), make_constitution(x="X?"), templates="microworld"
    )
    with pytest.raises(JudgeError, match=r"has no pointwise\.j2"):
        scorer([HELLO], ["x"])


def test_what_goes_on_as_ten_is_not_one_and_spellings_are_summed():
    def own(spellings, **masses):
        logprobs = {tuple(map(int, name[1:])): math.log(mass) for name, mass in masses.items()}
        return [math.exp(lp) for lp in summed(logprobs, spellings)]

    one, two, ten = ((1,),), ((2,),), ((1, 0),)
    assert own((one, two, ten), _1=0.5, _2=0.3, _10=0.2) == pytest.approx([0.3, 0.3, 0.2])
    assert own((one, ten), _1=0.2, _10=0.2)[0] == 0.0
    assert own((((1,), (3, 4)), two), _1=0.5, _34=0.2, _2=0.3) == pytest.approx([0.7, 0.3])
    # A spelling that goes on as another of the same option is counted once.
    assert own((((1,), (1, 0)), two), _1=0.5, _10=0.2, _2=0.3) == pytest.approx([0.5, 0.3])


def test_a_list_of_tokens_that_cannot_tell_one_from_ten_is_ambiguous():
    assert ambiguous({"1": -0.5, "7": -1.0}, SCORES) == "1"
    assert ambiguous({"1": -0.5, "10": -9.0}, SCORES) is None
    assert ambiguous({"7": -0.1}, SCORES) is None


def test_ten_of_two_tokens_is_scored_whole(tiny_model):
    """The tiny tokenizer has no token "10": "1" must lose what goes on as "10"."""
    call = Call(messages=tuple(HELLO), options=SCORES)
    judge = InProcessJudge(tiny_model, dtype="float32")
    reading = judge.ask([call])[0]
    raw = judge.ask([Call(messages=tuple(HELLO), options=("1", "the first response"))])[0]
    own, ten, begins = (math.exp(lp) for lp in (reading.logprobs[0], reading.logprobs[9], raw.logprobs[0]))
    assert own + ten == pytest.approx(begins, rel=1e-3)
