"""How every element in the ledger stands: what Slurm says, what the store says, what its own job said at the end."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from cwdpo.base.store import Store
from cwdpo.jobs.progress import element_progress, is_done
from cwdpo.jobs.slurm import commands
from cwdpo.jobs.slurm.commands import QueueEntry
from cwdpo.jobs.slurm.elements import Place
from cwdpo.jobs.slurm.failures import final_failure
from cwdpo.jobs.slurm.ledger import Ledger, Planned, Record, Settled

ENDED = frozenset({
    "COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "OUT_OF_MEMORY", "NODE_FAIL", "PREEMPTED", "BOOT_FAIL", "DEADLINE",
    "REVOKED",
})  # fmt: skip
"""States of squeue and sacct in which a job does not run and is not going to; one that goes back reads PENDING."""

NEVER = "DependencyNeverSatisfied"

ADOPTION_SECONDS = 10.0
"""A submission that was killed is in Slurm's queue by then; one that comes later still is taken away."""


@dataclass(frozen=True)
class Standing:
    """How one element stands.

    Attributes:
        state: `waiting` in the queue, `stuck` there for ever, `running`, `unknown` (submitted a moment ago), or final.
        entry: what Slurm says, while it knows the element.
        settled: the final state.
    """

    record: Record
    element: Planned
    state: Literal["waiting", "stuck", "running", "unknown", "done", "failed", "cancelled", "reaped"]
    entry: QueueEntry | None = None
    settled: Settled | None = None

    @property
    def place(self) -> Place:
        """Array and index."""
        return self.record.name, self.element.index

    @property
    def live(self) -> bool:
        """True while Slurm may still compute it."""
        return self.state in ("waiting", "stuck", "running", "unknown")

    @property
    def slurm_id(self) -> str:
        """`123_4`."""
        return f"{self.record.job_id}_{self.element.index}"


class Standings:
    """All elements of a ledger against one look at the queue: a constant number of Slurm commands.

    Args:
        look: False reads the ledger only (where Slurm is not at hand).
    """

    def __init__(self, ledger: Ledger, look: bool = True) -> None:
        self.ledger = ledger
        self.store: Store = ledger.store
        self.everything = ledger.records()
        self.records = [record for record in self.everything if not record.abandoned]
        self.queue = commands.queue() if look and any(record.watched for record in self.everything) else []
        self._entries = {(entry.array, entry.index): entry for entry in self.queue}
        self._looked = look

    @cached_property
    def all(self) -> list[Standing]:
        """Every element, oldest array first."""
        return [standing for record in self.records for standing in self._of(record)]

    @cached_property
    def newest(self) -> dict[str, Standing]:
        """Node id -> the newest element that computes it; one that Slurm has where there is one."""
        in_order = sorted(self.all, key=lambda standing: standing.live)
        return {identity: standing for standing in in_order for _, identity in standing.element.nodes}

    @cached_property
    def _accounting(self) -> Mapping[tuple[str, int], tuple[str, str]]:
        """What Slurm's accounting says of the elements that the controller has forgotten; empty where there is none."""
        asked = [record for record in self.records if record.open and record.job_id]
        if not asked:
            return {}
        since = min(float(record.intent["created"]) for record in asked) - 60
        started = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(since))
        return commands.accounting([str(record.job_id) for record in asked], started) or {}

    def _of(self, record: Record) -> Iterator[Standing]:
        settled, job_id = record.settled, record.job_id
        for index, element in record.elements.items():
            if index in settled:
                yield Standing(record, element, settled[index].state, settled=settled[index])
            else:
                yield self._unsettled(record, element, job_id)

    def _unsettled(self, record: Record, element: Planned, job_id: str | None) -> Standing:
        if all(is_done(self.store.artefact(*node)) for node in element.nodes):
            return Standing(record, element, "done", settled=Settled("done"))
        entry = self._entries.get((job_id or "", element.index))
        if job_id is None or not self._looked:
            return Standing(record, element, "unknown", entry)
        if entry is not None and entry.state not in ENDED:
            return Standing(record, element, _live_state(entry), entry)
        if entry is not None and entry.state == "COMPLETED":
            return Standing(record, element, "unknown", entry)  # its DONE has not reached this machine yet
        return self._ended(record, element, job_id, entry)

    def _ended(self, record: Record, element: Planned, job_id: str, entry: QueueEntry | None) -> Standing:
        state = entry.state if entry else self._accounting.get((job_id, element.index), (None, ""))[0]
        if entry is None and state is not None and state not in ENDED:
            return Standing(record, element, "unknown")  # accounting lags behind a requeue
        failure = final_failure(record.folder, element.index, state)
        final: Literal["failed", "cancelled"] = "cancelled" if failure.kind == "cancelled" else "failed"
        nodes = entry.nodes if entry else self._accounting.get((job_id, element.index), ("", ""))[1]
        said = record.exit(element.index) or {}
        blamed = said.get("node", "") if said.get("action") == "fail" else nodes if "[" not in nodes else ""
        saved = sum(element_progress(self.store, element.nodes)[1:])
        settled = Settled(final, failure.kind, failure.message, failure.detail, nodes, blamed, saved)
        return Standing(record, element, final, entry, settled)


