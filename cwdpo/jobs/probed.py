"""What was recorded of a cell's trainings: rows of their probes where there are any, and their training curves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

from cwdpo.base.errors import ConfigError, StoreError, name_valid
from cwdpo.base.store import Artefact
from cwdpo.graph import Node, Probed
from cwdpo.jobs.events import curve
from cwdpo.jobs.plan import Plan

if TYPE_CHECKING:
    from cwdpo.dynamics.alarms import Evidence
    from cwdpo.dynamics.rows import Probes


UNWATCHED = "was computed for a grid without a probe, and cannot be probed afterwards"
"""Said of a finished training that has no rows although it would be probed as it runs."""


@dataclass(frozen=True)
class Recorded:
    """One stage of training of a cell.

    Attributes:
        probes: None where there are none that can be read.
        missing: why, else nothing.
        training: points of the training curve, in order.
        objective: its name.
        total: steps of the schedule; None before the first one was made.
    """

    probes: Probes | None
    missing: str
    training: list[dict[str, Any]]
    objective: str
    total: int | None

    def cost(self) -> str:
        """What probing took beside the steps of the training; nothing where either is not known."""
        training = sum(float(point.get("seconds", 0.0)) for point in self.training)
        if self.probes is None or not training:
            return ""
        probing = float(self.probes.about["seconds"])
        return f"probing took {probing:.1f} s, {probing / training:.1%} of the {training:.1f} s of its training steps"

    def evidence(self, title: str) -> Evidence:
        """What alarms are judged by."""
        from cwdpo.dynamics.alarms import Evidence
        from cwdpo.dynamics.points import points_of

        points = points_of(self.probes) if self.probes else ()
        return Evidence(title, self.objective, points, self.training, self.missing, self.total)


def recorded(plan: Plan, cell: str) -> dict[str, Recorded]:
    """`stage1` and `stage2`, as far as the cell has them, by name.

    Raises:
        ConfigError: there is no such cell.
    """
    if cell not in plan.wired:
        raise ConfigError(f"unknown cell {name_valid(cell, plan.wired)}")
    probed = {name: list(group) for name, group in groupby(plan.wired[cell].probed, lambda one: str(one.stage))}
    return {
        name: _recorded(plan, trainings, probed.get(name, [])) for name, trainings in _trainings(plan, cell).items()
    }


def _trainings(plan: Plan, cell: str) -> dict[str, list[Node]]:
    """The trainings of each stage, in order: one, or one a round."""
    found: dict[str, list[Node]] = {}
    for node in plan.wired[cell].nodes():
        if node.stage.name in ("stage1", "stage2"):
            found.setdefault(node.stage.name, []).append(node)
    return found


def _recorded(plan: Plan, trainings: Sequence[Node], probed: Sequence[Probed]) -> Recorded:
    probes, missing = _probes(plan, probed)
    points = [point for node in trainings for point in curve(node.artefact(plan.store))]
    spec: Any = trainings[0].spec
    return Recorded(probes, missing, points, spec.objective.name, points[-1].get("total") if points else None)


def _which(artefact: Artefact) -> str:
    """The damaged file, where `DONE` can be read."""
    try:
        return "".join(f": {name} is missing or changed since it was written" for name in artefact.missing_files()[:1])
    except StoreError as error:
        return f": {error}"


def _probes(plan: Plan, probed: Sequence[Probed]) -> tuple[Probes | None, str]:
    """The rows, or why there are none."""
    from cwdpo.dynamics.rows import read_probes

    if not probed:
        return None, "the experiment has no probe"
    for one in probed:
        artefact = one.rows.artefact(plan.store)
        state = artefact.state()
        if state != "done":
            return None, f"{one.rows.title} is {state}{_which(artefact) if state == 'damaged' else ''}"
        if one.unwatched(one.rows.artefact(plan.store).done()):
            return None, f"{one.rows.title} {UNWATCHED}"
    try:
        return read_probes([one.folder(plan.store) for one in probed]), ""
    except StoreError as error:
        return None, str(error)
    except (KeyError, TypeError, ValueError) as error:
        return None, f"{probed[-1].rows.title} left rows that cannot be read: {error!r}"
