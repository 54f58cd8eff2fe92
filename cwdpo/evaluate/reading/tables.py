"""Rows of annotation files (JSON lines, TSV, Parquet, JSON) with errors that name the file, the row and the key."""

from __future__ import annotations

import csv
import io
import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from cwdpo.base.errors import DataError
from cwdpo.data.records import clean_text

Row = dict[str, Any]


def read_text(path: Path) -> str:
    """The text of a file, with or without a byte-order mark; raises `DataError` when it cannot be read."""
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 ({error})") from error
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}") from error


def read_lines(path: Path, required: Sequence[str]) -> Iterator[tuple[str, Row]]:
    """Yield (where, object) of each line of a JSONL file; blank lines are passed over.

    Raises:
        DataError: a line is no JSON object or lacks a key of `required`.
    """
    lines = read_text(path).split("\n")  # splitlines would also split at U+2028 inside a text
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            row = json.loads(line)
        except ValueError as error:
            raise DataError(f"{where}: not valid JSON ({error})") from error
        yield where, with_keys(row, required, where)


def read_tsv(path: Path, required: Sequence[str]) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield (where, row) of each row of a TSV file with a header; quotes as Excel and pandas write them.

    Raises:
        DataError: there is no header, it lacks a column of `required`, or a row has another number of columns.
    """
    csv.field_size_limit(sys.maxsize)  # images are inside
    rows = csv.reader(io.StringIO(read_text(path), newline=""), delimiter="\t")
    header = next(rows, [])
    _check_columns(path, header, required)
    for row in rows:
        where = f"{path}, line {rows.line_num}"
        if row and len(row) != len(header):
            raise DataError(f"{where}: {len(row)} columns, but the header has {len(header)} ({', '.join(header)})")
        if row:
            yield where, dict(zip(header, row, strict=True))


def read_parquet(paths: Sequence[Path], required: Sequence[str]) -> Iterator[tuple[str, Row]]:
    """Yield (where, row) of each row of Parquet files, one group of rows in memory at a time.

    Raises:
        DataError: a file is no Parquet or lacks a column of `required`.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    for path in paths:
        try:
            file = pq.ParquetFile(path)
            _check_columns(path, file.schema_arrow.names, required)
            number = 0
            for batch in file.iter_batches(batch_size=64):
                for row in batch.to_pylist():
                    number += 1
                    yield f"{path}, row {number}", row
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{path}: cannot be read as Parquet ({error})") from error


def with_keys(row: Any, required: Sequence[str], where: str) -> Row:
    """`row`, an object with all keys of `required`; raises `DataError` otherwise."""
    if not isinstance(row, dict):
        raise DataError(f"{where}: expected an object, found {type(row).__name__}")
    if missing := [key for key in required if key not in row]:
        raise DataError(f"{where}: key '{missing[0]}' is missing; found {', '.join(map(str, row)) or 'no key'}")
    return row


def one_of(row: Mapping[str, Any], key: str, valid: Sequence[str], where: str) -> str:
    """The text under a key, one of those that are valid; raises `DataError` otherwise."""
    found = row[key]
    if found not in valid:
        raise DataError(f"{where}: {key} is {found!r:.80}; valid: {', '.join(valid)}")
    return str(found)


def id_of(row: Mapping[str, Any], key: str, where: str) -> str:
    """The id under a key as text; raises `DataError` where it is neither a whole number nor a text."""
    found = row[key]
    if isinstance(found, bool) or not isinstance(found, int | str) or not str(found).strip():
        raise DataError(f"{where}: {key} is {found!r:.80}; valid: a whole number, or a text that is not empty")
    return _whole(str(found), key, where)


def number_of(row: Mapping[str, Any], key: str, where: str) -> int:
    """The whole number under a key, which may be written as text; raises `DataError` otherwise."""
    found = row[key]
    if not isinstance(found, int | str) or not re.fullmatch(r"-?[0-9]{1,18}", str(found)):
        raise DataError(f"{where}: {key} is {found!r:.80}; valid: a whole number")
    return int(found)


def text_of(row: Mapping[str, Any], key: str, where: str, *, empty: bool = False) -> str:
    """The text, or the number as text, under a key; raises `DataError` otherwise.

    Args:
        empty: whether the text may be.
    """
    return _worded(row[key], key, where, empty)


def texts_of(row: Mapping[str, Any], key: str, where: str, *, empty: bool = False) -> list[str]:
    """As `text_of`, of each element of the list under a key, which may have none."""
    found = row[key]
    if not isinstance(found, list):
        raise DataError(f"{where}: {key} is {found!r:.80}; valid: a list of texts")
    return [_worded(one, f"{key}[{place}]", where, empty) for place, one in enumerate(found)]


def _worded(found: object, what: str, where: str, empty: bool) -> str:
    if isinstance(found, bool) or not isinstance(found, str | int | float) or not (empty or str(found).strip()):
        raise DataError(f"{where}: {what} is {found!r:.80}; valid: a text{'' if empty else ' that is not empty'}")
    return _whole(str(found), what, where)


def _whole(text: str, what: str, where: str) -> str:
    """The text as it is; raises `DataError` where it holds half of a character, which no file can."""
    if text.strip():
        clean_text(text, f"{where}: {what}")
    return text


def _check_columns(path: Path, found: Sequence[str], required: Sequence[str]) -> None:
    if missing := [name for name in required if name not in found]:
        raise DataError(f"{path}: column '{missing[0]}' is missing; found {', '.join(found) or 'no column'}")
