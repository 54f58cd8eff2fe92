"""Intervals for new trainings and new items at once: every seed answers every item, and both are drawn.

Model of one value: method + seed + item + (method x item) + rest, all but the method random, seeds of two methods
independent, items shared. Searle, Casella and McCulloch, "Variance Components" (1992), chapter 4. For three seeds or
more: the test of two seeds against a fixed model finds differences that are none up to 11% of the time at 5%.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from cwdpo.base.errors import DataError
from cwdpo.statistics.seeds import Interval, Test, from_variance, satterthwaite

_SHARE_POWER = 4 / 3


class _Method(NamedTuple):
    """One method's matrix, as far as variances need it.

    Attributes:
        seeds: how many.
        mean: of all values.
        by_item: mean over seeds of each item, (items,).
        error: variance of the mean between seeds, the rest (of seed and item together) included; 0 for one seed.
        rest: that of the rest alone.
    """

    seeds: int
    mean: float
    by_item: np.ndarray
    error: float
    rest: float


def crossed_interval(matrix: np.ndarray, level: float = 0.95) -> Interval:
    """Interval of the mean for new seeds and new items; `n` counts seeds.

    Shapes: `matrix` (seeds, items). One seed means a model that has none: only items vary. `DataError` for fewer than
    two items.
    """
    method = _method(matrix)
    test = _over_both(method.mean, method.by_item, [method], level)
    return Interval(method.mean, test.low, test.high, method.seeds)


def crossed_difference(a: np.ndarray, b: np.ndarray, level: float = 0.95, scale: float = 0.0) -> Test:
    """Test of mean(a) - mean(b), two methods on the same items, each with its own seeds.

    Shapes: `a` (seeds of a, items), `b` (seeds of b, items). One seed means a fixed model: its variance between
    seeds is 0 by definition, which one finished seed of several must not be taken for. Methods that share a training
    seed by seed are not independent: give their differences, one row of zeros, and as `scale` the size of what was
    subtracted. `DataError` for unequal items or fewer than two.
    """
    one, other = _method(a), _method(b)
    if one.by_item.shape != other.by_item.shape:
        raise DataError(f"both methods need the same items: found {one.by_item.size:,} and {other.by_item.size:,}")
    return _over_both(one.mean - other.mean, one.by_item - other.by_item, [one, other], level, scale)


def _method(values: np.ndarray) -> _Method:
    matrix = np.asarray(values, dtype=np.float64)
    if matrix.ndim != 2 or not len(matrix) or matrix.shape[1] < 2:
        raise DataError(f"needs seeds x items, two items or more: found the shape {matrix.shape}")
    seeds, items = matrix.shape
    by_item = matrix.mean(axis=0)
    mean = float(by_item.mean())
    if seeds == 1:
        return _Method(1, mean, by_item, 0.0, 0.0)
    rest = matrix - by_item
    by_seed = rest.mean(axis=1)
    rest -= by_seed[:, None]
    mean_square = float(np.vdot(rest, rest)) / ((seeds - 1) * (items - 1))
    return _Method(seeds, mean, by_item, float(by_seed.var(ddof=1)) / seeds, mean_square / (seeds * items))


def _over_both(
    difference: float, by_item: np.ndarray, methods: Sequence[_Method], level: float, scale: float = 0.0
) -> Test:
    """The variance between seeds, and what items add to it.

    The error of a method includes its rest, which means of items contain once more. Only what items add beyond is cut
    at 0, so that this is the test over seeds alone where methods do not differ between items. A component of seeds
    below 0 stays: cutting it makes the test reject half as often as it says.
    """
    errors = [(method.error, method.seeds - 1) for method in methods if method.seeds > 1]
    between_seeds = sum(error for error, _ in errors)
    items = max(0.0, float(by_item.var(ddof=1)) / by_item.size - sum(method.rest for method in methods))
    df = _df(between_seeds, satterthwaite(errors), items, by_item.size - 1)
    size = max(scale, *(abs(method.mean) for method in methods))
    return from_variance(difference, between_seeds + items, df, level, size)


def _df(between_seeds: float, of_seeds: float, items: float, of_items: float) -> float:
    """Degrees of freedom of the sum of two variances, from theirs and the share of each.

    Satterthwaite's formula squares the shares. It is far too sure of a small variance that three seeds show by chance
    (against a fixed model up to 7.8% false positives at 5%), where the plain shares are too cautious (from 3.4%). The
    power between them is chosen by simulation: 3.3% to 6.5% for three seeds, 3.8% to 5.1% for five.
    """
    total = between_seeds + items
    if not total:
        return math.inf
    return 1 / ((between_seeds / total) ** _SHARE_POWER / of_seeds + (items / total) ** _SHARE_POWER / of_items)
