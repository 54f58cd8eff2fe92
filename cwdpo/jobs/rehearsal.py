"""A grid in small: the same model, stages and nodes, with 2 steps of each training and 8 items of each benchmark."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from cwdpo.data.sources import DataSource
from cwdpo.dynamics.settings import Probe
from cwdpo.evaluate.benchmarks import AnyBenchmark
from cwdpo.evaluate.benchmarks.captions import KarpathyCaptions
from cwdpo.experiment import Experiment, Grid, described
from cwdpo.jobs.plan import Plan
from cwdpo.model.config import ModelSource, Tiny
from cwdpo.pipeline import STAGES
from cwdpo.train.settings import SftPhase, Stage1, Stage2

Training = TypeVar("Training", Stage1, SftPhase, Stage2)

STEPS = 2
ITEMS = 8
WORLD_IMAGES = 32
"""Fewest images of the world that a tiny model is pretrained on: enough for either stage to get some."""


def rehearsal(grid: Grid) -> Grid:
    """The first seed of every case in small; stages that cells share stay shared."""
    first = grid.cells[0].seed
    images = _images_needed(cell.experiment for cell in grid.cells)
    cells = [replace(cell, experiment=_in_small(cell.experiment, images)) for cell in grid.cells if cell.seed == first]
    description = f"{grid.name} in small: {STEPS} steps, {ITEMS} items"
    return replace(grid, name=f"{grid.name}-rehearsal", description=description, cells=tuple(cells))


def as_file(grid: Grid) -> dict[str, Any]:
    """Content of a grid file that holds the cells of one seed, every setting spelled out."""
    cases = {cell.case: cell.experiment.model_dump(mode="json", exclude={"seed"}) for cell in grid.cells}
    about = {"description": grid.description, "tables_of": grid.tables_of}
    return {**about, "base": {}, "cases": cases, "seeds": [grid.cells[0].seed]}


def _images_needed(experiments: Iterable[Experiment]) -> int:
    """Images that either stage of training needs for its steps, one sample of each."""
    stages = [stage for one in experiments for stage in (one.stage1, one.stage2, one.stage2 and one.stage2.sft_phase)]
    return max([ITEMS, *(STEPS * stage.optimization.batch_size for stage in stages if stage)])


def _in_small(experiment: Experiment, images: int) -> Experiment:
    return experiment.model_copy(
        update={
            "data": experiment.data and _first(experiment.data, images),
            "model": _quickly_made(experiment.model),
            "stage1": _short(experiment.stage1),
            "stage2": _short(experiment.stage2),
            "benchmarks": tuple(_few_items(benchmark, experiment.data) for benchmark in experiment.benchmarks),
            "probe": _few_samples(experiment.probe),
            "execution": experiment.execution.model_copy(update=_often(experiment)),
        }
    )


def _first(data: DataSource, images: int) -> DataSource:
    return data.model_copy(update={"limit": min(data.limit or images, images)})


def _short(stage: Training | None) -> Training | None:
    """Two steps of each training, also where a pass over the data is only one; two rounds where it has any."""
    if stage is None:
        return None
    steps = min(stage.optimization.max_steps or STEPS, STEPS)
    short = stage.optimization.model_copy(update={"max_steps": steps, "epochs": float(STEPS)})
    update: dict[str, Any] = {"optimization": short}
    if isinstance(stage, Stage2) and stage.sft_phase:
        update["sft_phase"] = _short(stage.sft_phase)
    if isinstance(stage, Stage2) and stage.refresh:
        update["refresh"] = stage.refresh.model_copy(update={"rounds": STEPS})
    if isinstance(stage, Stage2) and stage.rollouts:
        update["rollouts"] = stage.rollouts.model_copy(update={"prompts": None})
    return stage.model_copy(update=update)


def _often(experiment: Experiment) -> dict[str, int]:
    """Checkpoints at each step, and adapters for the probes."""
    return {"checkpoint_every": 1, **({"snapshot_every": 1} if experiment.probe else {})}


def _few_samples(probe: Probe | None) -> Probe | None:
    """A few samples at each step."""
    return probe and probe.model_copy(update={"samples": min(probe.samples, ITEMS), "every": 1})


def _quickly_made(model: ModelSource) -> ModelSource:
    """A checkpoint as it is; the pretraining of a tiny model is a training like the others."""
    if not isinstance(model, Tiny):
        return model
    images = max(WORLD_IMAGES, STEPS * model.pretraining.batch_size)
    sizes = {"train": min(model.world.train, images), "val": 0, "test": 0}
    return model.model_copy(
        update={
            "world": model.world.model_copy(update=sizes),
            "pretraining": model.pretraining.model_copy(update={"steps": min(model.pretraining.steps, STEPS)}),
        }
    )


def _few_items(benchmark: AnyBenchmark, data: DataSource | None) -> AnyBenchmark:
    """A few items; of captions the first, and of their data set only the images that these need."""
    few: dict[str, Any] = {"limit": min(benchmark.limit or ITEMS, ITEMS)}
    source = described(benchmark, data) if isinstance(benchmark, KarpathyCaptions) else None
    if source:
        few["data"] = _first(source.for_evaluation(), ITEMS)
    return benchmark.model_copy(update=few)


@dataclass(frozen=True)
class Rehearsed:
    """What became of one kind of stage.

    Attributes:
        seconds: of the longest one that is done, as its attempt measured them; None where none is.
        memory: most bytes that the first process of one of them took; None where nothing is known.
        gpu_memory: the same on its GPU.
    """

    stage: str
    count: int
    done: int
    seconds: float | None
    memory: int | None
    gpu_memory: int | None


def rehearsed(plan: Plan) -> list[Rehearsed]:
    """A row per kind of stage, in the order of the data path."""
    by_kind: dict[str, list[Mapping[str, Any] | None]] = {name: [] for name in STAGES}
    for node in plan.nodes:
        by_kind[node.stage.name].append(node.artefact(plan.store).done())
    return [_rehearsed(name, found) for name, found in by_kind.items() if found]


def _rehearsed(stage: str, dones: list[Mapping[str, Any] | None]) -> Rehearsed:
    measured = [done["provenance"] for done in dones if done]
    peaks = [provenance.get("peak_bytes", {}) for provenance in measured]
    return Rehearsed(
        stage=stage,
        count=len(dones),
        done=len(measured),
        seconds=max((provenance["seconds"] for provenance in measured), default=None),
        memory=max((peak["memory"] for peak in peaks if "memory" in peak), default=None),
        gpu_memory=max((peak["gpu_memory"] for peak in peaks if "gpu_memory" in peak), default=None),
    )
