"""Reading what stages report: training curves and progress, also from attempts that were cut off."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cwdpo.base.store import Artefact
from cwdpo.base.trail import note

TAIL_BYTES = 16384


def events(path: Path) -> Iterator[dict[str, Any]]:
    """Every whole line of an events file; a torn last line is passed over."""
    note(path)
    if not path.exists():
        return
    with open(path, encoding="utf-8", errors="replace") as file:
        yield from _objects(file)


@dataclass(frozen=True)
class Pulse:
    """How the newest attempt gets on.

    Attributes:
        started: seconds since the epoch.
        done: steps or blocks, those of earlier attempts included.
        rate: steps or blocks per second of this attempt, None before two of them.
        tokens_per_second: of the last step, None for stages that do not train.
    """

    attempt: int
    started: float
    done: int
    total: int
    rate: float | None
    tokens_per_second: float | None

    @property
    def seconds_left(self) -> float | None:
        """At this rate."""
        return (self.total - self.done) / self.rate if self.rate else None


def pulse(artefact: Artefact) -> Pulse | None:
    """How the newest attempt gets on, None before its first step; reads only the ends of the file."""
    attempt = artefact.newest()
    path = artefact.attempts / str(attempt) / "events.jsonl"
    head, tail = _rows(_head(path)), _rows(_tail(path))
    steps = [row for row in (*head, *tail) if row.get("event") in ("step", "progress")]
    if not steps:
        return None
    first, last = steps[0], steps[-1]
    moved, seconds = _done(last) - _done(first), last["time"] - first["time"]
    rate = moved / seconds if moved > 0 and seconds > 0 else None
    return Pulse(attempt, head[0]["time"], _done(last), int(last["total"]), rate, last.get("tokens_per_second"))


def ends(path: Path) -> list[dict[str, Any]]:
    """The first and the last rows of an events file, each once; of a long file those between are not read."""
    return _rows(dict.fromkeys([*_head(path), *_tail(path)]))


def last_progress(artefact: Artefact) -> tuple[int, int] | None:
    """(done, total) of the newest attempt, in steps or blocks; reads only the end of the file."""
    path = artefact.attempts / str(artefact.newest()) / "events.jsonl"
    for row in reversed(_rows(_tail(path))):
        if row.get("event") in ("step", "progress"):
            return _done(row), int(row["total"])
    return None


def _done(row: dict[str, Any]) -> int:
    return int(row.get("step", row.get("done", 0)))


def _rows(lines: Iterable[str]) -> list[dict[str, Any]]:
    """Whole lines of an events file; those that were cut are passed over."""
    return list(_objects(lines))


def _objects(lines: Iterable[str]) -> Iterator[dict[str, Any]]:
    for line in lines:
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict):
            yield row


def curve(artefact: Artefact) -> list[dict[str, Any]]:
    """Points of the training curve by step; where attempts overlap the later one counts."""
    points: dict[int, dict[str, Any]] = {}
    for number in range(1, artefact.newest() + 1):
        for row in events(artefact.attempts / str(number) / "events.jsonl"):
            if row.get("event") == "step" and isinstance(row.get("step"), int):
                points[row["step"]] = row
    return [points[step] for step in sorted(points)]


def _head(path: Path) -> list[str]:
    try:
        with open(path, "rb") as file:
            return file.read(TAIL_BYTES).decode("utf-8", "replace").splitlines()
    except FileNotFoundError:
        return []


def _tail(path: Path) -> list[str]:
    try:
        with open(path, "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - TAIL_BYTES))
            return file.read().decode("utf-8", "replace").splitlines()
    except FileNotFoundError:
        return []
