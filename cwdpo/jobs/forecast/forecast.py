"""What a plan costs from now on, put together: by stage, in hours, days, bytes; with what it rests on."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from cwdpo.jobs.clusters import KINDS, Cluster, Kind, SlurmCluster
from cwdpo.jobs.forecast.budget import HOUR, Budget, cells_done, seeds_within, used_up
from cwdpo.jobs.forecast.calls import Calls, calls_of
from cwdpo.jobs.forecast.estimates import Basis, Estimate, Estimates
from cwdpo.jobs.forecast.fitting import Fit, fits_of
from cwdpo.jobs.forecast.makespan import Limits
from cwdpo.jobs.forecast.modelled import CASES
from cwdpo.jobs.forecast.past import ALIKE, OTHER
from cwdpo.jobs.forecast.ranges import Range, total
from cwdpo.jobs.forecast.schedule import Schedule, limits_of, schedule_of
from cwdpo.jobs.forecast.storage import Files, files_of, free_bytes, group_of
from cwdpo.jobs.forecast.tasks import Asking, Task
from cwdpo.jobs.plan import Plan, Shown
from cwdpo.pipeline import STAGES

TRAININGS = ("pretrain", "stage1", "sft_phase", "stage2")
FINISHED = ("done", "stale")
ASKED = (4, 16, 64)
"""Jobs in Slurm's queue that a makespan is shown for."""
HERE = (1, 2, 4)
"""Jobs at a time on this machine that one is shown for."""


@dataclass(frozen=True)
class StageCost:
    """All stages of one kind.

    Attributes:
        naive: how many there were if no cell shared anything.
        missing: how many are to be computed.
        hours: of GPUs, or of processes where there are none, of those that are missing.
        seconds: of their jobs, one after the other.
        bases: where the hours are from -> how many stages.
    """

    stage: str
    distinct: int
    naive: int
    missing: int
    hours: Range
    seconds: Range
    bases: Mapping[Basis, int]

    def as_json(self) -> dict[str, Any]:
        """For a script."""
        return {
            "stage": self.stage, "distinct": self.distinct, "naive": self.naive, "to_compute": self.missing,
            "hours": self.hours.as_json(), "seconds": self.seconds.as_json(1), "basis": dict(self.bases),
        }  # fmt: skip


