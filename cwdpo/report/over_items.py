"""Comparisons by values per item: with seeds and items random, or of these checkpoints over items alone.

Rows are compared one after the other, so that the values per item of few results are held at a time.

Shapes: S seeds, N items, K statistics of a corpus (no such axis where a metric is a mean).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from cwdpo.base.errors import DataError, StoreError
from cwdpo.evaluate.question import Metric
from cwdpo.report.comparing import Compared, Side, mark_pairs, others, seed_intervals, tested, untested
from cwdpo.report.content import Difference
from cwdpo.report.items import CorpusOf, Making, gives, making_of, read
from cwdpo.report.standing import pairs
from cwdpo.statistics.bootstrap import Interval, paired_bootstraps
from cwdpo.statistics.corpus import corpus_bootstrap, item_values
from cwdpo.statistics.crossed import crossed_difference, crossed_interval

if TYPE_CHECKING:
    import numpy as np

CROSSED = "t with seeds and items both random"
CROSSED_PAIRS = "t with seeds and items both random, in pairs of seeds that share Stage 1"
LEAST_SEEDS = 3
TOO_FEW = "no interval over seeds and items: that takes three seeds"
NO_TEST = "no test over seeds and items: that takes three seeds"
BOOTSTRAP = "paired bootstrap over items (10,000 resamples) of means over seeds"
NEW_TRAININGS_AND_ITEMS = "new trainings on new items"
THESE_CHECKPOINTS = "these checkpoints on new items, and not of the variance of training"
NOT_KNOWN = "no interval over items: how it is made of values per item is not known"
SEEDS_MISSING = "no difference over items while seeds are missing"


# ---- seeds and items


def by_seeds_and_items(metric: Metric, sides: Mapping[str, Side], baseline: str) -> Compared:
    """With seeds and items both random."""
    found, making = Compared(), _making(metric, sides)
    if making is None:
        return Compared(note=NOT_KNOWN)
    reading = Reading(metric, making)
    for row, side in sides.items():
        if side.sample.known:
            _guarded(found, row, partial(_add_own, found, row, reading, side))
    for row, side in others(sides, baseline).items():
        _guarded(found, row, partial(_add_crossed, found, row, reading, side, sides[baseline]))
    return found


def _add_own(found: Compared, row: str, reading: Reading, side: Side) -> None:
    if _too_few(side):
        found.mark(row, TOO_FEW)
        return
    common = reading.together([list(reading.each(side))])
    interval = crossed_interval(reading.crossed(common.matrices[0]))
    found.add_interval(row, interval.low, interval.high)
    common.mark(found, row, "the interval")


def _add_crossed(found: Compared, row: str, reading: Reading, side: Side, baseline: Side) -> None:
    if not (side.sample.known and baseline.sample.known):
        found.differences[row] = untested(side, baseline)
        return
    if _too_few(side) or _too_few(baseline):
        found.differences[row] = untested(side, baseline, NO_TEST)
        return
    import numpy as np

    common = reading.together([list(reading.each(side)), list(reading.each(baseline))])
    own, other = map(reading.crossed, common.matrices)
    shared = pairs(side.sample, baseline.sample)
    if len(shared) >= LEAST_SEEDS:
        # Rows that share Stage 1 are one method with a seed for each pair, against nothing.
        apart = own[[one for one, _ in shared]] - other[[one for _, one in shared]]
        scale = max(abs(own.mean()), abs(other.mean()))
        test, name = crossed_difference(apart, np.zeros_like(apart[:1]), scale=scale), CROSSED_PAIRS
        mark_pairs(found, row, len(shared), len(own) + len(other) - 2 * len(shared))
    else:
        test, name = crossed_difference(own, other), CROSSED
    found.differences[row] = tested(test, name, NEW_TRAININGS_AND_ITEMS)
    common.mark(found, row, "the difference")


def _too_few(side: Side) -> bool:
    """Whether a spread over seeds and items cannot be told: of two seeds it is found too small too often."""
    return not side.sample.fixed and len(side.sample.values) < LEAST_SEEDS


# ---- items alone


def by_items(metric: Metric, sides: Mapping[str, Side], baseline: str) -> Compared:
    """Of these checkpoints: items resampled in pairs; intervals of means are those over seeds."""
    found, making = Compared(), _making(metric, sides)
    seed_intervals(sides, found)
    if making is None:
        return replace(found, note=NOT_KNOWN)
    rows, reading = others(sides, baseline), Reading(metric, making)
    if isinstance(making, CorpusOf):
        for row, side in rows.items():
            _guarded(found, row, partial(_add_corpus, found, row, reading, side, sides[baseline]))
    elif rows:
        _guarded_all(found, rows, partial(_add_means, found, reading, rows, sides[baseline]))
    return found


def _add_corpus(found: Compared, row: str, reading: Reading, side: Side, baseline: Side) -> None:
    common = reading.together([list(reading.whole(side)), list(reading.whole(baseline))])
    own, other = common.matrices
    assert isinstance(reading.making, CorpusOf), "only called for those"
    found.differences[row] = _bootstrapped(corpus_bootstrap(own, other, reading.making.value), reading.metric.scale)
    common.mark(found, row, "the difference")


def _add_means(found: Compared, reading: Reading, rows: Mapping[str, Side], baseline: Side) -> None:
    """Rows over the same items as the baseline are resampled together, others over the items that both have."""
    base = reading.mean(baseline)
    whole: dict[str, list[float]] = {}

    def add(row: str, side: Side) -> None:
        means = reading.mean(side)
        common = reading.together([[means], [base]])
        common.mark(found, row, "the difference")
        if means.names == base.names:
            whole[row] = means.values.tolist()
            return
        ((own,), (other,)) = common.matrices
        (interval,) = paired_bootstraps([own.tolist()], other.tolist())
        found.differences[row] = _bootstrapped(interval, reading.metric.scale)

    for row, side in rows.items():
        _guarded(found, row, partial(add, row, side))
    for row, interval in zip(whole, paired_bootstraps(whole.values(), base.values.tolist()), strict=True):
        found.differences[row] = _bootstrapped(interval, reading.metric.scale)


def _bootstrapped(found: Interval, scale: float) -> Difference:
    value, low, high = (scale * one for one in (found.difference, found.low, found.high))
    return Difference(value, low, high, None, None, BOOTSTRAP, THESE_CHECKPOINTS)


# ---- reading


@dataclass(frozen=True)
class PerItem:
    """What items have of a metric: those that have nothing are absent.

    Attributes:
        names: sorted.
        values: in their order, (N,) or (N, K).
        ever: items that have something in any of the results that it is the mean of.
    """

    names: list[str]
    values: np.ndarray
    ever: frozenset[str]


@dataclass(frozen=True)
class Common:
    """Results over the items that all of them have.

    Attributes:
        matrices: of each side, (S, N) or (S, N, K).
        items, total: how many there are in all results, and in any.
    """

    matrices: list[np.ndarray]
    items: int
    total: int

    def mark(self, found: Compared, row: str, what: str) -> None:
        """Say of a row that items were left out."""
        if self.items < self.total:
            of = f"{self.items:,} of {self.total:,}"
            found.mark(row, f"{what} is over the {of} items that have a value in all results")


@dataclass(frozen=True)
class Reading:
    """A metric, read out of the values per item."""

    metric: Metric
    making: Making

    def each(self, side: Side) -> Iterator[PerItem]:
        """Of each result; `StoreError` or `DataError` where they are not what the metric was made of."""
        for score in side.found.scores:
            rows, stored = read(score, self.making), score.value(self.metric.key)
            if stored is None or not gives(self.making, rows, stored):
                raise DataError(f"{score.folder}: its items do not give its {self.metric.title}")
            names = sorted(self.making.valued(rows))
            yield PerItem(names, self.making.array({name: rows[name] for name in names}), frozenset(names))

    def whole(self, side: Side) -> Iterator[PerItem]:
        """The same of a side of which nothing is missing."""
        if side.found.gaps:
            raise DataError(SEEDS_MISSING)
        return self.each(side)

    def mean(self, side: Side) -> PerItem:
        """Mean over seeds of items with a value in every seed."""
        total, count = None, 0
        for one in self.whole(side):
            total = one if total is None else _added(total, one)
            count += 1
        if total is None:
            raise DataError("there is no result")
        return PerItem(total.names, total.values / count, total.ever)

    def together(self, sides: Sequence[Sequence[PerItem]]) -> Common:
        """All results, over the items that all of them have."""
        import numpy as np

        each = [one for side in sides for one in side]
        common = set.intersection(*(set(one.names) for one in each))
        total = len(frozenset.union(*(one.ever for one in each)))
        if len(common) < 2:
            raise DataError("no two items have a value in all results")
        return Common([np.stack([_of(one, common) for one in side]) for side in sides], len(common), total)

    def crossed(self, matrix: np.ndarray) -> np.ndarray:
        """Values (S, N) in the units of the column, whose mean is the metric."""
        found = item_values(matrix, self.making.value) if isinstance(self.making, CorpusOf) else matrix
        return self.metric.scale * found


def _added(one: PerItem, other: PerItem) -> PerItem:
    common, ever = set(one.names) & set(other.names), one.ever | other.ever
    return PerItem([name for name in one.names if name in common], _of(one, common) + _of(other, common), ever)


def _of(one: PerItem, names: set[str]) -> np.ndarray:
    """Values of some items, in the order of their names."""
    if len(names) == len(one.names):
        return one.values
    kept: np.ndarray = one.values[[name in names for name in one.names]]
    return kept


def _making(metric: Metric, sides: Mapping[str, Side]) -> Making | None:
    """How the metric is made of values per item, by the first score that tells."""
    for side in sides.values():
        for score in side.found.scores:
            with suppress(StoreError):
                if making := making_of(metric.key, score):
                    return making
    return None


def _guarded(found: Compared, row: str, add: Callable[[], None]) -> None:
    """Add something of a row, or say why that cannot be."""
    _guarded_all(found, [row], add)


def _guarded_all(found: Compared, rows: Sequence[str] | Mapping[str, Side], add: Callable[[], None]) -> None:
    try:
        add()
    except (DataError, StoreError) as error:
        why = str(error) if str(error) == SEEDS_MISSING else f"no comparison by items: {error}"
        for row in rows:
            found.mark(row, why)
