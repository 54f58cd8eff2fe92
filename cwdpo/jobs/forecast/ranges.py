"""Three numbers in place of one: what is expected, and between what bounds."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import astuple, dataclass


@dataclass(frozen=True)
class Range:
    """An estimate.

    Attributes:
        low: when everything goes as well as it may.
        middle: what to expect.
        high: when everything goes as badly as it may.
    """

    low: float = 0.0
    middle: float = 0.0
    high: float = 0.0

    def __add__(self, other: Range) -> Range:
        """All low together, all high together: estimates of one forecast err in the same direction."""
        return Range(self.low + other.low, self.middle + other.middle, self.high + other.high)

    def __sub__(self, other: Range) -> Range:
        """Without a part that is in each."""
        return Range(self.low - other.low, self.middle - other.middle, self.high - other.high)

    def __mul__(self, factor: float) -> Range:
        """So many times as much."""
        return self.each(lambda value: value * factor)

    def each(self, change: Callable[[float], float]) -> Range:
        """The same with every number changed."""
        return Range(change(self.low), change(self.middle), change(self.high))

    @property
    def numbers(self) -> tuple[float, float, float]:
        """Low, middle, high."""
        low, middle, high = astuple(self)
        return low, middle, high

    def as_json(self, digits: int = 3) -> dict[str, float]:
        """Rounded: `{"low", "middle", "high"}`."""
        return {name: round(value, digits) for name, value in vars(self).items()}


def exactly(value: float) -> Range:
    """What is known."""
    return Range(value, value, value)


def total(ranges: Iterable[Range]) -> Range:
    """The sum."""
    return sum(ranges, Range())
