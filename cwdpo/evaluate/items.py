"""What each item of a benchmark contributed to its score, as Parquet: `items.parquet`, a row an item."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cwdpo.base import files
from cwdpo.base.errors import StoreError

ITEMS = "items.parquet"


def write_items(folder: Path, per_item: Mapping[str, Mapping[str, Any]]) -> None:
    """Write a row for each item: its id, and a column for every key that any item has (null where it has none)."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    keys = list(dict.fromkeys(key for item in per_item.values() for key in item))
    columns = {"id": pa.array(list(per_item), pa.string())}
    columns |= {key: pa.array([_plain(item.get(key)) for item in per_item.values()]) for key in keys}
    with files.file_written_whole(folder / ITEMS) as file:
        pq.write_table(pa.table(columns), file, compression="zstd")


def read_items(folder: Path, columns: Sequence[str] | None = None) -> dict[str, dict[str, Any]]:
    """Item id -> values, in the order they were written.

    Args:
        columns: the only ones to read; those that the file lacks are left out.

    Raises:
        StoreError: the file is missing or damaged.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = folder / ITEMS
    try:
        file = pq.ParquetFile(pa.BufferReader(path.read_bytes()))  # a report reads thousands of small ones
        wanted = None if columns is None else ["id", *(name for name in columns if name in file.schema_arrow.names)]
        rows = file.read(wanted, use_threads=False).to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise StoreError(f"{path} cannot be read: {error}") from error
    return {row.pop("id"): row for row in rows}


def _plain(value: Any) -> Any:
    """Tuples as lists, mappings as lists of their items: a column has one type in all files."""
    if isinstance(value, Mapping):
        return [[str(key), str(item)] for key, item in value.items()]
    return list(value) if isinstance(value, tuple) else value
