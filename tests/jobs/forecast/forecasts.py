"""Plans, and stages that look as if they had been computed, for tests of forecasts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cwdpo.base.config import parse_overrides
from cwdpo.base.store import Store
from cwdpo.experiment import load_grid
from cwdpo.graph import Node
from cwdpo.jobs.clusters import Cluster, LocalCluster, SlurmCluster, read_cluster
from cwdpo.jobs.forecast.forecast import Forecast
from cwdpo.jobs.plan import Plan, make_provisional_plan

GRIDS = Path(__file__).resolve().parents[2] / "grids"
MICRO, ROUNDS = GRIDS / "micro.yaml", GRIDS / "rounds.yaml"


def planned(home: Path, grid: str | Path = MICRO, *overrides: str) -> Plan:
    """A grid in a home, whatever is missing."""
    return make_provisional_plan(load_grid(str(grid), parse_overrides(list(overrides))), Store(home))


def local(ranks: int = 1, jobs: int = 1) -> LocalCluster:
    """This machine."""
    return LocalCluster(kind="local", jobs=jobs, ranks=ranks, threads=1)


def slurm(**profile: Any) -> SlurmCluster:
    """Nodes with four GPUs."""
    node = {"gpus": 4, "cpus": 64, "gpu_memory_gb": 80, "gpu_type": "a100"}
    found = read_cluster({"kind": "slurm", "node": node, **profile})
    assert isinstance(found, SlurmCluster)
    return found


def forecast(plan: Plan, cluster: Cluster, **more: int) -> Forecast:
    """Of a plan as its store stands."""
    return Forecast(plan, plan.states(), cluster, **more)


def node_of(plan: Plan, stage: str, cell: str) -> Node:
    """The last node of a stage in a cell."""
    return [node for node in plan.wired[cell].nodes() if node.stage.name == stage][-1]


def finish(plan: Plan, node: Node, seconds: float, events: Sequence[dict[str, Any]] = (), **more: Any) -> None:
    """Write a stage that took so long into the store; `more` is further provenance."""
    artefact = node.artefact(plan.store)
    (artefact.attempts / "1" / "out").mkdir(parents=True)
    (artefact.attempts / "1" / "events.jsonl").write_text("".join(json.dumps(row) + "\n" for row in events))
    (artefact.folder / "stage.json").write_text(json.dumps({"id": node.id, **node.card}))
    provenance = {"ranks": 1, "seconds": seconds, "sources": {}, "parents": {}, "lineage": "", **more}
    (artefact.folder / "DONE").write_text(json.dumps({"attempt": 1, "files": {}, "provenance": provenance}))


def steps(seconds: Sequence[float]) -> list[dict[str, Any]]:
    """Events of a training."""
    return [
        {"time": 0.0, "event": "step", "step": number, "total": len(seconds), "seconds": took}
        for number, took in enumerate(seconds, 1)
    ]


def blocks(times: Sequence[float]) -> list[dict[str, Any]]:
    """Events of what works in blocks."""
    return [
        {"time": when, "event": "progress", "done": number, "total": len(times)} for number, when in enumerate(times, 1)
    ]
