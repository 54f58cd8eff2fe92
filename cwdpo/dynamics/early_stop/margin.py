"""Patience on the probe margin: stop when chosen and rejected responses no longer move apart."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import ClassVar, Literal

from pydantic import Field

from cwdpo.dynamics.early_stop.rule import Measured, Rule


class Margin(Rule):
    """Stops when the margin has not risen by more than `min_change` for `patience` probes.

    It is compared with the last margin that was such a rise, so that many small steps up add up to one. A margin that
    is no finite number is no rise.
    """

    name: Literal["margin"] = "margin"
    min_change: float = Field(default=0.0, ge=0)
    """Nats by which the margin must exceed that of the last rise to be one; chosen, the paper prints none."""

    metric: ClassVar[str] = "margin"

    def waits(self, values: Sequence[float]) -> Iterator[int]:
        """At each probe, how many have passed since the last rise."""
        reached, waited = -math.inf, 0
        for value in values:
            rises = math.isfinite(value) and value > reached + self.min_change
            reached, waited = (value, 0) if rises else (reached, waited + 1)
            yield waited

    def why(self, seen: Sequence[Measured]) -> str:
        """The last rise and the margin now."""
        risen, now = seen[-1 - self.patience], seen[-1]
        return (
            f"the margin has not risen by more than {self.min_change:g} nats above {risen.value:.4g} (step"
            f" {risen.step}) for {self.patience} probes; it is {now.value:.4g} at step {now.step}"
        )
