"""The files that tell how the newest run of an element ended."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from cwdpo.base import files
from cwdpo.base.errors import StoreError
from cwdpo.base.store import Artefact, Store
from cwdpo.jobs.progress import element_progress, is_done
from cwdpo.jobs.slurm.diagnosis import JOB_LOG
from cwdpo.jobs.slurm.ledger import Record
from cwdpo.jobs.slurm.logs import tail


@dataclass(frozen=True)
class Run:
    """The newest run of one element.

    Attributes:
        job: what it computes, as its worker reads it.
        started: how often Slurm started the job before, and the run of that start; None where that is not known.
    """

    record: Record
    index: int
    job: Mapping[str, Any]
    started: tuple[int, int] | None = None

    @classmethod
    def read(cls, array_folder: Path, index: int, started: tuple[int, int] | None = None) -> Run:
        """From the ledger.

        Raises:
            StoreError: the ledger is damaged.
        """
        record = Record(array_folder)
        return cls(record, index, record.job(index), started)

    @cached_property
    def store(self) -> Store:
        """Where it computes."""
        return Store(Path(self.job["home"]))

    @cached_property
    def stage(self) -> Mapping[str, Any] | None:
        """Its first unfinished stage, the one that failed; None when all are done."""
        return next((stage for stage in self.job["stages"] if not is_done(self._artefact(stage))), None)

    def _artefact(self, stage: Mapping[str, Any]) -> Artefact:
        return self.store.artefact(stage["stage"], stage["id"])

    @cached_property
    def earlier(self) -> list[dict[str, Any]]:
        """Lines of rounds/<i>.jsonl: every failed run of this element; what cannot be read is left out."""
        return [row for line in self._lines() if (row := _row(line)) is not None]

    def _lines(self) -> list[str]:
        try:
            return self.rounds_file.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            return []

    @property
    def rounds_file(self) -> Path:
        """One line for each failed run."""
        return self.record.folder / "rounds" / f"{self.index}.jsonl"

    @property
    def overrides_file(self) -> Path:
        """What the next run changes in `execution`."""
        return self.record.folder / "overrides" / f"{self.index}.json"

    @property
    def exit_file(self) -> Path:
        """The last verdict."""
        return self.record.folder / "exits" / f"{self.index}.json"

    @property
    def log_file(self) -> Path:
        """What the host script and srun printed, of all runs."""
        return self.record.folder / "logs" / f"{self.index}.out"

    @property
    def overrides(self) -> dict[str, Any]:
        """What earlier verdicts changed in `execution`."""
        return _mapping(self.overrides_file) or {}

    @property
    def verdict(self) -> dict[str, Any] | None:
        """The last one, of this run or an earlier one."""
        found = _mapping(self.exit_file)
        return found if found and {"action", "class", "message", "detail"} <= found.keys() else None

    @cached_property
    def attempt(self) -> int:
        """Number of its attempt at `stage`; 0 where it did not get that far, or another run made the newest one."""
        if self.stage is None:
            return 0
        artefact = self._artefact(self.stage)
        number = artefact.newest()
        known = max((row["attempt"] for row in self.earlier if row["id"] == self.stage["id"]), default=0)
        claim = _mapping(artefact.attempts / str(number) / "claim.json") or {}
        return number if number > known and self._is_mine(claim) else 0

    def _is_mine(self, claim: Mapping[str, Any]) -> bool:
        """True for a claim of this element, and of this run where both say which."""
        mine = (claim.get("array"), str(claim.get("index"))) == (self.record.name, str(self.index))
        return mine and (self.started is None or claim.get("run", list(self.started)) == list(self.started))

    @property
    def _folder(self) -> Path | None:
        if self.stage is None or not self.attempt:
            return None
        return self._artefact(self.stage).attempts / str(self.attempt)

    @cached_property
    def result(self) -> dict[str, Any] | None:
        """How its attempt failed, where a rank could say."""
        found = _mapping(self._folder / "result.json") if self._folder else None
        return found if found and {"kind", "message"} <= found.keys() else None

    @cached_property
    def tails(self) -> dict[str, str]:
        """The ends of its logs: of every rank, and of its part of the job's."""
        ranks = sorted(self._folder.glob("stderr*")) if self._folder else []
        start = max((row["log"] for row in self.earlier), default=0)
        return {**{path.name: tail(path) for path in ranks}, JOB_LOG: tail(self.log_file, start)}

    @property
    def log_bytes(self) -> int:
        """Size of the job's log: where the next run begins in it."""
        with suppress(OSError):
            return os.stat(self.log_file).st_size
        return 0

    @cached_property
    def saved(self) -> tuple[int, int]:
        """(stages done, saved progress of the first one that is not)."""
        return element_progress(self.store, [(stage["stage"], stage["id"]) for stage in self.job["stages"]])


_COLUMNS = {"id": str, "attempt": int, "class": str, "saved": list, "changes": dict, "log": int}


def _row(line: str) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
        return row if all(isinstance(row[name], kind) for name, kind in _COLUMNS.items()) else None
    except (ValueError, KeyError, TypeError):
        return None


def _mapping(path: Path) -> dict[str, Any] | None:
    """JSON that may be missing or damaged."""
    try:
        found = files.read_json(path)
    except StoreError:
        return None
    return found if isinstance(found, dict) else None
