"""Patience on a fall of mean_logp(y+): stop when the true answers themselves become less likely."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import ClassVar, Literal

from pydantic import Field

from cwdpo.dynamics.early_stop.rule import Measured, Rule, best


class Chosen(Rule):
    """Stops when mean_logp of y+ stays more than `fall` below its best for `patience` probes.

    A mean log-probability that is no finite number has fallen.
    """

    name: Literal["chosen"] = "chosen"
    fall: float = Field(default=0.05, gt=0)
    """Nats per token under the best so far that count as a fall; chosen, the paper prints none."""

    metric: ClassVar[str] = "mean_logp_chosen"

    def waits(self, values: Sequence[float]) -> Iterator[int]:
        """At each probe, how many in a row have fallen."""
        highest, waited = -math.inf, 0
        for value in values:
            known = math.isfinite(value)
            highest = max(highest, value) if known else highest
            stays = known and value >= highest - self.fall
            waited = 0 if stays else waited + 1
            yield waited

    def why(self, seen: Sequence[Measured]) -> str:
        """The best and the value now."""
        highest, now = best(seen), seen[-1]
        return (
            f"mean_logp of y+ has been more than {self.fall:g} nats per token below its best, {highest.value:.4g} at"
            f" step {highest.step}, for {self.patience} probes; it is {now.value:.4g} at step {now.step}"
        )
