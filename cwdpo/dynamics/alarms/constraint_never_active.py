"""A constraint that is never active: the objective is plain SFT under another name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from cwdpo.dynamics.alarms.evidence import Evidence
from cwdpo.dynamics.alarms.verdict import Finding, Fine
from cwdpo.dynamics.alarms.watch import Watch
from cwdpo.dynamics.points import Point, finite, step_of

ACTIVE, NLL = "penalty_active", "nll_rejected"


class ConstraintNeverActive(Watch):
    """No logged step has a penalty."""

    name: Literal["constraint_never_active"] = "constraint_never_active"
    least: int = Field(default=10, ge=1)
    """Logged steps before anything is said; chosen, the paper prints none."""

    def judge(self, evidence: Evidence) -> Finding | Fine:
        """Count the logged steps with a penalty."""
        points = evidence.logged(ACTIVE, least=self.least)
        active = [step_of(point) for point in points if point[ACTIVE] > 0]
        if active:
            return Fine(
                self.name,
                f"the penalty was active at {len(active)} of {len(points)} logged steps, first at step {active[0]},"
                f" last at step {active[-1]}",
            )
        sentence = (
            f"the penalty was active at none of {len(points)} logged steps, {step_of(points[0])} to"
            f" {step_of(points[-1])}{_nll(points)}: {evidence.objective} is plain sft so far. Try another bound C"
            " (floor or ceiling of the objective), or harder negatives."
        )
        return Finding(self.name, step_of(points[-1]), sentence, {"logged": len(points), **_range(points)})


def _nll(points: Sequence[Point]) -> str:
    found = _range(points)
    return f", where nll of y- was {found[f'{NLL}_least']:.4g} to {found[f'{NLL}_most']:.4g} nats" if found else ""


def _range(points: Sequence[Point]) -> dict[str, float]:
    found = [point[NLL] for point in points if finite(point, NLL)]
    return {f"{NLL}_least": min(found), f"{NLL}_most": max(found)} if found else {}
