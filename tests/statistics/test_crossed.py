import math

import numpy as np
import pytest
from scipy import stats

from cwdpo.base.errors import DataError
from cwdpo.statistics.crossed import crossed_difference, crossed_interval
from cwdpo.statistics.seeds import welch

# Means of seeds 1.5 and 4.5, of items 2 and 4; mean squares of seeds 9, of items 4, of the rest 1, all with 1 degree
# of freedom. Variance of the mean (9 + 4 - 1) / 4 = 3: 9/4 between seeds, (4 - 1) / 4 added by items.
SMALL = np.array([[1.0, 2.0], [3.0, 6.0]])


def test_interval_by_hand():
    found = crossed_interval(SMALL)
    df = 1 / ((3 / 4) ** (4 / 3) + (1 / 4) ** (4 / 3))  # by the shares of seeds and items, 1 each
    half = stats.t(df).ppf(0.975) * math.sqrt(3)
    assert (found.mean, found.n) == (3.0, 2)
    assert (found.low, found.high) == pytest.approx((3 - half, 3 + half), rel=1e-12)


def test_difference_to_a_fixed_model_by_hand():
    # It answers all items alike, so that the variance is SMALL's.
    found = crossed_difference(SMALL, np.ones((1, 2)))
    alone = crossed_interval(SMALL)
    assert found[:3] == pytest.approx((2.0, alone.low - 1, alone.high - 1))
    assert found.df == pytest.approx(1 / ((3 / 4) ** (4 / 3) + (1 / 4) ** (4 / 3)), rel=1e-12)
    assert found.p == pytest.approx(2 * stats.t(found.df).sf(2 / math.sqrt(3)), rel=1e-10)


def mean_squares(matrix):
    """Of seeds and of the rest, as the textbook has them."""
    seeds, items = matrix.shape
    rest = matrix - matrix.mean(axis=1, keepdims=True) - matrix.mean(axis=0) + matrix.mean()
    return items * matrix.mean(axis=1).var(ddof=1), (rest**2).sum() / ((seeds - 1) * (items - 1))


def test_difference_is_the_analysis_of_variance():
    generator = np.random.default_rng(4)
    item = generator.normal(size=30)
    a = 1 + item + generator.normal(size=(4, 1)) / 3 + generator.normal(size=30) + generator.normal(size=(4, 30)) / 2
    b = item + generator.normal(size=(3, 1)) / 3 + generator.normal(size=(3, 30))
    (seeds_a, rest_a), (seeds_b, rest_b) = mean_squares(a), mean_squares(b)
    between = np.array([seeds_a / 4, seeds_b / 3]) / 30
    items = (np.var(a.mean(axis=0) - b.mean(axis=0), ddof=1) - rest_a / 4 - rest_b / 3) / 30
    assert items > 0
    found = crossed_difference(a, b)
    assert found.difference == pytest.approx(a.mean() - b.mean())
    error = math.sqrt(between.sum() + items)
    assert found.p == pytest.approx(2 * stats.t(found.df).sf(found.difference / error), rel=1e-10)


def test_where_methods_differ_alike_on_all_items_it_is_welchs_test():
    item = np.array([0.0, 5.0, 1.0, 3.0])
    a, b = np.array([[3.0], [3.5], [2.5]]), np.array([[1.0], [1.75]])
    found = crossed_difference(a + item, b + item)
    assert found == pytest.approx(welch(a[:, 0].tolist(), b[:, 0].tolist()), rel=1e-12)


def test_two_fixed_models_differ_over_items_alone():
    a, b = np.random.default_rng(5).normal(size=(2, 1, 50))
    found = crossed_difference(a, b, level=0.9)
    expected = stats.ttest_rel(a[0], b[0])
    interval = expected.confidence_interval(0.9)
    assert (found.p, found.df) == pytest.approx((expected.pvalue, 49), rel=1e-10)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high), rel=1e-10)


def test_nothing_varies():
    b = np.random.default_rng(6).random((1, 40))
    assert crossed_difference(np.repeat(b, 3, axis=0), b)[3:] == (None, None)
    assert crossed_interval(np.full((3, 4), 0.5)) == (0.5, None, None, 3)
    moved = b + np.array([[0.1], [0.2], [0.7]])
    apart = (moved + 0.01) - moved  # the same but for rounding
    assert crossed_difference(apart, np.zeros_like(apart[:1]), scale=1.0)[1:] == (None, None, None, None)


def test_what_is_given_stays_as_it_is():
    given = np.random.default_rng(7).random((5, 20))
    before = given.copy()
    crossed_difference(given, given[:1])
    crossed_interval(given)
    assert (given == before).all()


def test_other_items():
    with pytest.raises(DataError, match="found 2 and 3"):
        crossed_difference(SMALL, np.ones((2, 3)))


@pytest.mark.parametrize("shape", [(5,), (0, 3), (3, 1)])
def test_no_seeds_by_items(shape):
    with pytest.raises(DataError, match="two items or more"):
        crossed_interval(np.ones(shape))
