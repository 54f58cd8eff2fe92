"""Numbers that stand for many: mean and spread over seeds, the interval of a share."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple

from cwdpo.base.errors import DataError


class MeanStd(NamedTuple):
    """`mean`, sample standard deviation `std` (None for one value: unknown, not 0), number of values `n`."""

    mean: float
    std: float | None
    n: int


class Share(NamedTuple):
    """`share` of `n` trials in [0, 1], with the `low` and `high` ends of its interval."""

    share: float
    low: float
    high: float
    n: int


def mean_std(values: Sequence[float]) -> MeanStd:
    """Mean and standard deviation (n - 1 in the denominator), in the unit of `values`; `DataError` when empty."""
    if not values:
        raise DataError("cannot summarise an empty list of values")
    return MeanStd(statistics.fmean(values), _std(values) if len(values) > 1 else None, len(values))


def _std(values: Sequence[float]) -> float:
    """Around the first value, so that equal values give exactly 0; `statistics.stdev` takes thirty times as long."""
    shifted = [value - values[0] for value in values]
    mean = math.fsum(shifted) / len(values)
    return math.sqrt(math.fsum((value - mean) ** 2 for value in shifted) / (len(values) - 1))


def wilson(successes: float, n: int, level: float = 0.95) -> Share:
    """Wilson's interval of a share, for accuracies and win rates; a tie may count as half a success.

    Wilson (1927): `(p + z^2/2n +- z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n)`. `DataError` when `n` is 0.
    """
    if n == 0:
        raise DataError("cannot give the share of successes in 0 trials")
    z = statistics.NormalDist().inv_cdf((1 + level) / 2)
    p = successes / n
    centre = p + z * z / (2 * n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    return Share(p, (centre - half) / scale, (centre + half) / scale, n)
