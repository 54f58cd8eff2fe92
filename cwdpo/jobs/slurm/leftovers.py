"""What Slurm jobs that have ended leave in a home."""

from __future__ import annotations

import shutil
from pathlib import Path

from cwdpo.base.store import Store
from cwdpo.jobs.slurm import commands
from cwdpo.jobs.slurm.commands import SlurmError
from cwdpo.jobs.slurm.desired import Desired, paths_in
from cwdpo.jobs.slurm.ledger import Ledger
from cwdpo.jobs.slurm.standing import ENDED


def unused_code(store: Store) -> list[Path]:
    """Snapshots of the code that no array under way, no grid and no side job would run."""
    ledger = Ledger(store)
    used = {Path(record.intent["code"]).name for record in ledger.records() if record.open}
    used |= {Desired.at(path).code.name for path in paths_in(store)}
    ended = set(ended_side_jobs(store))
    scripts = [path.read_text(encoding="utf-8") for path in ledger.folder.glob("side/*/script.sh")
               if path.parent not in ended]  # fmt: skip
    snapshots = [path for path in _visible(ledger.folder / "code") if path.name not in used]
    return [path for path in snapshots if not any(path.name in script for script in scripts)]


def unused_images(store: Store) -> list[Path]:
    """Second names of images that no array under way and no grid would run."""
    ledger = Ledger(store)
    under_way = [record.intent.get("image") for record in ledger.records() if record.open]
    used = {Path(found["path"]) for found in under_way if found}
    used |= {Path(image.path) for path in paths_in(store) if (image := Desired.at(path).image)}
    return [path for path in _visible(ledger.folder / "images") if path not in used]


def ended_side_jobs(store: Store) -> list[Path]:
    """Folders of side jobs that are not in the queue; none where Slurm cannot be asked."""
    folders = _visible(Ledger(store).folder / "side")
    queued = _queued() if folders else None
    return [] if queued is None else [path for path in folders if path.name not in queued]


def ended_probes(store: Store) -> list[Path]:
    """Folders of `doctor`'s jobs that are not in the queue; none where Slurm cannot be asked."""
    folders = _visible(store.home / "doctor")
    queued = _queued() if folders else None
    return [] if queued is None else [path for path in folders if f"cwdpo-doctor-{path.name}" not in queued]


def _queued() -> set[str] | None:
    """Names of jobs that wait or run; None where Slurm does not say."""
    if not shutil.which("squeue"):
        return None
    try:
        return {entry.name for entry in commands.queue() if entry.state not in ENDED}
    except SlurmError:
        return None


def _visible(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.name[0] != ".") if folder.is_dir() else []
