"""Tables as CSV, all numbers without loss: a line for every result, and one for every gap.

Columns are those of `COLUMNS`; what belongs to an entry, such as its mean, is repeated on each of its lines. Numbers
are written with as many digits as it takes to read the same number again, texts are quoted, what is not there is empty.
An entry with neither results nor gaps has one line. Seeds stand with a blank between them: those that share a
deterministic result are on one line.

A text that a spreadsheet would compute (it begins with `=`, `+`, `-`, `@` or a control character) or that begins with
an apostrophe has an apostrophe put before it; take one away to get the text back.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from typing import Any

from cwdpo.report.content import Column, Difference, Entry, Gap, Result, Row, Table
from cwdpo.report.render.words import beyond_paper, entry_of

COLUMNS = (
    "table", "grid", "row", "label", "stands_on", "column", "group", "title", "benchmark", "metric",
    "higher_is_better", "ranked", "judge", "seeds", "value", "origin", "stale", "code", "doubt", "gap", "reason",
    "mean", "std", "n", "low", "high", "partial", "standing", "baseline", "difference", "difference_low",
    "difference_high", "p", "p_holm", "test", "covers", "paper", "paper_difference", "marks",
)  # fmt: skip
"""In the order of the file. `value` to `doubt` are of a result, `gap` and `reason` of a gap, `mean` and what comes
after it of the entry; `p_holm` is after Holm's correction, `difference` the row minus the baseline, `paper_difference`
the mean minus what was published."""

COMPUTED = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""What a formula may begin with, for one program or another."""


def csv_text(tables: Sequence[Table]) -> str:
    """All tables in one file, with a header."""
    target = io.StringIO()
    writer = csv.DictWriter(target, COLUMNS, restval="", quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n")
    writer.writeheader()
    writer.writerows(line for table in tables for line in _lines(table))
    return target.getvalue()


def _lines(table: Table) -> Iterator[dict[str, Any]]:
    for row in table.rows:
        for column in table.columns:
            entry = entry_of(row, column)
            shared = _fields(_texts(table, row, column) | _numbers(entry))
            lines: tuple[Result | Gap | None, ...] = (*entry.results, *entry.gaps)
            for found in lines or (None,):
                yield {**shared, **_fields(_own(found))}


def _texts(table: Table, row: Row, column: Column) -> dict[str, Any]:
    return {
        "table": table.name,
        "grid": table.grid,
        "row": row.key,
        "label": row.label,
        "stands_on": row.stands_on,
        "column": column.key,
        "group": column.group,
        "title": column.title,
        "benchmark": column.benchmark,
        "metric": column.metric.key,
        "higher_is_better": column.metric.higher,
        "ranked": column.ranked,
        "judge": column.judge,
        "baseline": table.baseline,
        "marks": "; ".join(row.marks),
    }


def _numbers(entry: Entry) -> dict[str, Any]:
    return {
        "mean": entry.mean,
        "std": entry.std,
        "n": len(entry.results),
        "low": entry.low,
        "high": entry.high,
        "partial": entry.partial,
        "standing": entry.standing,
        "paper": entry.paper,
        "paper_difference": beyond_paper(entry),
    } | _difference(entry.difference)


def _difference(found: Difference | None) -> dict[str, Any]:
    if found is None:
        return {}
    return {
        "difference": found.value,
        "difference_low": found.low,
        "difference_high": found.high,
        "p": found.p,
        "p_holm": found.adjusted,
        "test": found.test,
        "covers": found.covers,
    }


def _own(found: Result | Gap | None) -> dict[str, Any]:
    if found is None:
        return {}
    seeds = {"seeds": " ".join(map(str, found.seeds))}
    if isinstance(found, Gap):
        return seeds | {"gap": found.kind, "reason": found.reason}
    about = {"origin": found.origin, "stale": found.stale, "code": found.code, "doubt": found.doubt}
    return seeds | {"value": found.value} | about


def _fields(content: dict[str, Any]) -> dict[str, Any]:
    """As they are written."""
    return {name: _harmless(value) if isinstance(value, str) else _field(value) for name, value in content.items()}


def _field(value: Any) -> Any:
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else value


def _harmless(text: str) -> str:
    """What no spreadsheet computes."""
    return f"'{text}" if text.startswith("'") or text.lstrip(" ").startswith(COMPUTED) else text
