import pytest
from scipy import stats

from cwdpo.base.errors import DataError
from cwdpo.statistics.summary import mean_std, wilson


def test_mean_and_sample_deviation():
    assert mean_std([1.0, 2.0, 3.0]) == (2.0, 1.0, 3)


def test_one_seed_has_no_deviation():
    assert mean_std([1.5]) == (1.5, None, 1)


def test_no_values():
    with pytest.raises(DataError, match="empty"):
        mean_std([])


@pytest.mark.parametrize(("successes", "n"), [(8, 10), (0, 5), (5, 5), (431, 900)])
@pytest.mark.parametrize("level", [0.9, 0.95])
def test_wilson_is_scipys(successes, n, level):
    found = wilson(successes, n, level)
    expected = stats.binomtest(successes, n).proportion_ci(level, method="wilson")
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-12)
    assert (found.share, found.n) == (successes / n, n)


def test_no_trials():
    with pytest.raises(DataError, match="0 trials"):
        wilson(0, 0)
