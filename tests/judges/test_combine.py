from __future__ import annotations

import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from engines.options import option_mass, read_listed
from judges import LabelSettings, Margins, Reading
from judges.asking.combine import combine
from judges.asking.readout import checked

MARGINS = Margins()
probabilities = st.floats(min_value=0.0, max_value=1.0)


def ok(p_first: float, mass: float = 1.0) -> Reading:
    values = (p_first * mass, (1 - p_first) * mass)
    return Reading(status="ok", logprobs=tuple(math.log(v) if v > 0 else -math.inf for v in values))


def test_both_orders_are_averaged():
    total = combine([(ok(0.9), ok(0.3))], MARGINS)
    assert (total.status, total.p_ab, total.p_ba, total.p) == (
        "ok",
        pytest.approx(0.9),
        pytest.approx(0.7),
        pytest.approx(0.8),
    )


@given(st.lists(st.tuples(probabilities, probabilities), min_size=1, max_size=5))
def test_swapping_the_responses_maps_p_to_its_complement(votes):
    one = combine([(ok(x), ok(y)) for x, y in votes], MARGINS)
    other = combine([(ok(y), ok(x)) for x, y in votes], MARGINS)
    assert one.p + other.p == pytest.approx(1.0)
    assert one.p_ab + other.p_ba == pytest.approx(1.0)
    # On the very edge of a margin the last bit decides.
    edges = (abs(abs(one.p - 0.5) - MARGINS.tie), abs(abs(one.p_ab - one.p_ba) - MARGINS.flip))
    if min(edges) > 1e-9:
        assert one.status == other.status


@given(probabilities)
def test_a_judge_that_follows_the_slot_yields_no_preference(p_first):
    total = combine([(ok(p_first), ok(p_first))], MARGINS)
    assert total.p == pytest.approx(0.5)
    assert total.status in ("tie", "inconsistent")


def test_orders_that_disagree_beyond_the_margin_are_inconsistent_and_keep_their_mean():
    total = combine([(ok(0.95), ok(0.6))], MARGINS)
    assert (total.status, total.p) == ("inconsistent", pytest.approx(0.675))


def test_votes_are_averaged_and_their_spread_is_kept():
    total = combine([(ok(0.9), ok(0.1)), (ok(0.5), ok(0.5))], MARGINS)
    assert (total.p, total.spread) == (pytest.approx(0.7), pytest.approx(0.2))


@pytest.mark.parametrize("status", ["no_answer", "refused", "truncated", "timeout", "error"])
def test_one_failed_judgement_is_the_status_of_the_label(status):
    total = combine([(ok(0.9), Reading(status=status, detail="why"))], MARGINS)
    assert (total.status, total.p, total.detail) == (status, None, "why")


def test_little_mass_on_the_options_is_no_answer():
    assert combine([(ok(0.9, mass=0.49), ok(0.1))], MARGINS).status == "no_answer"
    assert combine([(ok(0.9, mass=0.51), ok(0.1))], MARGINS).status == "ok"


def test_listed_tokens_sum_over_spellings():
    listed = {"A": math.log(0.5), " A": math.log(0.2), "B": math.log(0.25), "I": math.log(0.05)}
    reading = read_listed(listed, [("A", " A"), ("B", " B")])
    assert [math.exp(lp) for lp in reading.logprobs] == pytest.approx([0.7, 0.25])


def test_fewer_logprobs_than_needed_is_no_answer_unless_the_rest_cannot_matter():
    assert read_listed({"A": math.log(0.6)}, [("A",), ("B",)]).status == "no_answer"
    assert read_listed({"I": math.log(0.6), "The": math.log(0.3)}, [("A",), ("B",)]).status == "no_answer"
    certain = read_listed({"A": math.log(0.99), "I": math.log(0.006)}, [("A",), ("B",)])
    assert certain.status == "ok"
    assert math.exp(certain.logprobs[1]) <= 0.006
    assert read_listed({}, [("A",), ("B",)]).status == "error"
    assert read_listed({"A": math.nan, "B": -1.0}, [("A",), ("B",)]).status == "error"


anything = st.one_of(
    st.none(),
    st.text(max_size=20),
    st.floats(allow_nan=True, allow_infinity=True),
    st.integers(),
    st.binary(max_size=4),
    st.lists(st.floats(allow_nan=True, allow_infinity=True), max_size=4).map(tuple),
    st.builds(
        Reading,
        status=st.one_of(
            st.sampled_from(["ok", "tie", "inconsistent", "refused", "OK", ""]), st.text(max_size=5)
        ),
        logprobs=st.one_of(
            st.none(),
            st.text(max_size=3),
            st.lists(st.floats(allow_nan=True, allow_infinity=True), max_size=4).map(tuple),
        ),
    ),
)


@example(Reading(status="ok", logprobs=(-746.0, -746.0)))
@given(anything)
def test_only_probabilities_pass_the_gate(answer):
    reading = checked(answer, 2)
    if reading.status == "ok":
        assert len(reading.logprobs) == 2
        assert 0 < option_mass(reading.logprobs) <= 1
        assert not any(math.isnan(lp) for lp in reading.logprobs)
    else:
        assert combine([(reading, reading)], MARGINS).p is None


@given(probabilities, st.integers(1, 3))
def test_one_half_is_never_a_preference_whatever_the_margins(p_first, votes):
    total = combine([(ok(p_first), ok(p_first))] * votes, Margins(tie=0.0, flip=1.0))
    assert total.p == pytest.approx(0.5)
    assert total.status == "tie"
    assert combine([(ok(0.501), ok(0.498))], Margins(tie=0.0)).status == "ok"


@pytest.mark.parametrize("clamp", [{"clamp_low": 0.5}, {"clamp_high": 0.5}])
def test_a_clamp_leaves_room_for_a_preference(clamp):
    with pytest.raises(ValueError, match=r"than 0\.5"):
        LabelSettings(**clamp)
