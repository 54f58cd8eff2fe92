"""JSONL files of any size, read a row at a time: what is held of 100,000 rows is where they lie."""

from __future__ import annotations

import hashlib
import json
import os
import weakref
from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar, overload

from cwdpo.base.errors import StoreError

Item = TypeVar("Item")


class JsonLines:
    """A JSONL file whose rows are read when they are asked for; nothing of it is held.

    It stays open: an artefact that is computed again is replaced, not changed, and its readers must not notice. Every
    read names its place, so threads and forked processes share one handle.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._file = os.open(path, os.O_RDONLY)
        except OSError as error:
            raise StoreError(f"cannot read {path}: {error.strerror}") from error
        weakref.finalize(self, os.close, self._file).atexit = False  # a thread may be reading when the process ends

    def scan(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yield (byte where the line starts, its row) in one pass; a broken line raises `StoreError` as it is met."""
        start = 0
        for number, line in enumerate(self._lines(), 1):
            yield start, self._parsed(line, f"line {number}")
            start += len(line) + 1

    def at(self, start: int) -> dict[str, Any]:
        """The row whose line starts at byte `start`."""
        line = b""
        while b"\n" not in line and (more := self._read(1024, start + len(line))):
            line += more
        return self._parsed(line.partition(b"\n")[0], f"byte {start}")

    def _lines(self) -> Iterator[bytes]:
        start, rest = 0, b""
        while more := self._read(2**16, start):
            start += len(more)
            *lines, rest = (rest + more).split(b"\n")
            yield from lines
        if rest:
            yield rest

    def _read(self, size: int, start: int) -> bytes:
        try:
            return os.pread(self._file, size, start)
        except OSError as error:
            raise StoreError(f"cannot read {self.path}: {error.strerror}") from error

    def _parsed(self, line: bytes, where: str) -> Any:
        try:
            return json.loads(line.decode())
        except ValueError as error:
            raise StoreError(f"{self.path}, {where} is damaged: {error}") from error


class Rows(Sequence[Item]):
    """Items made of lines of a JSONL file when they are asked for; 8 bytes an item are held.

    Args:
        starts: byte where the line of each item starts.
        make: turns a row into an item.
    """

    def __init__(self, lines: JsonLines, starts: Sequence[int], make: Callable[[dict[str, Any]], Item]) -> None:
        self._lines, self._starts, self._make = lines, starts, make

    def __len__(self) -> int:
        return len(self._starts)

    @overload
    def __getitem__(self, number: int) -> Item: ...
    @overload
    def __getitem__(self, number: slice) -> list[Item]: ...
    def __getitem__(self, number: int | slice) -> Item | list[Item]:
        if isinstance(number, slice):
            return [self._make(self._lines.at(start)) for start in self._starts[number]]
        return self._make(self._lines.at(self._starts[number]))


class RowsById(Mapping[str, Item], Generic[Item]):
    """Items made of the rows of a JSONL file, found by their `id` when they are asked for; 16 bytes a row are held.

    Args:
        make: turns a row into an item; a row that makes an empty one is not found.
    """

    def __init__(self, path: Path, make: Callable[[dict[str, Any]], Item]) -> None:
        import numpy as np

        self._lines, self._make = JsonLines(path), make
        keys, starts = array("q"), array("q")
        for start, row in self._lines.scan():
            if make(row):
                keys.append(short_hash(row["id"]))
                starts.append(start)
        order = np.argsort(keys, kind="stable")
        self._keys, self._starts = (array("q", np.asarray(column)[order].tobytes()) for column in (keys, starts))

    def __getitem__(self, name: str) -> Item:
        key = short_hash(name)
        place = bisect_right(self._keys, key) - 1
        while place >= 0 and self._keys[place] == key:
            row = self._lines.at(self._starts[place])
            if row["id"] == name:  # two ids may share a hash
                return self._make(row)
            place -= 1
        raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        return (self._lines.at(start)["id"] for start in sorted(self._starts))

    def __len__(self) -> int:
        return len(self._starts)


def short_hash(text: str) -> int:
    """A signed 64-bit integer, the same in every process: what large sets of ids are sorted by."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big", signed=True)
