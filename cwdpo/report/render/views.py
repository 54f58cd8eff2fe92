"""What is shown of a table: its values, their intervals, or differences; and which columns fit beside each other."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from cwdpo.report.content import Column, Difference, Entry, Row, Table
from cwdpo.report.render.text import capital, listed, plain, probability, signed, signed_span, span
from cwdpo.report.render.words import Said, Speaker, baseline_of, common_stage1, entry_of, heading

NOTHING = Said(("\N{EN DASH}",), gap=True)
"""Stands where there is no interval, or no difference."""


@dataclass(frozen=True)
class View:
    """Rows and columns with text in them.

    Attributes:
        name: what is shown: `values`, `intervals` or `differences`.
        leads: titles of the columns that name a row.
        names: for each row as many.
        cells: for each row one for each of `columns`.
        lines: places of rows before which a line is drawn.
        caption: how to read it, beside what is said of the values.
    """

    name: str
    title: str
    leads: tuple[str, ...]
    names: tuple[tuple[str, ...], ...]
    columns: tuple[Column, ...]
    cells: tuple[tuple[Said, ...], ...]
    lines: frozenset[int]
    caption: tuple[str, ...] = ()

    def column(self, place: int) -> list[Said]:
        """Its cells, from the first row to the last."""
        return [row[place] for row in self.cells]


def values(table: Table, paper: bool) -> View:
    """Every entry."""
    return _view("values", heading(table), table, Speaker(table, paper).says, table.rows, table.columns)


def details(table: Table) -> list[View]:
    """Intervals of the means, and differences to the baseline; what the table has of them."""
    intervals = f"{heading(table)}: 95% intervals of the mean"
    differences = f"{heading(table)}: differences to {baseline_of(table)}"
    found = (
        _some("intervals", intervals, table, _interval, ()),
        _some("differences", differences, table, _difference, how_tested(table)),
    )
    return [view for view in found if view.cells]


def _some(name: str, title: str, table: Table, says: Callable[[Entry, Column], Said], caption: Sequence[str]) -> View:
    """Rows and columns that have anything of it."""
    has = [
        (row.key, column.key)
        for row in table.rows
        for column in table.columns
        if says(entry_of(row, column), column) is not NOTHING
    ]
    of_rows, of_columns = {row for row, _ in has}, {column for _, column in has}
    rows = [row for row in table.rows if row.key in of_rows]
    columns = [column for column in table.columns if column.key in of_columns]
    return _view(name, title, table, says, rows, columns, caption)


def _view(
    name: str,
    title: str,
    table: Table,
    says: Callable[[Entry, Column], Said],
    rows: Sequence[Row],
    columns: Sequence[Column],
    caption: Sequence[str] = (),
) -> View:
    differ = common_stage1(table) is None
    return View(
        name,
        title,
        ("method", "stands on") if differ else ("method",),
        tuple((plain(row.label), plain(row.stands_on)) if differ else (plain(row.label),) for row in rows),
        tuple(columns),
        tuple(tuple(says(entry_of(row, column), column) for column in columns) for row in rows),
        frozenset(place for place, row in enumerate(rows) if place and row.key in table.groups),
        tuple(caption),
    )


def _interval(entry: Entry, column: Column) -> Said:
    """`[138.7, 139.7]`."""
    if entry.low is None or entry.high is None:
        return NOTHING
    return Said((span(entry.low, entry.high, column.metric.digits),))


def _difference(entry: Entry, column: Column) -> Said:
    """`+3.1`, `[+1.2, +5.0]` and `p=0.012`."""
    found = entry.difference
    return Said(difference(found, column.metric.digits)) if found else NOTHING


def difference(found: Difference, digits: int) -> tuple[str, ...]:
    """`+3.1`, `[+1.2, +5.0]` and `p=0.012`; what there is of them."""
    return tuple(filter(None, (signed(found.value, digits), signed_span(found, digits), probability(found))))


def how_tested(table: Table) -> list[str]:
    """How differences were tested and what their intervals speak of; rows are named where they are not alike."""
    found: dict[str, dict[str, None]] = {}
    labels = [(plain(row.label), difference) for row in table.rows for difference in _differences(table, row)]
    for label, difference in labels:
        found.setdefault(tested(difference), {})[label] = None
    rows = {label for label, _ in labels}
    said = ["In brackets the 95% interval."] if any(one.low is not None for _, one in labels) else []
    if any(one.adjusted is not None for _, one in labels):
        said.append("p is after Holm's correction over the rows of a column.")
    return said + [
        f"{capital(test)}{'' if len(of) == len(rows) else f' ({listed(of)})'}." for test, of in found.items()
    ]


def _differences(table: Table, row: Row) -> Iterator[Difference]:
    found = (entry_of(row, column).difference for column in table.columns)
    return (one for one in found if one)


def tested(difference: Difference) -> str:
    """`Welch's t over seeds: speaks of new trainings`."""
    return f"{plain(difference.test)}: speaks of {plain(difference.covers)}"


def runs(columns: Sequence[Column], places: Iterable[int]) -> list[list[int]]:
    """Places of neighbouring columns of one group, or of none."""
    return [list(run) for _, run in groupby(places, key=lambda place: columns[place].group)]


def blocks(columns: Sequence[Column], widths: Sequence[float], room: float) -> list[list[int]]:
    """Places of the columns that stand beside each other; groups are divided only where one alone is too wide.

    Args:
        widths: of each column, with the space before it.
    """

    def width(places: Iterable[int]) -> float:
        return sum(widths[place] for place in places)

    found: list[list[int]] = [[]]
    for run in runs(columns, range(len(columns))):
        for piece in [run] if width(run) <= room else [[place] for place in run]:
            if found[-1] and width([*found[-1], *piece]) > room:
                found.append([])
            found[-1] += piece
    return found


def divisions(columns: Sequence[Column], parts: Sequence[Sequence[int]]) -> tuple[int, int]:
    """How much columns are torn apart, to compare by: the blocks, then the groups or parts of one in all of them."""
    return len(parts), sum(len(runs(columns, part)) for part in parts)
