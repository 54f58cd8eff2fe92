r"""What fits on a page of LaTeX's `article`: the size a table is set in, the columns beside each other, the floats."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

from cwdpo.report.render.text import title
from cwdpo.report.render.views import View, blocks, divisions
from cwdpo.report.render.words import Said

TEXT_WIDTH = 345.0
"""Points between the margins, which are wider than those of most conferences."""

MOST_LINES = 42
"""Lines of tables in one float; its caption and notes need room, too."""

HEAD = 4
"""Lines that the head of a tabular and the space around it take."""

SCRIPT_DIGIT = 3.98
r"""Points that a digit of `\scriptsize` takes."""

BOLD = 1.15
"""Width of bold digits over that of others."""

WIDTHS = {
    one: width
    for width, characters in {
        0.57: ".,:;!|'[]il",
        0.67: " -fj",
        0.79: "()rtsI",
        1.0: "0123456789aegocz",
        1.12: "vxykqbdhnpu?_*/",
        1.5: "ABCDEFGHJKLNOPQRSTUVXYZw",
        2.1: "mMW@%",
    }.items()
    for one in characters
}
"""Characters, and how many digits wide they are in Computer Modern, or a little more; others 1.6."""


@dataclass(frozen=True)
class Style:
    """How densely a table is set.

    Attributes:
        size: LaTeX that sets it.
        space: points on each side of a column.
        digit: points that a digit takes.
    """

    size: str
    space: float
    digit: float

    def width(self, text: str) -> float:
        """Points that it takes."""
        return self.digit * _digits(text)


STYLES = (Style(r"\small", 6, 4.63), Style(r"\footnotesize\setlength{\tabcolsep}{3pt}", 3, 4.25))


@dataclass(frozen=True)
class Piece:
    """One tabular: places of rows and of columns."""

    rows: range
    columns: tuple[int, ...]


@dataclass(frozen=True)
class Layout:
    """How a view is set.

    Attributes:
        stacked: whether what follows a value stands below it.
        parts: places of the columns that stand beside each other.
    """

    style: Style
    stacked: bool
    parts: list[list[int]]

    def floats(self, view: View) -> list[list[Piece]]:
        """The tabulars of each float."""
        heights = [_height(view, row, self.stacked) for row in range(len(view.names))]
        found: list[list[Piece]] = []
        left = 0
        for part, rows in product(self.parts, _chunks(heights)):
            needed = HEAD + sum(heights[row] for row in rows)
            if needed > left:
                found.append([])
                left = MOST_LINES
            found[-1].append(Piece(rows, tuple(part)))
            left -= needed
        return found


def layout(view: View) -> Layout:
    """The first that tears columns apart least."""
    found = [_layout(view, style, stacked) for style, stacked in product(STYLES, (False, True))]
    return min(found, key=lambda one: divisions(view.columns, one.parts))


def _layout(view: View, style: Style, stacked: bool) -> Layout:
    space = 2 * style.space
    widths = [
        space + max(style.width(title(column)), *(_cell_width(cell, style, stacked) for cell in view.column(place)))
        for place, column in enumerate(view.columns)
    ]
    leads = zip(view.leads, *view.names, strict=True)
    room = TEXT_WIDTH + space - sum(space + max(map(style.width, texts)) for texts in leads)
    return Layout(style, stacked, blocks(view.columns, widths, room))


def _cell_width(cell: Said, style: Style, stacked: bool) -> float:
    """In points; what follows a value is in a smaller size."""
    value, spread, follows = pieces(cell)
    first = style.width(value) * (BOLD if cell.standing == "best" else 1) + SCRIPT_DIGIT * _digits(spread)
    others = [SCRIPT_DIGIT * _digits(part) for part in follows]
    return max([first, *others]) if stacked else first + sum(style.width(" ") + width for width in others)


def pieces(cell: Said) -> tuple[str, str, tuple[str, ...]]:
    """The value, `±0.4` or nothing, and what follows; papers set the spread close to the value."""
    value, plus_minus, spread = cell.parts[0].partition(" ± ")
    return value, plus_minus.strip() + spread, cell.parts[1:]


def _digits(text: str) -> float:
    """How many digits are as wide."""
    return sum(WIDTHS.get(one, 1.6) for one in text)


def _height(view: View, row: int, stacked: bool) -> int:
    """In lines, a rule before it among them."""
    return (max(len(cell.parts) for cell in view.cells[row]) if stacked else 1) + (row in view.lines)


def _chunks(heights: Sequence[int]) -> Iterator[range]:
    """Rows that go into one float."""
    start, left = 0, MOST_LINES - HEAD
    for row, height in enumerate(heights):
        if height > left and row > start:
            yield range(start, row)
            start, left = row, MOST_LINES - HEAD
        left -= height
    yield range(start, len(heights))
