"""What was fetched, written down when all of it is there: a later look needs no network."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from cwdpo.base import files
from cwdpo.base.errors import DataError, NotAvailable
from cwdpo.data.assets.download import digest_of
from cwdpo.version import package_version

State = Literal["fetched", "present", "checked"]
READERS = 4
"""Files that are digested at a time; a parallel file system gives one reader only a share of its speed."""


@dataclass(frozen=True)
class Outcome:
    """One asset after `fetch`.

    Attributes:
        folder: where its files are.
        files: name -> `{"bytes": ..., "sha256" or "git_sha1": ...}`.
        notes: what the user should know, one sentence each.
    """

    name: str
    state: State
    folder: Path
    files: Mapping[str, Mapping[str, Any]]
    notes: tuple[str, ...] = ()
    commit: str | None = None

    @property
    def bytes(self) -> int:
        """Size of all its files."""
        return sum(entry["bytes"] for entry in self.files.values())

    def as_json(self) -> dict[str, Any]:
        """For `--json`."""
        commit = {"commit": self.commit} if self.commit else {}
        return {
            "name": self.name,
            "state": self.state,
            "folder": str(self.folder),
            **commit,
            "bytes": self.bytes,
            "files": dict(self.files),
            "notes": list(self.notes),
        }


@dataclass(frozen=True)
class Receipt:
    """A receipt's file.

    Attributes:
        source: what was asked for, as it must be asked for again to count as the same.
        files: name -> size and digest of what is there.
        archives: the same for what was unpacked and removed.
    """

    path: Path
    source: Mapping[str, Any]
    files: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    archives: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def read(self) -> Receipt | None:
        """What is written there, or None where nothing is or something else was fetched."""
        if not self.path.is_file():
            return None
        content = files.read_json(self.path)
        if content["source"] != self.source:
            return None
        return Receipt(self.path, self.source, content["files"], content["archives"])

    def write(self) -> None:
        """The last act of a fetch."""
        stamp = {"fetched": datetime.now(UTC).isoformat(timespec="seconds"), "by": f"cwdpo {package_version()}"}
        parts = {"source": dict(self.source), "files": dict(self.files), "archives": dict(self.archives)}
        files.write_json(self.path, {**parts, **stamp})

    def complete(self, folder: Path) -> bool:
        """True when every file is there with its size: a look, not a reading."""
        return all(_size(folder / name) == entry["bytes"] for name, entry in self.files.items())

    def verify(self, folder: Path, remedy: str) -> None:
        """Read every byte.

        Raises:
            DataError: names every file that is missing or differs, with what was expected and found.
        """
        faults = faults_in(folder, self.files)
        if faults:
            head = f"{len(faults)} of {len(self.files)} files in {folder} are not as they were fetched"
            raise DataError("\n".join([head, *faults, remedy]))


def never_fetched(name: str, folder: Path) -> NotAvailable:
    """What `--check` says about an asset without a receipt."""
    return NotAvailable(f"{name} was not fetched to {folder}; where there is internet, run the same without --check")


def faults_in(folder: Path, entries: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """One line for each file that is not as its entry says."""
    with ThreadPoolExecutor(READERS) as pool:
        found = pool.map(lambda item: _fault(folder / item[0], *item), entries.items())
        return [fault for fault in found if fault]


def _fault(path: Path, name: str, entry: Mapping[str, Any]) -> str | None:
    size = _size(path)
    if size is None:
        return f"{name}: missing"
    if size != entry["bytes"]:
        return f"{name}: expected {entry['bytes']} bytes, found {size}"
    for kind, digest in DIGESTS.items():
        if kind in entry and (found := digest(path)) != entry[kind]:
            return f"{name}: expected {kind} {entry[kind]}, found {found}"
    return None


def _size(path: Path) -> int | None:
    return path.stat().st_size if path.is_file() else None


def git_sha1(path: Path) -> str:
    """The name git gives to a file's content."""
    value = hashlib.sha1(f"blob {path.stat().st_size}\0".encode(), usedforsecurity=False)
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            value.update(chunk)
    return value.hexdigest()


DIGESTS: dict[str, Callable[[Path], str]] = {"sha256": lambda path: digest_of(path, "sha256"), "git_sha1": git_sha1}
