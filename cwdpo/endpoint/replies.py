"""What an endpoint said, found by what it was asked: a request is sent once, whatever stage or attempt makes it."""

from __future__ import annotations

import json
import os
import platform
import uuid
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

from cwdpo.base import files
from cwdpo.base.identity import digest
from cwdpo.endpoint.settings import Endpoint

ASKED = "asked.json"
"""Among the unfinished work of a stage: how many replies it was given. The replies are in the cache."""


@dataclass(frozen=True)
class Request:
    """One call: all that the reply depends on.

    Attributes:
        messages: as chat completions take them.
        schema: JSON schema of the reply, None where it is free text.
    """

    endpoint: Endpoint
    messages: tuple[Mapping[str, Any], ...]
    schema: Mapping[str, Any] | None

    @cached_property
    def digest(self) -> str:
        """What it is found by: nothing of where the endpoint lies."""
        return digest({**self.endpoint.canonical(), "messages": list(self.messages), "schema": self.schema})


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back.

    Attributes:
        finish: why it ended: stop, length, content_filter, refusal, ...
        tokens_in: of the request, None where the endpoint does not say.
    """

    text: str
    finish: str
    tokens_in: int | None = None
    tokens_out: int | None = None


class Replies(AbstractContextManager["Replies"]):
    """A folder of files to which one process each appends; every line is on disk before its reply is used.

    About 200 bytes are held of each reply. A line that a kill cut off is passed over: its request is sent again.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._paths: list[Path] = []
        self._places: dict[bytes, tuple[int, int]] = {}
        self._file: BinaryIO | None = None
        self._reading: tuple[int, BinaryIO] | None = None
        self._load()

    def _load(self) -> None:
        """Find the replies that were not dropped, whichever file says so."""
        self._paths = sorted(self._folder.glob("*.jsonl"))
        found: list[tuple[bytes, tuple[int, int]]] = []
        drops: list[tuple[Collection[bytes], Mapping[str, int]]] = []
        for number, path in enumerate(self._paths):
            for row, start in _lines(path):
                if "dropped" in row:
                    drops.append((set(map(_key, row["dropped"])), row["before"]))
                else:
                    found.append((_key(row["request"]), (number, start)))
        names = [path.name for path in self._paths]
        for key, (number, start) in found:
            if not any(key in keys and start < before.get(names[number], 0) for keys, before in drops):
                self._places[key] = (number, start)

    def __len__(self) -> int:
        return len(self._places)

    def get(self, request: Request) -> Reply | None:
        """The reply to an equal request, if there was one."""
        place = self._places.get(_key(request.digest))
        if place is None:
            return None
        file = self._opened(place[0])
        file.seek(place[1])
        return Reply(**json.loads(file.readline())["reply"])

    def _opened(self, number: int) -> BinaryIO:
        """A file to read; it stays open until another one is read: replies lie in the order they are asked for."""
        if self._reading is None or self._reading[0] != number:
            self._close_reading()
            self._reading = (number, open(self._paths[number], "rb"))  # noqa: SIM115 - closed with this object
        return self._reading[1]

    def _close_reading(self) -> None:
        if self._reading is not None:
            self._reading[1].close()

    def put(self, request: Request, reply: Reply) -> None:
        """Keep a reply.

        Raises:
            StoreError: the folder cannot be written.
        """
        row = {"request": request.digest, "model": request.endpoint.model, "reply": asdict(reply)}
        start = self._append(row)
        self._places[_key(request.digest)] = (len(self._paths) - 1, start)

    def drop(self, requests: Iterable[str]) -> int:
        """Forget what was said to some requests, so that they are sent again; returns how many were kept.

        No other process's file is changed: a line says up to which byte of each file it is to be passed over.

        Args:
            requests: their digests.

        Raises:
            StoreError: the folder cannot be written.
        """
        dropped = [name for name in requests if self._places.pop(_key(name), None)]
        if dropped:
            before = {path.name: path.stat().st_size for path in self._folder.glob("*.jsonl")}
            self._append({"dropped": dropped, "before": before})
        return len(dropped)

    def _append(self, row: Mapping[str, Any]) -> int:
        """Add a line that is on disk when this returns; the byte where it starts."""
        with files.writing(self._folder):
            file = self._own()
            start = file.tell()
            file.write(json.dumps(row).encode("ascii") + b"\n")
            file.flush()
            os.fsync(file.fileno())
        return start

    def _own(self) -> BinaryIO:
        """This process's file, made when there is something to keep."""
        if self._file is None:
            self._folder.mkdir(parents=True, exist_ok=True)
            path = self._folder / f"{platform.node()}-{os.getpid()}-{uuid.uuid4().hex[:8]}.jsonl"
            self._file = open(path, "xb")  # noqa: SIM115 - open as long as this object
            self._paths.append(path)
            files.fsync_folder(self._folder)
        return self._file

    def __exit__(self, *exception: object) -> None:
        self._close_reading()
        if self._file is not None:
            self._file.close()


def _lines(path: Path) -> Iterator[tuple[dict[str, Any], int]]:
    """Every whole line, and the byte where it starts."""
    start = 0
    with open(path, "rb") as file:
        for line in file:
            with suppress(ValueError):  # cut off
                yield json.loads(line), start
            start += len(line)


def _key(name: str) -> bytes:
    return bytes.fromhex(name)[:16]
