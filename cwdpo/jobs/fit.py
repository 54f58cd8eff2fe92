"""Whether two copies of a model fit: online objectives under full training keep the policy they started from."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cwdpo.base.errors import ConfigError, ModelError
from cwdpo.experiment import Cell, Grid
from cwdpo.jobs.clusters import Cluster, SlurmCluster, gpu_memory
from cwdpo.model.config import Checkpoint, FullTuning, checkpoint_folder
from cwdpo.objectives.online import Online

GB = 10**9
BYTES = {"bfloat16": 2, "float32": 4}

VISION = "vis"  # in the names of what `train_vision: false` leaves alone: visual.*, vision_tower.*, vision_model.*

GRADIENT = 4  # bytes a parameter: gradients are summed in float32
ADAM = 8  # bytes a parameter: two moments in float32
MASTER = 4  # bytes a parameter: weights in float32, where the model's are not


@dataclass(frozen=True)
class Need:
    """Bytes that each rank holds before the first activation.

    Attributes:
        policy: weights, gradients and optimizer of what is trained.
        start: weights of the frozen copy.
    """

    policy: float
    start: float

    def text(self) -> str:
        """In words."""
        return f"{(self.policy + self.start) / GB:.0f} GB a rank ({self.start / GB:.0f} GB of it the frozen copy)"


def check_copies(grid: Grid, cluster: Cluster) -> None:
    """Raise `ConfigError` for full online training whose two copies do not fit into the memory of a rank.

    Nothing is said where the profile does not tell a GPU's memory, or the model is not there yet; activations and
    rollouts come on top.
    """
    for cell in grid.cells:
        objective, model, tuning = _copied_by(cell), cell.experiment.model, cell.experiment.tuning
        if objective and isinstance(model, Checkpoint) and isinstance(tuning, FullTuning):
            with suppress(ModelError):
                _check(cell, objective, _sizes(checkpoint_folder(model), tuning), cluster)


def _copied_by(cell: Cell) -> Online | None:
    """The objective that keeps the policy it started from."""
    objective = cell.experiment.stage2.objective if cell.experiment.stage2 else None
    return objective if isinstance(objective, Online) and objective.kl else None


def _sizes(folder: Path, tuning: FullTuning) -> tuple[int, int]:
    """Parameters, and how many of them are trained."""
    count = parameters(folder)
    return count, count if tuning.train_vision else count - parameters(folder, VISION)


def _check(cell: Cell, objective: Online, sizes: tuple[int, int], cluster: Cluster) -> None:
    ranks, execution = cluster.ranks_of("train"), cell.experiment.execution
    need = two_copies(*sizes, BYTES[cell.experiment.model.dtype], execution.zero_stage, ranks)
    room = memory_of_a_rank(cluster)
    if room and need.policy + need.start > room:
        raise ConfigError(
            f"case '{cell.case}': {objective.name} with tuning full keeps the policy it started from as a second"
            f" model, and both take {need.text()}, but a rank has {room / GB:.0f} GB"
            f" (ZeRO {execution.zero_stage}, {ranks} ranks); use tuning lora, whose second copy is an adapter,"
            " execution.zero_stage 3, more ranks, or stage2.objective.kl 0, which needs no copy"
        )


@dataclass(frozen=True)
class Held:
    """Bytes that a rank holds of a model that is trained, whatever it computes."""

    weights: float
    gradients: float
    optimizer: float

    @property
    def total(self) -> float:
        """All of it."""
        return self.weights + self.gradients + self.optimizer


def held(count: int, trained: int, width: int, zero_stage: int, ranks: int) -> Held:
    """What a rank holds of `count` parameters of `width` bytes, some of them trained, under a ZeRO stage."""
    optimizer = ADAM + (MASTER if width < MASTER else 0)
    return Held(
        width * count / (ranks if zero_stage == 3 else 1),
        GRADIENT * trained / (ranks if zero_stage >= 2 else 1),
        optimizer * trained / (ranks if zero_stage >= 1 else 1),
    )


def two_copies(count: int, trained: int, width: int, zero_stage: int, ranks: int) -> Need:
    """What a rank holds of such a model and of a frozen copy of it."""
    found = held(count, trained, width, zero_stage, ranks)
    return Need(found.total, found.weights)


def memory_of_a_rank(cluster: Cluster) -> float:
    """Bytes that weights can take on one rank; 0 where nobody knows."""
    if isinstance(cluster, SlurmCluster):
        return cluster.node.gpu_memory_gb * GB
    host = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / cluster.ranks_of("train")
    return gpu_memory() or host


def parameters(folder: Path, named: str = "") -> int:
    """Numbers in the weights of a model folder whose name has `named` in it, from the headers of its shards."""
    tensors = (tensor for path in folder.glob("*.safetensors") for tensor in _tensors(path))
    return sum(math.prod(entry["shape"]) for name, entry in tensors if named in name)


def _tensors(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    with open(path, "rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    yield from ((name, entry) for name, entry in header.items() if name != "__metadata__")
