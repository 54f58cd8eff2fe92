"""The ledger: what was meant to be submitted, written before it is, and what became of it.

    $CWDPO_HOME/slurm/
        lock/                     held by the one submit or reconcile at work
        code/<digest>/cwdpo/      the code jobs run: what was submitted, not what the checkout became
        arrays/<name>/            one folder per array; its name is the unique name of the Slurm job
            intent.json           what is in it; written before sbatch
            jobs.jsonl            what each element computes
            script.sh             what sbatch gets; abandoned.sh once the intent was given up
            submitted.json        Slurm's job id; written after sbatch
            started               Slurm's job id, written by the first job that ran
            abandoned.json        the intent was given up: should its job appear after all, it ends at once
            exits/<i>.json        how the last run of element i failed (written by its job)
            rewired.json          other elements that an element waits for since its parents were submitted again
            settled.json          final states of elements, once known
            forgiven.json         failures that no longer count, because the user said `retry`

Killed between intent and job id, the next command finds the job by its unique name and adopts it. The ledger belongs to
the home, not to a grid: a stage that two grids share is submitted by one of them.
"""

from __future__ import annotations

import json
import os
import re
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from cwdpo.base import files
from cwdpo.base.errors import StoreError
from cwdpo.base.store import Store

WATCH_SECONDS = 7 * 24 * 3600.0
"""For so long the queue is searched for jobs that should be gone: their cancelling may have been cut off."""

Final = Literal["done", "failed", "cancelled", "reaped"]


@dataclass(frozen=True)
class Settled:
    """The final state of an element.

    Attributes:
        kind: of the failure, see `failures`; "" when done.
        message: one sentence.
        detail: last meaningful lines of the logs.
        nodes: machines it ran on.
        node: the one that is to blame, where that is known.
        saved: steps or blocks that the next run can build on.
    """

    state: Final
    kind: str = ""
    message: str = ""
    detail: str = ""
    nodes: str = ""
    node: str = ""
    saved: int = 0


@dataclass(frozen=True)
class Planned:
    """An element as the intent names it.

    Attributes:
        nodes: (stage, id) of what it computes, in order.
        parents: places it waits for.
    """

    index: int
    label: str
    nodes: tuple[tuple[str, str], ...]
    parents: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class Record:
    """One array in the ledger."""

    folder: Path

    @property
    def name(self) -> str:
        """Unique name, also of the Slurm job."""
        return self.folder.name

    @cached_property
    def intent(self) -> dict[str, Any]:
        """What was meant."""
        with _of(self.folder / "intent.json") as path:
            return {**files.read_json(path)}

    @cached_property
    def elements(self) -> dict[int, Planned]:
        """Index -> element."""
        with _of(self.folder / "intent.json"):
            return {entry["index"]: _planned(entry) for entry in self.intent["elements"]}

    @property
    def job_id(self) -> str | None:
        """Slurm's id of the array, None before it is known."""
        with _of(self.folder / "submitted.json") as path:
            return str(files.read_json(path)["job_id"]) if path.exists() else None

    @property
    def started(self) -> str | None:
        """Slurm's id as the first of its jobs noted it (`host.sh`), also when Slurm has forgotten it."""
        path = self.folder / "started"
        return path.read_text(encoding="utf-8").strip() if path.exists() else None

    @property
    def abandoned(self) -> bool:
        """True when the intent was given up."""
        return (self.folder / "abandoned.json").exists()

    def acknowledge(self, job_id: str) -> None:
        """Write down Slurm's job id."""
        files.write_json(self.folder / "submitted.json", {"job_id": job_id, "time": time.time()})

    def abandon(self, why: str) -> None:
        """Give the intent up. Its script goes, so that an sbatch that has not read it yet finds none."""
        files.write_json(self.folder / "abandoned.json", {"why": why, "time": time.time()})
        with suppress(FileNotFoundError):
            os.replace(self.folder / "script.sh", self.folder / "abandoned.sh")

    @property
    def settled(self) -> dict[int, Settled]:
        """Index -> final state, of the elements that have one."""
        with _of(self.folder / "settled.json") as path:
            found = files.read_json(path) if path.exists() else {}
            return {int(index): Settled(**entry) for index, entry in found.items()}

    def settle(self, states: Mapping[int, Settled]) -> None:
        """Add final states."""
        merged = {**self.settled, **states}
        files.write_json(self.folder / "settled.json", {str(i): asdict(merged[i]) for i in sorted(merged)})

    @property
    def forgiven(self) -> set[int]:
        """Indices of elements whose failure no longer counts."""
        with _of(self.folder / "forgiven.json") as path:
            return set(files.read_json(path)) if path.exists() else set()

    def forgive(self, indices: Sequence[int]) -> None:
        """Let the failures of these elements count no longer."""
        files.write_json(self.folder / "forgiven.json", sorted(self.forgiven | set(indices)))

    @property
    def open(self) -> bool:
        """True while some element has no final state."""
        return not self.abandoned and len(self.settled) < len(self.elements)

    @property
    def watched(self) -> bool:
        """True while Slurm may have a job of it: some element is open, or was taken away in the last days."""
        if not self.abandoned and (self.open or self.job_id is None):
            return True
        return any(_age(self.folder / name) < WATCH_SECONDS for name in ("abandoned.json", "settled.json"))

    def parents(self, index: int) -> list[tuple[str, int]]:
        """Places an element waits for now."""
        return self._rewired.get(index, list(self.elements[index].parents))

    @property
    def _rewired(self) -> dict[int, list[tuple[str, int]]]:
        with _of(self.folder / "rewired.json") as path:
            found = files.read_json(path) if path.exists() else {}
            return {int(index): [(name, at) for name, at in places] for index, places in found.items()}

    def rewire(self, index: int, parents: Sequence[tuple[str, int]]) -> None:
        """Write down that an element waits for other places now."""
        rewired = {**self._rewired, index: list(parents)}
        files.write_json(self.folder / "rewired.json", {str(at): places for at, places in rewired.items()})

    def exit(self, index: int) -> dict[str, Any] | None:
        """How the last run of an element failed, if its job could say."""
        with _of(self.folder / "exits" / f"{index}.json") as path:
            return {**files.read_json(path)} if path.exists() else None

    def job(self, index: int) -> dict[str, Any]:
        """What an element computes, as its worker reads it."""
        for row in files.read_jsonl(self.folder / "jobs.jsonl"):
            if row["index"] == index:
                return row
        raise StoreError(f"{self.folder / 'jobs.jsonl'}: no element {index}")


