"""Who takes part in the training benchmarks, and with which settings."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from training_turns import Measured, take_turns
from training_world import LORA, Point, World

BATCH = 8
"""Pairs of an optimizer step, of every side."""

LARGE = 1024
"""Image tokens from which a forward pass takes fewer pairs, of every side: TRL would take about 12 GB for eight."""

OPTIMIZATION = {"learning_rate": 1e-3, "schedule": "constant", "warmup": 0.0, "weight_decay": 0.0, "clip": 1.0}

ROWS = {"shared_prefix": False, "chunked_head": False, "feed_workers": 0}
"""Our own plain way: a row per response, its logits whole, every step encodes its own images."""

TRL = {
    "learning_rate": 1e-3, "lr_scheduler_type": "constant", "weight_decay": 0.0,
    "max_grad_norm": 1.0, "beta": 0.1, "max_length": None, "gradient_checkpointing": False, "use_cpu": True,
    "bf16": False, "train_sampling_strategy": "sequential", "dataloader_num_workers": 0, "logging_steps": 1,
    "save_strategy": "no", "report_to": "none", "disable_tqdm": True,
}  # fmt: skip
"""DPOTrainer's: ours where both have the setting, otherwise what is quickest on a CPU."""

Side = tuple[str, Mapping[str, Any]]


def micro_batch(point: Point) -> int:
    """Pairs of a forward pass. It decides on memory; speed changes by a tenth at most, either way."""
    return 2 if point.image_tokens >= LARGE else BATCH


def trl(world: World, point: Point, steps: int, attention: str = "sdpa", **arguments: Any) -> Side:
    """TRL's DPOTrainer; `arguments` go to its DPOConfig."""
    data = world.data(point, "stage2", steps * BATCH, 1)
    size = micro_batch(point)
    passes = {"per_device_train_batch_size": size, "gradient_accumulation_steps": BATCH // size}
    return "trl_dpo.py", {
        "model": str(world.model(point)), "data": str(data), "images": str(world.images), "steps": steps,
        "batch_size": BATCH, "arguments": TRL | passes | arguments, "attention": attention,
    }  # fmt: skip


def stage1(world: World, point: Point, steps: int, objective: str) -> Side:
    """Our Stage 1; every sample has a rejected response, whether the objective reads it or not."""
    data = world.data(point, "stage1", steps * BATCH, 1)
    return _ours(world, point, "stage1", _training(objective, steps), {"pairs": data, "negatives": data}, {})


def stage2(
    world: World, point: Point, steps: int, reference: Path, objective: str = "dpo", rejected: int = 1,
    batch: int = BATCH, **execution: Any,
) -> Side:  # fmt: skip
    """Our Stage 2; `reference` is what `reference_pass` over the same pairs wrote, `execution` how it runs."""
    data = world.data(point, "stage2", steps * batch, rejected)
    inputs = {"pairs": data, "negatives": data, "reference": reference}
    return _ours(world, point, "stage2", _training(objective, steps, batch), inputs, execution)


def stage2_in_turn(world: World, point: Point, steps: int, reference: Path, objectives: Sequence[str]) -> Side:
    """Our Stage 2 with an objective for the first step, another one for the second, and so on."""
    script, settings = stage2(world, point, steps, reference, objectives[0])
    return script, {**settings, "in_turn": objectives}


def reference_pass(
    world: World, point: Point, pairs: int, rejected: int = 1, **execution: Any
) -> tuple[Path, Measured]:
    """Our reference pass over all pairs, in blocks of a batch: the folder it wrote, and what it took."""
    data = world.data(point, "stage2", pairs, rejected)
    spec = {"policy": {"dtype": "float32"}, "block": BATCH}
    side = _ours(world, point, "reference", spec, {"pairs": data, "negatives": data}, execution)
    return Path(side[1]["home"]) / "out", take_turns({"reference": side})["reference"]


def _training(objective: str, steps: int, batch: int = BATCH) -> dict[str, Any]:
    return {
        "policy": {"dtype": "float32"},
        "tuning": LORA.model_dump(),
        "objective": {"name": objective},
        "optimization": {"batch_size": batch, "max_steps": steps, **OPTIMIZATION},
    }


def _ours(
    world: World, point: Point, stage: str, spec: Any, inputs: Mapping[str, Path], execution: Mapping[str, Any]
) -> Side:
    places = {"model": world.model(point), "images": world.images, **inputs}
    return "training_ours.py", {
        "stage": stage, "spec": spec, "inputs": {role: str(path) for role, path in places.items()},
        "execution": {"micro_batch": micro_batch(point), "zero_stage": 2, **execution},
        "home": str(world.folder / "homes" / uuid.uuid4().hex[:8]),
    }  # fmt: skip
