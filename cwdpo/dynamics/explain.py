"""What `cwdpo probe explain` says of a training: what is alarming, what is in order, what nobody can tell."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from cwdpo.dynamics.alarms import Evidence, Finding, Fine, Unjudged, Verdict, Watch, verdicts
from cwdpo.dynamics.points import Point, jsonable, step_of

Kind = TypeVar("Kind", Finding, Fine, Unjudged)


@dataclass(frozen=True)
class Diagnosis:
    """What came of looking at the training of one stage; `verdicts` in the order in which was looked."""

    evidence: Evidence
    verdicts: Sequence[Verdict]

    @property
    def findings(self) -> list[Finding]:
        """What is alarming."""
        return self._of(Finding)

    @property
    def fine(self) -> list[Fine]:
        """What was found in order."""
        return self._of(Fine)

    @property
    def unjudged(self) -> list[Unjudged]:
        """What could not be judged."""
        return self._of(Unjudged)

    def _of(self, kind: type[Kind]) -> list[Kind]:
        return [verdict for verdict in self.verdicts if isinstance(verdict, kind)]

    def text(self) -> str:
        """A paragraph for a terminal."""
        lines = [
            f"{self.evidence.stage} ({self.evidence.objective}): {_headline(self)}",
            f"  looked at: {_looked_at(self.evidence)}",
            *(f"  ALARM {found.name}, since step {found.step}: {found.sentence}" for found in self.findings),
            *(f"  in order: {found.name}: {found.sentence}" for found in self.fine),
            *(f"  {', '.join(names)}: not available: {reason}" for reason, names in self._by_reason().items()),
        ]
        return "\n".join(lines)

    def as_json(self) -> dict[str, Any]:
        """The same for a script."""
        about = self.evidence
        return {
            "stage": about.stage,
            "objective": about.objective,
            "probes": [step_of(point) for point in about.points],
            "logged": len(about.training),
            "total": about.total,
            "findings": [_finding(found) for found in self.findings],
            "in_order": {found.name: found.sentence for found in self.fine},
            "not_available": {found.name: found.reason for found in self.unjudged},
        }

    def _by_reason(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for verdict in self.unjudged:
            found.setdefault(verdict.reason, []).append(verdict.name)
        return found


def diagnose(evidence: Evidence, alarms: Iterable[Watch | str] | None = None) -> Diagnosis:
    """Look for everything alarming in one stage; None is all alarms."""
    return Diagnosis(evidence, verdicts(evidence, alarms))


def explain(stages: Iterable[Evidence]) -> str:
    """The text of `cwdpo probe explain`: a paragraph per stage, in their order."""
    return "\n\n".join(diagnose(evidence).text() for evidence in stages)


def _headline(diagnosis: Diagnosis) -> str:
    if diagnosis.findings:
        return f"alarming: {', '.join(found.name for found in diagnosis.findings)}"
    if not diagnosis.fine:
        return "nothing could be judged"
    return f"nothing alarming in {len(diagnosis.fine)} of {len(diagnosis.verdicts)} respects"


def _looked_at(evidence: Evidence) -> str:
    scheduled = f", of {evidence.total} that are scheduled" if evidence.total else ""
    return f"{_points(evidence.points, 'probes')}; {_points(evidence.training, 'logged steps')}{scheduled}"


def _points(points: Sequence[Point], what: str) -> str:
    return f"{len(points)} {what}, {step_of(points[0])} to {step_of(points[-1])}" if points else f"no {what}"


def _finding(found: Finding) -> dict[str, Any]:
    return {"name": found.name, "step": found.step, "sentence": found.sentence, "values": jsonable(found.values)}
