"""Bytes that a plan leaves in its home, and those that are there only while it runs.

Adapters, snapshots and weights are counted; what texts and tables take is what such rows usually do, or what finished
stages of the same settings took.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from cwdpo.jobs.fit import BYTES
from cwdpo.jobs.forecast.flops import Trained
from cwdpo.jobs.forecast.past import Past
from cwdpo.jobs.forecast.tasks import Generating, Task, Training

CHECKPOINT = 12
"""Bytes of a trained parameter in a checkpoint: its weight and both moments in float32."""

ROWS: dict[str, float] = {
    "world": 2_000,
    "pairs": 900,
    "negatives": 600,
    "frequencies": 40,
    "questions": 500,
    "answers": 400,
    "critique": 120,
    "llm": 400,
    "judge": 300,
    "generate": 300,
    "reference": 90,
    "probe_set": 1_200,
    "probe": 9_000,
    "influence": 400,
    "score": 700,
}
"""Stage -> bytes of an item in its files."""
ROW = 500
"""Of stages that are not named."""

GROUPS = {"pretrain": "models", "stage1": "adapters", "stage2": "adapters", "sft_phase": "adapters"}
"""Stage -> what its files are called together; others go by their own names."""


@dataclass(frozen=True)
class Files:
    """Bytes of one stage.

    Attributes:
        kept: of what it leaves.
        snapshots: of adapters that are kept beside its result.
        running: of checkpoints while it runs.
    """

    kept: float
    snapshots: float = 0.0
    running: float = 0.0


def files_of(task: Task, pasts: Sequence[Past] = ()) -> Files:
    """What one stage takes, given finished ones of the same settings."""
    if isinstance(task, Training):
        return _trained(task)
    if pasts:
        return Files(median(past.bytes for past in pasts))
    return Files(task.items * ROWS.get(task.stage, ROW) * _draws(task))


def _draws(task: Task) -> int:
    """Answers of an item."""
    return task.draws if isinstance(task, Generating) and task.stage == "answers" else 1


def _trained(task: Training) -> Files:
    """Nothing where the sizes of the model are not known."""
    model, width = task.subject.model, BYTES[task.subject.dtype]
    if model is None:
        return Files(0)
    trained: Trained = task.trained
    count = trained.count(model)
    result = width * (count if trained.rank else model.total)
    checkpoints = CHECKPOINT * count * (task.execution.keep_checkpoints + 1)
    handed = CHECKPOINT * count if task.hands_over else 0
    return Files(result + handed, width * count * task.snapshots if trained.rank else 0, checkpoints)


def group_of(task: Task) -> str:
    """What the files of a stage are called."""
    return GROUPS.get(task.stage, task.stage)


def free_bytes(home: Path) -> int:
    """Of the file system that a home is on, or would be."""
    place = home.absolute()
    while not os.path.isdir(place):
        place = place.parent
    return shutil.disk_usage(place).free
