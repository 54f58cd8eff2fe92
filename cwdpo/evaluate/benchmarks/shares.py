"""Means of what answers are worth, and what is said where there is nothing to take one of."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

NOT_ASKED = "not available: no such question was asked"


def mean_of(values: Iterable[float]) -> float | None:
    """The mean, whatever the order; None where there are no values."""
    found = list(values)
    return math.fsum(found) / len(found) if found else None


def unavailable(corpus: Mapping[str, float | None], reason: str = NOT_ASKED) -> dict[str, str]:
    """The reason, for each key without a value."""
    return {key: reason for key, value in corpus.items() if value is None}
