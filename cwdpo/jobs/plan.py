"""From a grid to the distinct stages that compute it, and how each of them stands."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from cwdpo.base import files
from cwdpo.base.context import WATCHED, is_share
from cwdpo.base.errors import ConfigError, StoreError
from cwdpo.base.sources import changed_sources
from cwdpo.base.store import Artefact, Look, Store, lineage_of
from cwdpo.base.trail import note
from cwdpo.evaluate.prepared import FOLDER as PREPARED
from cwdpo.evaluate.prepared import find_prepared
from cwdpo.evaluate.questions import QuestionsSpec
from cwdpo.experiment import Grid
from cwdpo.graph import Node, Wired, in_order
from cwdpo.jobs.containers.image import named
from cwdpo.pipeline import Wiring
from cwdpo.supplies import Absent

MISSING = Look("missing")

SUBMITTED = "grid.json"
"""Name of the file that holds a grid as it was submitted; `--grid` takes its path, too."""

Shown = Literal[
    "done",
    "stale",
    "running",
    "starting",
    "queued",
    "failed",
    "cancelled",
    "interrupted",
    "blocked",
    "missing",
    "damaged",
]
"""How a stage stands; `starting`, `queued` and `cancelled` only on Slurm."""


@dataclass(frozen=True)
class Survey:
    """A plan at one moment.

    Attributes:
        states: node id -> how it stands; `blocked` is a missing node with a failed ancestor.
        images: id of a finished node -> what it was computed in.
        lineages: id of a finished node -> digest of the code that it and everything before it was made by.
    """

    states: dict[str, Shown]
    images: dict[str, str]
    lineages: dict[str, str]


def _nothing(artefact: Artefact) -> Look:
    """Of one that was not begun."""
    note(artefact.folder)
    return MISSING


def different_images(images: Iterable[str]) -> str:
    """`sha256:0123 (12 stages), no image (3 stages)` where stages were computed in several; else nothing."""
    found = Counter(images)
    counts = [f"{name} ({count} stage{'s' if count > 1 else ''})" for name, count in found.most_common()]
    return ", ".join(counts) if len(found) > 1 else ""


@dataclass(frozen=True)
class Plan:
    """A grid wired into nodes.

    Attributes:
        wired: cell name -> its nodes.
        absent: data, models and benchmarks that stages read and that are not there; such a plan cannot be computed.
    """

    grid: Grid
    store: Store
    wired: Mapping[str, Wired]
    absent: tuple[Absent, ...] = ()

    @cached_property
    def nodes(self) -> list[Node]:
        """Distinct nodes, parents before children."""
        return in_order(root for wired in self.wired.values() for root in wired.roots)

    @property
    def folder(self) -> Path:
        """Of what is written down about the grid."""
        return self.store.home / "grids" / self.grid.name

    def naive_count(self) -> int:
        """Stages there would be if no cell shared anything."""
        return sum(len(wired.nodes()) for wired in self.wired.values())

    def states(self) -> dict[str, Shown]:
        """State of every node; `blocked` is a missing node with a failed ancestor."""
        return self.survey().states

    def survey(self, seen: Callable[[Node, Mapping[str, Any]], None] | None = None) -> Survey:
        """Every node as it is now; each file of the store is read once, and not held.

        Args:
            seen: is called for each finished node with the content of its `DONE`, parents first.
        """
        begun, found = self.store.names(), Survey({}, {}, {})
        for node in self.nodes:
            artefact = node.artefact(self.store)
            look = artefact.look() if artefact.folder.name in begun else _nothing(artefact)
            found.states[node.id] = state = _state(node, artefact, look, found)
            if look.done and isinstance(look.done.get("provenance"), dict):
                found.images[node.id] = named(look.done["provenance"])
                found.lineages[node.id] = lineage_of(look.done)
            if look.done and seen and state != "damaged":
                seen(node, look.done)
        return found

    def changed(self, node: Node) -> list[str]:
        """Modules that changed, and inputs recomputed, since a finished node was computed and last accepted."""
        artefact = node.artefact(self.store)
        return _differences(node, artefact, artefact.done(), self.lineages(node))

    def lineages(self, node: Node) -> dict[str, str]:
        """Role -> lineage of each finished parent as it stands now."""
        found = {role: entry.artefact(self.store).done() for role, entry in stands_on(node)}
        return {role: lineage_of(done) for role, done in found.items() if done}

    def unfinished_changed(self, node: Node) -> list[str]:
        """Modules that changed since the unfinished work of a node was begun."""
        sources = node.artefact(self.store).begun().get("sources")
        return [] if sources is None else changed_sources(sources, node.stage.module, node.spec)

    def write(self) -> Path:
        """Write `grids/<name>/grid.json`, every cell with all its settings, and `plan.json`, its nodes and states."""
        folder = self.folder
        files.write_json(folder / SUBMITTED, self.grid.as_json())
        files.write_json(folder / "plan.json", self.as_json())
        return folder

    def is_submitted(self) -> bool:
        """Whether the grid's folder holds the plan of these very stages, or none that can be read."""
        path = self.folder / "plan.json"
        note(path)
        try:
            cells = {f"{cell['case']}/{cell['seed']}": set(cell["nodes"]) for cell in files.read_json(path)["cells"]}
        except (StoreError, KeyError, TypeError):
            return True
        return cells == {name: {node.id for node in wired.nodes()} for name, wired in self.wired.items()}

    def as_json(self, states: Mapping[str, Shown] | None = None) -> dict[str, Any]:
        """Cells with their node ids, and nodes with their states, where these are not known already."""
        states = self.states() if states is None else states
        cells = [
            {
                "case": cell.case,
                "seed": cell.seed,
                "scores": {name: node.id for name, node in self.wired[cell.name].scores.items()},
                "nodes": [node.id for node in self.wired[cell.name].nodes()],
            }
            for cell in self.grid.cells
        ]
        nodes = [
            {"id": node.id, "stage": node.stage.name, "state": states[node.id], "parents": _parent_ids(node)}
            for node in self.nodes
        ]
        return {"grid": self.grid.name, "cells": cells, "nodes": nodes, "naive_count": self.naive_count()}


