"""What is alarming about the trainings of a grid, what is in order, and what nobody can tell; seed by seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cwdpo.dynamics.explain import Diagnosis, diagnose
from cwdpo.report.site.trainings import Training, Trainings


@dataclass(frozen=True)
class Alarm:
    """One alarm of a training.

    Attributes:
        seeds: in which it went off.
        sentence: what it said in the first of them.
        step: since when, there.
    """

    name: str
    seeds: tuple[int, ...]
    sentence: str
    step: int


@dataclass(frozen=True)
class Diagnosed:
    """One stage of the cases that share it.

    Attributes:
        alarms: that went off in any seed.
        seeds: seed -> everything that was found.
        looked_at: seed -> how many probes and steps that is by.
        shared_by: all these cases, where the label does not name them.
    """

    stage: str
    label: str
    alarms: tuple[Alarm, ...]
    seeds: Mapping[int, Diagnosis]
    looked_at: Mapping[int, str]
    shared_by: tuple[str, ...] = ()

    @property
    def judged(self) -> bool:
        """Whether anything could be told of any seed."""
        return any(one.findings or one.fine for one in self.seeds.values())


def diagnosed(found: Sequence[Trainings]) -> list[Diagnosed]:
    """Every distinct training that the report shows."""
    return [_of(stage.stage, training) for stage in found for training in stage.shown]


def _of(stage: str, training: Training) -> Diagnosed:
    seeds = {seed: diagnose(recorded.evidence(stage)) for seed, recorded in training.seeds.items()}
    looked_at = {
        seed: f"{len(one.evidence.points)} probes, {len(one.evidence.training)} logged steps"
        for seed, one in seeds.items()
    }
    return Diagnosed(stage, training.label, tuple(_alarms(seeds)), seeds, looked_at, training.shared_by)


def _alarms(seeds: Mapping[int, Diagnosis]) -> list[Alarm]:
    found: dict[str, Alarm] = {}
    for seed, one in seeds.items():
        for finding in one.findings:
            before = found.get(finding.name)
            known = (before.sentence, before.step) if before else (finding.sentence, finding.step)
            found[finding.name] = Alarm(finding.name, (*(before.seeds if before else ()), seed), *known)
    return list(found.values())
