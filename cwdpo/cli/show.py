"""What `status` prints: tables for a terminal of 80 columns, in which big grids are folded."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

from rich.cells import cell_len
from rich.console import Console
from rich.segment import Segment, Segments
from rich.style import Style

from cwdpo.jobs.plan import different_images
from cwdpo.jobs.status import CellStatus, GridStatus, Overlay, Work, folded, grid_status
from cwdpo.pipeline import STAGES

if TYPE_CHECKING:
    from cwdpo.jobs.plan import Plan

COLOURS = {
    "done": "green",
    "running": "cyan",
    "starting": "cyan",
    "queued": "blue",
    "cancelled": "yellow",
    "failed": "red",
    "damaged": "red",
    "stale": "yellow",
    "blocked": "yellow",
}

MOST_ROWS = 100
"""Above this, rows are folded into counts unless all are asked for."""

MOST_WORK = 20
"""Stages at work that are listed unless all are asked for."""

MOST_FAILURES = 10
"""Reasons shown of a folded grid."""

MOST_ALARMS = 5
"""Alarms shown unless all are asked for."""

Rows = Sequence[Sequence[str]]
"""Cells of a table; a cell may have several lines."""


def console() -> Console:
    """The terminal, or plain text where stdout is none: as wide as $COLUMNS says, else 110 columns."""
    found = Console(highlight=False)
    return found if found.is_terminal or "COLUMNS" in os.environ else Console(highlight=False, width=110)


def print_status(plan: Plan, every: bool = False, overlay: Overlay | None = None) -> None:
    """Cells x stages, what is at work, then every failure with its reason."""
    status, screen = grid_status(plan, overlay), console()
    rows = _rows(status.cells, every)
    columns = [name for name in STAGES if any(name in row for row in rows.values())]
    print_text(screen, f"{plan.grid.name}\n")
    print_table(
        screen, ("cell", *columns), [(name, *(row.get(stage, "-") for stage in columns)) for name, row in rows.items()]
    )
    if len(rows) < len(status.cells):
        print_text(screen, f"\n{len(status.cells)} cells in {len(rows)} rows; --all shows every cell")
    _print_work(screen, status.work, every)
    if images := different_images(status.images.values()):
        print_text(screen, f"\nfinished stages were computed in different images: {images}")
    _print_alarms(screen, status, every)
    _print_failures(screen, status, every or len(rows) == len(status.cells))


def _rows(cells: list[CellStatus], every: bool) -> dict[str, dict[str, str]]:
    """Name -> stages: cells, or where they are too many, all seeds of a case, or all of a case of the grid file."""
    if every or len(cells) <= MOST_ROWS:
        return {f"{cell.case}/{cell.seed}": cell.stages for cell in cells}
    by_case = folded(cells, lambda cell: cell.case)
    return by_case if len(by_case) <= MOST_ROWS else folded(cells, lambda cell: cell.family)


def _print_work(screen: Console, work: Sequence[Work], every: bool) -> None:
    """A row per stage that runs: attempt, elapsed, progress, speed, expected finish."""
    shown = work if every else work[:MOST_WORK]
    if shown:
        print_text(screen, "")
        print_table(
            screen, ("at work", "attempt", "elapsed", "done", "tokens/s", "ends"), [_work_row(e) for e in shown]
        )
    if len(shown) < len(work):
        print_text(screen, f"{len(work) - len(shown)} more at work; --all shows them")


def _work_row(work: Work) -> Sequence[str]:
    pulse = work.pulse
    if pulse is None:
        return (work.label, str(work.attempt), "-", "-", "-", "-")
    left = pulse.seconds_left
    ends = time.strftime("%a %H:%M", time.localtime(time.time() + left)) if left is not None else "-"
    speed = f"{pulse.tokens_per_second:.0f}" if pulse.tokens_per_second else "-"
    elapsed = duration(time.time() - pulse.started)
    return (work.label, str(work.attempt), elapsed, f"{pulse.done}/{pulse.total}", speed, ends)


def duration(seconds: float) -> str:
    """`45s`, `12m30s`, `7h05m`, `3d04h`."""
    whole = int(seconds)
    for unit, below, size in (("d", "h", 86400), ("h", "m", 3600), ("m", "s", 60)):
        if whole >= size:
            smaller = {"h": 3600, "m": 60, "s": 1}[below]
            return f"{whole // size}{unit}{whole % size // smaller:02d}{below}"
    return f"{whole}s"


def _print_alarms(screen: Console, status: GridStatus, every: bool) -> None:
    shown = status.alarms if every else status.alarms[:MOST_ALARMS]
    for number, (training, sentence) in enumerate(shown):
        print_text(screen, f"{'' if number else chr(10)}alarm: {training}: {sentence}")
    if len(shown) < len(status.alarms):
        print_text(screen, f"{len(status.alarms) - len(shown)} more alarms; --all shows them")


def _print_failures(screen: Console, status: GridStatus, every: bool) -> None:
    shown = status.failures if every else status.failures[:MOST_FAILURES]
    for folder, reason in shown:
        print_text(screen, f"{folder}: {reason}")
    if len(shown) < len(status.failures):
        print_text(screen, f"{len(status.failures) - len(shown)} more failures; --all shows them")


GAP = "  "


def print_text(screen: Console, text: str) -> None:
    """As it is: a path broken in two cannot be copied."""
    screen.print(text, markup=False, soft_wrap=True)


def print_table(screen: Console, columns: Sequence[str], rows: Rows) -> None:
    """Aligned columns. Where they do not fit, progress goes below its state, then the name above its row."""
    narrow = [(name, *map(_progress_below, cells)) for name, *cells in rows]
    layouts = [(rows, True), (narrow, True), (rows, False), (narrow, False)]
    rows, beside = next((found for found in layouts if _width(columns, *found) <= screen.width), layouts[-1])
    widths = _widths(columns, rows)
    segments = list(_row(columns, widths, beside, bold=True))
    for row in rows:
        segments += _row(row, widths, beside)
    screen.print(Segments(segments), soft_wrap=True)


def _progress_below(cell: str) -> str:
    return cell.replace(" ", "\n") if "/" in cell else cell


def _width(columns: Sequence[str], rows: Rows, beside: bool) -> int:
    """Of the longest line, not counting a name on a line of its own."""
    name, *others = _widths(columns, rows)
    return sum(len(GAP) + width for width in others) + (name if beside else 0)


def _widths(columns: Sequence[str], rows: Rows) -> list[int]:
    return [max(map(cell_len, _lines(column))) for column in zip(columns, *rows, strict=True)]


def _lines(cells: Sequence[str]) -> list[str]:
    return [line for cell in cells for line in cell.split("\n")]


def _row(cells: Sequence[str], widths: Sequence[int], beside: bool, bold: bool = False) -> Iterator[Segment]:
    """The lines of one row; everything but its name is coloured by the state it tells."""
    name, *others = cells
    if not beside:
        yield Segment(f"{name}\n", Style(bold=bold))
        name, widths = "", (0, *widths[1:])
    for parts in zip_longest(*(cell.split("\n") for cell in (name, *others)), fillvalue=""):
        missing = 0
        for index, (part, width) in enumerate(zip(parts, widths, strict=True)):
            yield Segment(" " * missing)  # before the next part, so that no line ends in blanks
            yield Segment(part, Style(bold=bold, color=_colour(part) if index else None))
            missing = width - cell_len(part) + len(GAP)
        yield Segment.line()


def _colour(text: str) -> str | None:
    return next((COLOURS[word] for word in text.split() if word in COLOURS), None)


def status_json(plan: Plan, overlay: Overlay | None = None) -> dict[str, Any]:
    """The same for a script."""
    status = grid_status(plan, overlay)
    cells = [{"case": cell.case, "seed": cell.seed, "stages": cell.stages} for cell in status.cells]
    work = [{"stage": entry.label, "attempt": entry.attempt, **_pulse_json(entry)} for entry in status.work]
    images = dict(Counter(status.images.values()))
    alarms = [{"training": training, "sentence": sentence} for training, sentence in status.alarms]
    failures = dict(status.failures)
    return {
        "grid": plan.grid.name, "cells": cells, "work": work, "failures": failures, "images": images, "alarms": alarms,
    }  # fmt: skip


def _pulse_json(work: Work) -> dict[str, Any]:
    return {**asdict(work.pulse), "seconds_left": work.pulse.seconds_left} if work.pulse else {}
