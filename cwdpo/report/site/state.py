"""The state of a grid: how many cells are done, how each stands stage by stage, and why stages failed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from cwdpo.jobs.plan import Plan, different_images
from cwdpo.jobs.status import COLUMNS, GridStatus, folded
from cwdpo.report.site.limits import LIMITS


@dataclass(frozen=True)
class ShownState:
    """What the first page says of the grid.

    Attributes:
        counts: state -> cells whose least advanced stage is in it; `done` first.
        stages: columns of `rows`.
        rows: cell, or case where there are too many cells -> stage -> what to show, a state first.
        folded: whether rows are cases.
        failures: stage folder and reason, the first ones.
        more_failures: how many are left out.
        images: which stages ran in which image, where not all in one; else nothing.
    """

    cells: int
    counts: Mapping[str, int]
    stages: tuple[str, ...]
    rows: Mapping[str, Mapping[str, str]]
    folded: bool
    failures: tuple[tuple[str, str], ...]
    more_failures: int
    images: str


def shown_state(plan: Plan, status: GridStatus) -> ShownState:
    """How the grid stands."""
    many = len(status.cells) > LIMITS.cells
    rows = {f"{cell.case}/{cell.seed}": cell.stages for cell in status.cells}
    if many:
        rows = folded(status.cells, lambda cell: cell.case)
        rows = rows if len(rows) <= LIMITS.cells else folded(status.cells, lambda cell: cell.family)
    found = dict.fromkeys(stage for row in rows.values() for stage in row)
    known = [stage for stage in COLUMNS if stage in found]
    return ShownState(
        cells=len(status.cells),
        counts=_counts(plan, status),
        stages=(*(stage for stage in found if stage not in known), *known),
        rows=rows,
        folded=many,
        failures=tuple((folder, reason.partition("\nlog: ")[0]) for folder, reason in status.failures[: LIMITS.told]),
        more_failures=max(0, len(status.failures) - LIMITS.told),
        images=different_images(status.images.values()),
    )


_WORST = (
    "failed", "damaged", "blocked", "cancelled", "interrupted", "running", "starting", "queued", "missing", "stale",
    "done",
)  # fmt: skip
"""States of a cell, the one that counts first: that of any of its stages."""


def _counts(plan: Plan, status: GridStatus) -> dict[str, int]:
    found = [_worst({status.states[node.id] for node in wired.nodes()}) for wired in plan.wired.values()]
    return {state: found.count(state) for state in reversed(_WORST) if state in found}


def _worst(states: set[str]) -> str:
    return next((state for state in _WORST if state in states), "done")
