"""One pass over a grid, and passes until all of it is finished."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby

from cwdpo.base.errors import StoreError
from cwdpo.experiment import Cell
from cwdpo.jobs.plan import Plan, Shown
from cwdpo.report.tracking.book import Book
from cwdpo.report.tracking.cells import Cells, Wanted
from cwdpo.report.tracking.records import Records
from cwdpo.report.tracking.running import begun, left_growing, show
from cwdpo.report.tracking.server import Down, answering
from cwdpo.report.tracking.writer import single_writer

LONGEST_WAIT = 60.0
"""Seconds between two tries while the server is down, unless more lie between two looks anyway."""


@dataclass
class Pass:
    """What one pass did.

    Attributes:
        cells: names of those whose runs were written.
        cases: names of those whose means were.
        troubles: what could not be read, a sentence each.
        notes: what else has to be said.
        unfinished: how many cells are not finished.
        down: why the server did not answer; the rest of a pass that was cut off is not known.
        wait: seconds until the next try.
    """

    cells: list[str] = field(default_factory=list)
    cases: list[str] = field(default_factory=list)
    troubles: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    unfinished: int = 0
    down: str = ""
    wait: float = 0.0


def track(plan: Plan, growing: bool = False) -> Pass:
    """Bring every finished cell into MLflow that is not there yet, as it is now.

    Args:
        growing: write the curves of cells that are not finished, too.

    Raises:
        Down: the tracking server does not answer; nothing is lost, run it again later.
        NotAvailable: it refuses.
        StoreError: another process is tracking into this home.
    """
    with single_writer(plan.store.home), answering(plan.store):
        return _Writing(plan, Book(plan)).all(growing)


def follow(plan: Plan, seconds: float) -> Iterator[Pass]:
    """`track` again and again until every cell is finished, also while the server is down; yields each pass.

    Raises:
        NotAvailable: the server refuses.
        StoreError: another process is tracking into this home.
    """
    wait = seconds
    while True:
        try:
            found, wait = track(plan, growing=True), seconds
        except Down as error:
            found = Pass(unfinished=1, down=str(error), wait=wait)
            wait = max(seconds, min(2 * wait, LONGEST_WAIT))
        yield found
        if not found.unfinished:
            return
        time.sleep(found.wait or seconds)


class _Writing:
    """One pass."""

    def __init__(self, plan: Plan, book: Book) -> None:
        self.plan, self.book = plan, book
        self.cells = Cells(plan, Records(plan.store))
        self.states: Mapping[str, Shown] = plan.states()
        self.done = Pass(notes=[book.note] if book.note else [])

    def all(self, growing: bool) -> Pass:
        for _, cells in groupby(self.plan.grid.cells, key=lambda cell: cell.case):
            self._case(list(cells), growing)
        self.done.notes += [
            f"runs of {store} were replaced; where that is still in use, this home or that one is a copy: delete"
            " mlflow.home in one of them, else each goes on taking the other's runs away"
            for store in sorted(self.book.taken_from)
        ]
        return self.done

    def _case(self, cells: Sequence[Cell], growing: bool) -> None:
        finished = self._finished(cells)
        unfinished = [cell for cell in cells if not self._is_finished(cell)]
        # What a pass with --follow left growing is told how it stands by any pass: else it would run for ever.
        shown = [cell for cell in unfinished if growing or left_growing(self.book, cell)]
        shown = [cell for cell in shown if begun(self.plan, cell, self.states)]
        wanted = self._case_wanted(cells, finished)
        if not finished and not shown:
            return  # what is there stays
        parent = self._put(wanted, self.done.cases)
        if not parent:
            return
        for cell in finished:
            self._put(finished[cell], self.done.cells, parent)
        for one in shown:
            show(self.book, self.plan, one, self.states, parent)
        self.book.adopt(wanted.key, parent)

    def _is_finished(self, cell: Cell) -> bool:
        return all(self.states[node.id] in ("done", "stale") for node in self.plan.wired[cell.name].nodes())

    def _finished(self, cells: Sequence[Cell]) -> dict[str, Wanted]:
        found = {}
        for cell in cells:
            if not self._is_finished(cell):
                self.done.unfinished += 1
                self.done.troubles += self._damaged(cell)
                continue
            try:
                found[cell.name] = self.cells.wanted(cell)
            except StoreError as error:
                self.done.troubles.append(f"{cell.name}: {error}")
        return found

    def _damaged(self, cell: Cell) -> list[str]:
        """What was finished once and is not as it was written."""
        nodes = self.plan.wired[cell.name].nodes()
        broken = [node.title for node in nodes if self.states[node.id] == "damaged"]
        return [f"{cell.name}: {', '.join(broken)} is damaged; `cwdpo submit` computes it again"] if broken else []

    def _case_wanted(self, cells: Sequence[Cell], finished: dict[str, Wanted]) -> Wanted:
        """The run of the case; cells whose scores turn out to be damaged are taken out of `finished`."""
        wanted = self.cells.case(cells, finished)
        if self.book.has(wanted):
            return wanted
        for cell in cells:
            self._drop_damaged(cell, finished)
        return self.cells.case(cells, finished)

    def _drop_damaged(self, cell: Cell, finished: dict[str, Wanted]) -> None:
        try:
            if cell.name in finished:
                self.cells.scores(cell)
        except StoreError as error:
            self.done.troubles.append(f"{cell.name}: {error}")
            del finished[cell.name]

    def _put(self, wanted: Wanted, written: list[str], parent: str | None = None) -> str:
        """Id of the run, or "" where what it shall hold cannot be read."""
        try:
            run, new = self.book.put(wanted, parent)
        except StoreError as error:
            self.done.troubles.append(f"{wanted.name}: {error}")
            return ""
        if new:
            written.append(wanted.name)
        return run
