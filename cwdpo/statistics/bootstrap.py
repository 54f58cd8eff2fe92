"""Is the difference between two systems on the same items more than the luck of the items drawn?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from cwdpo.base.errors import DataError

# Item indices drawn at once: 32 MiB of them and as much again of differences.
_BLOCK = 4 * 2**20


class Interval(NamedTuple):
    """`difference` of the means (a - b), the `low` and `high` ends of its interval, number of items `n`."""

    difference: float
    low: float
    high: float
    n: int


def paired_bootstrap(
    a: Sequence[float], b: Sequence[float], resamples: int = 10_000, level: float = 0.95, seed: int = 0
) -> Interval:
    """Percentile interval of mean(a) - mean(b), items resampled in pairs; the same numbers for the same seed.

    Shapes: `a` and `b` (items,), one score each of the same item, in the same order and unit. Efron and Tibshirani,
    "An Introduction to the Bootstrap" (1993), chapter 13. `DataError` for unequal lengths or no items.
    """
    if len(a) != len(b):
        raise DataError(f"a paired bootstrap needs both scores of every item: found {len(a)} and {len(b)}")
    if not len(a):
        raise DataError("a paired bootstrap needs at least one item")
    differences = np.asarray(a, dtype=np.float64) - np.asarray(b, dtype=np.float64)
    means = _resampled_means(differences, resamples, np.random.default_rng(seed))
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(differences.mean()), float(low), float(high), len(differences))


def _resampled_means(values: np.ndarray, resamples: int, generator: np.random.Generator) -> np.ndarray:
    """Means (resamples,) of as many draws with replacement from `values` (items,), in blocks of bounded memory."""
    block = max(1, _BLOCK // len(values))
    counts = [min(block, resamples - start) for start in range(0, resamples, block)]
    draws = (generator.integers(len(values), size=(count, len(values))) for count in counts)
    return np.concatenate([values[indices].mean(axis=1) for indices in draws])
