from __future__ import annotations

import pytest

from judges.agreement import cohen_kappa, krippendorff_alpha


def test_cohen_kappa_by_hand():
    # Observed 0.7, by chance 0.5.
    counts = {("y", "y"): 20, ("y", "n"): 5, ("n", "y"): 10, ("n", "n"): 15}
    assert cohen_kappa(counts) == pytest.approx(0.4)


def test_kappa_of_chance_is_zero_and_of_agreement_one():
    assert cohen_kappa({(x, y): 25 for x in "ab" for y in "ab"}) == pytest.approx(0.0)
    assert cohen_kappa({("a", "a"): 3, ("b", "b"): 4}) == pytest.approx(1.0)
    assert cohen_kappa({("a", "a"): 3}) == 1.0


def test_krippendorff_alpha_of_the_textbook_example():
    # Krippendorff 2011, "Computing Krippendorff's Alpha-Reliability", example C: four observers, gaps; 0.743.
    units = [
        "1111"[:3],
        "2232",
        "3333",
        "3333",
        "2222",
        "1234",
        "4444",
        "1121",
        "2222",
        "5555"[:3],
        "11",
        "3",
    ]
    assert krippendorff_alpha([list(u) for u in units]) == pytest.approx(0.743, abs=0.001)


def test_alpha_needs_two_ratings():
    with pytest.raises(ValueError, match="two ratings"):
        krippendorff_alpha([["a"], []])
    assert krippendorff_alpha([["a", "a"]]) == 1.0
