"""The state of a grid: how many cells are done, how each stands stage by stage, and why stages failed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from cwdpo.jobs.plan import Plan, different_images
from cwdpo.jobs.status import COLUMNS, GridStatus, folded
from cwdpo.report.site.limits import LIMITS

CELL, CASE, FAMILY = "cell", "case", "case of the grid file"
"""What a row is, in the words of the page: a case of the grid file may stand for many, by its axes."""


@dataclass(frozen=True)
class ShownState:
    """What the first page says of the grid.

    Attributes:
        counts: state -> cells whose least advanced stage is in it; `done` first.
        stages: columns of `rows`.
        rows: cell, or what is counted together where there are too many -> stage -> what to show, a state first.
        by: what a row is: a cell, or what the cells counted in it have in common.
        folded: whether rows count cells.
        failures: stage folder and reason, the first ones.
        more_failures: how many are left out.
        images: which stages ran in which image, where not all in one; else nothing.
    """

    cells: int
    counts: Mapping[str, int]
    stages: tuple[str, ...]
    rows: Mapping[str, Mapping[str, str]]
    by: str
    folded: bool
    failures: tuple[tuple[str, str], ...]
    more_failures: int
    images: str


def shown_state(plan: Plan, status: GridStatus) -> ShownState:
    """How the grid stands."""
    by, rows = _rows(status)
    found = dict.fromkeys(stage for row in rows.values() for stage in row)
    known = [stage for stage in COLUMNS if stage in found]
    return ShownState(
        cells=len(status.cells),
        counts=_counts(plan, status),
        stages=(*(stage for stage in found if stage not in known), *known),
        rows=rows,
        by=by,
        folded=by != CELL,
        failures=tuple((folder, reason.partition("\nlog: ")[0]) for folder, reason in status.failures[: LIMITS.told]),
        more_failures=max(0, len(status.failures) - LIMITS.told),
        images=different_images(status.images.values()),
    )


def _rows(status: GridStatus) -> tuple[str, Mapping[str, Mapping[str, str]]]:
    """What a row is, and the rows: as few of them as `cwdpo status` would print."""
    if len(status.cells) <= LIMITS.cells:
        return CELL, {f"{cell.case}/{cell.seed}": cell.stages for cell in status.cells}
    by_case = folded(status.cells, lambda cell: cell.case)
    if len(by_case) <= LIMITS.cells:
        return CASE, by_case
    return FAMILY, folded(status.cells, lambda cell: cell.family)


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
