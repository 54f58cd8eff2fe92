"""The artefact store: one folder per identity, attempts that are fenced, and one commit point.

    store/<stage>-<id16>/
        stage.json              the identity, spelled out
        attempts/N/             claim.json, events.jsonl, stdout, stderr, out/, result.json
        partial/                checkpoints and finished blocks; survives attempts, goes when DONE
        DONE                    names the attempt whose out/ is the artefact; written last, once

Creating `DONE` is the only commit point. It is a hard link, which fails if `DONE` exists, so of two attempts that
finish together one wins whole and nothing is ever mixed. An attempt claims its number by renaming a folder that
already holds its claim, which fails if the number is taken.
"""

from __future__ import annotations

import errno
import json
import os
import socket
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from pydantic_core import from_json  # in half the time of `json`: a plan of thousands of cells reads as many `DONE`

from cwdpo.base import files
from cwdpo.base.background import Background
from cwdpo.base.errors import Busy, Fenced, StoreError
from cwdpo.base.identity import digest
from cwdpo.base.trail import look, note, note_fleeting

State = Literal["done", "running", "failed", "interrupted", "missing", "damaged"]

READ_AGAIN_BYTES = 64 * 2**20
"""What is larger (weights) is read in full only by who uses it."""

HEARTBEAT_SECONDS = 5.0
SILENT_SECONDS = 60.0  # an attempt on another host that has not beaten for this long is taken for dead


@dataclass(frozen=True)
class Store:
    """`$CWDPO_HOME/store`."""

    home: Path

    @cached_property
    def folder(self) -> Path:
        """Where the artefacts are."""
        return self.home / "store"

    def artefact(self, stage: str, identity: str) -> Artefact:
        """The (possibly still empty) folder of one identity."""
        return Artefact(self.folder / folder_name(stage, identity), identity)

    def names(self) -> set[str]:
        """Folders of all artefacts, in one look: what is not among them was never begun."""
        try:
            return set(os.listdir(self.folder))
        except (FileNotFoundError, NotADirectoryError):
            return set()

    def check_writable(self) -> None:
        """Raise `StoreError` before anything starts when the home cannot be written or is full."""
        probe = self.folder / f".probe-{uuid.uuid4().hex[:8]}"
        files.write_bytes(probe, b"\0" * 4096)
        probe.unlink()


def folder_name(stage: str, identity: str) -> str:
    """Name of an artefact's folder."""
    return f"{stage}-{identity[:16]}"


