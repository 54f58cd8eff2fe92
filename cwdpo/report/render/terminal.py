"""Tables on a terminal, in as many blocks below each other as its width asks for; plain text where stdout is none.

A line is never broken inside a cell. What is best is bold, what is tied underlined; `*` and `†` stand for that where
the output has no styles.
"""

from __future__ import annotations

import os
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest

from rich.cells import cell_len
from rich.console import Console
from rich.segment import Segment, Segments
from rich.style import Style

from cwdpo.report.content import Table
from cwdpo.report.render.text import plain, title
from cwdpo.report.render.views import View, blocks, details, divisions, runs, values
from cwdpo.report.render.words import Legend, Said, caption, heading, legend, notes

GAP = "  "
"""Between columns."""

WIDE = 110
"""Columns of plain text."""

MARKS = {"best": "*", "tied": "†", "": ""}
STYLES = {"best": "bold", "tied": "underline", "": ""}
COLOURS = {
    "failed": "red",
    "damaged": "red",
    "running": "cyan",
    "starting": "cyan",
    "queued": "blue",
    "blocked": "yellow",
    "interrupted": "yellow",
    "cancelled": "yellow",
}
"""Of gaps, as `cwdpo status` has them."""


Pieces = list[tuple[str, str]]
"""Texts that follow each other, each with its style."""


def terminal(tables: Sequence[Table], paper: bool = False) -> str:
    """Values, caption and notes, then intervals and differences of each table, with the styles that stdout has.

    Args:
        paper: with the published number beside each value.
    """
    screen = _screen()
    with screen.capture() as captured:
        for place, table in enumerate(tables):
            _print(screen, chain([[]] if place else [], _table(screen, table, paper)))
    return captured.get()


def _screen() -> Console:
    """As wide as $COLUMNS says, or the terminal is; plain text has 110 columns."""
    found = Console(highlight=False)
    return found if found.is_terminal or "COLUMNS" in os.environ else Console(highlight=False, width=WIDE)


def _print(screen: Console, lines: Iterable[Pieces]) -> None:
    """As they are, but for blanks at their ends: neither markup nor widths are looked at again."""
    found: list[Segment] = []
    for line in lines:
        while line and not line[-1][0].rstrip(" "):
            line.pop()
        if line:
            line[-1] = (line[-1][0].rstrip(" "), line[-1][1])
        found += [Segment(text, Style.parse(style)) for text, style in line if text]
        found.append(Segment.line())
    screen.print(Segments(found), soft_wrap=True, end="")


def _table(screen: Console, table: Table, paper: bool) -> Iterator[Pieces]:
    """Everything of one table."""
    styled = screen.color_system is not None
    marks = Legend("Bold", "Underlined") if styled else Legend(MARKS["best"], MARKS["tied"])
    yield [(f"{plain(table.grid)} / {heading(table)}", "bold")]
    yield from _view(values(table, paper), screen.width, styled)
    yield from _wrapped(" ".join(caption(table, paper) + legend(table, marks)), screen.width)
    for note in notes(table):
        yield from _wrapped(note, screen.width)
    for view in details(table):
        yield from ([], [(view.title, "bold")])
        yield from _view(view, screen.width, styled)
        yield from _wrapped(" ".join(view.caption), screen.width)


def _wrapped(text: str, width: int) -> Iterator[Pieces]:
    """Between words only: a path broken in two cannot be copied."""
    lines = textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False)
    return ([(line, "")] for line in lines)


@dataclass(frozen=True)
class _Strip:
    """A column of text.

    Attributes:
        cells: for each row, its lines; all are `width` wide.
    """

    title: str
    cells: list[list[Pieces]]
    width: int


def _view(view: View, width: int, styled: bool) -> Iterator[Pieces]:
    """In blocks; what follows values stands below them where that tears columns apart less."""
    leads = [_lead(name, [row[place] for row in view.names], width) for place, name in enumerate(view.leads)]
    room = width - sum(lead.width for lead in leads) - len(GAP) * (len(leads) - 1)
    arranged = (_arranged(view, styled, below, room) for below in (False, True))
    strips, parts = min(arranged, key=lambda found: divisions(view.columns, found[1]))
    for place, part in enumerate(parts):
        yield from [[]] if place else []
        yield from _block(view, leads, strips, part)


def _arranged(view: View, styled: bool, below: bool, room: int) -> tuple[list[_Strip], list[list[int]]]:
    """All columns, and those that stand beside each other.

    Args:
        below: whether what follows a value stands below it.
    """
    strips = [_strip(title(column), view.column(place), styled, below) for place, column in enumerate(view.columns)]
    return strips, blocks(view.columns, [strip.width + len(GAP) for strip in strips], room)