class Forecast:
    """Of one plan on one cluster, as the plan stands now.

    Args:
        states: node id -> how it stands.
        queue: jobs in the queue at a time, in place of what the profile says.
        nodes: nodes that jobs get at a time; None is as many as they ask for.
    """

    def __init__(
        self,
        plan: Plan,
        states: Mapping[str, Shown],
        cluster: Cluster,
        queue: int | None = None,
        nodes: int | None = None,
    ) -> None:
        self.plan, self.states = plan, states
        self.estimates = Estimates(plan, cluster)
        self.cluster = self.estimates.cluster
        self.limits = limits_of(self.cluster, queue, nodes)
        self.missing = [node for node in plan.nodes if states[node.id] not in FINISHED]

    @cached_property
    def gpus(self) -> bool:
        """Whether hours are those of GPUs; else they are those of processes."""
        return self.estimates.device("train").gpu

    @cached_property
    def work(self) -> list[tuple[Task, int]]:
        """What is missing, and how often."""
        tasks = {id(task): task for task in map(self.estimates.tasks.of, self.missing)}
        counts = Counter(id(self.estimates.tasks.of(node)) for node in self.missing)
        return [(tasks[key], count) for key, count in counts.items()]

    @cached_property
    def bases(self) -> Counter[Basis]:
        """Where the estimates of the missing stages are from."""
        return _bases((self.estimates.of_task(task), count) for task, count in self.work)

    def held(self, estimate: Estimate) -> int:
        """GPUs, or processes, that a stage holds."""
        return estimate.gpus if self.gpus else estimate.ranks

    def hours_of(self, estimate: Estimate) -> Range:
        """Of GPUs, or of processes."""
        return estimate.seconds * (self.held(estimate) / HOUR)

    @cached_property
    def stages(self) -> list[StageCost]:
        """By kind, in the order of the data path."""
        distinct = Counter(node.stage.name for node in self.plan.nodes)
        naive = Counter(node.stage.name for wired in self.plan.wired.values() for node in wired.nodes())
        found: dict[str, list[tuple[Estimate, int]]] = defaultdict(list)
        for task, count in self.work:
            found[task.stage].append((self.estimates.of_task(task), count))
        spared = self._spared
        return [
            StageCost(
                name, distinct[name], naive[name], sum(count for _, count in found[name]),
                total(self.hours_of(one) * count for one, count in found[name]) - total(
                    one.ready * (self.held(one) / HOUR) for one in spared[name]
                ),
                total(one.seconds * count for one, count in found[name]) - total(one.ready for one in spared[name]),
                _bases(found[name]),
            )
            for name in STAGES if distinct[name]
        ]  # fmt: skip

    @cached_property
    def _spared(self) -> Mapping[str, Sequence[Estimate]]:
        """Of each kind those that find the model loaded: all but the first of a job."""
        found: dict[str, list[Estimate]] = defaultdict(list)
        for own in self.schedule.members:
            for node in own[1:]:
                found[node.stage.name].append(self.estimates.of(node))
        return found

    @cached_property
    def hours(self) -> Range:
        """Of all that is missing."""
        return total(stage.hours for stage in self.stages)

    @cached_property
    def schedule(self) -> Schedule:
        """The jobs of what is missing."""
        return schedule_of(self.missing, self.estimates)

    @cached_property
    def makespan(self) -> Range:
        """Seconds under the limits."""
        return self.schedule.makespan(self.limits)

    @cached_property
    def unlimited(self) -> Range:
        """Seconds if nothing but the order of the stages kept them waiting."""
        return self.schedule.makespan(Limits())

    def what_if(self) -> Iterator[tuple[int, float]]:
        """Expected seconds with so many jobs in the queue, or at a time on this machine."""
        slurm = isinstance(self.cluster, SlurmCluster)
        for count in ASKED if slurm else HERE:
            if count < len(self.missing) and count != (self.limits.queue if slurm else self.limits.nodes):
                limits = replace(self.limits, **{"queue" if slurm else "nodes": count})
                yield count, max(self.schedule.middle(limits), default=0.0)

    @cached_property
    def fits(self) -> list[Fit]:
        """Memory of trainings and generations, finished ones included."""
        tasks = {id(task): task for task in map(self.estimates.tasks.of, self.plan.nodes)}
        return fits_of(tasks.values(), self.estimates)

    @cached_property
    def storage(self) -> dict[str, Files]:
        """Bytes that are still to be written, by what they are."""
        found: dict[str, list[tuple[Files, int]]] = defaultdict(list)
        for task, count in self.work:
            pasts, alike = self.estimates.history.like(task)
            same = [past for past in pasts if alike and task.data in past.data]
            found[group_of(task)].append((files_of(task, same), count))
        return {
            name: Files(
                sum(one.kept * count for one, count in own),
                sum(one.snapshots * count for one, count in own),
                max(one.running for one, _ in own),
            )
            for name, own in found.items()
        }

    @cached_property
    def calls(self) -> list[Calls]:
        """Of endpoints, that are still to be made."""
        asked = ((node, self.estimates.tasks.of(node)) for node in self.missing)
        return calls_of((node, task) for node, task in asked if isinstance(task, Asking))

    def budget(self, hours: float) -> Budget:
        """Whether so many hours are enough, and for what."""
        ends = self.schedule.middle(self.limits)
        seconds = [one.middle for one in self.schedule.seconds]
        held = [max(self.held(self.estimates.of(node)) for node in own) for own in self.schedule.members]
        when = used_up(hours, ends, seconds, held)
        ended = {node.id: end for own, end in zip(self.schedule.members, ends, strict=True) for node in own}
        cost = {node.id: self.hours_of(self.estimates.of(node)).middle for node in self.missing}
        seeds = seeds_within(self.plan, hours, cost)
        done = cells_done(self.plan, ended, when)
        return Budget(hours, self.hours, done, len(self.plan.wired), seeds, self.bases["unknown"])

    def assumptions(self) -> list[str]:
        """What was taken for granted, a sentence each."""
        found = list(self.estimates.sizes.assumed)
        found += [device.assumed for device in self.estimates.devices.values() if device.assumed]
        if unknown := self.bases["unknown"]:
            found.append(f"{unknown} stages are not counted: neither their model nor a table tells its sizes")
        return list(dict.fromkeys(found))

    def interval(self) -> str:
        """What the bounds are, and what they leave out."""
        bases = self.bases
        low, _, high = CASES
        device = self.estimates.device("train")
        parts = []
        if bases["measured"] or bases["alike"]:
            parts.append(
                f"{bases['measured'] + bases['alike']} of {len(self.missing)} stages by finished ones of this store,"
                f" from the quickest / {ALIKE:g} to the slowest x {ALIKE:g} ({OTHER:g} of another method)"
            )
        if bases["modelled"]:
            parts.append(
                f"{bases['modelled']} stages by what they compute, at {high.peak:.0%} to {low.peak:.0%} of the peak of"
                f" {device.name} ({device.peak / 1e12:.3g} TFLOP/s)"
            )
        return "; ".join([*parts, "all low or all high at once; waiting in a queue and failures come on top"])

    def limits_passed(self) -> list[str]:
        """Kinds of jobs that are expected to take longer than their time limit; they go on in the next job."""
        if not isinstance(self.cluster, SlurmCluster):
            return []
        longest: dict[Kind, float] = defaultdict(float)
        for own, seconds in zip(self.schedule.members, self.schedule.seconds, strict=True):
            kind = KINDS[own[0].stage.name]
            longest[kind] = max(longest[kind], seconds.middle)
        limits = {kind: 60.0 * self.cluster.resources(kind).minutes for kind in KINDS.values()}
        return [
            f"{kind}: the longest job takes {seconds / limits[kind]:.1f} times its time limit, and goes on after each"
            for kind, seconds in longest.items()
            if seconds > limits[kind]
        ]

    def as_json(self, budget: Budget | None = None) -> dict[str, Any]:
        """For a script: hours as numbers, times in seconds, sizes in bytes."""
        trainings = [stage for stage in self.stages if stage.stage in TRAININGS]
        return {
            "unit": "gpu-hours" if self.gpus else "process-hours",
            "stages": [stage.as_json() for stage in self.stages],
            "trainings": {
                "distinct": sum(stage.distinct for stage in trainings),
                "naive": sum(stage.naive for stage in trainings),
            },
            "hours": self.hours.as_json(),
            "interval": self.interval(),
            "makespan": self._makespan_json(),
            "memory": [fit.as_json() for fit in self.fits],
            "storage": self.as_storage(),
            "endpoints": [calls.as_json() for calls in self.calls],
            "budget": budget.as_json() if budget else None,
            "time_limits": self.limits_passed(),
            "assumed": self.assumptions(),
        }

    def _makespan_json(self) -> dict[str, Any]:
        return {
            "seconds": self.makespan.as_json(1),
            "without_limits": self.unlimited.as_json(1),
            "limits": vars(self.limits),
            "jobs": len(self.schedule.jobs),
            "what_if": [{"jobs": count, "seconds": round(seconds, 1)} for count, seconds in self.what_if()],
        }

    def as_storage(self) -> dict[str, Any]:
        """Bytes that are to be written, by what they are, and those that are free."""
        by = {name: round(files.kept) for name, files in self.storage.items()}
        snapshots = round(sum(files.snapshots for files in self.storage.values()))
        return {
            "kept": sum(by.values()) + snapshots,
            "by": {**by, "snapshots": snapshots},
            "checkpoints_of_a_training": round(max((one.running for one in self.storage.values()), default=0.0)),
            "free": free_bytes(self.plan.store.home),
        }


def _bases(estimates: Iterable[tuple[Estimate, int]]) -> Counter[Basis]:
    found: Counter[Basis] = Counter()
    for estimate, count in estimates:
        found[estimate.basis] += count
    return found
