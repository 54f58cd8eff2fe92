"""What was looked at in files while something was made, and whether all of it is still as it was.

While a trail is followed, every file that Python code opens for reading is noted, whoever opens it: an audit hook of
the interpreter tells. Who learns something without opening a file (a size, what a folder holds, that nothing is there)
says so with `note`; what holds only now, by the clock, by processes or by a scheduler, with `note_fleeting`.

A stamp is the time of the last change in ns (of the inode, which nobody sets at will, and of the content), the size,
and the inode: whatever writes to a file, replaces or removes it changes its stamp, and so does for a folder whatever
adds, renames or removes what lies right in it. Bytes that change without being written (a failing disk) leave it as is.
"""

from __future__ import annotations

import hashlib
import os
import struct
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from stat import S_ISDIR
from typing import Any

SETTLED_SECONDS = 2.0
"""Times of change are coarse: what changed less than this ago could change once more and keep its stamp."""

SKIPPED = ("/proc/", "/sys/", "/dev/", f"{sys.prefix}/lib", f"{sys.base_prefix}/lib")
"""Files that are never the same, and installed packages, whose versions are to be compared instead."""

_PARTS = struct.Struct("=qqqQ")
_WRITING = os.O_WRONLY | os.O_RDWR


class Trail:
    """What was looked at.

    Attributes:
        stamps: path as it was given -> its stamp right before it was first looked at.
        fleeting: whether any of what was seen holds only now.
    """

    def __init__(self) -> None:
        self.stamps: dict[str, bytes] = {}
        self.fleeting = False
        self._settled_before = time.time_ns() - int(SETTLED_SECONDS * 1e9)

    def note(self, path: str) -> None:
        """Take the stamp of a path, where it has none yet."""
        if path not in self.stamps:
            self.stamps[path] = stamp(path)

    def note_opened(self, path: str) -> None:
        """The same of a file that is about to be opened; folders are opened only to flush them."""
        if path in self.stamps or path.startswith(SKIPPED) or path.endswith(".pyc"):
            return
        try:
            found = os.stat(path)
        except OSError as error:
            self.stamps[path] = _absent(error)
            return
        if not S_ISDIR(found.st_mode):
            self.stamps[path] = _packed(found)

    @property
    def lasting(self) -> bool:
        """Whether all of it holds for as long as the stamps stay as they are."""
        newest = max((_PARTS.unpack(found)[0] for found in self.stamps.values()), default=0)
        return not self.fleeting and newest < self._settled_before

    @property
    def digest(self) -> str:
        """Of the stamps, in their order."""
        return _digest(self.stamps.values())


def stamp(path: str) -> bytes:
    """Of a file or a folder; the number of the error where there is none."""
    try:
        return _packed(os.stat(path))
    except OSError as error:
        return _absent(error)


def digest_now(paths: Iterable[str]) -> str:
    """Of the stamps that paths have now, in their order; as `Trail.digest`."""
    return _digest(map(stamp, paths))


def _packed(found: os.stat_result) -> bytes:
    return _PARTS.pack(found.st_ctime_ns, found.st_mtime_ns, found.st_size, found.st_ino)


def _absent(error: OSError) -> bytes:
    return _PARTS.pack(0, 0, -(error.errno or 1), 0)


def _digest(stamps: Iterable[bytes]) -> str:
    return hashlib.sha256(b"".join(stamps)).hexdigest()


_followed: Trail | None = None
_hooked = False


@contextmanager
def following() -> Iterator[Trail]:
    """Note what is looked at, in all threads, until the block ends."""
    global _followed, _hooked
    if not _hooked:
        sys.addaudithook(_hear)  # an audit hook stays; where nothing is followed it does nothing
        _hooked = True
    before, _followed = _followed, Trail()
    try:
        yield _followed
    finally:
        _followed = before


@contextmanager
def aside() -> Iterator[None]:
    """Note nothing until the block ends: what is looked at there does not count, or is said by itself."""
    global _followed
    before, _followed = _followed, None
    try:
        yield
    finally:
        _followed = before


def note(*paths: str | os.PathLike[str]) -> None:
    """Something is about to be learnt of paths without opening them; for who does so, wherever that is."""
    if _followed is not None:
        for path in paths:
            _followed.note(os.fspath(path))


def look(path: str) -> os.stat_result | None:
    """What a path is, noted with one look; None where nothing is there that can be looked at."""
    try:
        found = os.stat(path)
    except OSError as error:
        stamped, result = _absent(error), None
    else:
        stamped, result = _packed(found), found
    if _followed is not None:
        _followed.stamps.setdefault(path, stamped)
    return result


def note_fleeting() -> None:
    """What was just learnt holds only now."""
    if _followed is not None:
        _followed.fleeting = True


def _hear(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open" and _followed is not None:
        path, _, flags = arguments
        if isinstance(path, str) and not flags & _WRITING:
            _followed.note_opened(path)
