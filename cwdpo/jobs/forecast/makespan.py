"""How long a plan takes from the first job to the last: jobs of known length under limits, simulated.

Slurm: jobs are what `submit` makes of the plan, in its order. Where only so many may be in the queue, the first ones
are, and the next one comes when one of them has ended; what waits for others in the queue takes up a place, too.
Waiting for nodes that others use is not simulated. On this machine so many jobs run at a time, and what others wait for
comes first.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from cwdpo.base.errors import ConfigError


class Job(NamedTuple):
    """One job.

    Attributes:
        after: numbers of the jobs that it waits for, each below its own.
        nodes: compute nodes that it takes; 0 where it fits beside others.
        array: number of its array.
        urgency: of what could start, the lowest does.
    """

    after: tuple[int, ...] = ()
    nodes: int = 1
    array: int = 0
    urgency: int = 0


@dataclass(frozen=True)
class Limits:
    """What keeps jobs from running; None is no limit.

    Attributes:
        queue: jobs in the queue at a time, waiting ones included.
        nodes: nodes that all running jobs have together.
        parallel: jobs of one array that run at a time.
    """

    queue: int | None = None
    nodes: int | None = None
    parallel: int | None = None


NONE = Limits()


def finished(jobs: Sequence[Job], seconds: Sequence[float], limits: Limits = NONE) -> list[float]:
    """When each job has ended, in seconds from the start; jobs come into the queue in their order.

    Raises:
        ConfigError: a job needs more nodes than there are.
    """
    if limits == NONE:
        return _unlimited(jobs, seconds)
    largest = max((job.nodes for job in jobs), default=0)
    if limits.nodes is not None and largest > limits.nodes:
        raise ConfigError(f"--nodes {limits.nodes}: a job takes {largest}; name as many or more")
    return _Simulation(jobs, seconds, limits).run()


def _unlimited(jobs: Sequence[Job], seconds: Sequence[float]) -> list[float]:
    """Every job starts when those it waits for have ended."""
    ends: list[float] = []
    for job, took in zip(jobs, seconds, strict=True):
        ends.append(max((ends[parent] for parent in job.after), default=0.0) + took)
    return ends


class _Simulation:
    """Jobs, event by event."""

    def __init__(self, jobs: Sequence[Job], seconds: Sequence[float], limits: Limits) -> None:
        self.jobs, self.seconds = jobs, seconds
        self.ends = [0.0] * len(jobs)
        self.waiting_for = [len(job.after) for job in jobs]
        self.children: list[list[int]] = [[] for _ in jobs]
        for number, job in enumerate(jobs):
            for parent in job.after:
                self.children[parent].append(number)
        self.admitted = 0  # jobs below this number are or were in the queue
        self.places = len(jobs) if limits.queue is None else limits.queue
        self.free = sum(job.nodes for job in jobs) if limits.nodes is None else limits.nodes
        self.parallel = limits.parallel or len(jobs)
        self.ready: dict[tuple[int, int], list[tuple[int, int]]] = defaultdict(list)
        self.at_work: dict[int, int] = defaultdict(int)
        self.running: list[tuple[float, int]] = []

    def run(self) -> list[float]:
        """When each job has ended."""
        now = 0.0
        self._admit()
        while self._start(now):
            now = self.running[0][0]
            while self.running and self.running[0][0] == now:
                self._end(heapq.heappop(self.running)[1], now)
            self._admit()
        return self.ends

    def _admit(self) -> None:
        """Fill the queue; jobs come after those that they wait for, so it cannot be stuck."""
        while self.places and self.admitted < len(self.jobs):
            if not self.waiting_for[self.admitted]:
                self._is_ready(self.admitted)
            self.admitted += 1
            self.places -= 1

    def _is_ready(self, number: int) -> None:
        job = self.jobs[number]
        heapq.heappush(self.ready[job.nodes, job.array], (job.urgency, number))

    def _start(self, now: float) -> bool:
        """Start what is ready and has room; True when something runs."""
        while found := [heap[0] for kind, heap in self.ready.items() if heap and self._has_room(*kind)]:
            number = min(found)[1]
            job = self.jobs[number]
            heapq.heappop(self.ready[job.nodes, job.array])
            self.free -= job.nodes
            self.at_work[job.array] += 1
            heapq.heappush(self.running, (now + self.seconds[number], number))
        return bool(self.running)

    def _has_room(self, nodes: int, array: int) -> bool:
        return nodes <= self.free and self.at_work[array] < self.parallel

    def _end(self, number: int, now: float) -> None:
        job = self.jobs[number]
        self.ends[number] = now
        self.free += job.nodes
        self.at_work[job.array] -= 1
        self.places += 1
        for child in self.children[number]:
            self.waiting_for[child] -= 1
            if not self.waiting_for[child] and child < self.admitted:
                self._is_ready(child)
