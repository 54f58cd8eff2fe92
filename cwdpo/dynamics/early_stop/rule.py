"""What early stopping asks of a rule: whether the training ends here, given the probes so far.

A rule is a function of the probes alone, in their order: it says the same during training, after a resume and in a
replay. What it has decided no later probe changes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

from pydantic import Field

from cwdpo.base.config import Config
from cwdpo.base.errors import DataError
from cwdpo.dynamics.points import Point, step_of


class Measured(NamedTuple):
    """What a rule goes by, at one probe."""

    step: int
    value: float


@dataclass(frozen=True)
class Stop:
    """A training ends.

    Attributes:
        step: of the probe after which it ends.
        best: step of the probe with the greatest value up to there, the first one of equals.
        why: a sentence with the numbers that decided.
    """

    step: int
    best: int
    why: str


class Rule(Config):
    """Counts probes in a row that disappoint, and stops at `patience` of them."""

    name: str
    patience: int = Field(default=3, ge=1)
    """Probes in a row that must disappoint; chosen, the paper prints none."""
    keep: Literal["best", "last"] = "best"
    """Whose policy is the result, also where nothing stops the training: that of the best probe, or the last one."""

    metric: ClassVar[str]
    """Column of the probes that is read (`curves.curve`); greater is better."""

    def stop(self, points: Sequence[Point]) -> Stop | None:
        """Where the training ends, or None while it goes on.

        Args:
            points: the probes so far, in order, with the columns of `curves.curve`.

        Raises:
            DataError: a probe lacks the metric, or the first one has no finite value to compare with.
        """
        probes = self.measured(points)
        for place, waited in enumerate(self.waits([probe.value for probe in probes])):
            if waited == self.patience:
                seen = probes[: place + 1]
                return Stop(seen[-1].step, best(seen).step, self.why(seen))
        return None

    def measured(self, points: Sequence[Point]) -> list[Measured]:
        """The metric at each probe; errors as of `stop`."""
        for point in points:
            if self.metric not in point:
                raise DataError(
                    f"{self._reads}, which the probe of step {step_of(point)} lacks; it has: {_names(point)}"
                )
        found = [Measured(step_of(point), float(point[self.metric])) for point in points]
        if found and not math.isfinite(found[0].value):
            raise DataError(
                f"{self._reads}, which is {found[0].value} at the first probe (step {found[0].step}): there is nothing"
                " to compare later probes with"
            )
        return found

    def waits(self, values: Sequence[float]) -> Iterator[int]:
        """At each probe, how many in a row have disappointed, itself included."""
        raise TypeError(f"{type(self).__name__} does not say what it waits for")

    def why(self, seen: Sequence[Measured]) -> str:
        """Why it stops at the last one of `seen`."""
        raise TypeError(f"{type(self).__name__} does not say why it stops")

    @property
    def _reads(self) -> str:
        return f"early stop '{self.name}' reads {self.metric}"


def best(probes: Sequence[Measured]) -> Measured:
    """The probe with the greatest finite value, the first one of equals."""
    return max(probes, key=lambda probe: probe.value if math.isfinite(probe.value) else -math.inf)


def _names(point: Point) -> str:
    return ", ".join(sorted(point)) or "nothing"
