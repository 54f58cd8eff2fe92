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
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from cwdpo.base.errors import StoreError

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
    with file_written_whole(path) as file:
        file.write(content)


def write_text(path: Path, text: str) -> None:
    """`write_bytes` for UTF-8 text."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON; NaN and infinity are refused, they are not JSON."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def write_jsonl(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Write one JSON object a line; one row is held at a time."""
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
            fsync_folder(path.parent)
    except BaseException:
        with suppress(OSError):  # there may not even be a folder
            temporary.unlink()
        raise


def parse_json(content: bytes) -> Any:
    """JSON in UTF-8; raises `ValueError`."""
    return json.loads(content.decode())


def read_json(path: Path | str, parse: Callable[[bytes], Any] = parse_json) -> Any:
    """Read JSON; a file that is missing or not JSON raises `StoreError` naming it."""
    try:
        with open(path, "rb") as file:
            return parse(file.read())
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
