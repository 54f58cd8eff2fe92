"""From a grid to the distinct stages that compute it, and how each of them stands."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from cwdpo.base import files
from cwdpo.base.errors import ConfigError
from cwdpo.base.sources import changed_sources
from cwdpo.base.store import Look, Store, folder_name, lineage_of
from cwdpo.experiment import Cell, Experiment, Grid
from cwdpo.jobs.clusters import Cluster
from cwdpo.jobs.containers.image import named
from cwdpo.pipeline import Node, Wired, Wiring, in_order

MISSING = Look("missing")

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
    """

    states: dict[str, Shown]
    images: Mapping[str, str]


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
    """

    grid: Grid
    store: Store
    wired: Mapping[str, Wired]

    @cached_property
    def nodes(self) -> list[Node]:
        """Distinct nodes, parents before children."""
        return in_order(root for wired in self.wired.values() for root in wired.roots)

    def naive_count(self) -> int:
        """Stages there would be if no cell shared anything."""
        return sum(len(wired.nodes()) for wired in self.wired.values())

    def states(self) -> dict[str, Shown]:
        """State of every node; `blocked` is a missing node with a failed ancestor."""
        return self.survey().states

    def survey(self) -> Survey:
        """Every node as it is now; the store is read once."""
        looks = self._looks()
        images = {name: named(look.done["provenance"]) for name, look in looks.items() if look.done}
        return Survey(self._states(looks), images)

    def _states(self, looks: Mapping[str, Look]) -> dict[str, Shown]:
        result: dict[str, Shown] = {}
        for node in self.nodes:
            state = looks[node.id].state
            if state == "missing" and any(result[parent.id] in ("failed", "blocked") for parent in node.parents):
                result[node.id] = "blocked"
            elif state == "done" and self._differences(node, looks[node.id].done, _lineages(node, looks)):
                result[node.id] = "stale"
            else:
                result[node.id] = state
        return result

    def _looks(self) -> dict[str, Look]:
        """Every artefact as it is now, each read once."""
        begun = self.store.names()
        return {
            node.id: node.artefact(self.store).look() if folder_name(node.stage.name, node.id) in begun else MISSING
            for node in self.nodes
        }

    def changed(self, node: Node) -> list[str]:
        """Modules that changed, and inputs recomputed, since a finished node was computed and last accepted."""
        return self._differences(node, node.artefact(self.store).done(), self.lineages(node))

    def _differences(self, node: Node, done: Mapping[str, Any] | None, now: Mapping[str, str]) -> list[str]:
        """The same for a known `DONE` and known lineages of the parents."""
        assert done is not None, "only finished nodes can be stale"
        made_by = node.artefact(self.store).made_by(done)
        changed = changed_sources(made_by["sources"], node.stage.module, node.spec)
        return changed + [f"{role} (computed anew)" for role in now if made_by["parents"].get(role) != now[role]]

    def lineages(self, node: Node) -> dict[str, str]:
        """Role -> lineage of each finished parent as it stands now."""
        parents = {role: entry for role, entry in node.inputs.items() if isinstance(entry, Node)}
        found = {role: entry.artefact(self.store).done() for role, entry in parents.items()}
        return {role: lineage_of(done) for role, done in found.items() if done}

    def unfinished_changed(self, node: Node) -> list[str]:
        """Modules that changed since the unfinished work of a node was begun."""
        path = node.artefact(self.store).partial / "sources.json"
        return changed_sources(files.read_json(path)["sources"], node.stage.module, node.spec) if path.exists() else []

    def write(self) -> Path:
        """Write `grids/<name>/grid.json`, every cell with all its settings, and `plan.json`, its nodes and states."""
        folder = self.store.home / "grids" / self.grid.name
        cells = {cell.name: cell.experiment.model_dump(mode="json") for cell in self.grid.cells}
        files.write_json(folder / "grid.json", {"options": self.grid.options, "cells": cells})
        files.write_json(folder / "plan.json", self.as_json())
        return folder

    def as_json(self) -> dict[str, Any]:
        """Cells with their node ids, and nodes with their states."""
        states = self.states()
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


def _lineages(node: Node, looks: Mapping[str, Look]) -> dict[str, str]:
    """Role -> lineage of each finished parent."""
    found = {role: looks[entry.id].done for role, entry in node.inputs.items() if isinstance(entry, Node)}
    return {role: lineage_of(done) for role, done in found.items() if done}


def _parent_ids(node: Node) -> list[str]:
    return [parent.id for parent in node.parents]


def make_plan(grid: Grid, store: Store) -> Plan:
    """Wire every cell; raises for data or model folders that are not there."""
    wiring = Wiring(store.home / "digests")
    return Plan(grid, store, {cell.name: wiring.wire(cell.experiment) for cell in grid.cells})


def check_ranks(grid: Grid, cluster: Cluster) -> None:
    """Raise `ConfigError` for settings that cannot run on the ranks of a cluster's jobs, before anything starts."""
    for cell in grid.cells:
        _check_replicas(cell, cluster.ranks_of("generate"))
        _check_current_batch(cell, cluster.ranks_of("train"))


def _check_replicas(cell: Cell, ranks: int) -> None:
    execution = cell.experiment.execution
    if execution.inference == "tensor_parallel" and ranks % execution.replica_size:
        raise ConfigError(
            f"case '{cell.case}': execution.replica_size {execution.replica_size} does not divide {ranks} rank(s)"
        )


def _check_current_batch(cell: Cell, ranks: int) -> None:
    experiment: Experiment = cell.experiment
    if experiment.stage1 is None or not experiment.stage1.objective.needs_batch_mean:
        return
    batch, micro = experiment.stage1.optimization.batch_size, experiment.execution.micro_batch
    if batch > micro * ranks:
        raise ConfigError(
            f"case '{cell.case}': stage1.objective.constraint_estimate current_batch needs gradient accumulation 1, but"
            f" batch_size {batch} is more than micro_batch {micro} x {ranks} rank(s); raise execution.micro_batch,"
            " use more ranks, or use previous_step"
        )
