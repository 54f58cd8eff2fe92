"""What a home can do without: leftovers by default; on request, artefacts that no grid needs.

Looking changes nothing. Every item is looked at once more right before it goes, because work may have begun meanwhile.
Never an item: files of a finished artefact that a grid needs, what a running attempt writes, what an unfinished stage
would go on from, and anything of a stage whose readers are not finished.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from cwdpo.base.errors import Busy
from cwdpo.base.store import Artefact, Store
from cwdpo.jobs.discard import SUFFIX, discard
from cwdpo.jobs.needs import Needs
from cwdpo.jobs.scratch import Scratch
from cwdpo.jobs.slurm.leftovers import ended_probes, ended_side_jobs, unused_code, unused_images
from cwdpo.pipeline import STAGES

Kind = Literal[
    "attempts", "retired", "partial", "temporary", "code", "images", "dry-runs", "side-jobs", "doctor", "rehearsal",
    "unused",
]  # fmt: skip

KINDS: dict[Kind, str] = {
    "attempts": "files of attempts that did not win (their logs stay)",
    "retired": "files of results that were computed again since",
    "partial": "checkpoints and blocks of finished stages",
    "temporary": "what interrupted writes and removals left",
    "code": "code of ended Slurm jobs",
    "images": "images of ended Slurm jobs",
    "dry-runs": "what `submit --dry-run` wrote",
    "side-jobs": "scripts and logs of ended side jobs",
    "doctor": "what failed probes of `doctor --submit` left",
    "rehearsal": "the home of the last rehearsal",
    "unused": "results and unfinished work that no grid needs",
}

DAY_SECONDS = 86400.0
"""No write takes as long: a temporary file older than this was left behind."""

TEMPORARY = re.compile(r"\..+\.[0-9a-f]{8}\.tmp")


@dataclass(frozen=True)
class Item:
    """Something that can go.

    Attributes:
        bytes: space on disk; a file with several names counts once in all items together.
        still: asked right before it goes.
    """

    kind: Kind
    path: Path
    bytes: int
    still: Callable[[], bool]


Found = tuple[Kind, Path, Callable[[], bool]]


def find(store: Store, needs: Needs, unused: bool) -> list[Item]:
    """Everything that can go.

    Args:
        unused: artefacts that no grid needs, too.
    """
    usage = DiskUsage()
    found = [*_unused(store, needs), *_leftovers(store, needs)] if unused else list(_leftovers(store, needs))
    seen: set[Path] = set()
    items = []
    for kind, path, still in found:
        if path not in seen and seen.isdisjoint(path.parents):  # what lies in something that goes, goes with it
            seen.add(path)
            items.append(Item(kind, path, usage.of(path), still))
    return items


def remove(items: Sequence[Item], needs: Needs, check: Callable[[], None]) -> list[Item]:
    """Remove what still can go; returns that.

    Args:
        check: raises when this process lost the lock.

    Raises:
        Busy: a grid was submitted meanwhile; what went before is gone, the rest stays.
    """
    removed: list[Item] = []
    for item in items:
        check()
        if needs.changed():
            raise Busy(f"a grid was submitted meanwhile; stopped after {len(removed)} item(s), look again")
        if item.path.exists() and item.still():
            discard(item.path)
            removed.append(item)
    return removed


class DiskUsage:
    """Space that files take on disk; one with several names counts once."""

    def __init__(self) -> None:
        self._seen: set[tuple[int, int]] = set()

    def of(self, path: Path) -> int:
        """Bytes of a file, or of a folder with all that is in it."""
        return self._own(path) + sum(
            self._own(os.path.join(root, name)) for root, folders, names in os.walk(path) for name in folders + names
        )

    def _own(self, path: str | Path) -> int:
        try:
            stat = os.lstat(path)
        except FileNotFoundError:  # it went this moment
            return 0
        key = (stat.st_dev, stat.st_ino)
        if key in self._seen:
            return 0
        self._seen.add(key)
        return stat.st_blocks * 512


def _leftovers(store: Store, needs: Needs) -> Iterator[Found]:
    for name in sorted(store.names()):
        if _settled(store, needs, name):
            yield from _of_finished(Artefact(store.folder / name, ""))
    yield from _temporary(store, needs)
    yield from (("code", path, _always) for path in unused_code(store))
    yield from (("images", path, _always) for path in unused_images(store))
    yield from (("side-jobs", path, _always) for path in ended_side_jobs(store))
    yield from (("doctor", path, _always) for path in ended_probes(store))
    yield from (("dry-runs", path, _always) for path in sorted((store.home / "grids").glob("*/dry-run")))
    scratch = Scratch(store.home)
    if scratch.idle():
        yield "rehearsal", scratch.folder, scratch.idle


def _settled(store: Store, needs: Needs, name: str) -> bool:
    """True for an artefact that is whole, and whose readers are finished."""
    return Artefact(store.folder / name, "").look().state == "done" and not needs.awaited(name)


def _always() -> bool:
    """The lock keeps away who would begin to use it."""
    return True


def _of_finished(artefact: Artefact) -> Iterator[Found]:
    """What a finished artefact does not need."""
    for number in _numbers(artefact):
        out = artefact.attempts / str(number) / "out"
        if _lost(artefact, number) and out.is_dir() and any(out.iterdir()):
            retired = (artefact.attempts / str(number) / "DONE.retired").exists()
            yield "retired" if retired else "attempts", out, partial(_lost, artefact, number)
    if artefact.partial.exists() and not _at_work(artefact):
        yield "partial", artefact.partial, lambda: artefact.done() is not None and not _at_work(artefact)


def _numbers(artefact: Artefact) -> range:
    return range(1, artefact.newest() + 1)


def _lost(artefact: Artefact, number: int) -> bool:
    """True when an attempt has ended and another one made the artefact."""
    done = artefact.done()
    return done is not None and done["attempt"] != number and not artefact.alive(number)


def _at_work(artefact: Artefact) -> bool:
    return any(artefact.alive(number) for number in _numbers(artefact))


def _unused(store: Store, needs: Needs) -> Iterator[Found]:
    """Artefacts that no grid needs, readers before what they read."""
    order = {name: place for place, name in enumerate(STAGES)}
    names = [name for name in store.names() if not name.startswith(".") and name not in needs.folders]
    for name in sorted(names, key=lambda name: (-order.get(name.rpartition("-")[0], len(order)), name)):
        artefact = Artefact(store.folder / name, "")
        if (artefact.folder / "stage.json").exists() and not _at_work(artefact):
            yield "unused", artefact.folder, partial(_idle, artefact)


def _idle(artefact: Artefact) -> bool:
    return not _at_work(artefact)


def _temporary(store: Store, needs: Needs) -> Iterator[Found]:
    """Hidden names of writes that never ended, a day old, and of removals that never ended, at any age."""
    for path in _hidden(store):
        if path.name.endswith(SUFFIX):
            yield "temporary", path, _always
        elif TEMPORARY.fullmatch(path.name) and _is_old(path) and _may_be_touched(store, needs, path):
            yield "temporary", path, partial(_is_old, path)


def _hidden(store: Store) -> Iterator[Path]:
    """Hidden names where this program writes, but not among the files of finished stages."""
    yield from store.home.glob(".rehearsal*")
    for name in ("grids", "slurm", "digests"):
        yield from (store.home / name).rglob(".*")
    for pattern in (".*", "*/.*", "*/attempts/.*", "*/attempts/*/.*"):
        yield from store.folder.glob(pattern)


def _may_be_touched(store: Store, needs: Needs, path: Path) -> bool:
    """False for what lies in the folder of an artefact that is not settled."""
    within = path.relative_to(store.folder).parts if store.folder in path.parents else ()
    return len(within) < 2 or _settled(store, needs, within[0])


def _is_old(path: Path) -> bool:
    """True when neither it nor anything in it was written for a day."""
    newest = max(found.lstat().st_mtime for found in [path, *path.rglob("*")])
    return time.time() - newest > DAY_SECONDS