@contextmanager
def _of(path: Path) -> Iterator[Path]:
    """Turn what taking the content of a file apart ends with, where it is not what was written, into a `StoreError`."""
    try:
        yield path
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise StoreError(f"{path} is damaged: it does not say what it should ({error!r})") from error


def _age(path: Path) -> float:
    """Seconds since a file was written; infinite where there is none."""
    try:
        return time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return float("inf")


def _planned(entry: Mapping[str, Any]) -> Planned:
    nodes = tuple((node["stage"], node["id"]) for node in entry["nodes"])
    return Planned(entry["index"], entry["label"], nodes, tuple((name, index) for name, index in entry["parents"]))


@dataclass(frozen=True)
class Ledger:
    """`$CWDPO_HOME/slurm`."""

    store: Store

    @property
    def folder(self) -> Path:
        """Where it lies."""
        return self.store.home.resolve() / "slurm"

    def records(self) -> list[Record]:
        """Every array ever meant to be submitted, oldest first."""
        folder = self.folder / "arrays"
        names = (
            sorted(path.name for path in folder.iterdir() if not path.name.startswith(".")) if folder.is_dir() else []
        )
        return [Record(folder / name) for name in names]

    def record(self, name: str) -> Record:
        """One array."""
        return Record(self.folder / "arrays" / name)

    def tidy(self) -> None:
        """Remove what killed submissions left half written; only for who holds the lock."""
        for folder in ("arrays", "code", "side"):
            for path in (self.folder / folder).glob(".*.tmp"):
                files.remove_tree(path)

    def intend(self, name: str, intent: Mapping[str, Any], jobs: Iterator[Mapping[str, Any]], script: str) -> Record:
        """Write an intent, whole: after this, and only after it, sbatch may be called."""
        folder = self.folder / "arrays" / name
        with files.folder_written_whole(folder) as temporary:
            (temporary / "intent.json").write_text(json.dumps(intent), encoding="utf-8")
            with open(temporary / "jobs.jsonl", "w", encoding="utf-8") as file:
                file.writelines(json.dumps(job) + "\n" for job in jobs)
            (temporary / "script.sh").write_text(script, encoding="utf-8")
            for inner in ("logs", "exits", "rounds", "overrides"):
                (temporary / inner).mkdir()
        return Record(folder)


def unique_name(grid: str, kind: str) -> str:
    """A name no other array has; sorts by time."""
    seconds, fraction = divmod(time.time_ns() // 1000, 1_000_000)
    stamp = f"{time.strftime('%y%m%d-%H%M%S', time.gmtime(seconds))}-{fraction:06d}"
    return f"cwdpo-{stamp}-{plain_name(grid)}-{kind}-{uuid.uuid4().hex[:6]}"


def plain_name(text: str) -> str:
    """`text` without what the name of a job, or the pattern of its log, would not survive."""
    return re.sub(r"[^A-Za-z0-9._-]", "_", text)
