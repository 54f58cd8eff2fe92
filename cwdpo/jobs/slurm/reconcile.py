"""Bring Slurm to where the user wants it: one idempotent pass that does all that must happen after `submit` has gone.

A pass looks once at the queue and once at the store, then

    1. adopts or gives up submissions that were cut off,
    2. writes down how elements ended,
    3. stops a sweep whose first jobs all failed alike,
    4. submits what is missing: the next wave, and what may be tried again,
    5. points waiting elements at the jobs that now compute their inputs, and takes those away that wait for nothing.

Nothing else makes new job ids. Every step can be cut off and done again.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from cwdpo.graph import Node
from cwdpo.jobs.clusters import SlurmCluster
from cwdpo.jobs.plan import Plan
from cwdpo.jobs.progress import is_done, saved_progress
from cwdpo.jobs.slurm import commands
from cwdpo.jobs.slurm.arrays import Array
from cwdpo.jobs.slurm.breaker import tripped
from cwdpo.jobs.slurm.commands import SlurmDown, SlurmError
from cwdpo.jobs.slurm.desired import Desired
from cwdpo.jobs.slurm.elements import Place
from cwdpo.jobs.slurm.failures import POLICIES
from cwdpo.jobs.slurm.ledger import Ledger, Record, Settled
from cwdpo.jobs.slurm.lock import locked
from cwdpo.jobs.slurm.side import SideJobs
from cwdpo.jobs.slurm.standing import ENDED, Standing, Standings, adopt, strays
from cwdpo.jobs.slurm.submission import Submission

WAIT_SECONDS = 120.0


@dataclass(frozen=True)
class Outcome:
    """What a pass found and did.

    Attributes:
        submitted: arrays that were sent.
        left: stages that wait for room in the queue.
        live: elements that Slurm has.
        given_up: id -> why, of stages that will not be tried again by themselves.
    """

    submitted: list[Array] = field(default_factory=list)
    left: int = 0
    live: int = 0
    given_up: Mapping[str, Settled] = field(default_factory=dict)

    @property
    def settled(self) -> bool:
        """True when nothing is under way and nothing can be done without the user."""
        return not self.live and not self.left


def reconcile(plan: Plan, say: Callable[[str], None], wait: float = WAIT_SECONDS) -> Outcome:
    """One pass for a grid that was submitted before.

    Raises:
        Busy: another submit or reconcile is at work and does not end within `wait` seconds.
        SlurmError: Slurm cannot be reached, or refuses.
    """
    with locked(Ledger(plan.store).folder / "lock", wait, say) as check:
        desired = Desired.read(plan)
        outcome = Pass(plan, desired, check, say).run() if desired else Outcome()
        if desired and (outcome.submitted or outcome.live):
            SideJobs(plan, desired, check).collect(say)
        return outcome


@dataclass
class Pass:
    """One pass; the lock is held."""

    plan: Plan
    desired: Desired
    check: Callable[[], None]
    say: Callable[[str], None]

    def run(self) -> Outcome:
        """Do all five steps."""
        self.ledger.tidy()
        standings = Standings(self.ledger)
        if adopt(standings, self.say):
            standings = Standings(self.ledger)
        self.check()
        commands.cancel(strays(standings))
        _write_down(standings)
        book = Book(self.plan, self.desired, standings)
        if self._break_circuits(book):
            book = Book(self.plan, self.desired, Standings(self.ledger))
        submitted, left, refused = self._submit_or_say(book)
        if submitted or refused:
            book = Book(self.plan, self.desired, Standings(self.ledger))
        self._mend(book)
        if refused:
            raise refused
        live = sum(standing.live for standing in book.relevant)
        return Outcome(submitted, left, live, book.given_up)

    @property
    def ledger(self) -> Ledger:
        """The home's."""
        return Ledger(self.plan.store)

    def _break_circuits(self, book: Book) -> bool:
        """Stop kinds of stages whose first elements all failed alike."""
        broken = {stage: why for stage in book.stages if (why := book.tripped(stage))}
        stopped = [standing for standing in book.relevant if standing.state in ("waiting", "stuck")
                   and {stage for stage, _ in standing.element.nodes} & broken.keys()]  # fmt: skip
        for stage, why in broken.items():
            self.say(f"stopped {stage}: {why}")
        self._take_away(stopped, lambda standing: Settled("reaped", "breaker", _first_reason(standing, broken)))
        return bool(stopped)

    def _submit_or_say(self, book: Book) -> tuple[list[Array], int, SlurmError | None]:
        """What was sent, what is left, and Slurm's refusal: what can be mended is mended all the same."""
        try:
            return *self._submit(book), None
        except SlurmDown:
            raise
        except SlurmError as error:
            return [], 0, error

    def _submit(self, book: Book) -> tuple[list[Array], int]:
        """Send what is missing as far as the queue has room."""
        todo = book.missing
        if not todo:
            return [], 0
        cluster = book.cluster_for(todo)
        job_ids = {record.name: record.job_id for record in book.standings.records if record.job_id}
        desired = self.desired
        submission = Submission(
            self.plan, cluster, desired.code, desired.image, self.check, self.say, job_ids, book.before
        )
        room = None
        if cluster.max_submit:
            room = self._room(cluster.max_submit)
        sent = submission.send(todo, book.queued, room)
        return sent, len(todo) - sum(len(element.nodes) for array in sent for element in array.elements.values())

    def _room(self, most: int) -> int:
        """How many more jobs this user may have, three left free: steward, collector, and the one that follows it."""
        side = {path.name for path in (self.ledger.folder / "side").glob("cwdpo-*")}
        queue = [entry for entry in commands.queue() if entry.name not in side and entry.state not in ENDED]
        return max(0, most - min(3, most - 1) - len(queue))

    def _mend(self, book: Book) -> None:
        """Every waiting element waits for what now computes its inputs, or goes."""
        doomed = [standing for standing in book.waiting if book.hopeless(standing)]
        self._take_away(doomed, lambda standing: Settled("reaped", "dependency", book.hopeless(standing) or ""))
        for standing in book.waiting:
            if not book.hopeless(standing) and book.needs_rewiring(standing):
                self._rewire(standing, book.expected_parents(standing))

    def _rewire(self, standing: Standing, parents: Sequence[Place]) -> None:
        dependency = ",".join(f"afterok:{self.ledger.record(name).job_id}_{index}" for name, index in parents)
        self.check()
        try:
            commands.depend_on(standing.slurm_id, dependency)
        except SlurmDown:
            raise
        except SlurmError as error:
            self.say(f"{standing.slurm_id}: {error}; submitting it again")
            refused = Settled("reaped", "dependency", str(error))
            self._take_away([standing], lambda _: refused)
            return
        standing.record.rewire(standing.element.index, parents)
        self.say(f"{standing.slurm_id} ({standing.element.label}) now waits for {dependency or 'nothing'}")

    def _take_away(self, standings: Sequence[Standing], why: Callable[[Standing], Settled]) -> None:
        """Cancel waiting elements and write down why; the writing comes first, so that nothing is unexplained."""
        self.check()
        take_away(standings, why)
        for standing in standings:
            self.say(f"took away {standing.slurm_id} ({standing.element.label}): {why(standing).message}")


