"""Peaking: the policy becomes certain of one token, right or wrong."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from cwdpo.dynamics.alarms.change import Change
from cwdpo.dynamics.alarms.evidence import Evidence
from cwdpo.dynamics.alarms.verdict import Finding, Fine
from cwdpo.dynamics.alarms.watch import Watch
from cwdpo.dynamics.points import since

ENTROPY = "entropy"


class Peaking(Watch):
    """The mean token entropy falls by more than a share of what it was at the first probe."""

    name: Literal["peaking"] = "peaking"
    share: float = Field(default=0.5, gt=0, lt=1)
    """Of the first probe's entropy that must be lost; chosen, the paper prints none."""

    def judge(self, evidence: Evidence) -> Finding | Fine:
        """Compare each probe with the first one."""
        points = evidence.probes(ENTROPY)
        lowest = (1 - self.share) * points[0][ENTROPY]
        step = since(points, [point[ENTROPY] < lowest for point in points])
        change = Change(points[0], points[-1])
        told = f"the mean token entropy went {change.told(ENTROPY)} nats"
        if step is None:
            return Fine(self.name, f"{told}; alarming under {lowest:.4g}")
        sentence = (
            f"{told}, a loss of more than {self.share:.0%}. Where ece rises, too, it is overconfident: try fewer steps,"
            " a smaller learning rate, or in Stage 1 sft_entropy or sft_label_smoothing."
        )
        return Finding(self.name, step, sentence, change.values(ENTROPY))
