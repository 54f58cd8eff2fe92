import math

import numpy as np
import pytest
from scipy import stats

from cwdpo.base.errors import DataError
from cwdpo.statistics import seeds

A = [52.1, 51.4, 53.0, 52.2, 51.9]
B = [50.2, 51.8, 49.6]


def test_interval_by_hand():
    found = seeds.t_interval([1.0, 2.0, 3.0])
    # With 2 degrees of freedom the point with probability p below it is (2p - 1) / sqrt(2p (1 - p)).
    half = 0.95 / math.sqrt(2 * 0.975 * 0.025) / math.sqrt(3)
    assert (found.mean, found.n) == (2.0, 3)
    assert (found.low, found.high) == pytest.approx((2 - half, 2 + half), rel=1e-12)


@pytest.mark.parametrize("level", [0.9, 0.95])
def test_welch_is_scipys(level):
    found = seeds.welch(A, B, level)
    expected = stats.ttest_ind(A, B, equal_var=False)
    interval = expected.confidence_interval(level)
    assert found.difference == pytest.approx(np.mean(A) - np.mean(B))
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high), rel=1e-10)
    assert (found.p, found.df) == pytest.approx((expected.pvalue, expected.df), rel=1e-10)


@pytest.mark.parametrize("level", [0.9, 0.95])
def test_one_sample_is_scipys(level):
    found = seeds.one_sample(A, 51.0, level)
    expected = stats.ttest_1samp(A, 51.0)
    interval = expected.confidence_interval(level)
    assert (found.low + 51, found.high + 51) == pytest.approx((interval.low, interval.high), rel=1e-12)
    assert (found.difference, found.p, found.df) == pytest.approx((np.mean(A) - 51, expected.pvalue, 4), rel=1e-10)


def test_differences_seed_by_seed_are_the_paired_test():
    other = [51.8, 51.0, 52.9, 51.7, 51.8]
    found = seeds.one_sample([a - b for a, b in zip(A, other, strict=True)], 0.0)
    assert found.p == pytest.approx(stats.ttest_rel(A, other).pvalue, rel=1e-9)


def test_a_single_seed_has_a_difference_and_nothing_more():
    assert seeds.t_interval([1.5]) == (1.5, None, None, 1)
    assert seeds.welch([3.0, 4.0], [1.0]) == (2.5, None, None, None, None)
    assert seeds.one_sample([3.0], 1.0) == (2.0, None, None, None, None)


def test_seeds_that_all_agree_are_no_proof():
    assert seeds.t_interval([0.7] * 5) == (0.7, None, None, 5)
    assert seeds.welch([0.75] * 3, [0.5] * 5) == (0.25, None, None, None, None)
    assert seeds.one_sample([0.75] * 3, 0.5) == (0.25, None, None, None, None)


def test_rounding_is_no_variance():
    found = seeds.one_sample([0.1 + x - x for x in (1.0, 3.0, 7.0)], 0.0)
    assert (found.p, found.low, found.high) == (None, None, None)
    assert found.difference == pytest.approx(0.1)


def test_one_side_that_agrees_leaves_the_variance_of_the_other():
    found = seeds.welch(A, [50.0] * 4)
    assert found == pytest.approx(seeds.one_sample(A, 50.0), rel=1e-12)


@pytest.mark.parametrize("test", [lambda: seeds.welch([], A), lambda: seeds.t_interval([])])
def test_no_seeds(test):
    with pytest.raises(DataError, match="empty"):
        test()


def test_holm_by_hand():
    # 4 x 0.005, 3 x 0.01, 2 x 0.03; 1 x 0.04 is below the one before, and follows it.
    assert seeds.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_holm_counts_only_what_was_tested():
    assert seeds.holm([None, 0.02, None, 0.6, 0.7]) == [None, pytest.approx(0.06), None, 1.0, 1.0]
    assert seeds.holm([]) == []
