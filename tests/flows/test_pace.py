"""How fast work goes, in words."""

import pytest

from flows.runs.pace import Pace, duration


def test_a_rate_is_said_once_it_is_no_guess_and_counts_only_this_attempt():
    now = [100.0]
    pace = Pace(100, clock=lambda: now[0])
    assert pace(20) == ""  # 20 were there before
    now[0] += 1
    assert pace(25, 50) == ""
    now[0] += 9
    assert pace(40, 520) == "52 tokens/s, 30 s left"
    pace.add(520)
    assert pace(40, 0) == "52 tokens/s, 30 s left"
    assert pace(100, 80) == "60 tokens/s"
    silent = Pace(10, clock=lambda: now[0])
    silent(0)
    now[0] += 60
    assert silent(5) == "60 s left"


@pytest.mark.parametrize(("seconds", "said"), [(4, "4 s"), (120, "2 min"), (7200, "2.0 h")])
def test_durations_as_people_say_them(seconds, said):
    assert duration(seconds) == said
