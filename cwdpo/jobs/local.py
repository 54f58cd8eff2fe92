"""`--cluster local`: the stages of a plan as processes of this machine, a few at a time.

The store is the only truth: this loop starts what is ready, looks at what became of it, and can be killed at any
moment. Stages that another living process computes are waited for, not repeated.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from cwdpo.base.errors import Busy, Interrupted, StoreError
from cwdpo.graph import Node
from cwdpo.jobs.clusters import LocalCluster, visible_gpus
from cwdpo.jobs.job import write_job
from cwdpo.jobs.launch import Launched, launch
from cwdpo.jobs.plan import Plan
from cwdpo.jobs.slurm.elements import policy_key
from cwdpo.jobs.status import failure_of

POLL_SECONDS = 0.2
GRACE_SECONDS = 30.0  # for a checkpoint after Ctrl-C

NOT_FAILED = (0, Busy.exit_code, Interrupted.exit_code)
"""Exit statuses after which what a job left undone can be started again."""


class Reporter(Protocol):
    """Who is told what happens."""

    def started(self, node: Node) -> None:
        """A stage began."""

    def progressed(self, running: Sequence[Node]) -> None:
        """Called at every poll."""

    def finished(self, node: Node, seconds: float) -> None:
        """A stage is done."""

    def failed(self, node: Node, message: str) -> None:
        """A stage failed."""

    def waiting(self, node: Node) -> None:
        """A stage is being computed by another process."""


@dataclass
class Running:
    """One job at work: its stages not yet reported, its processes, its slot.

    Attributes:
        attempts: how often each of its stages had been tried before.
    """

    nodes: list[Node]
    processes: Launched
    slot: int
    started: float
    attempts: dict[str, int]


@dataclass(frozen=True)
class Outcome:
    """How a submission ended: nodes computed, failed, and blocked by a failure."""

    computed: list[Node]
    failed: list[Node]
    blocked: list[Node]


class LocalExecutor:
    """Computes the missing nodes of a plan.

    Args:
        only: ids of the nodes that may be computed; None is all.
    """

    def __init__(
        self, plan: Plan, cluster: LocalCluster, reporter: Reporter, only: Collection[str] | None = None
    ) -> None:
        self.plan, self.reporter = plan, reporter
        self.wanted = [node for node in plan.nodes if only is None or node.id in only]
        self.cluster = cluster.resolved()
        self.gpus = visible_gpus()
        grid = plan.write() if only is None else plan.folder  # a part of a plan is not what the grid needs
        self.folder = grid / "submissions" / f"{time.strftime('%Y%m%d-%H%M%S')}-{uuid.uuid4().hex[:6]}"
        self.done = {node.id for node in plan.nodes if node.artefact(plan.store).state() == "done"}
        self.computed: list[Node] = []
        self.failed: dict[str, Node] = {}
        self.running: list[Running] = []
        self.elsewhere: set[str] = set()
        self.count = 0

    def run(self) -> Outcome:
        """Work until nothing is left that can be done; when cut off, ask the jobs to save, then end them."""
        try:
            while self._turn():
                time.sleep(POLL_SECONDS)
        except BaseException:  # Ctrl-C, a signal, a full disk: no job is left behind
            self._stop()
            raise
        blocked = [node for node in self._unfinished() if node.id not in self.failed]
        return Outcome(self.computed, list(self.failed.values()), blocked)

    def _turn(self) -> bool:
        """Look at running jobs, start what is ready; False when nothing runs and nothing can."""
        for job in list(self.running):
            self._look_at(job)
        self.reporter.progressed([job.nodes[0] for job in self.running if job.nodes])
        ready = self._ready()
        for node in ready:
            if len(self.running) >= self.cluster.jobs:
                break
            if node.id not in self._claimed() and not self._is_elsewhere(node):
                self._start(node)
        return bool(self.running or ready)

    def _unfinished(self) -> list[Node]:
        return [node for node in self.wanted if node.id not in self.done]

    def _ready(self) -> list[Node]:
        """Nodes whose parents are done, that did not fail in this submission; what unblocks others comes first."""
        ready = [
            node
            for node in self._unfinished()
            if node.id not in self.failed and all(parent.id in self.done for parent in node.parents)
        ]
        return sorted(ready, key=_urgency)

    def _claimed(self) -> set[str]:
        return {node.id for job in self.running for node in job.nodes}

    def _is_elsewhere(self, node: Node) -> bool:
        """True while another living process computes the node; what it finished meanwhile counts as done."""
        state = node.artefact(self.plan.store).state()
        if state == "done":
            self.done.add(node.id)
        elif state == "running" and node.id not in self.elsewhere:
            self.elsewhere.add(node.id)
            self.reporter.waiting(node)
        return state in ("done", "running")

    def _start(self, node: Node) -> None:
        """Start one job on `node` and what can follow it in the same process."""
        nodes = [member for member in self._bundle(node) if member.id not in self._claimed()]
        self.count += 1
        job = self.folder / f"job-{self.count:04d}.json"
        write_job(job, self.plan.store, nodes, self.cluster.threads)
        slot = min(set(range(self.cluster.jobs)) - {job.slot for job in self.running})
        ranks = self.cluster.ranks if node.stage.ranks else 1
        gpus = self.gpus[slot * ranks : (slot + 1) * ranks]
        processes = Launched()
        attempts = {member.id: member.artefact(self.plan.store).newest() for member in nodes}
        self.running.append(Running(nodes, processes, slot, time.monotonic(), attempts))
        launch(job, ranks, self.cluster.threads, gpus, processes)
        self.reporter.started(node)

    def _bundle(self, node: Node) -> list[Node]:
        """What runs in one job with `node`: its chain of torch stages, or its part of those alike that are ready."""
        chain = bundle(node, self._unfinished(), self.done) if node.stage.ranks else [node]
        if len(chain) > 1 or node.stage.name not in _ALIKE:
            return chain
        key = _ALIKE[node.stage.name]
        others = [ready for ready in self._ready() if ready.stage is node.stage and ready.id != node.id]
        alike = [other for other in others if key(other) == key(node)]
        free = [other for other in alike if other.id not in self._claimed() and not self._is_elsewhere(other)]
        slots = self.cluster.jobs - len(self.running)
        return [node, *free][: -(-(1 + len(free)) // slots)]

    def _look_at(self, job: Running) -> None:
        """Report stages that are done; when the processes have ended, say what became of the rest."""
        status = job.processes.exit_status()
        for node in [node for node in job.nodes if node.artefact(self.plan.store).done()]:
            self._report_done(job, node)
        if status is not None:
            self.running.remove(job)
            if job.nodes and status not in NOT_FAILED:
                for node in self._failed_in(job) or job.nodes[:1]:
                    self._report_failed(node, status)

    def _failed_in(self, job: Running) -> list[Node]:
        """Stages that say of themselves that they failed: one that fails in a job of one process ends no other."""
        found = []
        for node in job.nodes:
            artefact = node.artefact(self.plan.store)
            number = artefact.newest()
            if number > job.attempts[node.id] and artefact.result(number):
                found.append(node)
        return found

    def _report_done(self, job: Running, node: Node) -> None:
        job.nodes.remove(node)
        self.done.add(node.id)
        self.computed.append(node)
        self.reporter.finished(node, time.monotonic() - job.started)
        job.started = time.monotonic()
        if job.nodes:
            self.reporter.started(job.nodes[0])

    def _report_failed(self, node: Node, status: int) -> None:
        self.failed[node.id] = node
        self.reporter.failed(node, failure_message(self.plan, node, status))

    def _stop(self) -> None:
        """Let every job save; a second Ctrl-C does not wait for that."""
        try:
            for job in self.running:
                job.processes.ask()
            for job in self.running:
                job.processes.end(GRACE_SECONDS)
        except KeyboardInterrupt:
            for job in self.running:
                job.processes.end(grace=0.0)


_ALIKE: dict[str, Callable[[Node], object]] = {
    "questions": lambda node: None,
    "generate": policy_key,
    "score": lambda node: None,
}
"""Stages of which several share a job, and what must be the same of them: no process starts and no model is loaded for
each."""


def _urgency(node: Node) -> int:
    """Data preparation first, then training and generation, then scoring, which nothing waits for."""
    if node.stage.name == "score":
        return 2
    return 1 if node.stage.ranks else 0


def bundle(first: Node, unfinished: Sequence[Node], done: set[str]) -> list[Node]:
    """`first` and what can follow it in the same processes: loading torch and a model once for several stages.

    All generations of a trained policy come with it, and one chain of trainings; other children are left to other jobs.
    """
    chain, head = [first], first
    while True:
        here = {node.id for node in chain} | done
        children = [
            node
            for node in unfinished
            if node.stage.ranks
            and node.share is None  # those are there to be computed beside one another
            and node.id not in here
            and head.id in {parent.id for parent in node.parents}
            and all(parent.id in here for parent in node.parents)
        ]
        chain += [node for node in children if node.stage.name == "generate"]
        following = [node for node in children if node.stage.name != "generate"]
        if not following:
            return chain
        head = following[0]
        chain.append(head)


def failure_message(plan: Plan, node: Node, status: int) -> str:
    """Why the newest attempt at `node` failed, and where its log is."""
    artefact = node.artefact(plan.store)
    number = artefact.newest()
    said = failure_of(artefact) if number else ""
    log = artefact.attempts / str(number) / "stderr"
    return f"{said or _signal_name(status)}\nlog: {_shown(log)}"


_STATUS = {
    StoreError.exit_code: " and could not record why: the store cannot be written (disk full?)",
    Interrupted.exit_code: ": stopped by a signal",
}


def _signal_name(status: int) -> str:
    if status >= 0:
        return f"the job ended with status {status}{_STATUS.get(status, '')}"
    return f"the job was killed by signal {-status}" + (" (out of memory?)" if status == -9 else "")


def _shown(path: Path) -> str:
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)
