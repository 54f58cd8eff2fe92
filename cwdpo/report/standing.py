"""Tests over seeds: whether two rows differ, and which row of a column is best."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from cwdpo.report.content import Standing
from cwdpo.statistics.seeds import Test, holm, one_sample, welch

LEVEL = 0.05
"""Below it, after Holm's correction, rows are told apart."""

PAIRED = "paired t over seeds, which share Stage 1"


@dataclass(frozen=True)
class Sample:
    """The distinct values of a row.

    Attributes:
        fixed: whether another seed would give the same, because nothing was trained.
        starts: id of the Stage 1 behind each value; empty where some value has none of its own.
    """

    values: tuple[float, ...]
    fixed: bool = False
    starts: tuple[str, ...] = ()

    @property
    def mean(self) -> float:
        """Of at least one value."""
        return sum(self.values) / len(self.values)

    @property
    def known(self) -> bool:
        """Whether its spread is known: from two values on, and where there is none."""
        return self.fixed or len(self.values) > 1


@dataclass(frozen=True)
class Tested:
    """A test over seeds.

    Attributes:
        name: what it is called.
        pairs: seeds that it is over, where rows share Stage 1 seed by seed; else 0.
        left_out: results of both rows that are in no pair then.
    """

    test: Test
    name: str
    pairs: int = 0
    left_out: int = 0


def over_seeds(a: Sample, b: Sample) -> Tested | None:
    """The test of a - b; None where the spread of one is unknown, or both are fixed."""
    if not (a.known and b.known) or (a.fixed and b.fixed):
        return None
    if b.fixed:
        return Tested(one_sample(a.values, b.mean), "one-sample t over seeds")
    if a.fixed:
        return Tested(_turned(one_sample(b.values, a.mean)), "one-sample t over seeds")
    if found := pairs(a, b):
        differences = [a.values[one] - b.values[other] for one, other in found]
        left_out = len(a.values) + len(b.values) - 2 * len(found)
        scale = max(abs(value) for value in (*a.values, *b.values))
        return Tested(one_sample(differences, 0.0, scale=scale), PAIRED, len(found), left_out)
    return Tested(welch(a.values, b.values), "Welch's t over seeds")


def pairs(a: Sample, b: Sample) -> list[tuple[int, int]]:
    """Places of the values of a and of b that stand on the same Stage 1; none where fewer than two do.

    What such values share moves both alike: taken for independent, rows would be told apart far too seldom.
    """
    places = {start: place for place, start in enumerate(b.starts)}
    if len(places) < len(b.starts) or len(set(a.starts)) < len(a.starts):
        return []
    found = [(place, places[start]) for place, start in enumerate(a.starts) if start in places]
    return found if len(found) > 1 else []


def _turned(test: Test) -> Test:
    """Of b - a."""
    low, high = (None if end is None else -end for end in (test.high, test.low))
    return Test(-test.difference, low, high, test.p, test.df)


def standings(samples: Mapping[str, Sample], higher: bool) -> dict[str, Standing]:
    """Row -> `best` or `tied`, by tests of the best mean against every other row.

    Nothing where no row could be told from the best: no two of them have a spread that is known and not zero.
    """
    if len(samples) < 2:
        return {}
    best = max(samples, key=lambda row: samples[row].mean if higher else -samples[row].mean)
    others = [row for row in samples if row != best]
    tests = [over_seeds(samples[best], samples[row]) for row in others]
    if all(found is None or found.test.p is None for found in tests):
        return {}
    adjusted = holm([_p(found, higher) for found in tests])
    tied = [row for row, p in zip(others, adjusted, strict=True) if p is None or p >= LEVEL]
    if not tied:
        return {best: "best"}
    return {row: "tied" for row in (best, *tied)}


def _p(found: Tested | None, higher: bool) -> float | None:
    """Of the best mean being best: pairs of seeds may say the opposite where seeds are missing."""
    if found is None or found.test.p is None:
        return None
    return found.test.p if (found.test.difference > 0) == higher else 1.0
