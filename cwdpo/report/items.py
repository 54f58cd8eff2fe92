"""How metrics are made of values per item, which are read only where items are compared, and checked first."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from cwdpo.base import files
from cwdpo.base.errors import DataError, StoreError
from cwdpo.evaluate.items import ITEMS, read_items
from cwdpo.report.score import Score
from cwdpo.statistics.corpus import (
    BLEU,
    METEOR,
    Value,
    bleu_from,
    f1_counts,
    f1_from,
    meteor_from,
    share_from,
    statistics_of,
)

if TYPE_CHECKING:
    import numpy as np

Rows = Mapping[str, Mapping[str, Any]]
"""Item id -> its values."""

CLOSE = 1e-6
"""How near a metric made of items must come to the one that was stored."""

DOMAINS = {"in": "in-domain", "near": "near-domain", "out": "out-domain"}
"""NoCaps: what columns begin with -> domain of the items."""


@dataclass(frozen=True)
class MeanOf:
    """A mean of values per item; items without one do not count.

    Attributes:
        wrong: the mean is of 1 - value.
        domain: of the items that count; "" is all.
    """

    column: str
    wrong: bool = False
    domain: str = ""

    @property
    def columns(self) -> tuple[str, ...]:
        """What is read."""
        return (self.column, "domain") if self.domain else (self.column,)

    def _value(self, row: Mapping[str, Any]) -> float | None:
        value = row.get(self.column)
        if not isinstance(value, int | float) or (self.domain and row.get("domain") != self.domain):
            return None
        return 1.0 - value if self.wrong else float(value)

    def of(self, rows: Rows) -> float | None:
        """The metric."""
        known = self.array({name: rows[name] for name in self.valued(rows)})
        return math.fsum(known) / len(known) if len(known) else None

    def valued(self, rows: Rows) -> list[str]:
        """Items that count."""
        return [name for name, row in rows.items() if self._value(row) is not None]

    def array(self, rows: Rows) -> np.ndarray:
        """Values (items,) of items that count."""
        import numpy as np

        return np.array([self._value(row) for row in rows.values()], dtype=np.float64)


@dataclass(frozen=True)
class CorpusOf:
    """A metric of sums over items.

    Attributes:
        statistics: rows -> (items, statistics).
        value: sums -> metric.
    """

    columns: tuple[str, ...]
    statistics: Callable[[Rows], np.ndarray]
    value: Value

    def of(self, rows: Rows) -> float | None:
        """The metric."""
        return float(self.value(self.statistics(rows).sum(axis=0)))

    def valued(self, rows: Rows) -> list[str]:
        """All items."""
        return list(rows)

    def array(self, rows: Rows) -> np.ndarray:
        """Statistics (items, statistics)."""
        return self.statistics(rows)


Making = MeanOf | CorpusOf


def _sums(columns: Sequence[str], value: Value) -> CorpusOf:
    """Of sums of columns."""
    return CorpusOf(tuple(columns), lambda rows: statistics_of(rows.values(), columns), value)


def _yes(rows: Rows) -> np.ndarray:
    """POPE's statistics, whose splits are what ids begin with."""
    said, true = ([row[key] == "yes" for row in rows.values()] for key in ("prediction", "truth"))
    return f1_counts(said, true, [name.partition("/")[0] for name in rows])


CORPUS: dict[str, Making] = {
    **{f"bleu_{n}": _sums(BLEU, partial(bleu_from, order=n)) for n in (1, 2, 3, 4)},
    "meteor": _sums(METEOR, meteor_from),
    "f1": CorpusOf(("prediction", "truth"), _yes, f1_from),
    "chair_i": _sums(("hallucinated", "mentions"), share_from),
    "recall": _sums(("found", "objects"), share_from),
    "shr": _sums(("hallucinated", "judged"), share_from),
}
"""Metrics that are no means of values per item."""


def candidates(metric: str) -> Iterator[Making]:
    """How a metric may be made of items; none of them is used that does not give the stored value."""
    domain, _, rest = metric.partition("_")
    if metric in CORPUS:
        yield CORPUS[metric]
    elif domain in DOMAINS:
        yield MeanOf("domain_cider" if rest == "cider" else rest, domain=DOMAINS[domain])
    elif domain == "entire":
        yield from candidates(rest)
    else:
        yield from (MeanOf(metric), MeanOf("correct"), MeanOf("correct", wrong=True), MeanOf("rating"))


def making_of(metric: str, score: Score) -> Making | None:
    """How a metric is made of the items of a score; None where it is not known."""
    stored = score.value(metric)
    for making in candidates(metric):
        if stored is not None and gives(making, read(score, making), stored):
            return making
    return None


def gives(making: Making, rows: Rows, stored: float) -> bool:
    """Whether items give what was stored."""
    if not all(column in row for row in rows.values() for column in making.columns):
        return False
    try:
        found = making.of(rows)
    except (DataError, TypeError, ValueError):  # an item lacks something, or holds something else
        return False
    return found is not None and math.isclose(found, stored, rel_tol=CLOSE, abs_tol=CLOSE)


def read(score: Score, making: Making) -> Rows:
    """The columns that a metric is made of, every byte verified.

    Raises:
        StoreError: the file is missing or damaged.
    """
    path = score.files / ITEMS
    try:
        whole = files.sha256_file(path) == score.items
    except OSError as error:
        raise StoreError(f"{score.folder}: {ITEMS} cannot be read: {error.strerror}") from error
    if not whole:
        raise StoreError(f"{score.folder}: {ITEMS} is missing or changed since it was written")
    return read_items(score.files, making.columns)
