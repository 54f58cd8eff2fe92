"""One writer a home: a file that names the process which is at it."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cwdpo.base import files
from cwdpo.base.errors import StoreError
from cwdpo.base.store import process_started

TRIES = 3
"""A holder may end, or be replaced, between two looks."""


@contextmanager
def single_writer(home: Path) -> Iterator[None]:
    """Hold `mlflow.writer` while writing; a writer that died is replaced.

    Raises:
        StoreError: a living process holds it, or one on another host that cannot be asked.
    """
    path = home / "mlflow.writer"
    me = {"host": socket.gethostname(), "pid": os.getpid(), "process_started": process_started(os.getpid())}
    temporary = files.temporary_beside(path)
    files.write_json(temporary, me)
    try:
        _take(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def _take(temporary: Path, path: Path) -> None:
    for _ in range(TRIES):
        try:
            os.link(temporary, path)
            return
        except FileExistsError:
            holder = _holder(path)
        if holder and _at_work(holder):
            who = f"process {holder['pid']} on {holder['host']}"
            raise StoreError(f"{who} is tracking into this home; if it is gone, delete {path}")
        path.unlink(missing_ok=True)
    raise StoreError(f"cannot take {path}: other processes keep taking it")


def _holder(path: Path) -> Mapping[str, Any] | None:
    """Who holds it; None where it was given back in between.

    Raises:
        StoreError: the file does not say.
    """
    try:
        found = files.read_json(path)
    except StoreError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            return None
        raise
    if not isinstance(found, dict) or not {"host", "pid", "process_started"} <= found.keys():
        raise StoreError(f"{path} does not say who is tracking into this home; if nobody is, delete it")
    return found


def _at_work(holder: Mapping[str, Any]) -> bool:
    """Whether it may still be at it; of other hosts nothing can be known."""
    here = holder["host"] == socket.gethostname()
    return not here or process_started(holder["pid"]) == holder["process_started"]
