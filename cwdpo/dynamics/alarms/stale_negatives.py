"""Stale negatives: the policy has rejected most of them already, so that they teach it nothing."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from cwdpo.dynamics.alarms.evidence import Evidence
from cwdpo.dynamics.alarms.verdict import Finding, Fine
from cwdpo.dynamics.alarms.watch import Watch
from cwdpo.dynamics.points import Point, since, smoothed

LOWEST = "w_c_from_0.0"
"""Of the training curve: share of pairs whose w_c lies in the lowest tenth of [0, 1]."""

STALE = 0.1
"""w_c under which a negative is."""


class StaleNegatives(Watch):
    """Most cooling weights are under 0.1: those of the pairs that are trained on, else those of the probed grades."""

    name: Literal["stale_negatives"] = "stale_negatives"
    most: float = Field(default=0.5, ge=0, lt=1)
    """Share of negatives above which stale ones are most."""
    window: int = Field(default=10, ge=1)
    """Logged steps over which the share is averaged; chosen, the paper prints none."""

    def judge(self, evidence: Evidence) -> Finding | Fine:
        """By the histogram that cw_dpo logs where there is one, else by the means of the probed grades."""
        if any(LOWEST in point for point in evidence.training):
            points = evidence.logged(LOWEST, least=self.window)
            whose = f"pairs that are trained on (mean over {self.window} logged steps) whose w_c is"
            return self._judged(smoothed(points, [LOWEST], self.window), LOWEST, whose)
        graded = evidence.graded("w_c")
        shares = [_with_share(point, graded) for point in evidence.probes(*graded)]
        return self._judged(shares, "stale", f"grades of probed negatives ({len(graded)} of them) whose mean w_c is")

    def _judged(self, points: list[dict[str, float]], column: str, whose: str) -> Finding | Fine:
        first, last = points[0], points[-1]
        told = (
            f"the share of {whose} under {STALE} went from {first[column]:.0%} (step {first['step']:.0f}) to"
            f" {last[column]:.0%} (step {last['step']:.0f})"
        )
        step = since(points, [point[column] > self.most for point in points])
        if step is None:
            return Fine(self.name, f"{told}; alarming above {self.most:.0%}")
        sentence = (
            f"{told}: the policy rejects them already. Try harder negatives, or on-policy ones that are refreshed in"
            " rounds."
        )
        return Finding(self.name, step, sentence, {"share_from": first[column], "share_to": last[column]})


def _with_share(point: Point, graded: list[str]) -> dict[str, float]:
    return {"step": point["step"], "stale": sum(point[column] < STALE for column in graded) / len(graded)}
