"""Reading what stages report: training curves and progress, also from attempts that were cut off."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cwdpo.base.store import Artefact

TAIL_BYTES = 16384


def events(path: Path) -> Iterator[dict[str, Any]]:
    """Every whole line of an events file; a torn last line is passed over."""
    if not path.exists():
        return
    with open(path, encoding="utf-8", errors="replace") as file:
        for line in file:
            try:
                yield json.loads(line)
            except ValueError:
                continue


def last_progress(artefact: Artefact) -> tuple[int, int] | None:
    """(done, total) of the newest attempt, in steps or blocks; reads only the end of the file."""
    path = artefact.attempts / str(artefact.newest()) / "events.jsonl"
    for line in reversed(_tail(path)):
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if row.get("event") in ("step", "progress"):
            return int(row.get("step", row.get("done", 0))), int(row["total"])
    return None


def curve(artefact: Artefact) -> list[dict[str, Any]]:
    """Points of the training curve by step; where attempts overlap the later one counts."""
    points: dict[int, dict[str, Any]] = {}
    for number in range(1, artefact.newest() + 1):
        for row in events(artefact.attempts / str(number) / "events.jsonl"):
            if row.get("event") == "step":
                points[row["step"]] = row
    return [points[step] for step in sorted(points)]


def _tail(path: Path) -> list[str]:
    try:
        with open(path, "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - TAIL_BYTES))
            return file.read().decode("utf-8", "replace").splitlines()
    except FileNotFoundError:
        return []