@dataclass(frozen=True)
class Look:
    """An artefact at one moment.

    Attributes:
        done: the content of `DONE` where it exists and can be read.
    """

    state: State
    done: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Artefact:
    """One identity in the store, whatever its state."""

    folder: Path
    identity: str

    @property
    def begun_file(self) -> Path:
        """By what code its unfinished work was begun, and from what: `sources`, `parents`."""
        return self.partial / "sources.json"

    def begun(self) -> dict[str, Any]:
        """What that file says; nothing where there is no unfinished work.

        Raises:
            StoreError: it cannot be read.
        """
        if not self.begun_file.exists():
            return {}
        found = files.read_json(self.begun_file)
        if not isinstance(found, dict) or not all(isinstance(one, dict) for one in found.values()):
            raise StoreError(
                f"{self.begun_file} does not say what the unfinished work beside it was begun with;"
                f" to start over, remove {self.partial}"
            )
        return found

    @property
    def partial(self) -> Path:
        """Work that outlives an attempt: checkpoints, finished blocks."""
        return self.folder / "partial"

    @property
    def attempts(self) -> Path:
        """Folder with one numbered folder per attempt."""
        return self.folder / "attempts"

    def done(self) -> dict[str, Any] | None:
        """The content of `DONE`, or None while the artefact does not exist."""
        path = f"{self.folder}/DONE"
        try:
            found = files.read_json(path, from_json)
        except StoreError as error:
            if isinstance(error.__cause__, FileNotFoundError | NotADirectoryError):
                return None
            raise
        if not _names_files(found):
            raise StoreError(f"{path} is damaged: it does not say which attempt made which files")
        return found

    @property
    def files(self) -> Path:
        """Folder of the finished files; raises `StoreError` when the artefact is not done."""
        done = self.done()
        if done is None:
            raise StoreError(f"{self.folder} is not finished")
        return self.attempts / str(done["attempt"]) / "out"

    def missing_files(self, hashes: bool = False) -> list[str]:
        """Names of finished files that are gone or changed.

        Args:
            hashes: every byte is read; else only of files that were written to since they were finished, and are not
                very large.
        """
        done = self.done()
        assert done is not None, "only a finished artefact can be verified"
        return self._missing(done, hashes)

    def _missing(self, done: Mapping[str, Any], hashes: bool = False) -> list[str]:
        folder = f"{self.folder}/attempts/{done['attempt']}/out"
        finished = look(f"{self.folder}/DONE")
        since = finished.st_mtime_ns if finished else None
        return [name for name, entry in done["files"].items() if not _intact(f"{folder}/{name}", entry, hashes, since)]

    def verified_files(self) -> Path:
        """`files` after checking every byte; raises `StoreError` naming the first damaged file."""
        damaged = self.missing_files(hashes=True)
        if damaged:
            raise StoreError(
                f"{self.folder}: {damaged[0]} is missing or changed since it was written"
                f" ({len(damaged)} file(s)); `cwdpo submit` computes it again"
            )
        return self.files

    def state(self) -> State:
        """What a user should know about this artefact."""
        return self.look().state

    def look(self) -> Look:
        """The state and what `DONE` says, each file read once."""
        try:
            done = self.done()
        except StoreError:
            return Look("damaged")
        if done is None:
            return Look(self._unfinished())
        return Look("damaged" if self._missing(done) else "done", done)

    def made_by(self, done: Mapping[str, Any]) -> Mapping[str, Any]:
        """`sources` and `parents` of a finished artefact: as accepted since, else as `DONE` recorded them."""
        accepted = f"{self.folder}/accepted.json"
        found = files.read_json(accepted) if look(accepted) else done.get("provenance")
        if not isinstance(found, dict) or not all(isinstance(found.get(key), dict) for key in ("sources", "parents")):
            raise StoreError(f"{self.folder} is damaged: it does not say what code it was made by")
        return found

    def _unfinished(self) -> State:
        newest = self.newest()
        if newest == 0:
            return "missing"
        if self.alive(newest):
            return "running"
        return "failed" if (self.attempts / str(newest) / "result.json").exists() else "interrupted"

    def newest(self) -> int:
        """Number of the newest attempt, 0 if there is none."""
        note(self.attempts)
        try:
            names = os.listdir(self.attempts)
        except (FileNotFoundError, NotADirectoryError):
            return 0
        return max((int(name) for name in names if name.isdigit()), default=0)

    def result(self, number: int) -> dict[str, Any] | None:
        """How attempt `number` failed, or None if it did not say."""
        path = self.attempts / str(number) / "result.json"
        note(path)
        return files.read_json(path) if path.exists() else None

    def alive(self, number: int) -> bool:
        """True while the process that claimed attempt `number` is at work, here or on another host."""
        folder = self.attempts / str(number)
        note(*(folder / name for name in ("result.json", "DONE.retired", "heartbeat")))
        if (folder / "result.json").exists() or (folder / "DONE.retired").exists():
            return False  # it ended, even if its process goes on with another stage
        if found := self._beats(folder):
            note_fleeting()
        return found

    def _beats(self, folder: Path) -> bool:
        """Whether the process that claimed an attempt that has not ended is there."""
        try:
            claim = files.read_json(folder / "claim.json")
            host, pid, started = claim["host"], claim["pid"], claim["process_started"]
        except (StoreError, KeyError, TypeError):
            return False  # somebody tampered with it: a new attempt is the way out
        if host == socket.gethostname():
            return process_started(pid) == started
        try:
            return time.time() - (folder / "heartbeat").stat().st_mtime < SILENT_SECONDS
        except FileNotFoundError:
            return False

    def _follows(self, number: int, job: Mapping[str, Any]) -> bool:
        """True when `job` is a later run of the very element that attempt `number` belongs to."""
        claim = files.read_json(self.attempts / str(number) / "claim.json")
        return "element" in job and claim.get("element") == job["element"] and claim["run"] < job["run"]

    def lineage(self) -> str:
        """Digest of the code this artefact and everything before it was made by; "" before it is done."""
        done = self.done()
        return lineage_of(done) if done else ""

    def retire(self) -> None:
        """Take a finished artefact back so that it is computed again; its files stay in their attempt."""
        with files.writing(self.folder / "DONE"):
            (self.folder / "accepted.json").unlink(missing_ok=True)
            attempt = self.attempts / str(self._publisher())
            attempt.mkdir(parents=True, exist_ok=True)  # the attempts may be what is gone
            os.replace(self.folder / "DONE", attempt / "DONE.retired")
            files.remove_tree(self.partial)

    def _publisher(self) -> int:
        """Number of the attempt that `DONE` names; the newest where it is too damaged to say."""
        try:
            done = self.done()
        except StoreError:
            done = None
        return int(done["attempt"]) if done else self.newest()

    def describe(self, card: Mapping[str, Any]) -> None:
        """Write `stage.json`, or check that the one there spells the same identity."""
        path = self.folder / "stage.json"
        if path.exists():
            found = files.read_json(path)
            if found["id"] != self.identity:
                raise StoreError(f"{path}: holds identity {found['id']}, expected {self.identity}")
            return
        files.write_json(path, {"id": self.identity, **card})

    def claim(self, job: Mapping[str, Any]) -> Attempt:
        """Start a new attempt.

        Args:
            job: kept in the claim. With `element` and `run` in it (a job of a scheduler and how often it was started),
                the attempt takes over from an earlier run of the same element, which the scheduler gave up: whatever
                is left of that run is fenced off.

        Raises:
            Busy: another living process holds the newest attempt, or took this number first.
        """
        newest = self.newest()
        if newest and self.alive(newest) and not self._follows(newest, job):
            raise Busy(f"{self.folder.name}: attempt {newest} is running")
        number = newest + 1
        self._take(number, job)
        return Attempt(self, number)

    def _take(self, number: int, job: Mapping[str, Any]) -> None:
        """Rename a folder that holds a claim to `attempts/number`; raises `Busy` if the number is taken."""
        target = self.attempts / str(number)
        with files.writing(target):
            self.attempts.mkdir(parents=True, exist_ok=True)
            temporary = files.temporary_beside(target)
            temporary.mkdir()
            try:
                (temporary / "claim.json").write_text(json.dumps(_claim(job)))
                (temporary / "heartbeat").touch()  # seen from other hosts as soon as the claim is
                (temporary / "out").mkdir()
                files.sync_tree(temporary)
                os.rename(temporary, target)
            except OSError as error:
                files.remove_tree(temporary)
                if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                    raise Busy(f"{self.folder.name}: attempt {number} was claimed by another process") from error
                raise
            files.fsync_folder(self.attempts)


