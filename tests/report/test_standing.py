"""Which row of a column is best, and when that cannot be said."""

from __future__ import annotations

import pytest

from cwdpo.report.standing import Sample, over_seeds, standings

LOW, HIGH = (1.0, 1.1, 0.9), (9.0, 9.1, 8.9)


def test_nothing_is_best_where_no_spread_is_known() -> None:
    assert standings({"a": Sample((1.0,)), "b": Sample((2.0,))}, higher=True) == {}
    assert standings({"a": Sample((1.0,), fixed=True), "b": Sample((2.0,), fixed=True)}, higher=True) == {}
    assert standings({"a": Sample(HIGH)}, higher=True) == {}
    assert standings({}, higher=True) == {}


def test_a_row_whose_spread_is_not_known_is_not_told_from_the_best() -> None:
    found = standings({"a": Sample(HIGH), "b": Sample((1.0,)), "c": Sample(LOW)}, higher=True)
    assert found == {"a": "tied", "b": "tied"}


def test_either_end_may_be_best() -> None:
    rows = {"a": Sample(LOW), "b": Sample(HIGH), "c": Sample((5.0,), fixed=True)}
    assert standings(rows, higher=True) == {"b": "best"}
    assert standings(rows, higher=False) == {"a": "best"}


def test_holms_correction_is_over_all_other_rows() -> None:
    """Alone b is told from a; with nine more rows to be told from a it no longer is."""
    a, b = Sample((1.0, 1.2, 1.1, 1.15, 1.05)), Sample((1.0, 0.97, 1.03, 0.9, 1.04))
    test = over_seeds(a, b)
    assert test
    assert 0.005 < (test.test.p or 0) < 0.05
    assert standings({"a": a, "b": b}, higher=True) == {"a": "best"}
    more = {str(place): Sample((0.99, 1.01, 1.0, 0.97, 1.03)) for place in range(9)}
    assert standings({"a": a, "b": b, **more}, higher=True)["b"] == "tied"


def test_equal_results_of_all_seeds_are_not_told_apart() -> None:
    """Seeds that change nothing say nothing of what seeds can change."""
    same = {"a": Sample((1.0, 1.0)), "b": Sample((2.0, 2.0))}
    assert standings(same, higher=True) == {}
    assert standings({**same, "c": Sample(LOW)}, higher=True) == {"a": "tied", "b": "tied"}


def test_what_rounding_leaves_of_a_constant_difference_is_no_variance() -> None:
    """One more right answer of 14,233 with every seed: the differences of the scores are not the same to the bit."""
    items, starts = 14_233, ("0", "1")
    for right in range(9000, 9200):
        own = [100 * (right + more) / items for more in (0, 37)]
        other = [100 * (right + 1 + more) / items for more in (0, 37)]
        found = over_seeds(Sample(tuple(other), starts=starts), Sample(tuple(own), starts=starts))
        assert found
        assert found.test.p is None, right


def test_a_fixed_row_is_tested_the_other_way_round() -> None:
    fixed, seeds = Sample((5.0,), fixed=True), Sample(LOW)
    one, other = over_seeds(fixed, seeds), over_seeds(seeds, fixed)
    assert one
    assert other
    assert one.test.difference == -other.test.difference == pytest.approx(4.0)
    assert (one.test.low, one.test.high) == (-(other.test.high or 0), -(other.test.low or 0))
    assert one.test.p == other.test.p


def test_rows_that_share_stage_1_are_compared_seed_by_seed() -> None:
    """Seeds move both rows alike, so that only differences tell: 1.1, 0.9, 1.0 of seeds that are in another order."""
    a = Sample((12.1, 22.9, 33.0), starts=("one", "two", "three"))
    b = Sample((32.0, 11.0, 22.0), starts=("three", "one", "two"))
    found = over_seeds(a, b)
    assert found
    assert found.name == "paired t over seeds, which share Stage 1"
    assert found.test.difference == pytest.approx(1.0)
    assert (found.test.p or 1) < 0.01
    assert standings({"a": a, "b": b}, higher=True) == {"a": "best"}


def test_seeds_that_only_one_row_has_do_not_undo_the_pairs() -> None:
    """Without pairs 3.0 +/- 0.1 drowns in what seeds do to both; and the best mean is not the better method."""
    a = Sample((10.0, 30.0, 50.0, 70.0), starts=("1", "2", "3", "4"))
    b = Sample((13.0, 33.1, 52.9), starts=("1", "2", "3"))
    found = over_seeds(b, a)
    assert found
    assert (found.pairs, found.left_out) == (3, 1)
    assert found.test.difference == pytest.approx(3.0)
    assert (found.test.p or 1) < 0.01
    assert a.mean > b.mean
    assert standings({"a": a, "b": b}, higher=True) == {"a": "tied", "b": "tied"}
    assert standings({"a": a, "b": b}, higher=False) == {"b": "tied", "a": "tied"}


@pytest.mark.parametrize("starts", [(), ("one", "other", "another"), ("one", "one", "two")])
def test_rows_that_do_not_share_stage_1_are_taken_for_independent(starts: tuple[str, ...]) -> None:
    found = over_seeds(Sample((1.0, 2.0, 3.0), starts=("one", "two", "three")), Sample((1.5, 2.0, 3.0), starts=starts))
    assert found
    assert found.name == "Welch's t over seeds"
