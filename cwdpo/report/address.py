"""The address of a value in the tables of a grid, such as `cw_dpo/coco_cider`."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from cwdpo.base.errors import ConfigError, name_valid
from cwdpo.report.content import Column, Row, Table
from cwdpo.report.layouts import AUTOMATIC
from cwdpo.report.render.words import is_automatic


@dataclass(frozen=True)
class Place:
    """A value of a table, of one seed where one is named."""

    table: Table
    row: Row
    column: Column
    seed: int | None = None


def find(tables: Sequence[Table], address: str) -> Place:
    """Which value `cw_dpo/coco_cider`, `cw_dpo/coco.cider` or, of one seed, `cw_dpo/0/coco_cider` is.

    Raises:
        ConfigError: there is none, or there are several; names what is valid.
    """
    rows = {row.key: row for table in tables for row in table.rows}
    head, _, column = address.rpartition("/")
    if address in rows:
        keys = dict.fromkeys(one.key for table in tables for one in table.columns if address in map(_key, table.rows))
        raise ConfigError(f"--why {address}: expected ROW/COLUMN or ROW/SEED/COLUMN; its columns: {', '.join(keys)}")
    if head in rows:
        return _column(tables, head, column, None)
    key, _, seed = head.rpartition("/")
    if key in rows and seed.isdecimal():
        return _column(tables, key, column, int(seed))
    key = key if seed.isdecimal() and key else head or column
    raise ConfigError(f"--why {address}: expected ROW/COLUMN or ROW/SEED/COLUMN; unknown row {name_valid(key, rows)}")


def _column(tables: Sequence[Table], row: str, name: str, seed: int | None) -> Place:
    having = [(table, found) for table in tables for found in table.rows if found.key == row]
    places = [Place(table, found, column, seed) for table, found in having for column in table.columns]
    named = [place for place in places if name in _names(place.column)]
    if not named:
        valid = dict.fromkeys(place.column.key for place in places)
        raise ConfigError(f"--why: row '{row}' has no column {name_valid(name, valid)}")
    meant = {_meaning(place, tables): place for place in reversed(named)}
    if len(meant) > 1:
        raise ConfigError(f"--why: row '{row}' has {len(meant)} columns {name_valid(name, meant)}")
    return named[0]


def _key(row: Row) -> str:
    return row.key


def _names(column: Column) -> tuple[str, ...]:
    return (column.key, f"{column.benchmark}.{column.metric.key}") if column.benchmark else (column.key,)


def _meaning(place: Place, tables: Sequence[Table]) -> str:
    """The same for columns that have the same values."""
    column = place.column
    if column.benchmark:
        return _names(column)[1]
    return f"{column.key} (--table {shlex.quote(_asked_for(place.table, tables))})"


def _asked_for(table: Table, tables: Sequence[Table]) -> str:
    """What `--table` takes for it: the name or path that was typed, else the name of its file, or `benchmarks`."""
    name = AUTOMATIC if is_automatic(table) else _file_name(table)
    typed = [one for one in _typed(table) if Path(one).stem in (name, table.name)]
    if not typed:
        return name
    same = [one for one in tables if one.name == table.name]
    return typed[same.index(table) * len(typed) // len(same)]  # they stand in the order in which they were typed


def _file_name(table: Table) -> str:
    """Without the included grid, which stands in the title too where a file fills several tables."""
    included = table.title.rpartition(" (")[2].removesuffix(")")
    return table.name.removesuffix(f"-{included}") if table.title.endswith(f" ({included})") else table.name


def _typed(table: Table) -> list[str]:
    """What `--table` was given, each once."""
    words = shlex.split(table.command.removeprefix(f"cwdpo report {table.options}"))
    return list(dict.fromkeys(value for option, value in pairwise(words) if option == "--table"))
