"""What alarms are judged by: the probes of one stage and its training curve."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cwdpo.base.errors import NotAvailable
from cwdpo.dynamics.points import Point, finite
from cwdpo.dynamics.rows import GRADES


@dataclass(frozen=True)
class Evidence:
    """All that is known of the training of one stage, so far or to its end.

    Attributes:
        objective: its name.
        points: the probes in order, with the columns of `curves.curve`.
        training: the training curve: what was logged, in the order of steps.
        missing: why there are no probes.
        total: steps of the schedule.
    """

    stage: str
    objective: str
    points: Sequence[Point] = ()
    training: Sequence[Point] = ()
    missing: str = "nothing was probed"
    total: int | None = None

    def probes(self, *columns: str) -> list[Point]:
        """The probes in which all columns are finite, two at least.

        Raises:
            NotAvailable: there are fewer.
        """
        if not self.points:
            raise NotAvailable(self.missing)
        return _whole(self.points, columns, "probes", least=2)

    def logged(self, *columns: str, least: int) -> list[Point]:
        """The points of the training curve in which all columns are finite.

        Raises:
            NotAvailable: there are fewer than `least`.
        """
        if not self.training:
            raise NotAvailable("there is no training curve")
        return _whole(self.training, columns, f"logged steps of {self.objective}", least)

    def graded(self, quantity: str) -> list[str]:
        """Columns of the probes that have a quantity of graded negatives: `w_c` -> `w_c_hard`, ...

        Raises:
            NotAvailable: there are none.
        """
        if not self.points:
            raise NotAvailable(self.missing)
        found = [name for grade in GRADES if (name := f"{quantity}_{grade}") in self.points[0]]
        if not found:
            raise NotAvailable(f"the probes have no {quantity} of graded negatives")
        return found


def _whole(points: Sequence[Point], columns: Sequence[str], what: str, least: int) -> list[Point]:
    for column in columns:
        if not any(column in point for point in points):
            raise NotAvailable(f"the {what} have no {column}")
    found = [point for point in points if all(finite(point, column) for column in columns)]
    if len(found) < least:
        raise NotAvailable(
            f"{len(found)} of {len(points)} {what} have a finite {' and '.join(columns)}; it takes {least}"
        )
    return found
