"""What the grids of a home need: every stage of each, as it was last submitted."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from cwdpo.base import files
from cwdpo.base.store import Artefact, Store, folder_name
from cwdpo.jobs.plan import Plan
from cwdpo.jobs.slurm.ledger import Ledger


@dataclass(frozen=True)
class KnownGrid:
    """One grid.

    Attributes:
        options: what was typed to name it.
        reads: folder of each of its stages -> folders of what that reads.
    """

    name: str
    options: str
    reads: Mapping[str, frozenset[str]]


class Needs:
    """All grids that were submitted from a home.

    Args:
        instead: grids as their files say now, in place of what was submitted under their names.

    Raises:
        StoreError: what was written down about a grid is damaged, so that nobody knows what it needs.
    """

    def __init__(self, store: Store, instead: Sequence[Plan] = ()) -> None:
        self.store = store
        known = {path.parent.name: _submitted(path) for path in _plans(store.home)}
        known |= {plan.grid.name: _known(plan.as_json(), plan.grid.options) for plan in instead}
        self.grids = list(known.values())
        self.seen = _stamps(store.home)

    def changed(self) -> bool:
        """True when a grid was submitted since."""
        return _stamps(self.store.home) != self.seen

    @cached_property
    def folders(self) -> frozenset[str]:
        """Artefacts that some grid needs, or an array in Slurm's queue, and all that those were computed from."""
        queued = {
            folder_name(stage, identity)
            for record in Ledger(self.store).records()
            if record.open
            for element in record.elements.values()
            for stage, identity in element.nodes
        }
        return self._with_ancestors({*(name for grid in self.grids for name in grid.reads), *queued})

    def _with_ancestors(self, names: Iterable[str]) -> frozenset[str]:
        by_id = {name.rpartition("-")[2]: name for name in self.store.names()}
        found: set[str] = set()
        left = list(names)
        while left:
            name = left.pop()
            if name not in found:
                found.add(name)
                left += [by_id[parent[:16]] for parent in self._parents(name) if parent[:16] in by_id]
        return frozenset(found)

    def _parents(self, name: str) -> list[str]:
        """Ids of what an artefact was computed from, once it was begun."""
        path = self.store.folder / name / "stage.json"
        return list(files.read_json(path)["parents"].values()) if path.exists() else []

    def awaited(self, name: str) -> bool:
        """True when a stage that reads this artefact is not finished."""
        return any(Artefact(self.store.folder / child, "").done() is None for child in self._children[name])

    @cached_property
    def _children(self) -> Mapping[str, set[str]]:
        found: dict[str, set[str]] = defaultdict(set)
        for grid in self.grids:
            for child, parents in grid.reads.items():
                for parent in parents:
                    found[parent].add(child)
        return found


def _plans(home: Path) -> list[Path]:
    return sorted((home / "grids").glob("*/plan.json"))


def _stamps(home: Path) -> dict[Path, tuple[int, int]]:
    return {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in _plans(home)}


def _submitted(path: Path) -> KnownGrid:
    options = path.with_name("grid.json")
    return _known(files.read_json(path), files.read_json(options)["options"])


def _known(content: Mapping[str, Any], options: str) -> KnownGrid:
    names = {node["id"]: folder_name(node["stage"], node["id"]) for node in content["nodes"]}
    reads = {names[node["id"]]: frozenset(names[parent] for parent in node["parents"]) for node in content["nodes"]}
    return KnownGrid(content["grid"], options, reads)
