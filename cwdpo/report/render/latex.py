r"""Tables as LaTeX with booktabs: a file that a paper takes in with `\input`.

A float for each table. Columns that do not fit beside each other on the page of `article` stand below each other, with
the rows named again; what is too long for one float goes on in another. Intervals and differences are in floats of
their own, printed where `\cwdpodetails` is defined.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import chain, count

from cwdpo.report.content import Table
from cwdpo.report.render.tex import tex
from cwdpo.report.render.text import plain, title
from cwdpo.report.render.typeset import Layout, Piece, layout, pieces
from cwdpo.report.render.views import View, details, runs, values
from cwdpo.report.render.words import (
    Legend,
    Said,
    caption,
    command,
    is_automatic,
    legend,
    notes,
    origins,
    version_line,
)

BOLD, UNDERLINED = r"\textbf{%s}", r"\underline{%s}"
STANDINGS = {"best": BOLD, "tied": UNDERLINED, "": "%s"}
LEGEND = Legend(BOLD % "Bold", UNDERLINED % "Underlined")

HEADER = r"""% Made by {version}, with: {command}
% Take it into a paper with \input{{THIS FILE}}; the preamble needs \usepackage{{booktabs}}.
% For the intervals and differences too: \newcommand{{\cwdpodetails}}{{}} before that.
"""


def latex(tables: Sequence[Table], paper: bool = False) -> str:
    """Text of a file to be included.

    Args:
        paper: with the published number beside each value.
    """
    header, labels = HEADER.format(version=plain(version_line()), command=command(tables)), _Labels()
    return "\n".join([header, *(line for table in tables for line in _of(table, paper, labels))])


def _of(table: Table, paper: bool, labels: _Labels) -> Iterator[str]:
    """Everything of one table."""
    about, named = [*map(tex, caption(table, paper)), *legend(table, LEGEND)], partial(labels.next, table)
    yield from _floats(values(table, paper), named, about, [tex(note) for note in notes(table)])
    yield "% Where the numbers come from:"
    yield from (f"%   {plain(row.label)}: {origins(row, table)}" for row in table.rows)
    yield ""
    if found := details(table):
        yield r"\ifdefined\cwdpodetails"
        for view in found:
            yield from _floats(view, named, [tex(line) for line in view.caption])
        yield "\\fi\n"


def _floats(view: View, named: Callable[[View], str], about: Sequence[str], below: Sequence[str] = ()) -> Iterator[str]:
    """All that a view needs, mostly one; what there is to know stands with the first, notes with the last."""
    best = layout(view)
    floats = best.floats(view)
    for number, content in enumerate(floats, 1):
        head = tex(view.title + (f" ({number} of {len(floats)})" if len(floats) > 1 else ""))
        yield r"\begin{table}"
        yield rf"\centering{best.style.size}"
        yield rf"\caption[{{{head}}}]{{{' '.join([f'{head}.', *(about if number == 1 else [])])}}}"
        yield rf"\label{{{named(view)}}}"
        yield r"\par\medskip"
        yield "\n\\par\\medskip\n".join("\n".join(_tabular(view, best, piece)) for piece in content)
        yield from _below(below if number == len(floats) else [])
        yield r"\end{table}"


class _Labels:
    """Labels of the floats of one file, none of which occurs twice in it."""

    def __init__(self) -> None:
        self._given: set[str] = set()

    def next(self, table: Table, view: View) -> str:
        """`tab:main-differences`, then `tab:main-differences-2`: what goes on, and another table of the same name."""
        first = label(table, view)
        free = (one for one in chain([first], (f"{first}-{n}" for n in count(2))) if one not in self._given)
        found = next(free)
        self._given.add(found)
        return found


def label(table: Table, view: View) -> str:
    """`tab:main-differences`; `tab:demo-captions` of a benchmark, which several grids of one paper may ask."""
    named = f"{table.grid}-{table.name}" if is_automatic(table) else table.name
    name = re.sub(r"[^A-Za-z0-9.-]+", "-", named).strip("-") or "table"
    return f"tab:{name}" + ("" if view.name == "values" else f"-{view.name}")


def _below(lines: Sequence[str]) -> Iterator[str]:
    if lines:
        yield r"\par\smallskip"
        yield r"\begin{minipage}{\linewidth}\footnotesize\raggedright"
        yield "\\par\n".join(lines)
        yield r"\end{minipage}"


def _tabular(view: View, how: Layout, piece: Piece) -> Iterator[str]:
    """Columns that stand beside each other."""
    yield rf"\begin{{tabular}}{{@{{}}{'l' * len(view.leads)}{'r' * len(piece.columns)}@{{}}}}"
    yield r"\toprule"
    yield from _groups(view, piece.columns)
    yield _row([*map(tex, view.leads), *(tex(title(view.columns[place])) for place in piece.columns)])
    yield r"\midrule"
    for row in piece.rows:
        yield from [r"\midrule"] if row in view.lines and row != piece.rows.start else []
        cells = [_cell(view.cells[row][place], how.stacked) for place in piece.columns]
        yield from _rows([tex(name) for name in view.names[row]], cells)
    yield r"\bottomrule"
    yield r"\end{tabular}"


def _cell(cell: Said, stacked: bool) -> list[str]:
    """Its lines."""
    value, spread, follows = pieces(cell)
    first = (r"\textit{%s}" if cell.gap else STANDINGS[cell.standing]) % tex(value)
    shown = first + (rf"{{\scriptsize{tex(spread)}}}" if spread else "")
    others = [rf"{{\scriptsize {tex(part)}}}" for part in follows]
    return [shown, *others] if stacked else [" ".join([shown, *others])]


def _groups(view: View, part: Sequence[int]) -> Iterator[str]:
    """Names of groups, each with a rule below it; nothing where no column has one."""
    if not any(view.columns[place].group for place in part):
        return
    heads, rules, left = [""] * len(view.leads), [], len(view.leads) + 1
    for run in runs(view.columns, part):
        group = view.columns[run[0]].group
        heads += [rf"\multicolumn{{{len(run)}}}{{c}}{{{tex(group)}}}"] if group else [""] * len(run)
        rules += [rf"\cmidrule(lr){{{left}-{left + len(run) - 1}}}"] if group else []
        left += len(run)
    yield _row(heads)
    yield " ".join(rules)


def _rows(names: list[str], cells: Sequence[Sequence[str]]) -> Iterator[str]:
    """One row, in as many lines as its cells have."""
    for line in range(max(map(len, cells), default=1)):
        shown = [""] * len(names) if line else names
        yield _row([*shown, *(cell[line] if line < len(cell) else "" for cell in cells)])


def _row(cells: Sequence[str]) -> str:
    text = " & ".join(cells)
    guard = "{}" if text.startswith(("[", "*")) else ""  # else they are options of what ends the row before
    return rf"{guard}{text} \\"
