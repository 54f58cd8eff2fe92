"""What an endpoint said, found by what it was asked: a request is sent once, whatever stage or attempt makes it."""

from __future__ import annotations

import json
import os
import platform
import uuid
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

from cwdpo.base import files
from cwdpo.base.identity import digest
from cwdpo.negatives.llm.endpoint import Endpoint


@dataclass(frozen=True)
class Request:
    """One call: all that the reply depends on.

    Attributes:
        messages: as chat completions take them.
        schema: JSON schema of the reply.
    """

    endpoint: Endpoint
    messages: tuple[Mapping[str, Any], ...]
    schema: Mapping[str, Any]

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
        for path in sorted(folder.glob("*.jsonl")):
            self._paths.append(path)
            self._places |= {key: (len(self._paths) - 1, start) for key, start in _lines(path)}

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
        with files.writing(self._folder):
            file = self._own()
            start = file.tell()
            file.write(json.dumps(row).encode("ascii") + b"\n")
            file.flush()
            os.fsync(file.fileno())
        self._places[_key(request.digest)] = (len(self._paths) - 1, start)

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


def _lines(path: Path) -> Iterator[tuple[bytes, int]]:
    """Key of every whole line, and the byte where it starts."""
    start = 0
    with open(path, "rb") as file:
        for line in file:
            with suppress(ValueError):  # cut off
                yield _key(json.loads(line)["request"]), start
            start += len(line)


def _key(name: str) -> bytes:
    return bytes.fromhex(name)[:16]
