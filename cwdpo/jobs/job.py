"""A job file: the stages one job computes, in order, as plain JSON. What a stage is does not depend on its job."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cwdpo.base import files
from cwdpo.base.store import Store
from cwdpo.graph import Node


@dataclass(frozen=True)
class StageJob:
    """One stage in a job file.

    Attributes:
        inputs: role -> `{"stage", "id"}` of an artefact, or `{"path"}` of a folder outside the store.
        share: number and count, where it is one of several jobs that share the stage.
    """

    stage: str
    id: str
    card: dict[str, Any]
    spec: dict[str, Any]
    inputs: dict[str, dict[str, str]]
    execution: dict[str, Any]
    share: list[int] | None = None


def stage_job(node: Node) -> StageJob:
    """`node` as it is written to a job file."""
    inputs = {
        role: {"stage": entry.stage.name, "id": entry.id}
        if isinstance(entry, Node)
        else {"path": os.path.abspath(entry.path)}
        for role, entry in node.inputs.items()
    }
    return StageJob(
        stage=node.stage.name,
        id=node.id,
        card=node.card,
        spec=node.spec.model_dump(mode="json"),
        inputs=inputs,
        execution=node.execution.model_dump(mode="json"),
        share=[node.share.number, node.share.of] if node.share else None,
    )


def job_content(store: Store, nodes: Sequence[Node], threads: int) -> dict[str, Any]:
    """What a worker reads: where the store is, CPU threads of a rank, the stages."""
    stages = [vars(stage_job(node)) for node in nodes]
    return {"home": str(store.home.resolve()), "threads": threads, "stages": stages}


def write_job(path: Path, store: Store, nodes: Sequence[Node], threads: int) -> None:
    """Write the job file for `nodes`."""
    files.write_json(path, job_content(store, nodes, threads))
