"""What the ranks of the probe are told, and what each of them answers: files in one folder of the home.

request.json      written before the job is submitted
rank-<i>.json     what rank i found; `complete` is False until it has met the others
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cwdpo.base import files
from cwdpo.base.config import Config, validate
from cwdpo.jobs.doctor.check import Finding
from cwdpo.jobs.doctor.data import Assets


class Request(Config):
    """The job, and what it shall look at."""

    nodes: int
    """Nodes of the job."""
    tasks_per_node: int
    """Ranks on a node."""
    gpus_per_node: int
    """GPUs that each node shall show."""
    cpus_per_task: int
    """Threads of a rank."""
    image: str | None = None
    """Digest of the image that ranks run in; None outside of any."""
    ports: tuple[int, int]
    """First and last port to meet on."""
    packages: dict[str, str] = {}
    """Versions that the locks name."""
    assets: Assets = Assets()
    """Data and models, with paths as the login node sees them."""
    join_seconds: int = 120
    """How long ranks wait for each other."""
    exchange_seconds: int = 60
    """How long one exchange may take."""

    @property
    def ranks(self) -> int:
        """Processes of the job."""
        return self.nodes * self.tasks_per_node

    @classmethod
    def read(cls, folder: Path) -> Request:
        """From the folder of a probe."""
        path = folder / "request.json"
        return validate(cls, files.read_json(path), str(path))

    def write(self, folder: Path) -> None:
        """For the ranks."""
        files.write_json(folder / "request.json", self.model_dump(mode="json"))


@dataclass(frozen=True)
class Answer:
    """What one rank found.

    Attributes:
        complete: False while it has not yet tried to meet the others.
        clock: its time of day, in seconds, at a moment that is the same for all ranks; None if they did not meet.
    """

    rank: int
    node: str
    complete: bool
    findings: tuple[Finding, ...]
    clock: float | None = None

    def write(self, folder: Path) -> None:
        """One file a rank, whole at any moment."""
        content = {**vars(self), "findings": [finding.as_json() for finding in self.findings]}
        files.write_json(folder / f"rank-{self.rank}.json", content)

    @classmethod
    def read_all(cls, folder: Path) -> list[Answer]:
        """Those that are there, in order."""
        found = [cls._from_json(files.read_json(path)) for path in folder.glob("rank-*.json")]
        return sorted(found, key=lambda answer: answer.rank)

    @classmethod
    def _from_json(cls, content: Mapping[str, Any]) -> Answer:
        return cls(**{**content, "findings": tuple(Finding.from_json(entry) for entry in content["findings"])})
