"""The address of a value in the tables of a grid, such as `cw_dpo/coco_cider`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cwdpo.base.errors import ConfigError, name_valid
from cwdpo.report.content import Column, Row, Table


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
    meant = {_meaning(place): place for place in reversed(named)}
    if len(meant) > 1:
        raise ConfigError(f"--why: row '{row}' has {len(meant)} columns {name_valid(name, meant)}")
    return named[0]


def _key(row: Row) -> str:
    return row.key


def _names(column: Column) -> tuple[str, ...]:
    return (column.key, f"{column.benchmark}.{column.metric.key}") if column.benchmark else (column.key,)


def _meaning(place: Place) -> str:
    """The same for columns that have the same values."""
    column = place.column
    return _names(column)[1] if column.benchmark else f"{column.key} (--table {place.table.name})"
