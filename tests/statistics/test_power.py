"""What so many seeds can show, against scipy's noncentral t distribution and against trainings drawn at random."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats

from cwdpo.base.errors import DataError
from cwdpo.statistics.power import detectable


@pytest.mark.parametrize("n", [2, 3, 5, 20])
def test_the_test_finds_that_difference_as_often_as_was_asked(n: int) -> None:
    found = detectable(2.0, n, power=0.8)
    shift = found / (2.0 * np.sqrt(2 / n))
    critical = scipy.stats.t.ppf(0.975, 2 * n - 2)
    assert 1 - scipy.stats.nct.cdf(critical, 2 * n - 2, shift) == pytest.approx(0.8, abs=1e-6)


def test_five_seeds_drawn_at_random_find_it_four_times_in_five() -> None:
    generator = np.random.default_rng(0)
    size = detectable(1.0, 5)
    a, b = generator.normal(size, 1, (4000, 5)), generator.normal(0, 1, (4000, 5))
    found = scipy.stats.ttest_ind(a, b, axis=1).pvalue < 0.05
    assert found.mean() == pytest.approx(0.8, abs=0.02)


def test_one_seed_shows_nothing() -> None:
    with pytest.raises(DataError, match="one seed shows no difference"):
        detectable(1.0, 1)
