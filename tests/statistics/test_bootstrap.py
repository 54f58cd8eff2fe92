import numpy as np
import pytest
from scipy import stats

from cwdpo.base.errors import DataError
from cwdpo.statistics import bootstrap
from cwdpo.statistics.bootstrap import Interval, paired_bootstrap, paired_bootstraps


@pytest.fixture
def scores():
    generator = np.random.default_rng(3)
    b = generator.normal(1.0, 1.0, 200)
    return (b + generator.exponential(0.3, 200)).tolist(), b.tolist()


def test_equal_to_scipy(scores):
    a, b = scores
    found = paired_bootstrap(a, b, resamples=50_000)
    differences = np.subtract(a, b)
    expected = stats.bootstrap((differences,), np.mean, n_resamples=50_000, method="percentile", rng=5)
    # The spread of a percentile over seeds is about 1% of the interval with 50,000 resamples.
    tolerance = 0.03 * (found.high - found.low)
    assert found.low == pytest.approx(expected.confidence_interval.low, abs=tolerance)
    assert found.high == pytest.approx(expected.confidence_interval.high, abs=tolerance)
    assert found.difference == pytest.approx(differences.mean(), abs=1e-15)
    assert found.n == 200


@pytest.mark.parametrize("level", [0.5, 0.95])
def test_wins_follow_the_binomial(level):
    found = paired_bootstrap([1.0] * 100 + [0.0] * 300, [0.0] * 400, level=level)
    exact = stats.binom(400, 0.25).interval(level)
    assert [found.low * 400, found.high * 400] == pytest.approx(exact, abs=1)


def test_the_seed_decides(scores):
    assert paired_bootstrap(*scores) == paired_bootstrap(*scores)
    assert paired_bootstrap(*scores) != paired_bootstrap(*scores, seed=1)


def test_small_blocks_give_the_same(scores, monkeypatch):
    whole = paired_bootstrap(*scores, resamples=1001)
    monkeypatch.setattr(bootstrap, "_BLOCK", 200 * 7)
    assert paired_bootstrap(*scores, resamples=1001) == pytest.approx(whole, rel=1e-12)


def test_several_systems_as_each_alone(scores, monkeypatch):
    a, b = scores
    systems = [a, b, [2 * value for value in a]]
    alone = [paired_bootstrap(system, b) for system in systems]
    drawn = []
    real = bootstrap._drawn
    monkeypatch.setattr(bootstrap, "_drawn", lambda *arguments: drawn.append(arguments[0]) or real(*arguments))
    found = paired_bootstraps(iter(systems), b)
    assert sum(drawn) == 10_000, "once for all of them"
    for one, other in zip(found, alone, strict=True):
        assert one == pytest.approx(other, rel=1e-12, abs=1e-15)
    assert paired_bootstraps([], b) == []


def test_the_means_are_those_of_the_items_drawn():
    values = np.random.default_rng(2).random((3, 50))
    found = bootstrap._resampled_means(values, 40, np.random.default_rng(7))
    items = np.random.default_rng(7).integers(50, size=(40, 50))
    assert found == pytest.approx(values[:, items].mean(axis=2), rel=1e-12)


def test_pairing_removes_what_the_items_share(scores):
    _, b = scores
    assert paired_bootstrap([value + 0.5 for value in b], b, resamples=100) == pytest.approx(
        Interval(0.5, 0.5, 0.5, 200)
    )


def test_unequal_lengths():
    with pytest.raises(DataError, match="found 2 and 1"):
        paired_bootstrap([1.0, 2.0], [1.0])


def test_no_items():
    with pytest.raises(DataError, match="at least one item"):
        paired_bootstrap([], [])
