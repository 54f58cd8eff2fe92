"""Divergence: the loss or the gradient is no number any more, or the gradient explodes."""

from __future__ import annotations

import math
from bisect import insort
from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from cwdpo.dynamics.alarms.evidence import Evidence
from cwdpo.dynamics.alarms.verdict import Finding, Fine
from cwdpo.dynamics.alarms.watch import Watch
from cwdpo.dynamics.points import Point, finite, step_of

LOSS, NORM = "loss", "grad_norm"
REMEDY = "Try a smaller learning_rate, a longer warmup, or a smaller clip (optimization)."


class Divergence(Watch):
    """Loss or gradient norm of the training curve is not finite, or several norms in a row are many times the usual."""

    name: Literal["divergence"] = "divergence"
    times: float = Field(default=10.0, gt=1)
    """Gradient norm over the median of all logged before it; chosen, the paper prints none."""
    repeats: int = Field(default=3, ge=1)
    """Logged steps in a row that must be so: a single one is what clipping is for; chosen, the paper prints none."""
    settled: int = Field(default=5, ge=1)
    """Logged steps before there is a usual norm; chosen, the paper prints none."""

    def judge(self, evidence: Evidence) -> Finding | Fine:
        """The first step at which it is so."""
        found = self._not_finite(evidence.training)
        if found:
            return found
        points = evidence.logged(NORM, least=1)
        norms = [point[NORM] for point in points]
        place, usual = self._explodes(norms)
        if place is None:
            return Fine(
                self.name,
                f"loss and gradient norm were finite at {len(points)} logged steps, {step_of(points[0])} to"
                f" {step_of(points[-1])}; the norm was {min(norms):.4g} to {max(norms):.4g}, last {norms[-1]:.4g}",
            )
        return self._exploded(points[place : place + self.repeats], usual)

    def _not_finite(self, points: Sequence[Point]) -> Finding | None:
        for point in points:
            for column in (LOSS, NORM):
                if column in point and not finite(point, column):
                    value, step = point[column], step_of(point)
                    what = "not a finite number" if value is None else value  # files have no form for one
                    sentence = f"{column} is {what} at step {step}. {REMEDY}"
                    return Finding(self.name, step, sentence, {column: value})
        return None

    def _explodes(self, norms: Sequence[float]) -> tuple[int | None, float]:
        """Where the first `repeats` exploding norms in a row begin, if anywhere, and the median before the last one."""
        earlier: list[float] = []
        usual, row = math.inf, 0
        for place, norm in enumerate(norms):
            usual = earlier[len(earlier) // 2] if len(earlier) >= self.settled else math.inf
            row = row + 1 if 0 < self.times * usual < norm else 0
            if row == self.repeats:
                return place - self.repeats + 1, usual
            insort(earlier, norm)
        return None, usual

    def _exploded(self, points: Sequence[Point], usual: float) -> Finding:
        first, last = points[0], points[-1]
        sentence = (
            f"the gradient norm went from {usual:.4g} (median before) to {first[NORM]:.4g} (step {step_of(first)}) and"
            f" {last[NORM]:.4g} (step {step_of(last)}), more than {self.times:g} times as much for {self.repeats}"
            f" logged steps. {REMEDY}"
        )
        values = {"usual": usual, f"{NORM}_from": first[NORM], f"{NORM}_to": last[NORM]}
        return Finding(self.name, step_of(first), sentence, values)
