"""Seconds of every stage of a plan: as such stages took before, else by what they compute."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from cwdpo.graph import Node
from cwdpo.jobs.clusters import KINDS, Cluster, Kind, LocalCluster, SlurmCluster
from cwdpo.jobs.forecast.counts import Sizes
from cwdpo.jobs.forecast.devices import Device, device_of
from cwdpo.jobs.forecast.modelled import modelled, ready
from cwdpo.jobs.forecast.past import History, measured
from cwdpo.jobs.forecast.ranges import Range
from cwdpo.jobs.forecast.reading import Tasks
from cwdpo.jobs.forecast.tasks import Asking, Preparing, Task
from cwdpo.jobs.plan import Plan
from cwdpo.pipeline import STAGES

Basis = Literal["measured", "alike", "modelled", "unknown"]
"""Where an estimate is from: such stages of this store, those of another method, the model of operations, nothing."""


@dataclass(frozen=True)
class Estimate:
    """What one stage takes.

    Attributes:
        seconds: of its job; 0 where nothing is known.
        ranks: processes of it.
        gpus: that it holds meanwhile.
        basis: where the seconds are from.
        used: finished stages that they are from.
        ready: seconds of them that a job of several stages has only once: it starts, and loads the model.
    """

    seconds: Range
    ranks: int
    gpus: int
    basis: Basis
    used: int = 0
    ready: Range = field(default_factory=Range)


class Estimates:
    """Of the stages of one plan on one cluster; equal tasks are estimated once.

    Attributes:
        devices: what was asked about so far.
    """

    def __init__(self, plan: Plan, cluster: Cluster) -> None:
        self.cluster = cluster.resolved() if isinstance(cluster, LocalCluster) else cluster
        self.sizes = Sizes(plan.store)
        self.tasks = Tasks(self.sizes)
        self.devices: dict[Kind, Device] = {}
        scheduled = isinstance(cluster, SlurmCluster)
        self.history = History(plan.store, self.device("train").gpu, scheduled)
        self._known: dict[int, Estimate] = {}

    def of(self, node: Node) -> Estimate:
        """Of one stage."""
        return self.of_task(self.tasks.of(node))

    def of_task(self, task: Task) -> Estimate:
        """Of work as `tasks` gives it: there is one object of each."""
        found = self._known.get(id(task))
        if found is None:
            found = self._known[id(task)] = self._estimated(task)
        return found

    def device(self, kind: Kind) -> Device:
        """What a rank of a job of this kind has; on this machine that is the same for all."""
        asked: Kind = kind if isinstance(self.cluster, SlurmCluster) else "train"
        if asked not in self.devices:
            self.devices[asked] = device_of(self.cluster, asked)
        return self.devices[asked]

    def ranks(self, stage: str) -> int:
        """Processes of a job of this stage."""
        return self.cluster.ranks_of(KINDS[stage]) if STAGES[stage].ranks else 1

    def gpus(self, stage: str) -> int:
        """GPUs that a job of this stage holds."""
        if isinstance(self.cluster, SlurmCluster):
            resources = self.cluster.resources(KINDS[stage])
            return resources.nodes * resources.gpus_per_node
        return self.ranks(stage) if STAGES[stage].ranks and self.device(KINDS[stage]).gpu else 0

    def _estimated(self, task: Task) -> Estimate:
        ranks, gpus = self.ranks(task.stage), self.gpus(task.stage)
        pasts, alike = self.history.like(task)
        if pasts:
            seconds = measured(task, pasts, alike, ranks)
            return Estimate(seconds, ranks, gpus, "measured" if alike else "alike", len(pasts))
        if isinstance(task, Preparing | Asking) or task.subject.model is not None:  # type: ignore[attr-defined]
            device = self.device(KINDS[task.stage])
            return Estimate(modelled(task, ranks, device), ranks, gpus, "modelled", ready=ready(task, device))
        return Estimate(Range(), ranks, gpus, "unknown")
