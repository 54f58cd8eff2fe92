"""How a grid stands: cells x stages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cwdpo.jobs.events import last_progress
from cwdpo.jobs.plan import Plan, Shown

COLUMNS = ("pretrain", "stage1", "stage2", "generate", "score")
"""Stages that are always shown; data preparation is shown where it is not simply done or waiting."""

TROUBLE = ("failed", "damaged", "interrupted", "running")


@dataclass(frozen=True)
class CellStatus:
    """One row: stage name -> what to show; a stage the cell does not have is absent."""

    case: str
    seed: int
    stages: dict[str, str]


def cell_statuses(plan: Plan) -> list[CellStatus]:
    """A row per cell in the order of the grid. Several nodes of one stage show the least advanced."""
    states = plan.states()
    rows = []
    for cell in plan.grid.cells:
        shown: dict[str, str] = {}
        for node in plan.wired[cell.name].nodes():
            if node.stage.name in COLUMNS or states[node.id] in TROUBLE:
                text = _text(plan, node, states[node.id])
                if shown.get(node.stage.name, "done") == "done":
                    shown[node.stage.name] = text
        rows.append(CellStatus(cell.case, cell.seed, shown))
    return rows


def _text(plan: Plan, node: Any, state: Shown) -> str:
    if state in ("running", "interrupted"):
        progress = last_progress(node.artefact(plan.store))
        return f"{state} {progress[0]}/{progress[1]}" if progress else state
    return state


def failures(plan: Plan) -> list[tuple[str, str]]:
    """(stage folder, reason and log) of every failed node."""
    found = []
    for node in plan.nodes:
        artefact = node.artefact(plan.store)
        if artefact.state() == "failed":
            number = artefact.newest()
            result = artefact.result(number)
            reason = result["message"] if result else "no reason recorded"
            found.append((artefact.folder.name, f"{reason}\nlog: {artefact.attempts / str(number) / 'stderr'}"))
    return found
