"""A folder that a user downloaded, as the readers of benchmarks see it.

Downloads unpack into different folders, so files are found by name, and images by trying folders until one holds the
first of them. What was read is remembered: it makes the digest of the data.
"""

from __future__ import annotations

import base64
import binascii
import io
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from cwdpo.base import files
from cwdpo.base.errors import DataError
from cwdpo.data.records import relative_image

DEPTH = 4
"""Folders below the root that are looked into."""
SHOWN = 8
"""Names of files that an error shows."""


class Download:
    """What lies in a folder.

    Args:
        root: what the user downloaded; image paths are relative to it.
        into: folder for images that lie inside annotation files; None only checks them.

    Attributes:
        files: annotation files that were read, relative to the root.
        images: images that were found, relative to the root, with their sizes in bytes.
    """

    def __init__(self, root: Path, into: Path | None = None) -> None:
        self.root, self.into = root, into
        self.files: list[str] = []
        self.images: dict[str, int] = {}
        self._missing: list[str] = []
        self._prefixes: list[str] = []
        self._closed: list[str] = []
        _check_text(str(root))
        if not root.is_dir():
            raise DataError(f"{root}: no such folder")
        self._folders = list(self._walk())
        self._within: dict[str, list[str]] = {}

    @property
    def missing(self) -> list[str]:
        """Images that were not found, where the first one that was lies."""
        folder = f"{self._prefixes[0]}/" if self._prefixes and self._prefixes[0] else ""
        return [f"{folder}{name}" for name in self._missing]

    def file(self, *names: str) -> Path:
        """The annotation file with one of these names, wherever it lies below the root; earlier names win.

        Raises:
            DataError: there is none, or more than one of the same name.
        """
        found = self.maybe(*names)
        if found is None:
            wanted = " or ".join(f"'{name}'" for name in names)
            raise DataError(f"{self.root}: no file {wanted} in it or {DEPTH} folders below{self._near(names[0])}")
        return found

    def maybe(self, *names: str) -> Path | None:
        """As `file`, or None where there is none."""
        for name in names:
            found = self._matching(name)
            if len(found) > 1:
                raise DataError(f"{self.root}: several files '{name}': {', '.join(found[:5])}; keep one of them")
            if found:
                return self._read(found[0])
        return None

    def all(self, pattern: str) -> list[Path]:
        """Every annotation file whose name matches a glob pattern, sorted by path.

        Raises:
            DataError: there is none.
        """
        found = self._matching(pattern)
        if not found:
            raise DataError(f"{self.root}: no file '{pattern}' in it or {DEPTH} folders below{self._near(pattern)}")
        return [self._read(name) for name in found]

    def image(self, path: object, where: str) -> str:
        """The path of an image beside the annotations, relative to the root; one that is not there is remembered.

        Args:
            path: as the annotations name it, relative to some folder of the download.
            where: of the annotation, for errors.
        """
        name = relative_image(path, where)
        prefix = self._prefix_of(name)
        if prefix is None:
            self._missing.append(name)
            return name
        found = f"{prefix}/{name}".lstrip("/")
        size = os.stat(self.root / found).st_size
        if size:
            self.images[found] = size
        else:
            self._missing.append(name)
        return found

    def embedded(self, name: str, content: str | bytes, where: str) -> str:
        """The path of an image that lies inside the annotations, which is written to `into`.

        Args:
            name: of the image, without a suffix.
            content: its bytes, or these in base64.

        Raises:
            DataError: it is no image.
        """
        data = _decoded(content, where)
        path = f"images/{relative_image(name, where)}.{_kind_of(data, where)}"
        if self.into is not None:
            files.write_bytes(self.into / path, data)
        return path

    def _read(self, name: str) -> Path:
        if name not in self.files:
            self.files.append(name)
        return self.root / name

    def _walk(self) -> Iterator[str]:
        """Folders below the root, the root first, each level sorted."""
        level = [""]
        for _ in range(DEPTH + 1):
            yield from level
            level = [f"{folder}/{name}".lstrip("/") for folder in level for name in self._subfolders(folder)]

    def _subfolders(self, folder: str) -> list[str]:
        with self._entries(folder) as entries:
            found = sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))
        for name in found:
            _check_text(f"{self.root / folder / name}")
        return found

    def _matching(self, pattern: str) -> list[str]:
        """Files, each once, also where links lead to it by other names; none that a name with a dot hides."""
        exact = not set(pattern) & set("*?[")  # then no folder with all its images has to be listed
        folders = [self.root / folder for folder in self._folders]
        found = [path for folder in folders for path in ([folder / pattern] if exact else sorted(folder.glob(pattern)))]
        shown = [path for path in found if os.path.isfile(path) and (exact or not path.name.startswith("."))]
        distinct = {path.resolve(): path for path in reversed(shown)}
        return [path.relative_to(self.root).as_posix() for path in shown if distinct[path.resolve()] == path]

    def _prefix_of(self, name: str) -> str | None:
        """The folder that holds an image: one that held others, else any; None where none does."""
        for prefix in [*self._prefixes, *self._holding(name.partition("/")[0] if "/" in name else "")]:
            if os.path.isfile(self.root / prefix / name):  # False too where a name is longer than any file's can be
                if prefix not in self._prefixes:
                    self._prefixes.append(prefix)
                return prefix
        return None

    def _holding(self, inner: str) -> list[str]:
        """Folders with a folder of this name in them; of none, all."""
        if inner not in self._within:
            self._within[inner] = [name for name in self._folders if os.path.isdir(self.root / name / inner)]
        return self._within[inner]

    def _near(self, name: str) -> str:
        """What is there instead."""
        names = sorted({path.name for folder in self._folders for path in self._some(folder)})
        alike = [one for one in names if Path(one).suffix == Path(name).suffix]
        close = get_close_matches(name, alike, n=1)
        hint = f"did you mean '{close[0]}'? " if close else ""
        shown = ", ".join([*(alike or names)[:SHOWN], *(["..."] if len(alike or names) > SHOWN else [])])
        closed = f"; not looked into, for want of permission: {', '.join(self._closed[:SHOWN])}" if self._closed else ""
        return f"; {hint}there is {shown or 'no file'}{closed}"

    def _some(self, folder: str) -> Sequence[Path]:
        """A few files of a folder, which may hold a hundred thousand images."""
        found: list[Path] = []
        with self._entries(folder) as entries:
            for entry in entries:
                if entry.is_file() and len(found) < 50:
                    found.append(Path(entry.name))
        return found

    @contextmanager
    def _entries(self, folder: str) -> Iterator[Iterable[os.DirEntry[str]]]:
        """What lies in a folder; nothing in one that may not be read, such as the `lost+found` of a disk."""
        try:
            found = os.scandir(self.root / folder)
        except PermissionError:
            if folder not in self._closed:
                self._closed.append(folder)
            yield []
            return
        except OSError as error:
            raise DataError(f"{self.root / folder}: cannot be looked into: {error.strerror}") from error
        with found:
            yield found


def _check_text(path: str) -> None:
    """Raise `DataError` for a name that cannot be written down."""
    try:
        path.encode()
    except UnicodeEncodeError as error:
        raise DataError(f"{path!a}: the name of this folder is no UTF-8; rename it") from error


def _decoded(content: str | bytes, where: str) -> bytes:
    if isinstance(content, bytes):
        return content
    try:
        return base64.b64decode(content, validate=True)
    except (binascii.Error, ValueError) as error:
        raise DataError(f"{where}: the image is no base64 ({error})") from error


def _kind_of(data: bytes, where: str) -> str:
    """Suffix of an image's format; raises `DataError` when the bytes are no image."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            image.load()
            return (image.format or "png").lower()
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{where}: the image inside it cannot be decoded ({error}; {len(data)} bytes)") from error
