"""From what is missing of a plan to jobs: the elements of arrays on Slurm, a stage each on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import count

from cwdpo.graph import Node
from cwdpo.jobs.clusters import Cluster, Kind, SlurmCluster
from cwdpo.jobs.forecast.estimates import Estimates
from cwdpo.jobs.forecast.makespan import NONE, Job, Limits, finished
from cwdpo.jobs.forecast.ranges import Range, total
from cwdpo.jobs.slurm.arrays import pack
from cwdpo.jobs.slurm.elements import Element, elements

EXACT = 5_000
"""Jobs up to which the bounds of a makespan are simulated, too; of more they are in proportion to those of all work."""


@dataclass(frozen=True)
class Schedule:
    """Jobs in the order in which they come into the queue.

    Attributes:
        members: the stages of each job.
        seconds: of each job.
        gpus: that each holds.
    """

    jobs: Sequence[Job]
    members: Sequence[Sequence[Node]]
    seconds: Sequence[Range]
    gpus: Sequence[int]

    def makespan(self, limits: Limits) -> Range:
        """Seconds until the last job has ended, when all take as long as they may, or as short."""
        if limits == NONE or len(self.jobs) <= EXACT:
            return Range(*(_last(finished(self.jobs, numbers, limits)) for numbers in self._numbers))
        middle, alone = _last(self.middle(limits)), self.makespan(NONE)
        low, usual, high = (sum(numbers) for numbers in self._numbers)
        return Range(max(middle * low / usual, alone.low), middle, max(middle * high / usual, alone.high))

    def middle(self, limits: Limits) -> list[float]:
        """When each job is expected to have ended, in seconds from the start."""
        if limits not in self._ends:
            self._ends[limits] = finished(self.jobs, self._numbers[1], limits)
        return self._ends[limits]

    @cached_property
    def _ends(self) -> dict[Limits, list[float]]:
        return {}

    @cached_property
    def _numbers(self) -> list[list[float]]:
        """Low, middle and high seconds of all jobs."""
        found = [one.numbers for one in self.seconds]
        return [list(numbers) for numbers in zip(*found, strict=True)] or [[], [], []]


def _last(ends: Sequence[float]) -> float:
    return max(ends, default=0.0)


def limits_of(cluster: Cluster, queue: int | None, nodes: int | None) -> Limits:
    """What a profile says, and what the user wants to know instead."""
    if isinstance(cluster, SlurmCluster):
        return Limits(queue or cluster.max_submit or None, nodes, cluster.parallel or None)
    return Limits(nodes=cluster.jobs)


def schedule_of(todo: Sequence[Node], estimates: Estimates) -> Schedule:
    """Jobs for stages that are to be computed, parents before children."""
    if isinstance(estimates.cluster, SlurmCluster):
        return _of_elements(todo, estimates, estimates.cluster)
    numbers = {node.id: number for number, node in enumerate(todo)}
    jobs = [
        Job(tuple(numbers[parent.id] for parent in node.parents if parent.id in numbers), urgency=_urgency(node))
        for node in todo
    ]
    found = [estimates.of(node) for node in todo]
    return Schedule(jobs, [[node] for node in todo], [one.seconds for one in found], [one.gpus for one in found])


def _urgency(node: Node) -> int:
    """As the executor of this machine has it: scores, which nothing waits for, come last."""
    return 2 if node.stage.name == "score" else 1 if node.stage.ranks else 0


def _of_elements(todo: Sequence[Node], estimates: Estimates, cluster: SlurmCluster) -> Schedule:
    """Elements in the order of their arrays: those that nothing has to precede first, then by kind."""
    found = elements(todo, cluster.bundle, {}, {})
    depths: dict[int, int] = {}
    for element in found:
        depths[id(element)] = 1 + max(
            (depths[id(one)] for one in element.parents if isinstance(one, Element)), default=-1
        )
    ordered = sorted(found, key=lambda element: (depths[id(element)], element.kind))
    numbers = {id(element): number for number, element in enumerate(ordered)}
    arrays, nodes = _arrays(ordered, cluster), _nodes(cluster)
    jobs = [
        Job(
            tuple(numbers[id(one)] for one in element.parents if isinstance(one, Element)),
            nodes.get(element.kind, 0),
            arrays.get(id(element), 0),
        )
        for element in ordered
    ]
    estimated = [[estimates.of(node) for node in element.nodes] for element in ordered]
    seconds = [
        total([own[0].seconds, *(one.seconds - one.ready for one in own[1:])]) if own[1:] else own[0].seconds
        for own in estimated
    ]
    gpus = [max(one.gpus for one in own) for own in estimated]
    return Schedule(jobs, [element.nodes for element in ordered], seconds, gpus)


def _nodes(cluster: SlurmCluster) -> dict[Kind, int]:
    """Whole nodes that a job takes, by kind; what runs on some cores fits beside others."""
    kinds: tuple[Kind, ...] = ("train", "generate")
    return {kind: cluster.resources(kind).nodes for kind in kinds}


def _arrays(ordered: Sequence[Element], cluster: SlurmCluster) -> dict[int, int]:
    """Number of the array of each element; all the same where nothing depends on it."""
    if not cluster.parallel:
        return {}
    numbers = count()
    packed = pack(ordered, lambda kind: f"{kind} {next(numbers)}", cluster.max_array)
    return {id(one): number for number, array in enumerate(packed) for one in array.elements.values()}