@dataclass(frozen=True)
class Attempt:
    """One try at one artefact; only the newest may publish."""

    artefact: Artefact
    number: int
    _background: Background = field(default_factory=Background, repr=False)

    @property
    def folder(self) -> Path:
        """attempts/N."""
        return self.artefact.attempts / str(self.number)

    @property
    def out(self) -> Path:
        """Where this attempt puts the files of the artefact."""
        return self.folder / "out"

    def check(self) -> None:
        """Raise `Fenced` when a newer attempt has taken over."""
        newest = self.artefact.newest()
        if newest > self.number:
            raise Fenced(f"{self.artefact.folder.name}: attempt {self.number} was overtaken by attempt {newest}")

    def event(self, kind: str, **values: Any) -> None:
        """Append one line to events.jsonl; non-finite numbers are written as null."""
        row = {"time": round(time.time(), 3), "event": kind, **{key: _finite(item) for key, item in values.items()}}
        path = self.folder / "events.jsonl"
        with files.writing(path), open(path, "a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")

    def start_heartbeat(self) -> None:
        """Touch attempts/N/heartbeat every few seconds from a daemon thread until `stop_heartbeat`."""
        beat = self.folder / "heartbeat"
        beat.touch()

        def run() -> None:
            while not self._background.over.wait(HEARTBEAT_SECONDS):
                try:
                    beat.touch()
                except OSError:
                    return

        self._background.start(run, "heartbeat")

    def stop_heartbeat(self) -> None:
        """End the heartbeat thread."""
        self._background.stop()

    def publish(self, provenance: Mapping[str, Any]) -> None:
        """Make `out/` the artefact. If another attempt got there first, its files stand and these are left aside."""
        self.check()
        done = self.artefact.folder / "DONE"
        temporary = files.temporary_beside(done)
        with files.writing(self.out):
            files.share_with_group(self.out)
            files.sync_tree(self.out)
            content = {"attempt": self.number, "files": _manifest(self.out), "provenance": dict(provenance)}
        files.write_json(temporary, content)
        with files.writing(done):
            _link_once(temporary, done)
        files.remove_tree(self.artefact.partial)

    def fail(self, error: BaseException) -> None:
        """Record why this attempt ended without publishing."""
        kind = type(error).__name__
        files.write_json(self.folder / "result.json", {"state": "failed", "kind": kind, "message": str(error)})