def _live_state(entry: QueueEntry) -> Literal["waiting", "stuck", "running"]:
    if entry.state != "PENDING":
        return "running"
    return "stuck" if entry.reason == NEVER else "waiting"


def adopt(standings: Standings, say: Callable[[str], None], grace: float | None = None) -> bool:
    """Settle intents whose job id nobody wrote down: adopt the job that has their name, or give them up.

    Args:
        grace: seconds after which a submission that is not in the queue never will be; `ADOPTION_SECONDS` by default.

    Returns:
        True when something changed, so that one should look again.
    """
    orphans = [record for record in standings.records if record.job_id is None]
    if not orphans:
        return False
    names = job_ids(standings.queue)
    unseen = [record for record in orphans if record.name not in names]
    youngest = max((float(record.intent["created"]) for record in unseen), default=0.0)
    if wait_until_old(youngest, ADOPTION_SECONDS if grace is None else grace):
        names = job_ids(commands.queue())
    for record in orphans:
        job_id = names.get(record.name) or record.started
        if job_id:
            record.acknowledge(job_id)
            say(f"adopted {record.name}: Slurm job {job_id} was submitted, then the submission was cut off")
        else:
            record.abandon("cut off before Slurm had it")
            say(f"gave up {record.name}: cut off before Slurm had it")
    return True


def job_ids(queue: Sequence[QueueEntry]) -> dict[str, str]:
    """Name -> job id; of several jobs of one name, one that has not ended."""
    in_order = sorted(queue, key=lambda entry: entry.state not in ENDED)
    return {entry.name: entry.array for entry in in_order}


def wait_until_old(created: float, grace: float) -> bool:
    """Wait until what was sent at `created` must have reached Slurm; True if that took time."""
    left = created + grace - time.time()
    if left > 0:
        time.sleep(min(left, grace))
    return left > 0


def strays(standings: Standings) -> list[str]:
    """Jobs and elements in the queue that nobody waits for.

    Their intent was given up, a second sbatch of the same intent got through as well, or their cancelling was cut off.
    """
    records = {record.name: record for record in standings.everything}
    live = [entry for entry in standings.queue if entry.name in records and entry.state not in ENDED]
    unwanted = {name: _unwanted(records[name]) for name in {entry.name for entry in live}}
    return sorted({target for entry in live if (target := unwanted[entry.name](entry))})


def _unwanted(record: Record) -> Callable[[QueueEntry], str | None]:
    """What to cancel of an entry of the queue that has a record's name; None where it is wanted."""
    job_id, settled, abandoned = record.job_id, record.settled, record.abandoned

    def target(entry: QueueEntry) -> str | None:
        if abandoned or job_id not in (None, entry.array):
            return entry.array
        ended = settled.get(entry.index)
        return f"{entry.array}_{entry.index}" if ended and ended.state != "done" else None

    return target
