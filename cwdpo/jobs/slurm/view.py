"""How the stages of a grid stand on Slurm, for a human: what `status`, `why` and `logs` say."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cwdpo.base.trail import note_fleeting
from cwdpo.graph import Node
from cwdpo.jobs.events import last_progress
from cwdpo.jobs.plan import Plan, Shown
from cwdpo.jobs.slurm.commands import SlurmError
from cwdpo.jobs.slurm.desired import Desired
from cwdpo.jobs.slurm.ledger import Ledger
from cwdpo.jobs.slurm.reconcile import Book
from cwdpo.jobs.slurm.standing import Standing, Standings
from cwdpo.jobs.status import failure_of

FINISHED = ("done", "stale")
"""What is so in the store is so on Slurm."""


def open_book(plan: Plan, look: bool = True) -> Book | None:
    """The book of a grid that was submitted to Slurm; without Slurm at hand, what the ledger alone says.

    Args:
        look: False where Slurm is known not to answer.

    Raises:
        StoreError: what was asked for, or the ledger where it counts, cannot be read.
    """
    desired = Desired.read(plan)
    if desired is None:
        return None
    try:
        return _opened(plan, desired, look and shutil.which("squeue") is not None)
    except SlurmError:
        return _opened(plan, desired, look=False)


def _opened(plan: Plan, desired: Desired, look: bool) -> Book:
    """A book that can be read: of what is not finished, all that is shown is looked up here and not when it is told."""
    book = Book(plan, desired, Standings(Ledger(plan.store), look=look))
    if len(book.done) < len(book.nodes):
        _ = book.queued, book.given_up
    return book


@dataclass(frozen=True)
class OnSlurm:
    """What Slurm and the ledger know beyond the store."""

    book: Book

    def states(self, stored: Mapping[str, Shown]) -> dict[str, Shown]:
        """Node id -> state: also `queued`, `starting`, `cancelled`."""
        if all(state in FINISHED for state in stored.values()):
            return dict(stored)
        note_fleeting()
        shown = dict(stored)
        for identity, state in stored.items():
            if identity in self.book.queued:
                shown[identity] = _live(self.book.standings.newest[identity], state)
            elif identity in self.book.given_up:
                shown[identity] = "cancelled" if self.book.given_up[identity].state == "cancelled" else "failed"
            elif identity in self.book.blocked:
                shown[identity] = "blocked"
        return shown

    def reasons(self) -> dict[str, str]:
        """Node id -> kind of failure and what happened."""
        return {identity: f"{why.kind}: {why.message}" for identity, why in self.book.given_up.items()}


def overlay_of(book: Book | None) -> OnSlurm | None:
    """For `status`; None for a grid that is not on Slurm."""
    return OnSlurm(book) if book else None


def _live(standing: Standing, state: Shown) -> Shown:
    if standing.state == "running":
        return state if state == "running" else "starting"
    return "queued"


def causes(plan: Plan, cell: str, book: Book | None, of: Sequence[Node] | None = None) -> list[str]:
    """The chain of causes for what a cell lacks, one line each, indented; empty when all is done.

    Args:
        of: the stages whose results are asked for; None is everything that the cell is to have.
    """
    states = plan.states()
    if book:
        states = OnSlurm(book).states(states)
    lines: list[str] = []
    seen: set[str] = set()
    for root in plan.wired[cell].roots if of is None else of:
        lines += _chain(plan, root, states, book, 0, seen)
    return lines


def _chain(
    plan: Plan, node: Node, states: Mapping[str, Shown], book: Book | None, depth: int, seen: set[str]
) -> Iterator[str]:
    if states[node.id] == "done" or node.id in seen:
        return
    seen.add(node.id)
    indent = "  " * depth
    unfinished = [parent for parent in node.parents if states[parent.id] not in ("done", "stale")]
    yield f"{indent}{node.title} {node.id[:16]}: {_sentence(plan, node, states, book, unfinished)}"
    for line in [] if unfinished else _evidence(plan, node, states[node.id], book):
        yield f"{indent}  {line}"
    for parent in unfinished:
        yield from _chain(plan, parent, states, book, depth + 1, seen)


def _sentence(plan: Plan, node: Node, states: Mapping[str, Shown], book: Book | None, unfinished: list[Node]) -> str:
    state = states[node.id]
    if state == "failed" and book and node.id in book.given_up:
        why, count = book.given_up[node.id], len(book.failures[node.id])
        return f"failed {f'{count} times' if count > 1 else 'once'}: {why.kind}: {why.message}"
    if unfinished and state != "cancelled":
        return f"waits for {', '.join(f'{parent.title} {parent.id[:8]}' for parent in unfinished)}"
    if book and node.id in book.queued:
        return _in_slurm(plan, node, book.standings.newest[node.id])
    if state == "failed":
        return f"failed: {failure_of(node.artefact(plan.store)) or 'no reason recorded'}"
    return _PLAINLY.get(state, state)


_PLAINLY = {
    "missing": "not submitted yet",
    "interrupted": "interrupted; `cwdpo submit` goes on with it",
    "cancelled": "cancelled; `cwdpo submit` starts it again",
    "stale": "computed by other code; `cwdpo submit` asks what to do",
    "damaged": "files are missing or changed; `cwdpo submit` computes it again",
}


def _in_slurm(plan: Plan, node: Node, standing: Standing) -> str:
    entry = standing.entry
    if entry is None:
        return f"job {standing.slurm_id}, submitted a moment ago"
    if standing.state == "running":
        progress = last_progress(node.artefact(plan.store))
        done = f", {progress[0]}/{progress[1]}" if progress else ""
        return f"running as job {standing.slurm_id} on {entry.nodes}{done}"
    expected = f", expected start {entry.start}" if entry.start not in ("N/A", "") else ""
    return f"in the queue as job {standing.slurm_id}: {entry.reason}{expected}"


def _evidence(plan: Plan, node: Node, state: str, book: Book | None) -> Iterator[str]:
    """Log lines that matter, where the logs are."""
    if state != "failed":
        return
    if book and node.id in book.given_up:
        for line in book.given_up[node.id].detail.splitlines():
            yield f"| {line}"
        standing, settled = book.failures[node.id][-1]
        yield f"job {standing.slurm_id}{f' on {settled.nodes}' if settled.nodes else ''}"
    for path in log_files(plan, node, book):
        yield f"log: {path}"


def log_files(plan: Plan, node: Node, book: Book | None) -> list[Path]:
    """Logs of a stage that exist: its newest attempt's, then what its job said around it."""
    artefact = node.artefact(plan.store)
    newest = artefact.attempts / str(artefact.newest())
    found = sorted(newest.glob("stderr*")) + sorted(newest.glob("stdout*"))
    if book and node.id in book.standings.newest:
        standing = book.standings.newest[node.id]
        found.append(standing.record.folder / "logs" / f"{standing.element.index}.out")
    return [path for path in found if path.exists() and path.stat().st_size]