def _state(node: Node, artefact: Artefact, look: Look, parents: Survey) -> Shown:
    """How a node stands, given how those before it do."""
    if look.state == "missing" and any(parents.states[parent.id] in ("failed", "blocked") for parent in node.parents):
        return "blocked"
    lineages = {role: parents.lineages[entry.id] for role, entry in stands_on(node) if entry.id in parents.lineages}
    try:
        return "stale" if look.state == "done" and _differences(node, artefact, look.done, lineages) else look.state
    except StoreError:  # it does not say what code it was made by
        return "damaged"


def _differences(
    node: Node, artefact: Artefact, done: Mapping[str, Any] | None, lineages: Mapping[str, str]
) -> list[str]:
    """What `Plan.changed` tells, for a known `DONE` and the lineages of the finished parents by role."""
    assert done is not None, "only finished nodes can be stale"
    made_by = artefact.made_by(done)
    changed = changed_sources(made_by["sources"], node.stage.module, node.spec)
    return changed + [f"{role} (computed anew)" for role in lineages if made_by["parents"].get(role) != lineages[role]]


def stands_on(node: Node) -> Iterator[tuple[str, Node]]:
    """(role, node) of what a result stands on in the store; shares are its own work, done elsewhere."""
    found = ((role, entry) for role, entry in node.inputs.items() if role != WATCHED and not is_share(role))
    return ((role, entry) for role, entry in found if isinstance(entry, Node))


def _parent_ids(node: Node) -> list[str]:
    return [parent.id for parent in node.parents]


def make_plan(grid: Grid, store: Store) -> Plan:
    """Wire every cell.

    Raises:
        CwdpoError: names all data, models and benchmarks that are not there; of the kind of the first of them.
    """
    found: list[Absent] = []
    plan = _wired(grid, store, found.append)
    if found:
        first = found[0].fault
        raise type(first)("\n".join(dict.fromkeys(one.why for one in found))) from first
    return plan


def make_provisional_plan(grid: Grid, store: Store) -> Plan:
    """The same where data, models and benchmarks need not be there yet: what is not is listed in `absent`."""
    found: list[Absent] = []
    plan = _wired(grid, store, found.append)
    found += _changed_since(plan)
    return replace(plan, absent=tuple({(one.kind, one.why): one for one in found}.values()))


def _changed_since(plan: Plan) -> Iterator[Absent]:
    """Benchmarks that are still to be read and whose files are not those that were prepared."""
    for node in plan.nodes:
        if isinstance(node.spec, QuestionsSpec) and node.spec.digest and not node.provisional:
            try:
                if node.artefact(plan.store).done() is None:
                    find_prepared(node.spec.benchmark, plan.store.home / PREPARED).check()
            except ConfigError as error:
                yield Absent("benchmark", node.spec.benchmark, error)


def _wired(grid: Grid, store: Store, absent: Callable[[Absent], object]) -> Plan:
    wiring = Wiring(store.home / "digests", lambda node: node.artefact(store).done() is not None, absent=absent)
    return Plan(grid, store, {cell.name: wiring.wire(cell.experiment) for cell in grid.cells})
