"""From what the store has to tables: means, spreads and tests in the places that a layout has for them."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from cwdpo.jobs.plan import Plan
from cwdpo.jobs.status import Overlay
from cwdpo.report.caption import beside_published, caption
from cwdpo.report.comparing import Compared, Side, apart
from cwdpo.report.content import Column, Entry, Row, Standing, Table
from cwdpo.report.differences import IntervalKind, compared
from cwdpo.report.judges import judges_of
from cwdpo.report.layout import NOT_ASKED, Found, LaidColumn, LaidRow, Layout
from cwdpo.report.layouts import layouts
from cwdpo.report.notes import mismatch, notes, twins
from cwdpo.report.results import Results
from cwdpo.report.standing import Sample, standings
from cwdpo.report.tails import tails
from cwdpo.statistics.summary import mean_std


@dataclass(frozen=True)
class Wanted:
    """What is asked for.

    Attributes:
        tables: files in `configs/tables/`, or `benchmarks`; none is what the grid has.
        interval: what intervals and tests are over.
        paper: whether published numbers are to be shown.
    """

    tables: tuple[str, ...] = ()
    interval: IntervalKind = "seeds"
    paper: bool = False


def tables(plan: Plan, overlay: Overlay | None = None, wanted: Wanted = Wanted()) -> list[Table]:
    """The tables of a grid as the store is now.

    Args:
        overlay: what a scheduler knows beyond the store.

    Raises:
        ConfigError: unknown table, a fault in a table file, or nothing to report.
    """
    chosen = layouts(plan, wanted.tables)
    results = Results(plan, overlay)
    return [_table(results, layout, wanted) for layout in chosen]


def _table(results: Results, layout: Layout, wanted: Wanted) -> Table:
    found = {row.key: _found(results, row, layout) for row in layout.rows}
    laid = [one for one in layout.columns if not one.optional or _has_values(found, one.column)]
    columns = [_judged(one.column, found) for one in laid]
    whole = {one.column.key: _Column(results, layout, one, found, wanted.interval) for one in laid}
    same = twins(results, layout)
    rows = tuple(_row(results, layout, row, laid, found[row.key], whole, same) for row in layout.rows)
    left_out = [one.column for one in layout.columns if one not in laid]
    paper = beside_published(results, layout, rows) if wanted.paper else ()
    return Table(
        name=layout.name,
        title=layout.title,
        grid=results.plan.grid.name,
        options=results.plan.grid.options,
        command=_command(results.plan, wanted),
        columns=tuple(columns),
        rows=rows,
        baseline=layout.baseline,
        partial=_limited(results, layout) or any(entry.partial for row in rows for entry in row.entries.values()),
        paper=layout.published.source if layout.published else "",
        caption=(*caption(results, layout, columns, rows, wanted.interval), *paper),
        notes=(
            *notes(results, layout, left_out),
            *_column_notes(columns, whole),
            *(tails(results, layout) if wanted.interval != "seeds" else ()),
        ),
        groups=layout.groups,
    )


def _command(plan: Plan, wanted: Wanted) -> str:
    named = [f"--table {shlex.quote(name)}" for name in wanted.tables]
    over = [] if wanted.interval == "seeds" else [f"--interval {wanted.interval}"]
    return " ".join(["cwdpo report", plan.grid.options, *named, *over, *(["--paper"] if wanted.paper else [])])


def _column_notes(columns: Sequence[Column], whole: Mapping[str, _Column]) -> list[str]:
    """Those with the same note together."""
    found: dict[str, list[str]] = {}
    for column in columns:
        if note := whole[column.key].compared.note:
            found.setdefault(note, []).append(column.name)
    return [f"{', '.join(names)}: {note}" for note, names in found.items()]


def _found(results: Results, row: LaidRow, layout: Layout) -> dict[str, Found]:
    """Column -> what there is of a row."""
    if not row.asked:
        return {one.column.key: NOT_ASKED for one in layout.columns}
    return {one.column.key: one.source.found(results, row, layout) for one in layout.columns}


def _has_values(found: Mapping[str, Mapping[str, Found]], column: Column) -> bool:
    return any(own[column.key].results for own in found.values())


def _judged(column: Column, found: Mapping[str, Mapping[str, Found]]) -> Column:
    """With the name of who judged it."""
    own = [one[column.key] for one in found.values()]
    judged = column.metric.judged or any(one.parts for one in own)
    scores = (score for one in own for score in (*one.scores, *one.parts))
    return replace(column, judge=judges_of(scores)) if judged else column


def _limited(results: Results, layout: Layout) -> bool:
    """Whether a benchmark is asked only a part of its items."""
    names = set(layout.benchmarks)
    cells = (results.cells(row.key)[0] for row in layout.rows if row.asked)
    return any(one.limit is not None for cell in cells for one in cell.experiment.benchmarks if one.name in names)


class _Column:
    """A column as a whole: its rows compared with each other.

    Attributes:
        standings: row -> standing, of those that have one.
        apart: row -> why it is not compared with most rows, of those that are not.
    """

    def __init__(
        self,
        results: Results,
        layout: Layout,
        laid: LaidColumn,
        found: Mapping[str, Mapping[str, Found]],
        kind: IntervalKind,
    ) -> None:
        column = laid.column
        own = {row.key: found[row.key][column.key] for row in layout.rows}
        sides = {row: Side(one, _sample(results, row, one)) for row, one in own.items() if one.results}
        self.apart = apart(sides, layout.baseline)
        samples = {row: side.sample for row, side in sides.items() if row not in self.apart}
        self.compared: Compared = compared(kind, column.metric, sides, layout.baseline if laid.compared else "")
        self.standings: dict[str, Standing] = standings(samples, column.metric.higher) if column.ranked else {}

    def entry(self, row: str, found: Found, paper: float | None) -> Entry:
        """One cell."""
        if not found.results:
            return Entry(gaps=found.gaps, paper=paper)
        summary = mean_std([result.value for result in found.results])
        low, high = self.compared.intervals.get(row, (None, None))
        return Entry(
            found.results,
            found.gaps,
            summary.mean,
            summary.std,
            low,
            high,
            partial=any(score.summary["partial"] for score in (*found.scores, *found.parts)),
            standing=self.standings.get(row, ""),
            difference=self.compared.differences.get(row),
            paper=paper,
        )


def _sample(results: Results, row: str, found: Found) -> Sample:
    """A model that was not trained has seeds, too, where it samples its answers."""
    values = tuple(result.value for result in found.results)
    known = results.starts(row)
    starts = tuple(known.get(result.seeds[0], "") for result in found.results if len(result.seeds) == 1)
    paired = len(starts) == len(values) and all(starts)
    return Sample(values, len(values) == 1 and not found.gaps and results.fixed(row), starts if paired else ())


def _apart(row: LaidRow, laid: Sequence[LaidColumn], columns: Mapping[str, _Column]) -> list[str]:
    """In which columns it is not compared with most rows, a sentence for each reason."""
    found: dict[str, list[str]] = {}
    for column in (one.column for one in laid):
        if why := columns[column.key].apart.get(row.key):
            found.setdefault(why, []).append(column.name)
    return [f"{why} in {', '.join(names)}" for why, names in found.items()]


def _row(
    results: Results,
    layout: Layout,
    row: LaidRow,
    laid: Sequence[LaidColumn],
    found: Mapping[str, Found],
    columns: Mapping[str, _Column],
    same: Mapping[str, str],
) -> Row:
    """One row of the table."""
    printed = layout.published
    entries = {
        key: columns[key].entry(row.key, found[key], printed.value(row.published, one.published) if printed else None)
        for key, one in ((one.column.key, one) for one in laid)
    }
    said = [same[row.key]] if row.key in same else []
    said += list(filter(None, [mismatch(results, row) if row.asked else ""]))
    said += _apart(row, laid, columns)
    for key in entries:
        said += [why for why in columns[key].compared.marks.get(row.key, ()) if why not in said]
    stands_on = results.stage1(row.key) if row.asked else row.stands_on
    return Row(row.key, row.label, stands_on, entries, tuple(said))
