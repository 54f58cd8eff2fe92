"""What so many repeated trainings can show: the smallest difference that a test over seeds would find."""

from __future__ import annotations

import math

from cwdpo.base.errors import DataError


def detectable(std: float, n: int, power: float = 0.8, level: float = 0.95) -> float:
    """The true difference that a two-sided t test of `n` seeds a side finds with probability `power`.

    In the unit of `std`, the standard deviation over seeds of both sides. By the noncentral t distribution with 2n - 2
    degrees of freedom: Cohen, "Statistical Power Analysis" (1988), chapter 2. `DataError` for fewer than two seeds.
    """
    from scipy.special import nctdtrinc, stdtrit

    if n < 2:
        raise DataError("one seed shows no difference, however large")
    critical = float(stdtrit(2 * n - 2, (1 + level) / 2))
    return float(nctdtrinc(2 * n - 2, 1 - power, critical)) * std * math.sqrt(2 / n)
