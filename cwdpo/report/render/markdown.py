"""Tables as Markdown: the report file."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from cwdpo.report.content import Column, Entry, Row, Table
from cwdpo.report.render.text import fixed, full_title, plain, probability, signed, signed_span, span
from cwdpo.report.render.views import tested, values
from cwdpo.report.render.words import (
    Legend,
    Said,
    baseline_of,
    caption,
    command,
    entries,
    entry_of,
    heading,
    legend,
    notes,
    origins,
    version_line,
)

LEGEND = Legend("**Bold**", "†")

MARKUP = re.compile(r"[\\`*<>|\[\]~$]|(?<![^\W_])_|_(?![^\W_])|^[#+=-]|&(?=#?\w+;)")
"""What Markdown would read as more than itself; an underscore between letters is none of it."""


def markdown(tables: Sequence[Table], dynamics: str = "", paper: bool = False) -> str:
    """The report file.

    Args:
        dynamics: sections that come after the tables, as Markdown.
        paper: with the published number beside each value.
    """
    parts = [f"# {md(tables[0].grid)}\n", *("\n".join(_table(table, paper)) for table in tables), dynamics]
    parts.append(f"Rendered by {md(version_line())}: {code(command(tables))}\n")
    return "\n".join(filter(None, parts))


def md(text: str) -> str:
    """One line of Markdown that shows `text`."""
    escaped = MARKUP.sub(lambda found: f"\\{found[0]}", plain(text))
    return re.sub(r"^(\d+)([.)])", r"\1\\\2", escaped)  # no numbered list


def code(text: str) -> str:
    """As code, whatever is in it."""
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence}{text}{fence}" if len(fence) == 1 else f"{fence} {text} {fence}"


def _table(table: Table, paper: bool) -> Iterator[str]:
    """Everything of one table, a line each."""
    yield f"## {md(heading(table))}\n"
    view = values(table, paper)
    yield _line([*view.leads, *(md(full_title(column)) for column in view.columns)])
    yield _rule(len(view.leads), len(view.columns))
    for names, cells in zip(view.names, view.cells, strict=True):
        yield _line([*map(md, names), *map(_cell, cells)])
    yield ""
    yield from [*map(md, caption(table, paper)), *legend(table, LEGEND)]
    yield ""
    yield from (f"- {md(note)}" for note in notes(table))
    yield "\nWhere the numbers come from (folders of the store; `stage.json` in each names its parents):\n"
    yield from (f"- {_name(row)}: {md(origins(row, table))}" for row in table.rows)
    yield ""
    yield from _details(table)


def _cell(cell: Said) -> str:
    first, *others = cell.parts
    shown = {"best": f"**{first}**", "tied": f"{first}†", "": first}[cell.standing]
    return " ".join([shown, *others])


def _name(row: Row) -> str:
    """Label, and the key that commands take where it is another."""
    label = plain(row.label)
    return md(label) if label == row.key else f"{md(label)} ({code(plain(row.key))})"


def _details(table: Table) -> Iterator[str]:
    """A line for every entry that has an interval or a difference, so that nothing need be broken."""
    if not any(map(_detailed, entries(table))):
        return
    yield f"### {md(heading(table))}: intervals and differences\n"
    baseline = md(baseline_of(table))
    titles = ["method", "measure", "mean", "95% interval", f"difference to {baseline}", "95% interval", "p (Holm)"]
    yield _line([*titles, "test"])
    yield _rule(2, len(titles) - 2, 1)
    for row in table.rows:
        for column in table.columns:
            entry = entry_of(row, column)
            if _detailed(entry):
                yield _line([md(row.label), md(full_title(column)), *_detail(entry, column)])
    yield ""


def _detailed(entry: Entry) -> bool:
    return entry.low is not None or entry.difference is not None


def _detail(entry: Entry, column: Column) -> list[str]:
    digits, found = column.metric.digits, entry.difference
    mean = "" if entry.mean is None else fixed(entry.mean, digits)
    interval = "" if entry.low is None or entry.high is None else span(entry.low, entry.high, digits)
    if found is None:
        return [mean, interval, "", "", "", ""]
    p = probability(found).removeprefix("p").removeprefix("=")
    return [mean, interval, signed(found.value, digits), signed_span(found, digits), p, md(tested(found))]


def _rule(*counts: int) -> str:
    """Names to the left, numbers to the right, and to the left what comes after them."""
    signs = ("---", "---:", "---")
    return _line([sign for sign, count in zip(signs, counts, strict=False) for _ in range(count)])


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
