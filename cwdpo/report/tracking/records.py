"""What finished stages left in the store: read once a pass, and told as tags that lead back to it.

Nothing is copied into MLflow: weights, answers and logs stay where they are, under the SHA-256 of the `DONE` that has
the SHA-256 of each file.
"""

from __future__ import annotations

import calendar
import hashlib
import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cwdpo.base.errors import StoreError
from cwdpo.base.store import Store
from cwdpo.graph import Node
from cwdpo.jobs.containers.image import named
from cwdpo.report.tracking.names import valid_name

NOTE_LIMIT = 7500
"""Characters of a note; MLflow takes 8,000 in a tag."""
STORE = "cwdpo.store"
"""Tag: where the files lie that a run tells of."""


@dataclass(frozen=True)
class Record:
    """One finished stage.

    Attributes:
        title: what humans call it.
        folder: of its files, below the store.
        sha256: of the bytes of `DONE`.
        attempts: how many there were.
        job: Slurm's id, such as `4711_3`; "" where it ran without.
        began, ended: milliseconds since 1970.
    """

    id: str
    title: str
    folder: str
    sha256: str
    attempt: int
    attempts: int
    commit: str
    image: str
    job: str
    began: int
    ended: int


@dataclass(frozen=True)
class Records:
    """Records of a store."""

    store: Store
    _stamps: dict[str, bytes] = field(default_factory=dict)
    _read: dict[str, Record] = field(default_factory=dict)

    def stamp(self, node: Node) -> str:
        """What changes whenever the stage is computed anew.

        Raises:
            StoreError: it is not finished any more.
        """
        return hashlib.sha256(self._bytes(node)).hexdigest()

    def of(self, node: Node) -> Record:
        """Everything of one stage.

        Raises:
            StoreError: it is not finished any more, or does not say how it was made.
        """
        if node.id not in self._read:
            try:
                self._read[node.id] = self._record(node)
            except (ArithmeticError, AttributeError, KeyError, TypeError, ValueError) as error:
                folder = node.artefact(self.store).folder
                raise StoreError(f"{folder} is damaged: its DONE does not say how it was made ({error!r})") from error
        return self._read[node.id]

    def _bytes(self, node: Node) -> bytes:
        if node.id not in self._stamps:
            path = node.artefact(self.store).folder / "DONE"
            try:
                self._stamps[node.id] = path.read_bytes()
            except OSError as error:
                raise StoreError(f"cannot read {path}: {error.strerror}") from error
        return self._stamps[node.id]

    def _record(self, node: Node) -> Record:
        artefact, done = node.artefact(self.store), json.loads(self._bytes(node))
        made = done["provenance"]
        ended = calendar.timegm(time.strptime(made["finished"], "%Y-%m-%dT%H:%M:%SZ")) * 1000
        return Record(
            id=node.id,
            title=node.title,
            folder=f"{artefact.folder.name}/attempts/{done['attempt']}/out",
            sha256=self.stamp(node),
            attempt=int(done["attempt"]),
            attempts=artefact.newest(),
            commit=str(made["commit"]),
            image=named(made),
            job=_job(made["job"]),
            began=ended - int(made["seconds"] * 1000),
            ended=ended,
        )


def _job(about: Mapping[str, Any]) -> str:
    job = about.get("slurm_array") or about.get("slurm_job") or ""
    return f"{job}_{about['index']}" if job and about.get("slurm_array") else str(job)


def tags(store: Store, records: Sequence[Record]) -> dict[str, str]:
    """Where results come from: each stage's id and files, and the commits, images and jobs of all of them."""
    found = {STORE: str(store.folder.resolve()), **summary(records), "mlflow.note.content": _note(records)}
    for label, one in zip(_labels(records), records, strict=True):
        found[f"cwdpo.id.{label}"] = one.id
        about = {"folder": one.folder, "done_sha256": one.sha256, "attempt": one.attempt, "attempts": one.attempts}
        found[f"cwdpo.ref.{label}"] = json.dumps({**about, **({"job": one.job} if one.job else {})})
    return found


def summary(records: Iterable[Record]) -> dict[str, str]:
    """Commits, images and Slurm jobs, each once."""
    found = list(records)
    listed = {
        "cwdpo.commits": dict.fromkeys(one.commit for one in found),
        "cwdpo.images": dict.fromkeys(one.image for one in found),
        "cwdpo.jobs": dict.fromkeys(one.job for one in found if one.job),
    }
    return {name: _listed(list(values)) for name, values in listed.items() if values}


def _listed(values: Sequence[str]) -> str:
    """As many as a tag holds; every one stands with its stage as well."""
    kept = list(values)
    while len(", ".join(kept)) > NOTE_LIMIT:
        kept.pop()
    rest = len(values) - len(kept)
    return ", ".join([*kept, *([f"and {rest} more"] if rest else [])])


def _labels(records: Iterable[Record]) -> list[str]:
    """Titles as names of tags, numbered where one occurs again."""
    seen: dict[str, int] = {}
    found = []
    for one in records:
        seen[one.title] = seen.get(one.title, 0) + 1
        again = f".{seen[one.title]}" if seen[one.title] > 1 else ""
        found.append(valid_name(one.title.replace(" (", " ").replace(")", "") + again))
    return found


def _note(records: Iterable[Record]) -> str:
    """A table in Markdown, which MLflow shows as the description of a run."""
    lines = ["| stage | files in the store | SHA-256 of DONE | attempt |", "|---|---|---|---|"]
    for one in records:
        lines.append(f"| {one.title} | `{one.folder}` | `{one.sha256[:16]}` | {one.attempt} of {one.attempts} |")
    while len("\n".join(lines)) > NOTE_LIMIT:
        lines.pop()
    return "\n".join(lines)
