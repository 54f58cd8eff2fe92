"""A loser's gradient that dominates: the policy is pushed away from wrong answers rather than pulled to true ones."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from cwdpo.dynamics.alarms.change import Change
from cwdpo.dynamics.alarms.evidence import Evidence
from cwdpo.dynamics.alarms.verdict import Finding, Fine
from cwdpo.dynamics.alarms.watch import Watch
from cwdpo.dynamics.points import since, smoothed

WINNER, LOSER = "gradient_chosen", "gradient_rejected"


class LoserGradient(Watch):
    """In the training curve the gradient of y- in the logits is many times that of y+.

    Probes cannot tell: they record the loser's gradient alone.
    """

    name: Literal["loser_gradient"] = "loser_gradient"
    times: float = Field(default=5.0, gt=1)
    """Norm of the loser's gradient over that of the winner's; chosen, the paper prints none."""
    window: int = Field(default=10, ge=1)
    """Logged steps over which norms are averaged; chosen, the paper prints none."""

    def judge(self, evidence: Evidence) -> Finding | Fine:
        """Compare the means of both norms over a window that ends at each logged step."""
        logged = evidence.logged(WINNER, LOSER, least=self.window)
        points = smoothed(logged, [WINNER, LOSER], self.window)
        step = since(points, [point[LOSER] > self.times * point[WINNER] for point in points])
        change = Change(points[0], points[-1])
        told = (
            f"the norm of the gradient in the logits (mean over {self.window} logged steps) went for y-"
            f" {change.told(LOSER)}, for y+ {change.told(WINNER)}"
        )
        if step is None:
            return Fine(self.name, f"{told}; alarming above {self.times:g} times as much")
        sentence = (
            f"{told}: that of y- is more than {self.times:g} times as great. Try objective cw_dpo (or a greater l_floor"
            " where it is), a smaller weight of the penalty in Stage 1, or harder negatives."
        )
        return Finding(self.name, step, sentence, change.values(WINNER, LOSER))
