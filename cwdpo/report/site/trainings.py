"""The distinct trainings of a grid, stage by stage: what curves and diagnosis are made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cwdpo.experiment import Cell
from cwdpo.jobs.plan import Plan
from cwdpo.jobs.probed import Recorded, recorded
from cwdpo.report.site.limits import LIMITS

STAGES = ("stage1", "stage2")

NAMED = 2
"""Cases that a label names; of more, only the first."""

Runs = Mapping[tuple[str, ...], Cell]
"""Identities of the rounds of a training (one, where it is trained in one go) -> the first cell that has it."""


@dataclass(frozen=True)
class Training:
    """One stage of the cases that share it, with all its seeds.

    Attributes:
        label: names these cases.
        seeds: seed -> what was recorded of its training; seeds that share one count once.
        cases: all that share it, in the order of the grid.
    """

    label: str
    seeds: Mapping[int, Recorded]
    cases: tuple[str, ...] = ()

    @property
    def shared_by(self) -> tuple[str, ...]:
        """All cases, where the label does not name them."""
        return self.cases if len(self.cases) > NAMED else ()


@dataclass(frozen=True)
class Trainings:
    """One stage.

    Attributes:
        shown: in the order of the grid.
        left_out: how many more there are.
    """

    stage: str
    shown: tuple[Training, ...]
    left_out: int


def trainings(plan: Plan) -> list[Trainings]:
    """Both stages, as far as the grid has them."""
    read: dict[str, Mapping[str, Recorded]] = {}

    def look(cell: Cell, stage: str) -> Recorded:
        if cell.name not in read:
            read[cell.name] = recorded(plan, cell.name)
        return read[cell.name][stage]

    found = []
    for stage in STAGES:
        distinct = _distinct(plan, stage)
        shown = tuple(
            Training(_label(cases), {cell.seed: look(cell, stage) for cell in runs.values()}, tuple(cases))
            for cases, runs in distinct[: LIMITS.lines]
        )
        if shown:
            found.append(Trainings(stage, shown, len(distinct) - len(shown)))
    return found


def _distinct(plan: Plan, stage: str) -> list[tuple[Sequence[str], Runs]]:
    """Cases that have the very same trainings, with these; nothing is read from the store."""
    found: dict[str, dict[tuple[str, ...], Cell]] = {}
    for cell in plan.grid.cells:
        ids = tuple(node.id for node in plan.wired[cell.name].nodes() if node.stage.name == stage)
        if ids:
            found.setdefault(cell.case, {}).setdefault(ids, cell)
    shared: dict[tuple[tuple[str, ...], ...], list[str]] = {}
    for case, runs in found.items():
        shared.setdefault(tuple(runs), []).append(case)
    return [(cases, found[cases[0]]) for cases in shared.values()]


def _label(cases: Sequence[str]) -> str:
    return ", ".join(cases) if len(cases) <= NAMED else f"{cases[0]} and {len(cases) - 1} that share it"