def _lead(name: str, labels: Sequence[str], width: int) -> _Strip:
    """A column that names rows; long names take several lines."""
    most = max(16, width // 3)
    cells = [textwrap.wrap(label, most) or [""] for label in labels]
    wide = max(cell_len(line) for lines in (*cells, [name]) for line in lines)
    return _Strip(name, [[[(_left(line, wide), "")] for line in lines] for lines in cells], wide)


def _strip(name: str, cells: Sequence[Said], styled: bool, below: bool) -> _Strip:
    """A column of values; the values end in line, and what follows them begins in line."""
    tails = [_tail(cell, styled, below) for cell in cells]
    under = [cell.parts[1:] if below else () for cell in cells]
    tail = max(map(cell_len, tails), default=0)
    value = max((cell_len(cell.parts[0]) for cell in cells), default=0)
    width = max(value + tail, cell_len(name), *(cell_len(line) for lines in under for line in lines), 0)
    found = []
    for cell, after, lines in zip(cells, tails, under, strict=True):
        blank = " " * (width - tail - cell_len(cell.parts[0]))
        first = [(blank, ""), (cell.parts[0], _style(cell)), (_left(after, tail), "")]
        found.append([first, *([(_right(line, width), "")] for line in lines)])
    return _Strip(name, found, width)


def _tail(cell: Said, styled: bool, below: bool) -> str:
    """What stands behind the value."""
    mark = "" if styled else MARKS[cell.standing]
    return mark if below else mark + "".join(f" {part}" for part in cell.parts[1:])


def _style(cell: Said) -> str:
    if not cell.gap:
        return STYLES[cell.standing]
    return next((colour for kind, colour in COLOURS.items() if kind in cell.parts[0]), "")


def _block(view: View, leads: Sequence[_Strip], strips: Sequence[_Strip], part: Sequence[int]) -> Iterator[Pieces]:
    """The lines of columns that stand beside each other, with their headings."""
    shown = [*leads, *_widened(view, strips, part)]
    width = sum(strip.width for strip in shown) + len(GAP) * (len(shown) - 1)
    yield from _group_lines(view, leads, shown[len(leads) :], part)
    heads = [_left(strip.title, strip.width) for strip in leads]
    heads += [_right(strip.title, strip.width) for strip in shown[len(leads) :]]
    yield [(GAP.join(heads), "bold")]
    yield [("─" * width, "dim")]
    for row in range(len(view.names)):
        yield from [[("─" * width, "dim")]] if row in view.lines else []
        for line in zip_longest(*(strip.cells[row] for strip in shown)):
            yield _joined(line, [strip.width for strip in shown])


def _joined(line: Sequence[Pieces | None], widths: Sequence[int]) -> Pieces:
    """Columns beside each other."""
    found: Pieces = []
    for pieces, width in zip(line, widths, strict=True):
        found += [*(pieces or [(" " * width, "")]), (GAP, "")]
    return found[:-1]


def _widened(view: View, strips: Sequence[_Strip], part: Sequence[int]) -> list[_Strip]:
    """Columns of a group are together as wide as its name."""
    found = []
    for run in runs(view.columns, part):
        width = sum(strips[place].width for place in run) + len(GAP) * (len(run) - 1)
        lacking = max(0, cell_len(plain(view.columns[run[0]].group)) - width)
        first = strips[run[0]]
        cells = [[[(" " * lacking, ""), *line] for line in lines] for lines in first.cells] if lacking else first.cells
        found += [_Strip(first.title, cells, first.width + lacking), *(strips[place] for place in run[1:])]
    return found


def _group_lines(
    view: View, leads: Sequence[_Strip], strips: Sequence[_Strip], part: Sequence[int]
) -> Iterator[Pieces]:
    """Names of groups, each with a rule below it; nothing where no column has one."""
    if not any(view.columns[place].group for place in part):
        return
    names, rules = ([" " * lead.width for lead in leads] for _ in range(2))
    left = iter(strips)
    for run in runs(view.columns, part):
        width = sum(next(left).width for _ in run) + len(GAP) * (len(run) - 1)
        group = plain(view.columns[run[0]].group)
        names.append(_centred(group, width))
        rules.append(("─" if group else " ") * width)
    yield [(GAP.join(names), "bold")]
    yield [(GAP.join(rules), "dim")]


def _left(text: str, width: int) -> str:
    return text + " " * (width - cell_len(text))


def _right(text: str, width: int) -> str:
    return " " * (width - cell_len(text)) + text


def _centred(text: str, width: int) -> str:
    return _left(" " * ((width - cell_len(text)) // 2) + text, width)
