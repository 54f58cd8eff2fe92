"""From a grid to the distinct stages that compute it, and how each of them stands."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from cwdpo.base import files
from cwdpo.base.errors import ConfigError
from cwdpo.base.sources import changed_sources
from cwdpo.base.store import State, Store
from cwdpo.experiment import Cell, Experiment, Grid
from cwdpo.pipeline import Node, Wired, Wiring, in_order

Shown = Literal["done", "stale", "running", "failed", "interrupted", "blocked", "missing", "damaged"]


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
        result: dict[str, Shown] = {}
        for node in self.nodes:
            state: State = node.artefact(self.store).state()
            parents = {result[parent.id] for parent in node.parents}
            if state == "missing" and parents & {"failed", "blocked"}:
                result[node.id] = "blocked"
            else:
                result[node.id] = "stale" if state == "done" and self.changed(node) else state
        return result

    def changed(self, node: Node) -> list[str]:
        """Modules that changed, and inputs recomputed, since a finished node was computed and last accepted."""
        artefact = node.artefact(self.store)
        done = artefact.done()
        assert done is not None, "only finished nodes can be stale"
        accepted = artefact.folder / "accepted.json"
        recorded = files.read_json(accepted) if accepted.exists() else done["provenance"]
        changed = changed_sources(recorded["sources"], node.stage.module, node.spec)
        now = self.lineages(node)
        return changed + [f"{role} (computed anew)" for role in now if recorded["parents"].get(role) != now[role]]

    def lineages(self, node: Node) -> dict[str, str]:
        """Role -> lineage of each finished parent as it stands now."""
        found = {role: entry.artefact(self.store) for role, entry in node.inputs.items() if isinstance(entry, Node)}
        return {role: artefact.lineage() for role, artefact in found.items() if artefact.done()}

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


def _parent_ids(node: Node) -> list[str]:
    return [parent.id for parent in node.parents]


def make_plan(grid: Grid, store: Store) -> Plan:
    """Wire every cell; raises for data or model folders that are not there."""
    wiring = Wiring(store.home / "digests")
    return Plan(grid, store, {cell.name: wiring.wire(cell.experiment) for cell in grid.cells})


def check_ranks(grid: Grid, ranks: int) -> None:
    """Raise `ConfigError` for settings that cannot run on `ranks` ranks, before anything starts."""
    for cell in grid.cells:
        _check_replicas(cell, ranks)
        _check_current_batch(cell, ranks)


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