def _link_once(temporary: Path, target: Path) -> None:
    """Give `temporary` the name `target` unless that name is taken; atomic."""
    try:
        os.link(temporary, target)
    except FileExistsError:
        pass
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.ENOSYS):
            raise
        # File systems without hard links: a rename is still atomic, only the last writer wins instead of the first.
        os.replace(temporary, target)
        return
    finally:
        temporary.unlink(missing_ok=True)
    files.fsync_folder(target.parent)


def _manifest(folder: Path) -> dict[str, dict[str, Any]]:
    names = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        path.relative_to(folder).as_posix(): {"bytes": path.stat().st_size, "sha256": files.sha256_file(path)}
        for path in names
    }


def _names_files(done: Any) -> bool:
    """Whether the content of a `DONE` says which attempt made which files, and what they are like."""
    if not isinstance(done, dict) or not {"attempt", "files"} <= done.keys() or not isinstance(done["files"], dict):
        return False
    entries = done["files"].values()
    return all(isinstance(one, dict) and "bytes" in one and isinstance(one.get("sha256"), str) for one in entries)


def _intact(path: str, entry: Mapping[str, Any], hashes: bool, since: int | None) -> bool:
    """Whether a file is what was written; one that was written to since then (ns) is read, if it is not very large."""
    found = look(path)
    if found is None or found.st_size != entry["bytes"]:
        return False
    touched = since is not None and found.st_mtime_ns > since and found.st_size <= READ_AGAIN_BYTES
    return not (hashes or touched) or files.sha256_file(Path(path)) == entry["sha256"]


def _claim(job: Mapping[str, Any]) -> dict[str, Any]:
    me = os.getpid()
    started = process_started(me)
    return {"host": socket.gethostname(), "pid": me, "process_started": started, "time": time.time(), **job}


def process_started(pid: int) -> str | None:
    """When process `pid` started, in clock ticks since boot (tells a reused pid apart); None if it is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    state, *rest = text.rpartition(")")[2].split()
    return None if state in "ZX" else rest[18]


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not (value == value and abs(value) != float("inf")):
        return None
    return value


def lineage_of(done: Mapping[str, Any]) -> str:
    """The lineage that a `DONE` recorded."""
    return str(done["provenance"].get("lineage", ""))


def lineage(sources: Mapping[str, str], parents: Mapping[str, str]) -> dict[str, Any]:
    """Provenance that tells whether an artefact still stands on what its parents are now.

    Args:
        sources: module -> digest of the code that computes it.
        parents: role -> lineage of the artefact that was read.
    """
    return {"sources": dict(sources), "parents": dict(parents), "lineage": digest([sources, parents])}
