"""What a report says of how trainings went: every alarm of every probed training, and in which seeds it went off."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from cwdpo.dynamics.alarms import Finding
from cwdpo.jobs.plan import Plan
from cwdpo.jobs.probed import recorded


@dataclass
class Diagnosed:
    """One stage of one case.

    Attributes:
        seeds: so many were judged.
        findings: name of an alarm -> what it said, one for each seed that it went off in.
        missing: why seeds could not be judged, each reason once.
    """

    case: str
    stage: str
    seeds: int = 0
    findings: dict[str, list[Finding]] = field(default_factory=dict)
    missing: dict[str, None] = field(default_factory=dict)

    def lines(self) -> list[str]:
        """A sentence for each alarm, or one that says there is none."""
        where = f"{self.case}, {self.stage}"
        told = [
            f"{where}: {name} in {len(found)} of {self.seeds} seeds; in the first: {found[0].sentence}"
            for name, found in self.findings.items()
        ]
        if not told and self.seeds:
            told = [f"{where}: nothing alarming in {self.seeds} seeds"]
        return told + [f"{where}: not available: {reason}" for reason in self.missing]


def diagnosed(plan: Plan) -> list[Diagnosed]:
    """Every stage of every case that is probed, in the order of the grid."""
    from cwdpo.dynamics.explain import diagnose

    found: dict[tuple[str, str], Diagnosed] = {}
    for cell in plan.grid.cells:
        wanted = {one.stage for one in plan.wired[cell.name].probed}
        stages = recorded(plan, cell.name) if wanted else {}
        for stage, one in stages.items():
            entry = found.setdefault((cell.case, stage), Diagnosed(cell.case, stage))
            if one.probes is None:
                entry.missing[one.missing] = None
                continue
            entry.seeds += 1
            for finding in diagnose(one.evidence(stage)).findings:
                entry.findings.setdefault(finding.name, []).append(finding)
    return list(found.values())


def section(found: Sequence[Diagnosed]) -> str:
    """Markdown; nothing where nothing is probed."""
    lines = [line for one in found for line in one.lines()]
    return "\n".join(["## Learning dynamics\n", *(f"- {line}" for line in lines), ""]) if lines else ""
