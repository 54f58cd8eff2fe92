"""Is the difference between two systems on the same items more than the luck of the items drawn?"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from cwdpo.base.errors import DataError

# Item indices drawn at once: 32 MiB of them and twice as much of how often each item was drawn.
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
    (found,) = paired_bootstraps([a], b, resamples, level, seed)
    return found


def paired_bootstraps(
    systems: Iterable[Sequence[float]],
    b: Sequence[float],
    resamples: int = 10_000,
    level: float = 0.95,
    seed: int = 0,
) -> list[Interval]:
    """`paired_bootstrap` of every system with `b`: the draws are the same for all, so they are made once."""
    differences = np.array([_differences(a, b) for a in systems])
    if not len(differences):
        return []
    means = _resampled_means(differences, resamples, np.random.default_rng(seed))
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2], axis=1)
    found = zip(differences.mean(axis=1).tolist(), low.tolist(), high.tolist(), strict=True)
    return [Interval(difference, start, end, len(b)) for difference, start, end in found]


def _differences(a: Sequence[float], b: Sequence[float]) -> np.ndarray:
    if len(a) != len(b):
        raise DataError(f"a paired bootstrap needs both scores of every item: found {len(a)} and {len(b)}")
    if not len(a):
        raise DataError("a paired bootstrap needs at least one item")
    return np.asarray(a, dtype=np.float64) - np.asarray(b, dtype=np.float64)


def _resampled_means(values: np.ndarray, resamples: int, generator: np.random.Generator) -> np.ndarray:
    """Means (systems, resamples) of as many draws with replacement from the items of `values` (systems, items)."""
    drawn = draws(resamples, values.shape[1], generator)
    return np.concatenate([values @ times.T for times in drawn], axis=1) / values.shape[1]


def draws(resamples: int, items: int, generator: np.random.Generator) -> Iterator[np.ndarray]:
    """How often each item is drawn in each resample, (some resamples, items): a block of bounded size at a time."""
    block = max(1, _BLOCK // items)
    for start in range(0, resamples, block):
        yield _drawn(min(block, resamples - start), items, generator)


def _drawn(count: int, items: int, generator: np.random.Generator) -> np.ndarray:
    """How often each item is drawn, (count, items)."""
    cells = generator.integers(items, size=(count, items)) + items * np.arange(count)[:, None]
    return np.bincount(cells.ravel(), minlength=count * items).reshape(count, items).astype(np.float64)
