"""One submit or reconcile at a time, on any file system: a folder that holds its owner's name is renamed into place.

A rename onto a folder that is not empty fails everywhere; `flock` is silently ignored on some parallel file systems.
"""

from __future__ import annotations

import errno
import os
import socket
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from cwdpo.base import files
from cwdpo.base.background import Background
from cwdpo.base.errors import Busy, StoreError
from cwdpo.base.store import process_started

BEAT_SECONDS = 5.0
SILENT_SECONDS = 60.0  # an owner on another host that has not beaten for this long is taken for dead
POLL_SECONDS = 0.5

_TAKEN = (errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT)  # the last one: somebody tidied our own folder away


class Lost(Busy):
    """Another process took the lock over: this one was taken for dead."""


@contextmanager
def locked(folder: Path, wait: float, say: Callable[[str], None] = lambda text: None) -> Iterator[Callable[[], None]]:
    """Hold the lock; yields a check that raises `Lost` when it is no longer ours.

    Args:
        wait: seconds to wait for another owner.
        say: told once who is being waited for.

    Raises:
        Busy: another process still holds it after `wait` seconds.
    """
    mine = _owner()
    _acquire(folder, mine, wait, say)
    background = Background()
    background.start(lambda: _beat(folder, mine, background), "lock beat")

    def check() -> None:
        if not _holds(folder, mine):
            raise Lost("another process took over the lock of this store; nothing more is submitted by this one")

    try:
        _tidy(folder)
        yield check
    finally:
        background.stop()
        _remove(folder, mine)


def _owner() -> dict[str, Any]:
    me = os.getpid()
    return {"host": socket.gethostname(), "pid": me, "started": process_started(me), "id": uuid.uuid4().hex}


def _acquire(folder: Path, mine: dict[str, Any], wait: float, say: Callable[[str], None]) -> None:
    deadline = time.monotonic() + wait
    told = False
    while not _take(folder, mine):
        owner = _read(folder)
        if not _alive(folder, owner):
            _remove(folder, owner)
            continue
        who = f"process {owner['pid']} on {owner['host']}" if owner else "another process"
        if time.monotonic() > deadline:
            raise Busy(f"{who} is submitting for this store; try again when it is through")
        if not told:
            say(f"waiting for {who}, which is submitting for this store")
            told = True
        time.sleep(POLL_SECONDS)


def _take(folder: Path, mine: dict[str, Any]) -> bool:
    """Rename a folder that names us into place; False if the place is taken."""
    if folder.exists():
        return False
    with files.writing(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = files.temporary_beside(folder)
        temporary.mkdir()
    files.write_json(temporary / "owner.json", mine)
    try:
        os.rename(temporary, folder)
    except OSError as error:
        files.remove_tree(temporary)
        if error.errno not in _TAKEN:
            raise StoreError(f"cannot lock {folder}: {error.strerror}") from error
        return False
    return True


def _holds(folder: Path, mine: dict[str, Any]) -> bool:
    """True when the lock names us; looks again, because who clears a dead lock may have ours in hand for a moment."""
    for pause in (0.0, 0.05, 0.5):
        time.sleep(pause)
        if _read(folder) == mine:
            return True
    return False


def _tidy(folder: Path) -> None:
    """Remove what processes left that died while they took the lock or gave it back."""
    for path in folder.parent.glob(f".{folder.name}.*.tmp"):
        if not _alive(path, _read(path)):
            files.remove_tree(path)


def _remove(folder: Path, owner: dict[str, Any] | None) -> None:
    """Take the lock of `owner` away, whole: never leave an empty folder that two processes could rename onto."""
    if _read(folder) != owner:
        return
    aside = files.temporary_beside(folder)
    with suppress(OSError):
        os.rename(folder, aside)
        if _read(aside) != owner:  # somebody else cleared the dead lock first and holds his own now: give it back
            os.rename(aside, folder)
        files.remove_tree(aside)


def _read(folder: Path) -> dict[str, Any] | None:
    try:
        found = files.read_json(folder / "owner.json")
    except StoreError:
        return None
    return found if isinstance(found, dict) else None


def _alive(folder: Path, owner: dict[str, Any] | None) -> bool:
    """True unless the owner is surely gone; a folder that names nobody (damaged, or half written) lives for a while."""
    if owner is not None and owner["host"] == socket.gethostname():
        return process_started(owner["pid"]) == owner["started"]
    try:
        return time.time() - (folder / "owner.json" if owner else folder).stat().st_mtime < SILENT_SECONDS
    except FileNotFoundError:  # given back this moment
        return True


def _beat(folder: Path, mine: dict[str, Any], background: Background) -> None:
    """Show other hosts that we live, for as long as the lock is ours."""
    while not background.over.wait(BEAT_SECONDS):
        with suppress(OSError):
            if _read(folder) == mine:
                os.utime(folder / "owner.json")
