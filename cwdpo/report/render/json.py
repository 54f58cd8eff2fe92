"""Tables as JSON, without loss: a list of tables, which no later version takes a key from.

A table: `name`, `title`, `grid`, `options` (name the grid on a command line), `command` (prints it), `baseline` (key
of a row), `partial` (whether only some items were scored), `paper`, `caption` and `notes` (sentences), `groups` (keys
of rows before which a line is drawn), `columns`, `rows`.

A column: `key`, `title`, `group`, `benchmark`, `judge`, `ranked` (whether one end is better at all), `metric` with
`key`, `title`, `scale` (printed number over stored number), `digits`, `higher` (whether more is better), `optional`,
`judged`.

A row: `key`, `label`, `stands_on`, `marks` (sentences), `entries` with one entry for the key of every column.

An entry: `results`, each with `seeds` (those that share it), `value`, `origin` (folders of the store), `stale` (whether
other code computed it than is here now), `code` (what did), `doubt` (what is wrong with files behind it); `gaps`, each
with `kind`, `reason`, `seeds`; over the results `mean`, `std`, `n`, `low` and `high` (95% interval of the mean);
`partial`, `stale`, `standing` (`best`, `tied` or empty); `difference` to the baseline with `value`, `low`, `high`, `p`,
`adjusted` (p after Holm's correction), `test`, `covers`; `paper` (what was published), and `paper_difference` (the mean
minus it).

What is not there is null. Numbers have all their digits; one that is not finite, which JSON has no number for, is the
text `nan`, `inf` or `-inf`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from cwdpo.report.content import Column, Entry, Row, Table
from cwdpo.report.render.words import beyond_paper, entry_of


def as_json(tables: Sequence[Table]) -> list[dict[str, Any]]:
    """Everything, ready to be written as JSON."""
    return [_table(table) for table in tables]


def _table(table: Table) -> dict[str, Any]:
    return {
        "name": table.name,
        "title": table.title,
        "grid": table.grid,
        "options": table.options,
        "command": table.command,
        "baseline": table.baseline,
        "partial": table.partial,
        "paper": table.paper,
        "caption": list(table.caption),
        "notes": list(table.notes),
        "groups": list(table.groups),
        "columns": [asdict(column) for column in table.columns],
        "rows": [_row(row, table.columns) for row in table.rows],
    }


def _row(row: Row, columns: Sequence[Column]) -> dict[str, Any]:
    return {
        "key": row.key,
        "label": row.label,
        "stands_on": row.stands_on,
        "marks": list(row.marks),
        "entries": {column.key: _entry(entry_of(row, column)) for column in columns},
    }


def _entry(entry: Entry) -> dict[str, Any]:
    return {
        "results": [_plain(asdict(result)) for result in entry.results],
        "gaps": [_plain(asdict(gap)) for gap in entry.gaps],
        **_plain({"mean": entry.mean, "std": entry.std, "n": len(entry.results), "low": entry.low, "high": entry.high}),
        "partial": entry.partial,
        "stale": entry.stale,
        "standing": entry.standing,
        "difference": _plain(asdict(entry.difference)) if entry.difference else None,
        **_plain({"paper": entry.paper, "paper_difference": beyond_paper(entry)}),
    }


def _plain(content: dict[str, Any]) -> dict[str, Any]:
    """Only what JSON has."""
    return {key: _value(value) for key, value in content.items()}


def _value(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return list(value) if isinstance(value, tuple) else value
