"""Whether a plan stays within so many hours, and what would be there if it were cut off."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cwdpo.jobs.forecast.ranges import Range
from cwdpo.jobs.plan import Plan

HOUR = 3600.0


@dataclass(frozen=True)
class Budget:
    """So many hours, and what they are enough for.

    Attributes:
        needed: hours of all that is missing.
        first: cells that would be done when the hours are used up, all being as expected; those done now among them.
        cells: how many there are.
        seeds: the first seeds of the grid that the hours are enough for, together.
        unknown: stages that are in no number, because nobody knows what they take.
    """

    hours: float
    needed: Range
    first: tuple[str, ...]
    cells: int
    seeds: tuple[int, ...]
    unknown: int = 0

    @property
    def enough(self) -> bool:
        """By what is to be expected; of what nobody knows nothing is."""
        return self.needed.middle <= self.hours and not self.unknown

    @property
    def surely(self) -> bool:
        """Even if all takes as long as it may."""
        return self.needed.high <= self.hours and not self.unknown

    def as_json(self) -> dict[str, Any]:
        """For a script."""
        return {
            "hours": self.hours, "enough": self.enough, "surely": self.surely, "cells_done_first": list(self.first),
            "cells": self.cells, "seeds_that_fit": list(self.seeds), "stages_not_counted": self.unknown,
        }  # fmt: skip


def used_up(hours: float, ends: Sequence[float], seconds: Sequence[float], held: Sequence[int]) -> float:
    """When jobs have used so many hours, in seconds from the start; infinity where they never do.

    Args:
        ends: when each job has ended.
        held: GPUs, or processes, that each holds while it runs.
    """
    changes = [(end - took, width) for end, took, width in zip(ends, seconds, held, strict=True) if took]
    changes += [(end, -width) for end, took, width in zip(ends, seconds, held, strict=True) if took]
    left, now, pace = hours * HOUR, 0.0, 0
    for when, change in sorted(changes):
        if pace and pace * (when - now) > left:
            return now + left / pace
        left -= pace * (when - now)
        now, pace = when, pace + change
    return float("inf")


def cells_done(plan: Plan, ended: Mapping[str, float], when: float) -> tuple[str, ...]:
    """Cells all of whose stages have ended by then.

    Args:
        ended: id of a stage that is missing now -> when it will have ended.
    """
    return tuple(
        name for name, wired in plan.wired.items() if all(ended.get(node.id, 0.0) <= when for node in wired.nodes())
    )


def seeds_within(plan: Plan, hours: float, cost: Mapping[str, float]) -> tuple[int, ...]:
    """The first seeds of a grid that so many hours are enough for.

    Args:
        cost: id of a stage that is missing -> its hours.
    """
    counted: set[str] = set()
    found: list[int] = []
    left = hours
    for seed in dict.fromkeys(cell.seed for cell in plan.grid.cells):
        names = [cell.name for cell in plan.grid.cells if cell.seed == seed]
        own = {node.id for name in names for node in plan.wired[name].nodes()} - counted
        left -= sum(cost.get(node, 0.0) for node in own)
        if left < 0:
            break
        counted |= own
        found.append(seed)
    return tuple(found)
