"""Seconds of a task where nothing like it was measured yet: operations and bytes over what a device gives of its best.

What no size of a model tells (how much of its peak a GPU reaches, how long answers get, how long a job takes to
start) is a number in each of three cases. All of them are choices of this project, wide enough for an eager PyTorch on
a node that nobody else uses; a store with finished stages replaces them by what was measured (`past.py`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from cwdpo.jobs.fit import BYTES, GB
from cwdpo.jobs.forecast.devices import Device
from cwdpo.jobs.forecast.dimensions import Dimensions
from cwdpo.jobs.forecast.flops import Rows, Trained, forward, step
from cwdpo.jobs.forecast.memory import cached
from cwdpo.jobs.forecast.ranges import Range
from cwdpo.jobs.forecast.samples import seeing
from cwdpo.jobs.forecast.tasks import Asking, Generating, Preparing, Scoring, Subject, Task, Training


@dataclass(frozen=True)
class Case:
    """How well things go.

    Attributes:
        name: which number of a `Range` it makes.
        peak: share of a device's peak that matrix products reach.
        bandwidth: share of its memory's bandwidth that decoding reaches.
        layer: seconds that starting the kernels of one layer takes, forward.
        answer: share of the longest answer after which a block of answers has ended.
        start: seconds until a job that imports torch is at work.
        load: bytes of weights read a second.
        link: bytes of gathered weights a rank gets a second.
        item: which of the seconds an item of a CPU stage takes.
        call: seconds of a call to an endpoint.
    """

    name: str
    peak: float
    bandwidth: float
    layer: float
    answer: float
    start: float
    load: float
    link: float
    item: int
    call: float


CASES = (
    Case("low", 0.45, 0.50, 0.4e-3, 0.1, 15, 3 * GB, 150 * GB, 0, 1.0),
    Case("middle", 0.30, 0.25, 1.2e-3, 0.4, 40, 1 * GB, 60 * GB, 1, 3.0),
    Case("high", 0.15, 0.10, 4.0e-3, 1.0, 120, 0.3 * GB, 15 * GB, 2, 10.0),
)

BACKWARD = 2
"""Times the kernels of a forward pass that its backward pass starts."""

ITEMS: dict[str, tuple[float, float, float]] = {
    "world": (1e-3, 3e-3, 10e-3),
    "pairs": (2e-3, 6e-3, 20e-3),
    "negatives": (0.2e-3, 0.6e-3, 3e-3),
    "frequencies": (0.05e-3, 0.1e-3, 0.5e-3),
    "questions": (1e-3, 5e-3, 20e-3),
    "captions": (1e-3, 3e-3, 60e-3),
    "score": (0.1e-3, 0.3e-3, 2e-3),
}
"""Stage (or `captions`, of their scores: SPICE parses each) -> seconds an item takes on one core."""
ITEM = (1e-3, 3e-3, 10e-3)
"""Of stages that are not named."""
CPU_START = (1, 4, 20)
"""Seconds until a job without torch is at work."""


def modelled(task: Task, ranks: int, device: Device) -> Range:
    """Seconds of a task as one job of so many ranks."""
    return Range(*(_seconds(task, ranks, device, case) for case in CASES))


def ready(task: Task, device: Device) -> Range:
    """Seconds of them until the first item: a job of several stages has them once."""
    if isinstance(task, Preparing | Asking):
        return Range(*CPU_START)
    assert isinstance(task, Training | Generating | Scoring), "all others are about a policy"
    return Range(*(_ready(task.subject, device, case) for case in CASES))


def _seconds(task: Task, ranks: int, device: Device, case: Case) -> float:
    for kind, of in _OF.items():
        if isinstance(task, kind):
            found: float = of(task, ranks, device, case)
            return found
    raise TypeError(f"{type(task).__name__}: no task that is known")


def _preparing(task: Preparing, ranks: int, device: Device, case: Case) -> float:
    kind = task.method if task.method in ITEMS else task.stage
    return CPU_START[case.item] + task.items * ITEMS.get(kind, ITEM)[case.item]


def _asking(task: Asking, ranks: int, device: Device, case: Case) -> float:
    return CPU_START[case.item] + task.items * case.call / task.together


def _training(task: Training, ranks: int, device: Device, case: Case) -> float:
    """Of all steps, and of the answers that are sampled before some of them."""
    answers = task.phases * _decoding(task.sampled, ranks, device, case) if task.sampled else 0
    return _ready(task.subject, device, case) + task.steps * step_seconds(task, ranks, device, case) + answers


def step_seconds(task: Training, ranks: int, device: Device, case: Case) -> float:
    """Of one optimizer step."""
    model, image = _known(task.subject), getattr(task.subject.image, case.name)
    samples = math.ceil(task.batch / ranks)
    operations = sum(step(model, row, task.trained) for row in seeing(task.rows, image))
    operations += sum(forward(model, row, task.trained.rank) for row in seeing(task.still, image))
    passes = _passes(task, samples, image)
    started = passes * (1 + BACKWARD + task.trained.recomputed) * _kernels(model, case) if task.rows else 0
    gathered = 2 * passes * _gathering(task.subject, case) if task.execution.zero_stage == 3 and ranks > 1 else 0
    return max(samples * operations / (device.peak_in(task.subject.dtype) * case.peak), started) + gathered


def _passes(task: Training, samples: int, image: float) -> int:
    """Micro-batches of a rank."""
    passes = math.ceil(samples / task.execution.micro_batch)
    if task.execution.micro_tokens:
        tokens = samples * sum(row.tokens for row in seeing(task.rows, image))
        passes = max(passes, min(samples, math.ceil(tokens / task.execution.micro_tokens)))
    return passes


def _generating(task: Generating, ranks: int, device: Device, case: Case) -> float:
    return _ready(task.subject, device, case) + _decoding(task, ranks, device, case)


def _decoding(task: Generating, ranks: int, device: Device, case: Case) -> float:
    """All blocks, one after the other on each replica."""
    model, image = _known(task.subject), getattr(task.subject.image, case.name)
    blocks = math.ceil(task.items / task.block)
    size = task.execution.replica_size if task.execution.inference == "tensor_parallel" else 1
    turns = math.ceil(blocks / max(1, ranks // size))
    each = min(task.block, task.items)
    prompt = Rows(image, task.text)
    passed = each * forward(model, prompt, task.subject.rank)
    if task.scored:
        answered = Rows(image, task.text, task.draws, case.answer * task.new, task.execution.shared_prefix)
        passed += each * forward(model, answered, task.subject.rank)
    prefill = max(passed / (device.peak_in(task.subject.dtype) * case.peak * size), _kernels(model, case))
    tokens = max(1.0, case.answer * task.new)
    return turns * (prefill + tokens * _token(task, ranks, device, case, each * task.draws, prompt.tokens) / size)


def _token(task: Generating, ranks: int, device: Device, case: Case, rows: float, prefix: float) -> float:
    """Seconds, times the ranks of a replica, of one more token in all rows: weights and cache are read, or computed."""
    model, width = _known(task.subject), BYTES[task.subject.dtype]
    size = task.execution.replica_size if task.execution.inference == "tensor_parallel" else 1
    weights = width * (model.layers * model.layer + model.head)
    read = weights + rows * (prefix + task.new / 2) * cached(model, width)
    computed = 2 * rows * (model.layers * model.layer + model.head)
    gathered = _gathering(task.subject, case) if task.execution.inference == "zero3" and ranks > 1 else 0
    peak = device.peak_in(task.subject.dtype) * case.peak
    slowest = max(read / (device.bandwidth * case.bandwidth), computed / peak)
    return max(slowest, size * _kernels(model, case, False)) + gathered


def _scoring(task: Scoring, ranks: int, device: Device, case: Case) -> float:
    model, image = _known(task.subject), getattr(task.subject.image, case.name)
    ranks = 1 if task.alone else ranks
    rows = seeing(task.rows, image)
    if task.backward:
        each = sum(step(model, row, Trained(task.subject.rank or 1)) for row in rows)
    else:
        each = sum(forward(model, row, task.subject.rank) for row in rows)
    items = math.ceil(task.items / ranks)
    passes = math.ceil(items / min(task.block, task.execution.micro_batch))
    started = passes * (1 + BACKWARD * task.backward) * _kernels(model, case)
    gathered = passes * _gathering(task.subject, case) if task.execution.inference == "zero3" and ranks > 1 else 0
    working = max(items * each / (device.peak_in(task.subject.dtype) * case.peak), started) + gathered
    return _ready(task.subject, device, case) + working


def _ready(subject: Subject, device: Device, case: Case) -> float:
    """Until the model is loaded; without a GPU it is not copied far."""
    start = case.start if device.gpu else case.start / 4
    return start + BYTES[subject.dtype] * _known(subject).total / case.load


def _kernels(model: Dimensions, case: Case, vision: bool = True) -> float:
    """Seconds that starting the kernels of a forward pass takes."""
    return (model.layers + (model.vision.depth if vision else 0)) * case.layer


def _gathering(subject: Subject, case: Case) -> float:
    """Seconds until a rank has had all weights of a partitioned model once."""
    return BYTES[subject.dtype] * _known(subject).total / case.link


def _known(subject: Subject) -> Dimensions:
    assert subject.model is not None, "only asked about models whose sizes are known"
    return subject.model


_OF: dict[type[Task], Callable[[Any, int, Device, Case], float]] = {
    Preparing: _preparing,
    Asking: _asking,
    Training: _training,
    Generating: _generating,
    Scoring: _scoring,
}
