"""Squeezing: pushing negatives down takes the true answers along, and the mass goes to what is likeliest anyway.

"Learning Dynamics of LLM Finetuning" (arXiv 2407.10490), section 4.
"""

from __future__ import annotations

from itertools import accumulate
from typing import Literal

from pydantic import Field

from cwdpo.dynamics.alarms.change import Change
from cwdpo.dynamics.alarms.evidence import Evidence
from cwdpo.dynamics.alarms.verdict import Finding, Fine
from cwdpo.dynamics.alarms.watch import Watch
from cwdpo.dynamics.points import Point, since

CHOSEN, REJECTED, TOP1 = "mean_logp_chosen", "mean_logp_rejected", "top1"


class Squeezing(Watch):
    """mean_logp of y+ and of y- both fall while top-1 mass rises, each since y+ was likeliest."""

    name: Literal["squeezing"] = "squeezing"
    fall: float = Field(default=0.05, gt=0)
    """Nats per token that either mean log-probability must lose; chosen, the paper prints none."""
    rise: float = Field(default=0.01, ge=0)
    """Probability that top-1 must gain; chosen, the paper prints none."""

    def judge(self, evidence: Evidence) -> Finding | Fine:
        """Compare each probe with the one before it at which y+ was likeliest; y- is the mean over grades."""
        graded = evidence.graded("mean_logp")
        points = [_with_mean(point, graded) for point in evidence.probes(CHOSEN, TOP1, *graded)]
        changes = [Change(peak, point) for peak, point in zip(accumulate(points, _likelier), points, strict=True)]
        step = since(points, [self._squeezed(change) for change in changes])
        if step is None:
            return Fine(self.name, f"{_told(Change(points[0], points[-1]))}; {_peak(changes[-1])}")
        sentence = (
            f"{_told(changes[-1])}: probability leaves true and wrong answers alike for what is likeliest anyway. Try a"
            " smaller beta or learning rate, objective cw_dpo, or early stop chosen."
        )
        return Finding(self.name, step, sentence, changes[-1].values(CHOSEN, REJECTED, TOP1))

    def _squeezed(self, change: Change) -> bool:
        falls = change.of(CHOSEN) < -self.fall and change.of(REJECTED) < -self.fall
        return falls and change.of(TOP1) > self.rise


def _with_mean(point: Point, graded: list[str]) -> Point:
    return {**point, REJECTED: sum(point[column] for column in graded) / len(graded)}


def _likelier(one: Point, other: Point) -> Point:
    return other if other[CHOSEN] > one[CHOSEN] else one


def _told(change: Change) -> str:
    return (
        f"mean_logp of y+ went {change.told(CHOSEN)}, that of y- {change.told(REJECTED)}, top-1 mass"
        f" {change.told(TOP1)}"
    )


def _peak(change: Change) -> str:
    return f"y+ was likeliest, {change.first[CHOSEN]:.4g}, at step {change.first['step']:.0f}"
