"""Atomic, durable file writes: temporary file in the same folder, fsync, rename.

No locks (flock is silently ignored on some parallel file systems) and no file that two processes append to.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import uuid
import weakref
from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, Generic, TypeVar, overload

from cwdpo.base.errors import StoreError

Item = TypeVar("Item")

_REASONS = {
    errno.ENOSPC: "no space left on the device",
    errno.EDQUOT: "the disk quota is used up",
    errno.EACCES: "permission denied",
    errno.EPERM: "operation not permitted",
    errno.EROFS: "the file system is read-only",
    errno.ENOTDIR: "a part of the path is a file, not a folder",
}


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn an `OSError` raised inside into a `StoreError` that names `path` and the reason."""
    try:
        yield
    except OSError as error:
        reason = _REASONS.get(error.errno or 0, error.strerror or str(error))
        raise StoreError(f"cannot write {path}: {reason}") from error


def temporary_beside(path: Path) -> Path:
    """A fresh hidden name in the folder of `path`, so that a rename onto `path` stays on one file system."""
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")


def fsync_folder(folder: Path) -> None:
    """Make a rename or a link inside `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_bytes(path: Path, content: bytes) -> None:
    """Write `content` so that `path` holds either its old bytes or all the new ones."""
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = temporary_beside(path)
        try:
            with open(temporary, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        fsync_folder(path.parent)


def write_text(path: Path, text: str) -> None:
    """`write_bytes` for UTF-8 text."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON; NaN and infinity are refused, they are not JSON."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def write_jsonl(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Write one JSON object a line."""
    write_text(path, "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows))


def stream_jsonl(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """`write_jsonl` that holds one row at a time."""
    with file_written_whole(path) as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False, allow_nan=False).encode() + b"\n")


@contextmanager
def file_written_whole(path: Path) -> Iterator[BinaryIO]:
    """Yield a temporary file that becomes `path` when the block ends, and vanishes when it raises."""
    temporary = temporary_beside(path)
    try:
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(temporary, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    fsync_folder(path.parent)


def read_json(path: Path | str) -> Any:
    """Read JSON; a file that is missing or not JSON raises `StoreError` naming it."""
    try:
        with open(path, "rb") as file:
            return json.loads(file.read().decode())
    except OSError as error:
        raise StoreError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, UnicodeDecodeError) as error:
        raise StoreError(f"{path} is damaged: not JSON ({error})") from error


def read_jsonl(path: Path) -> Iterator[dict[str, Any]]:
    """Yield one object a line; a broken line raises `StoreError` naming file and line."""
    with open(path, encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            try:
                yield json.loads(line)
            except ValueError as error:
                raise StoreError(f"{path}, line {number} is damaged: {error}") from error


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


@contextmanager
def folder_written_whole(path: Path) -> Iterator[Path]:
    """Yield a temporary folder that becomes `path` when the block ends, and vanishes when it raises.

    An existing `path` is replaced. Every file is flushed to disk before the rename.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = temporary_beside(path)
        temporary.mkdir()
    try:
        with writing(path):
            yield temporary
            share_with_group(temporary)
            sync_tree(temporary)
            replace_folder(temporary, path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def share_with_group(folder: Path) -> None:
    """Give every file the mode the umask asks for; some libraries write through private temporary files."""
    umask = os.umask(0)
    os.umask(umask)
    for path in folder.rglob("*"):
        if path.is_file():
            path.chmod(0o666 & ~umask)


def sync_tree(folder: Path) -> None:
    """fsync every file and folder under `folder`."""
    for root, _, names in os.walk(folder):
        for name in names:
            descriptor = os.open(os.path.join(root, name), os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        fsync_folder(Path(root))


def replace_folder(source: Path, target: Path) -> None:
    """Rename folder `source` to `target`, moving an existing `target` out of the way first."""
    if target.exists():
        old = temporary_beside(target)
        os.replace(target, old)
        os.replace(source, target)
        shutil.rmtree(old, ignore_errors=True)
    else:
        os.replace(source, target)
    fsync_folder(target.parent)


def sha256_file(path: Path) -> str:
    """Hex SHA-256 of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def remove_tree(path: Path) -> None:
    """Remove a folder if it is there."""
    with suppress(FileNotFoundError):
        shutil.rmtree(path)
