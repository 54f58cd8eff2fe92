"""What repeated trainings say of a method: intervals and tests whose unit is a seed.

The values of one method are its seeds' scores on one test set. What is said holds for new trainings on that test set;
`cwdpo.statistics.crossed` adds the luck of the items.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from cwdpo.statistics.summary import MeanStd, mean_std

# A standard error below this part of what is compared is the rounding of sums, not a difference between seeds.
_ROUNDING = 1e-12


class Interval(NamedTuple):
    """`mean` over `n` seeds, the `low` and `high` ends of its interval.

    The ends are None where the spread is unknown: for one seed, and where all seeds gave the same.
    """

    mean: float
    low: float | None
    high: float | None
    n: int


class Test(NamedTuple):
    """`difference` a - b, the ends of its interval, `p` of the two-sided test that it is 0, degrees of freedom `df`.

    All but `difference` are None where a spread is unknown (one seed), and where nothing varied at all: seeds that
    changed nothing say nothing of what seeds can change, so that there is a difference between these results, and
    neither an interval nor a test of it.
    """

    difference: float
    low: float | None
    high: float | None
    p: float | None
    df: float | None


def t_interval(values: Sequence[float], level: float = 0.95) -> Interval:
    """Student's t interval of the mean, in the unit of `values`; without ends where all are equal.

    Shapes: `values` (seeds,). `DataError` when empty.
    """
    found = mean_std(values)
    test = from_variance(found.mean, _squared_error(found), found.n - 1, level, abs(found.mean))
    return Interval(found.mean, test.low, test.high, found.n)


def welch(a: Sequence[float], b: Sequence[float], level: float = 0.95) -> Test:
    """Welch's test of mean(a) - mean(b), trainings of two methods that have nothing in common but the test set.

    Shapes: `a` (seeds of a,), `b` (seeds of b,), in one unit. Welch (1947), degrees of freedom by Satterthwaite
    (1946). `one_sample` is for a model without seeds, and for methods that share their Stage 1 seed by seed.
    `DataError` when one is empty.
    """
    one, other = mean_std(a), mean_std(b)
    errors = [(_squared_error(found), found.n - 1) for found in (one, other)]
    scale = max(abs(one.mean), abs(other.mean))
    return from_variance(one.mean - other.mean, _sum(errors), satterthwaite(errors), level, scale)


def one_sample(values: Sequence[float], constant: float, level: float = 0.95, scale: float = 0.0) -> Test:
    """Student's test of mean(values) - constant: seeds of a method against a fixed model, which has none.

    Shapes: `values` (seeds,). The differences of two methods seed by seed with constant 0 make it the paired test;
    `scale` is the size of what these are differences of then. `DataError` when empty.
    """
    found = mean_std(values)
    size = max(abs(found.mean), abs(constant), scale)
    return from_variance(found.mean - constant, _squared_error(found), found.n - 1, level, size)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Adjusted for testing all of them, in the order given; None was no test and stays None.

    Holm (1979): the i-th smallest of m becomes `max over j <= i of (m - j + 1) p_j`, at most 1. To call all with an
    adjusted value below 0.05 different is wrong of any of them with probability 0.05 at most.
    """
    adjusted = list(p_values)
    order = sorted((p, at) for at, p in enumerate(p_values) if p is not None)
    highest = 0.0
    for rank, (p, at) in enumerate(order):
        highest = max(highest, min(1.0, (len(order) - rank) * p))
        adjusted[at] = highest
    return adjusted


def satterthwaite(parts: Sequence[tuple[float | None, float]]) -> float:
    """Degrees of freedom of a sum of independent variances, `parts` of (estimate, its own degrees of freedom)."""
    below = sum(variance * variance / df for variance, df in parts if variance)
    total = _sum(parts)
    return total * total / below if total and below else math.inf


def from_variance(difference: float, variance: float | None, df: float, level: float, scale: float) -> Test:
    """What an estimate and its estimated `variance` say together.

    Args:
        variance: squared standard error; None where unknown.
        df: degrees of freedom of `variance`.
        scale: size of what was subtracted, against which rounding is told from variance.
    """
    from scipy.special import stdtr, stdtrit

    if variance is None:
        return Test(difference, None, None, None, None)
    error = math.sqrt(variance)
    if error <= _ROUNDING * scale:
        return Test(difference, None, None, None, None)
    half = float(stdtrit(df, (1 + level) / 2)) * error
    p = 2 * float(stdtr(df, -abs(difference) / error))
    return Test(difference, difference - half, difference + half, p, df)


def _squared_error(found: MeanStd) -> float | None:
    """Of the mean; None for one value."""
    return None if found.std is None else found.std**2 / found.n


def _sum(parts: Sequence[tuple[float | None, float]]) -> float | None:
    """None where one is unknown."""
    known = [variance for variance, _ in parts if variance is not None]
    return sum(known) if len(known) == len(parts) else None
