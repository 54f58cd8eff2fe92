"""Reading what stages report: training curves and progress, also from attempts that were cut off."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cwdpo.base.store import Artefact
from cwdpo.base.trail import note

TAIL_BYTES = 16384
LARGEST = 1e300
"""Above it, sums and differences of numbers need not be finite any more."""
MOST_STEPS = 2**53
"""Above it, floats do not tell one step from the next."""


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
    steps = [row for row in _steps((*head, *tail)) if row.get("time") is not None]
    if not steps:
        return None
    first, last = steps[0], steps[-1]
    moved, seconds = _done(last) - _done(first), last["time"] - first["time"]
    rate = moved / seconds if moved > 0 and seconds > 0 else None
    started = numbers(head[0]).get("time") or first["time"]
    return Pulse(attempt, started, _done(last), int(last["total"]), rate, last.get("tokens_per_second"))


def ends(path: Path) -> list[dict[str, Any]]:
    """The first and the last rows of an events file, each once; of a long file those between are not read."""
    return _rows(dict.fromkeys([*_head(path), *_tail(path)]))


def last_progress(artefact: Artefact) -> tuple[int, int] | None:
    """(done, total) of the newest attempt, in steps or blocks; reads only the end of the file."""
    path = artefact.attempts / str(artefact.newest()) / "events.jsonl"
    return next(((_done(row), int(row["total"])) for row in reversed(_steps(_rows(_tail(path))))), None)


def _steps(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The numbers of rows that tell how far a stage has come, of how much."""
    told = (numbers(row) for row in rows if row.get("event") in ("step", "progress"))
    return [row for row in told if row.get("total") is not None]


def _done(row: Mapping[str, Any]) -> int:
    return int(row.get("step") or row.get("done") or 0)


def numbers(row: Mapping[str, Any]) -> dict[str, Any]:
    """What of a row is a number, or null.

    One that is not finite, or as good as that, becomes null, as the store writes it.
    """
    return {
        key: value if value is None or abs(value) <= LARGEST else None
        for key, value in row.items()
        if value is None or (isinstance(value, int | float) and not isinstance(value, bool))
    }


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
    """Points of the training curve by step, numbers only; where attempts overlap the later one counts."""
    points: dict[int, dict[str, Any]] = {}
    for number in range(1, artefact.newest() + 1):
        for row in events(artefact.attempts / str(number) / "events.jsonl"):
            point = numbers(row)
            if row.get("event") == "step" and isinstance(point.get("step"), int) and 0 <= point["step"] < MOST_STEPS:
                points[point["step"]] = point
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
