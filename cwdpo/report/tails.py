"""nSFT's ACC10w and ACC10b: the mean over the items that are a method's worst, and over its best."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from cwdpo.base.errors import StoreError
from cwdpo.evaluate.question import Metric
from cwdpo.report.items import MeanOf, read
from cwdpo.report.layout import LaidRow, Layout
from cwdpo.report.results import Results

TAIL = 10
"""Items of a method's worst, and of its best."""


@dataclass(frozen=True)
class Tails:
    """Of one row, in the units of the metric's column: per item the mean over seeds."""

    worst: float
    best: float


def tails(results: Results, layout: Layout) -> Iterator[str]:
    """A sentence without its full stop for every row and benchmark that has them."""
    for benchmark in layout.benchmarks:
        for row in layout.rows:
            metric = _compared(results, row, benchmark) if row.asked else None
            found = _tails(results, row, benchmark, metric) if metric else None
            if metric and found:
                yield (
                    f"{row.label}, {benchmark}: ACC{TAIL}w {found.worst:.{metric.digits}f}, ACC{TAIL}b"
                    f" {found.best:.{metric.digits}f} (mean {metric.title} over the {TAIL} items that are its worst and"
                    " its best, by the mean over seeds)"
                )


def _compared(results: Results, row: LaidRow, benchmark: str) -> Metric | None:
    """What the benchmark compares, per item."""
    asked = results.cells(row.key)[0].experiment.benchmarks
    return next((one.compared for one in asked if one.name == benchmark), None)


def _tails(results: Results, row: LaidRow, benchmark: str, metric: Metric) -> Tails | None:
    """None while seeds are missing, of values that are only right or wrong, and of fewer items than both together."""
    there, making = results.scores(row.key, benchmark), MeanOf(metric.key)
    if there.gaps or not there.found:
        return None
    sums: dict[str, float] = {}
    graded = False
    for place, (_, score) in enumerate(there.found):
        try:
            rows = read(score, making)
        except StoreError:  # said where items are compared
            return None
        names = making.valued(rows)
        values = dict(zip(names, making.array({name: rows[name] for name in names}).tolist(), strict=True))
        graded = graded or not set(values.values()) <= {0.0, 1.0}
        sums = {name: sums[name] + value for name, value in values.items() if name in sums} if place else values
    ordered = sorted(metric.scale * value / len(there.found) for value in sums.values())
    if len(ordered) < 2 * TAIL or not graded:
        return None
    return Tails(sum(ordered[:TAIL]) / TAIL, sum(ordered[-TAIL:]) / TAIL)
