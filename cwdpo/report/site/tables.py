"""Tables as pages show them: what stands in each cell, by what it sorts, and where it leads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from cwdpo.report.content import Column, Entry, Row, Table
from cwdpo.report.render.text import span
from cwdpo.report.render.views import difference, how_tested
from cwdpo.report.render.words import IN_DOUBT, about_n, baseline_of, is_mixed, paper, reasons, seeds_said, troubles
from cwdpo.report.site.limits import LIMITS
from cwdpo.report.site.pages import number, real_minus, slug


@dataclass(frozen=True)
class Mark:
    """A word beside a value; `kind` is a class of the style."""

    kind: str
    text: str


@dataclass(frozen=True)
class ShownEntry:
    """One cell.

    Attributes:
        href: of where it comes from; "" where there is no such page.
        value: the mean, "" where there is none.
        spread: standard deviation.
        sort: what the column is sorted by; "" comes last.
        interval, difference, paper: shown on request.
    """

    href: str
    value: str
    spread: str
    sort: str
    interval: str
    difference: str
    paper: str
    standing: str
    marks: tuple[Mark, ...]


@dataclass(frozen=True)
class ShownRow:
    """One method.

    Attributes:
        notes: numbers of the notes below the table that are on it.
        begins: whether a line stands before it.
    """

    label: str
    stands_on: str
    href: str
    entries: tuple[ShownEntry, ...]
    notes: tuple[int, ...]
    begins: bool


@dataclass(frozen=True)
class Heading:
    """Columns below one heading."""

    title: str
    span: int


@dataclass(frozen=True)
class ShownTable:
    """One table.

    Attributes:
        anchor: on the page.
        headings: of the columns; none where no column is in a group.
        counted: how many results values are over, a sentence each.
        baseline: label of the row that differences are to.
        tested: how differences were tested and what they speak of, a sentence each.
        notes: what marks of rows say, numbered from 1.
        gaps: why values are missing or in doubt, a sentence each.
        left_out: rows beyond the limit.
        has: which of `interval`, `difference` and `paper` any cell has.
        spreads: whether any cell has a standard deviation.
    """

    table: Table
    anchor: str
    headings: tuple[Heading, ...]
    rows: tuple[ShownRow, ...]
    counted: tuple[str, ...]
    baseline: str
    tested: tuple[str, ...]
    notes: tuple[str, ...]
    gaps: tuple[str, ...]
    left_out: int
    has: tuple[str, ...]
    spreads: bool


def shown_table(table: Table, place: int, pages: Mapping[str, str]) -> ShownTable:
    """A table as a page shows it.

    Args:
        place: among the tables of the report.
        pages: case -> page that says where its values come from.
    """
    kept = table.rows[: LIMITS.cases]
    notes = list(dict.fromkeys(mark for row in kept for mark in row.marks))
    mixed = is_mixed(table)
    rows = tuple(_row(table, row, pages.get(row.key, ""), notes, mixed) for row in kept)
    entries = [entry for row in rows for entry in row.entries]
    return ShownTable(
        table=table,
        anchor=slug(table.name, place),
        headings=_headings(table.columns),
        rows=rows,
        counted=tuple(about_n(table)),
        baseline=baseline_of(table),
        tested=tuple(how_tested(table)),
        notes=tuple(f"{note[:1].upper()}{note[1:]}" for note in notes),
        gaps=tuple(reasons(table)),
        left_out=len(table.rows) - len(kept),
        has=tuple(kind for kind in ("interval", "difference", "paper") if any(getattr(one, kind) for one in entries)),
        spreads=any(entry.spread for entry in entries),
    )


def anchor_of(table: Table, column: Column) -> str:
    """Where the page of a case tells about a value."""
    return slug(f"{table.name}-{column.key}", table.columns.index(column))


def _headings(columns: Sequence[Column]) -> tuple[Heading, ...]:
    if not any(column.group for column in columns):
        return ()
    return tuple(Heading(title, len(list(group))) for title, group in groupby(columns, lambda one: one.group))


def _row(table: Table, row: Row, page: str, notes: Sequence[str], mixed: bool) -> ShownRow:
    entries = tuple(_entry(table, row, column, page, mixed) for column in table.columns)
    numbers = tuple(notes.index(mark) + 1 for mark in row.marks)
    return ShownRow(row.label, row.stands_on, page, entries, numbers, row.key in table.groups)


def _entry(table: Table, row: Row, column: Column, page: str, mixed: bool) -> ShownEntry:
    entry = row.entries.get(column.key, Entry())
    digits = column.metric.digits
    return ShownEntry(
        href=f"{page}#{anchor_of(table, column)}" if page else "",
        value=number(entry.mean, digits),
        spread=f"± {number(entry.std, digits)}" if entry.std is not None else "",
        sort="" if entry.mean is None else repr(float(entry.mean)),
        interval=interval(entry, digits),
        difference=real_minus(" ".join(difference(entry.difference, digits))) if entry.difference else "",
        paper=real_minus(paper(entry, digits)),
        standing=entry.standing,
        marks=tuple(marks(entry, mixed)),
    )


def interval(entry: Entry, digits: int) -> str:
    """`[1.0, 2.0], n = 3` of what there is."""
    if entry.mean is None:
        return ""
    ends = "" if entry.low is None or entry.high is None else f"{span(entry.low, entry.high, digits)}, "
    return real_minus(f"{ends}n = {len(entry.results)}")


def marks(entry: Entry, mixed: bool) -> Iterator[Mark]:
    """What must be known of a cell, in words.

    Args:
        mixed: whether partial values stand beside others.
    """
    if entry.standing:
        yield Mark(entry.standing, entry.standing)
    if entry.stale:
        yield Mark("stale", "stale")
    if entry.doubtful:
        yield Mark("in-doubt", IN_DOUBT)
    if entry.partial and mixed:
        yield Mark("partial", "partial")
    total = len({seed for gap in entry.gaps for seed in gap.seeds} | {s for one in entry.results for s in one.seeds})
    for gap in entry.gaps:
        counted = f" {len(gap.seeds)}/{total}" if entry.results or len(entry.gaps) > 1 else ""
        yield Mark(gap.kind.replace(" ", "-"), f"{gap.kind}{counted}")


def troubles_said(entry: Entry) -> Iterator[str]:
    """`failed: out of memory (seeds 1, 2)`."""
    for kind, reason, seeds in troubles(entry):
        yield f"{kind}{f': {reason}' if reason else ''}{f' ({seeds_said(seeds)})' if seeds else ''}"
