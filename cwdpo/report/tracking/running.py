"""Curves of cells that are not finished yet, for `--follow`: a run that grows, until the finished one replaces it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from cwdpo.experiment import Cell
from cwdpo.jobs.plan import Plan, Shown
from cwdpo.report.tracking.book import Book, Found
from cwdpo.report.tracking.cells import about, cell_key, params_of
from cwdpo.report.tracking.curves import of_points, thinned, trainings, when

UNFINISHED = "unfinished"
"""Digest of a run that grows."""
OF_A_CELL = ("stage1", "sft_phase", "stage2")
"""Stages that train a method."""
UPTO = "cwdpo.upto"
"""Tag: stage -> the last step that was written."""


def begun(plan: Plan, cell: Cell, states: Mapping[str, Shown]) -> bool:
    """Whether a training of an unfinished cell has been started, its own or one that it shares; the model's is none."""
    of_a_cell = (node for node in plan.wired[cell.name].nodes() if node.stage.name in OF_A_CELL)
    return any(states[node.id] in ("running", "done", "stale", "interrupted", "failed") for node in of_a_cell)


def show(book: Book, plan: Plan, cell: Cell, states: Mapping[str, Shown], parent: str) -> None:
    """Write the points that are new; a cell that is computed again keeps its finished run until then."""
    found = book.runs.get(cell_key(cell), [])
    curves = {stage: points for stage, points in trainings(plan, plan.wired[cell.name]).items() if points}
    if not curves or any(run.status == "FINISHED" for run in found):
        return
    run = left_growing(book, cell) or _begin(book, plan, cell, curves, parent)
    book.keep(cell_key(cell), run)
    _grow(book, run, curves)
    _tell(book, run, "FAILED" if _failed(plan, cell, states) else "RUNNING")


def left_growing(book: Book, cell: Cell) -> Found | None:
    """The run of an unfinished cell, where a pass before has begun one."""
    return next((run for run in book.runs.get(cell_key(cell), []) if run.digest == UNFINISHED), None)


def _begin(book: Book, plan: Plan, cell: Cell, curves: Mapping[str, list[Any]], parent: str) -> Found:
    began = when(list(curves.values())[-1][0]) or 0
    run = book.begin(cell_key(cell), cell.name, UNFINISHED, began, parent)
    book.log(run.id, params_of(cell), [], about(plan, cell))
    return run


def _grow(book: Book, run: Found, curves: Mapping[str, list[Any]]) -> None:
    """Points first, then how far they go: what is written twice after a kill, MLflow keeps once."""
    upto = json.loads(run.tags.get(UPTO, "{}"))
    new = {
        stage: thinned([point for point in points if point["step"] > upto.get(stage, -1)])
        for stage, points in curves.items()
    }
    metrics = [one for stage, points in new.items() for one in of_points(stage, points)]
    if metrics:
        book.log(run.id, {}, metrics, {})
        reached = {stage: points[-1]["step"] for stage, points in new.items() if points}
        book.client.set_tag(run.id, UPTO, json.dumps({**upto, **reached}))


def _failed(plan: Plan, cell: Cell, states: Mapping[str, Shown]) -> bool:
    return any(states[node.id] in ("failed", "interrupted", "damaged") for node in plan.wired[cell.name].nodes())


def _tell(book: Book, run: Found, status: str) -> None:
    """How it stands, where that has changed."""
    if run.status != status and status == "FAILED":
        book.client.set_terminated(run.id, status)
    elif run.status != status:
        book.client.update_run(run.id, status)
