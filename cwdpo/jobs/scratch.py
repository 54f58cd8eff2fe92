"""`<home>/rehearsal/`: a home beside the real store, removed and made anew for each rehearsal."""

from __future__ import annotations

import io
import shutil
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from ruamel.yaml import YAML

from cwdpo.base import files
from cwdpo.base.errors import ConfigError
from cwdpo.base.store import Artefact, Store
from cwdpo.evaluate.prepared import FOLDER as PREPARED
from cwdpo.experiment import Grid
from cwdpo.jobs.discard import discard
from cwdpo.jobs.rehearsal import as_file
from cwdpo.jobs.slurm.ledger import Ledger
from cwdpo.jobs.slurm.lock import locked
from cwdpo.jobs.slurm.standing import Standings

MARK = "rehearsal.json"
"""Only a folder with this file in it is ever removed."""


@dataclass(frozen=True)
class Scratch:
    """The scratch home of a home."""

    home: Path

    @property
    def folder(self) -> Path:
        """Where it lies."""
        return self.home / "rehearsal"

    @property
    def store(self) -> Store:
        """Its store."""
        return Store(self.folder)

    def file_of(self, grid: Grid) -> Path:
        """The grid file of a rehearsal: what is done with any grid can be done with it."""
        return self.folder / f"{grid.name}.yaml"

    def held(self) -> AbstractContextManager[Callable[[], None]]:
        """Keep other rehearsals away.

        Raises:
            Busy: another process is rehearsing here.
        """
        return locked(self._lock, wait=0.0)

    @property
    def _lock(self) -> Path:
        return self.home / "rehearsal.lock"

    def at_work(self) -> bool:
        """True while a job of the last rehearsal runs, or Slurm has one in its queue."""
        attempts = [Artefact(self.store.folder / name, "") for name in self.store.names()]
        if any(artefact.alive(artefact.newest()) for artefact in attempts):
            return True
        ledger = Ledger(self.store)
        look = shutil.which("squeue") is not None  # where Slurm cannot be asked, what was submitted counts as at work
        return any(standing.live for standing in Standings(ledger, look).all)

    def make(self, grid: Grid) -> Path:
        """A home with the grid file of a rehearsal and the prepared benchmarks in it; what was there goes."""
        self.clear()
        with files.folder_written_whole(self.folder) as temporary:
            files.write_json(temporary / MARK, {"grid": grid.name, "of": grid.options, "time": time.time()})
            files.write_text(temporary / self.file_of(grid).name, _yaml(grid))
            for receipt in (self.home / PREPARED).glob("*.json"):
                files.write_bytes(temporary / PREPARED / receipt.name, receipt.read_bytes())
        return self.file_of(grid)

    def clear(self) -> None:
        """Remove it.

        Raises:
            ConfigError: there is something else of that name.
        """
        if not self.folder.exists() and not self.folder.is_symlink():
            return
        if not self.removable:
            raise ConfigError(f"{self.folder}: no rehearsal made this, so none removes it; move it away")
        discard(self.folder)

    def idle(self) -> bool:
        """True when a rehearsal made it, and none is at work in it or was cut off beside it."""
        return self.removable and not self._lock.exists() and not self.at_work()

    @property
    def removable(self) -> bool:
        """True when a rehearsal made it."""
        return (self.folder / MARK).is_file() and not self.folder.is_symlink()


def _yaml(grid: Grid) -> str:
    writer = YAML(typ="safe", pure=True)
    writer.default_flow_style = False
    writer.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    stream = io.StringIO()
    writer.dump(as_file(grid), stream)
    return f"# Written by `cwdpo submit {grid.options} --rehearse`.\n{stream.getvalue()}"
