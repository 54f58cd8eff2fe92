"""What is in a zip or tar archive, written into a folder and nowhere else."""

from __future__ import annotations

import os
import shutil
import tarfile
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import IO

from cwdpo.base import files
from cwdpo.base.errors import DataError

Member = tuple[str, IO[bytes]]


def unpack(archive: Path, folder: Path) -> list[str]:
    """Write every file of an archive under `folder`, each whole or not at all; their names, relative to it.

    Raises:
        DataError: no zip or tar, damaged, or a member that would land outside `folder` or is a link or a device.
        StoreError: the folder cannot be written.
    """
    names = []
    try:
        for name, content in _members(archive):
            _write(_inside(archive, folder, name), content)
            names.append(name)
    except (zipfile.BadZipFile, tarfile.TarError, EOFError) as error:
        raise DataError(f"{archive.name} is damaged: {error}") from error
    return names


def _members(archive: Path) -> Iterator[Member]:
    if zipfile.is_zipfile(archive):
        return _of_zip(archive)
    if tarfile.is_tarfile(archive):
        return _of_tar(archive)
    raise DataError(f"{archive.name} is neither a zip nor a tar archive; take `unpack: true` out of its asset file")


def _of_zip(archive: Path) -> Iterator[Member]:
    with zipfile.ZipFile(archive) as opened:
        for entry in opened.infolist():
            kind = entry.external_attr >> 28
            if kind not in (0, 0o4, 0o10):  # unset, folder, plain file
                raise DataError(f"{archive.name}: {entry.filename} is no plain file")
            if not entry.is_dir():
                with opened.open(entry) as content:
                    yield entry.filename, content


def _of_tar(archive: Path) -> Iterator[Member]:
    with tarfile.open(archive) as opened:
        for entry in opened:
            content = opened.extractfile(entry) if entry.isreg() else None
            if content is None and not entry.isdir():
                raise DataError(f"{archive.name}: {entry.name} is no plain file")
            if content is not None:
                yield entry.name, content


def _inside(archive: Path, folder: Path, name: str) -> Path:
    """Where a member goes; the archive is somebody else's and may say anything."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or not path.parts:
        raise DataError(f"{archive.name}: the member '{name}' would be written outside {folder}")
    return folder.joinpath(*path.parts)


def _write(target: Path, content: IO[bytes]) -> None:
    with files.writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = files.temporary_beside(target)
        try:
            with open(temporary, "wb") as out:
                shutil.copyfileobj(content, out, 1 << 20)
                out.flush()
                os.fsync(out.fileno())
            os.replace(temporary, target)
        finally:
            with suppress(FileNotFoundError):
                temporary.unlink()
