"""What a table is to hold before anything is read: rows, columns, and where the values of each column are from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from cwdpo.report.content import Column, Gap, Result
from cwdpo.report.published import Published
from cwdpo.report.results import Results
from cwdpo.report.score import Score


@dataclass(frozen=True)
class Found:
    """What there is of one row in one column.

    Attributes:
        scores: what the results were read from, in their order, where they are a benchmark's.
        parts: what they were derived from, where each is of several.
    """

    results: tuple[Result, ...] = ()
    gaps: tuple[Gap, ...] = ()
    scores: tuple[Score, ...] = ()
    parts: tuple[Score, ...] = ()


NOT_ASKED = Found(gaps=(Gap("not asked", "", ()),))
"""Of a row or a column that the grid does not have."""


@dataclass(frozen=True)
class LaidRow:
    """One row.

    Attributes:
        key: the case of the grid.
        asked: whether the grid has such a case.
        stands_on: Stage 1 as the table file says it; "" where it leaves it to the wiring.
        published: key of its numbers in the paper's file.
        cost_of: key of the row whose steps cost 1.
    """

    key: str
    asked: bool
    label: str
    stands_on: str
    published: str
    cost_of: str


class Source(Protocol):
    """Where the values of a column are from."""

    def found(self, results: Results, row: LaidRow, layout: Layout) -> Found:
        """What there is of a row that the grid has."""


@dataclass(frozen=True)
class LaidColumn:
    """One column.

    Attributes:
        published: key of its numbers in the paper's file.
        reads: benchmarks that its values are derived from, where it is none's.
        optional: left out where no row has a value.
        compared: whether rows are compared with the baseline.
    """

    column: Column
    source: Source
    published: str
    reads: tuple[str, ...] = ()
    optional: bool = False
    compared: bool = True


@dataclass(frozen=True)
class Layout:
    """A table without its values.

    Attributes:
        name, title, baseline, groups: as of `Table`.
        published: the paper's numbers, or None.
        remarks: what must be known of it, a sentence each without its full stop.
    """

    name: str
    title: str
    baseline: str
    rows: tuple[LaidRow, ...]
    columns: tuple[LaidColumn, ...]
    groups: tuple[str, ...] = ()
    published: Published | None = None
    remarks: tuple[str, ...] = ()

    def row(self, key: str) -> LaidRow:
        """One that is in it."""
        return next(row for row in self.rows if row.key == key)

    @property
    def benchmarks(self) -> Sequence[str]:
        """Those that columns are of, each once."""
        return list(dict.fromkeys(name for one in self.columns for name in (one.column.benchmark, *one.reads) if name))