def _first_reason(standing: Standing, broken: Mapping[str, str]) -> str:
    """Why an element is stopped: its own kind of stage, not another one that failed too."""
    return next(broken[stage] for stage, _ in standing.element.nodes if stage in broken)


def take_away(standings: Sequence[Standing], why: Callable[[Standing], Settled]) -> None:
    """Cancel elements, written down first."""
    by_record: dict[str, tuple[Record, dict[int, Settled]]] = {}
    for standing in standings:
        _, states = by_record.setdefault(standing.record.name, (standing.record, {}))
        states[standing.element.index] = why(standing)
    for record, states in by_record.values():
        record.settle(states)
    commands.cancel([standing.slurm_id for standing in standings if standing.record.job_id])


def _write_down(standings: Standings) -> None:
    """Keep final states: Slurm forgets them."""
    found: dict[str, tuple[Record, dict[int, Settled]]] = {}
    for standing in standings.all:
        if standing.settled and standing.element.index not in standing.record.settled:
            found.setdefault(standing.record.name, (standing.record, {}))[1][standing.element.index] = standing.settled
    for record, states in found.values():
        record.settle(states)


class Book:
    """What a grid wants against how the ledger stands; computes, changes nothing."""

    def __init__(self, plan: Plan, desired: Desired, standings: Standings) -> None:
        self.plan, self.desired, self.standings = plan, desired, standings
        self.nodes = {node.id: node for node in plan.nodes}
        states = {node.id: is_done(node.artefact(plan.store)) for node in plan.nodes}
        self.done = {identity for identity, done in states.items() if done}

    @cached_property
    def relevant(self) -> list[Standing]:
        """Elements that compute stages of this grid."""
        return [
            standing
            for standing in self.standings.all
            if any(identity in self.nodes for _, identity in standing.element.nodes)
        ]

    @property
    def stages(self) -> list[str]:
        """Names of the kinds of stages of this grid."""
        return list(dict.fromkeys(node.stage.name for node in self.plan.nodes))

    @cached_property
    def queued(self) -> dict[str, Place]:
        """Id -> place, of stages that Slurm has."""
        newest = self.standings.newest
        return {
            identity: newest[identity].place
            for identity in self.nodes
            if identity not in self.done and identity in newest and newest[identity].live
        }

    @cached_property
    def failures(self) -> dict[str, list[tuple[Standing, Settled]]]:
        """Id -> the failures that count against a stage, oldest first."""
        found: dict[str, list[tuple[Standing, Settled]]] = defaultdict(list)
        for standing in self.relevant:
            culprit = self._culprit(standing)
            if culprit and standing.settled and standing.element.index not in standing.record.forgiven:
                found[culprit].append((standing, standing.settled))
        return found

    def _culprit(self, standing: Standing) -> str | None:
        """The stage that made an element fail: its first unfinished one."""
        if standing.settled is None or standing.settled.state == "done" or standing.settled.kind == "dependency":
            return None
        unfinished = [identity for _, identity in standing.element.nodes if identity not in self.done]
        return next((identity for identity in unfinished if identity in self.nodes), None)

    @cached_property
    def given_up(self) -> dict[str, Settled]:
        """Id -> last failure, of stages that are not tried again by themselves."""
        return {identity: found[-1][1] for identity, found in self.failures.items() if not self._again(identity)}

    def _again(self, identity: str) -> bool:
        """True when a stage that failed may be submitted once more, or already was."""
        if identity in self.done or identity in self.queued:
            return True
        saved = saved_progress(self.nodes[identity].artefact(self.plan.store))
        last = self.failures[identity][-1][1].kind
        kinds = [settled.kind for _, settled in self.failures[identity] if settled.saved >= saved]  # no newer progress
        policy = POLICIES.get(last)  # what was taken away has kinds of its own
        may = policy is not None and policy.resubmit and kinds.count(last) <= policy.limit
        return may and len(kinds) < self.desired.cluster.attempts

    @cached_property
    def blocked(self) -> dict[str, str]:
        """Id -> id of the stage that was given up, of stages that need it."""
        found: dict[str, str] = {}
        for node in self.plan.nodes:
            for parent in node.parents:
                culprit = parent.id if parent.id in self.given_up else found.get(parent.id)
                if culprit and node.id not in self.done:
                    found[node.id] = culprit
        return found

    @property
    def missing(self) -> list[Node]:
        """Stages to submit now."""
        out = self.done | self.queued.keys() | self.given_up.keys() | self.blocked.keys()
        return [node for node in self.plan.nodes if node.id in self.desired.nodes and node.id not in out]

    @property
    def waiting(self) -> list[Standing]:
        """Elements in the queue that have not started."""
        return [standing for standing in self.relevant if standing.state in ("waiting", "stuck")]

    def hopeless(self, standing: Standing) -> str | None:
        """Why a waiting element can never run, or None."""
        for _, identity in standing.element.nodes:
            culprit = self.blocked.get(identity)
            if culprit and identity not in self.done:
                return f"waits for {self.name(culprit)}, which failed: {self.given_up[culprit].message}"
        return None

    def name(self, identity: str) -> str:
        """`stage id` for a message."""
        return f"{self.nodes[identity].stage.name} {identity[:8]}"

    def expected_parents(self, standing: Standing) -> list[Place]:
        """Where the unfinished inputs of an element are computed now."""
        own = {identity for _, identity in standing.element.nodes}
        needed = [parent.id for identity in own if identity in self.nodes and identity not in self.done
                  for parent in self.nodes[identity].parents]  # fmt: skip
        places = {self.queued[parent] for parent in needed if parent in self.queued and parent not in own}
        return sorted(places - self.before(places))

    def needs_rewiring(self, standing: Standing) -> bool:
        """True when an element waits for ever, or for another job than the one that computes its inputs now."""
        expected = set(self.expected_parents(standing))
        known = set(standing.record.parents(standing.element.index))
        return standing.state == "stuck" or not expected <= known | self.before(known)

    def before(self, places: Iterable[Place]) -> set[Place]:
        """All places that must succeed before one of `places` starts."""
        found: set[Place] = set()
        left = [parent for name, index in places for parent in self._records[name].parents(index)]
        while left:
            place = left.pop()
            if place not in found:
                found.add(place)
                left += self._records[place[0]].parents(place[1])
        return found

    @cached_property
    def _records(self) -> dict[str, Record]:
        return {record.name: record for record in self.standings.records}

    def tripped(self, stage: str) -> str | None:
        """Why all waiting elements of a kind of stage are stopped, or None."""
        mine = [found[-1] for identity, found in self.failures.items() if self.nodes[identity].stage.name == stage]
        failed = [settled for _, settled in mine if settled.state == "failed"]
        successes = sum(self.nodes[identity].stage.name == stage for identity in self.done & self._computed)
        exits = [
            {"class": settled.kind, "message": settled.message, "action": "fail", "time": place}
            for place, settled in enumerate(failed)
        ]
        return tripped(exits, successes)

    @cached_property
    def _computed(self) -> set[str]:
        """Stages that jobs of this ledger computed."""
        return {identity for standing in self.relevant for _, identity in standing.element.nodes}

    def cluster_for(self, todo: Iterable[Node]) -> SlurmCluster:
        """The profile, without the nodes on which these stages failed for the node's sake."""
        bad = {
            settled.node
            for node in todo
            for _, settled in self.failures.get(node.id, [])
            if settled.node and settled.kind in POLICIES and POLICIES[settled.kind].exclude
        }
        exclude = tuple(dict.fromkeys([*self.desired.cluster.exclude, *sorted(bad)]))
        return self.desired.cluster.model_copy(update={"exclude": exclude})


def forgive(book: Book, identities: Iterable[str]) -> int:
    """Let the failures of stages count no longer; returns how many there were."""
    by_record: dict[str, tuple[Record, list[int]]] = {}
    wanted = set(identities)
    for identity in wanted & book.failures.keys():
        for standing, _ in book.failures[identity]:
            by_record.setdefault(standing.record.name, (standing.record, []))[1].append(standing.element.index)
    for record, indices in by_record.values():
        record.forgive(indices)
    return sum(len(indices) for _, indices in by_record.values())
