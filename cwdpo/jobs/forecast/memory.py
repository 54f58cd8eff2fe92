"""What a GPU holds while it trains or generates, by part; whether that fits, and what to change where it does not.

Weights, gradients and optimizer are those of `jobs/fit.py`. Activations are the tensors that autograd keeps, counted
layer by layer; `tests/jobs/forecast/test_memory.py` compares them with what torch keeps. What kernels need for a moment
is one feed-forward layer's worth, and one chunk of logits.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

from cwdpo.base.runtime import Execution
from cwdpo.jobs.fit import BYTES, GB, held
from cwdpo.jobs.forecast.dimensions import Dimensions
from cwdpo.jobs.forecast.flops import Rows, Trained
from cwdpo.model.tokens import CHUNK_ELEMENTS

FLOAT = 4  # bytes
HALF = 2

BUCKET = 500_000_000
"""Gradients that DeepSpeed gathers before it exchanges them, and weights that it gathers at a time: its defaults."""
LIVE = 1_000_000_000
"""Weights that ZeRO-3 leaves gathered, by default."""
CONTEXT = 1.5 * GB
"""CUDA itself, NCCL's buffers, the allocator's waste: a guess on the safe side."""
PROCESS = 0.55 * GB
"""A process with torch and the tiny model that uses no GPU, as measured."""
LOGITS = 3
"""Tensors of the size of a chunk of logits that are alive together: logits, their softmax, the gradient."""
PASS_TOKENS = 2048
"""Tokens of one pass over prompts before an answer is decoded."""
SEVERAL = 8
"""Items of a block below which decoding slows down so much that other settings are tried first."""
ROOM = 0.95
"""Share of a GPU's memory that may be planned with."""


@dataclass(frozen=True)
class Parts:
    """Bytes on one GPU, by what they are for; what does not occur is 0.

    Attributes:
        cache: keys and values; of a training that samples, what they take beyond its activations, which are gone then.
    """

    weights: float = 0.0
    gradients: float = 0.0
    optimizer: float = 0.0
    communication: float = 0.0
    activations: float = 0.0
    logits: float = 0.0
    cache: float = 0.0
    context: float = 0.0

    @property
    def total(self) -> float:
        """All of it."""
        return float(sum(vars(self).values()))

    def as_json(self) -> dict[str, int]:
        """Whole bytes by part, and their sum."""
        return {**{name: round(value) for name, value in vars(self).items()}, "total": round(self.total)}


@dataclass(frozen=True)
class TrainingNeed:
    """One training, as one rank sees it.

    Attributes:
        rows: of the longest sample that is to be expected, one for each view of its image.
        frozen_copy: the policy it started from is held beside it.
        sampled: answers that it samples.
        batch: samples of a step on all ranks; None is more than all of them take at a time.
    """

    model: Dimensions
    dtype: str
    rows: tuple[Rows, ...]
    trained: Trained
    execution: Execution
    ranks: int
    gpu: bool = True
    frozen_copy: bool = False
    sampled: GeneratingNeed | None = None
    batch: int | None = None

    def parts(self) -> Parts:
        """What it holds."""
        model, width, zero = self.model, BYTES[self.dtype], self.execution.zero_stage
        adapter = model.lora(self.trained.rank) if self.trained.rank else 0
        count = self.trained.count(model)
        found = held(model.total + adapter, count, width, zero, self.ranks)
        copy = width * (adapter or model.total) / (self.ranks if zero == 3 else 1) if self.frozen_copy else 0
        samples = self.samples
        active = sum(activations(model, row, self.trained, samples, width) for row in self.rows)
        active += _working(model, self.tokens * samples, width)
        return Parts(
            weights=found.weights + copy,
            gradients=found.gradients,
            optimizer=found.optimizer,
            communication=_communication(model, width, zero) if self.gpu else 0,
            activations=active,
            logits=_training_logits(model, samples * sum(row.wanted for row in self.rows), self.execution.chunked_head),
            cache=max(0.0, self.sampled.parts().cache - active) if self.sampled else 0,
            context=CONTEXT if self.gpu else PROCESS,
        )

    @property
    def tokens(self) -> float:
        """Of a sample."""
        return sum(row.tokens for row in self.rows)

    @property
    def samples(self) -> int:
        """Of one pass; no more than a rank has of a step."""
        execution = self.execution
        most = min(execution.micro_batch, math.ceil(self.batch / self.ranks)) if self.batch else execution.micro_batch
        return max(1, min(most, int(execution.micro_tokens // self.tokens))) if execution.micro_tokens else most

    def alternatives(self) -> Iterator[tuple[dict[str, Any], TrainingNeed]]:
        """What could be set instead, the cheapest first: settings that change, and the need with them."""
        own = self.execution
        sizes = [own.micro_batch, *(2**power for power in range(9, -1, -1) if 2**power < own.micro_batch)]
        for zero, again, size in product((own.zero_stage, 3), (own.gradient_checkpointing, True), sizes):
            wanted = {"zero_stage": zero, "gradient_checkpointing": again, "micro_batch": size}
            settings = {name: value for name, value in wanted.items() if value != getattr(own, name)}
            if settings:
                yield settings, self._with(settings)

    def _with(self, settings: dict[str, Any]) -> TrainingNeed:
        execution = self.execution.model_copy(update=settings)
        trained = replace(self.trained, recomputed=execution.gradient_checkpointing)
        return replace(self, execution=execution, trained=trained)


@dataclass(frozen=True)
class GeneratingNeed:
    """One generation, as one rank sees it.

    Attributes:
        prefix: tokens of the longest image and prompt.
        block: items that are decoded together.
        draws: answers to each at the same time.
        new: most tokens of an answer.
        rank: of the adapter; 0 is none.
    """

    model: Dimensions
    dtype: str
    prefix: float
    block: int
    draws: int
    new: int
    rank: int
    execution: Execution
    ranks: int
    gpu: bool = True

    def parts(self) -> Parts:
        """What it holds."""
        model, width = self.model, BYTES[self.dtype]
        split = self.execution.replica_size if self.execution.inference == "tensor_parallel" else 1
        rows = self.block * self.draws
        passed = max(self.prefix, min(PASS_TOKENS, self.block * self.prefix))
        return Parts(
            weights=width * self._weights(),
            communication=_gathered(model, width) if self.execution.inference == "zero3" else 0,
            activations=_working(model, passed, width, split),
            logits=LOGITS * FLOAT * rows * model.vocabulary,
            cache=rows * (self.prefix + self.new) * cached(model, width) / split,
            context=CONTEXT if self.gpu else PROCESS,
        )

    def _weights(self) -> float:
        """Numbers on a rank. Tensor parallelism splits the matrices of the decoder's layers and the head, and leaves
        embedding and vision tower whole."""
        model, adapter = self.model, self.model.lora(self.rank) if self.rank else 0
        if self.execution.inference == "zero3":
            return (model.total + adapter) / self.ranks
        if self.execution.inference == "replicate":
            return model.total + adapter
        whole = model.head + model.of_vision
        return whole + (model.total - whole + adapter) / self.execution.replica_size

    def alternatives(self) -> Iterator[tuple[dict[str, Any], GeneratingNeed]]:
        """What could be set instead, the cheapest first."""
        blocks = [size for size in (2**power for power in range(9, -1, -1)) if size < self.block]
        modes: list[dict[str, Any]] = [
            {"inference": "tensor_parallel", "replica_size": size}
            for size in (2, 4, 8, 16)
            if self.ranks % size == 0 and self.model.divides_into(size)
        ]
        modes += [{"inference": "zero3"}] if self.ranks > 1 else []
        several = [one for one in blocks if one >= SEVERAL]
        for block in several:
            yield self._with(block)
        for settings in modes:
            yield self._with(self.block, settings)
        for settings, block in product(({}, *modes), blocks):
            yield self._with(block, settings)

    def _with(self, block: int, settings: Mapping[str, Any] | None = None) -> tuple[dict[str, Any], GeneratingNeed]:
        """Settings that change, and the need with them."""
        changed = {"decoding.block": block} if block != self.block else {}
        execution = self.execution.model_copy(update=dict(settings or {}))
        return {**(settings or {}), **changed}, replace(self, block=block, execution=execution)


Need = TrainingNeed | GeneratingNeed


def advice(need: Need, memory: float) -> dict[str, Any] | None:
    """The first change with which it fits into so many bytes; None where no change of settings does it."""
    for settings, other in need.alternatives():
        if fits(other.parts().total, memory):
            return settings
    return None


def fits(need: float, memory: float) -> bool:
    """Whether so many bytes can be planned with."""
    return need <= ROOM * memory


def activations(model: Dimensions, rows: Rows, trained: Trained, samples: float, width: int) -> float:
    """Bytes that autograd keeps of a pass over the rows of some samples, in a dtype of `width` bytes."""
    tokens, wanted = rows.tokens * samples, rows.wanted * samples
    feeding = _feed_forward(model, width, trained)
    layer = _attention(model, width, trained, masked=rows.shared and rows.responses > 1)
    states = wanted * model.hidden * 2 * FLOAT  # of the head: what it reads, and the gradient it has ready
    vision = samples * rows.image * model.vision.merge**2 * _vision(model, width) if trained.vision else 0
    if trained.recomputed:  # the input of every layer, and one layer whole
        return tokens * (model.layers * model.hidden * width + layer + feeding) + states + vision
    last = wanted if wanted else tokens
    return model.layers * tokens * layer + ((model.layers - 1) * tokens + last) * feeding + states + vision


def _attention(model: Dimensions, width: int, trained: Trained, masked: bool) -> float:
    """Bytes of a token in a layer but its feed-forward part.

    The norm keeps its input in float32 and gives what the adapters on q, k and v keep; attention keeps q, k, v and its
    result, which is copied into place for o. Under a mask keys and values are repeated for all heads.
    """
    norm = _norm(model, width, trained)
    kept = 3 * model.queries + 2 * (model.queries if masked else model.keys) + (2 * model.keys if masked else 0)
    return norm + width * (kept + 4 * trained.rank)


def _feed_forward(model: Dimensions, width: int, trained: Trained) -> float:
    """Bytes of a token in a feed-forward layer with its norm: gate, its activation, up, their product."""
    return _norm(model, width, trained) + width * (4 * model.intermediate + 3 * trained.rank)


def _norm(model: Dimensions, width: int, trained: Trained) -> float:
    """Bytes of a token in a norm and behind it; one that is trained keeps what its scale is multiplied with, too."""
    return (FLOAT + width * (1 if trained.rank else 2)) * model.hidden


def _vision(model: Dimensions, width: int) -> float:
    """Bytes of a patch in all blocks of a vision tower that is trained."""
    vision = model.vision
    block = 2 * (FLOAT + width) * vision.hidden + width * (5 * vision.hidden + 4 * vision.intermediate)
    return vision.depth * block


def _working(model: Dimensions, tokens: float, width: int, split: int = 1) -> float:
    """Bytes that one layer takes while it is computed: of the decoder with its gradients, or of the vision tower.

    Args:
        split: ranks that a layer of the decoder is split over.
    """
    text = (3 * width * model.intermediate + 2 * FLOAT * model.hidden) / split
    vision = width * model.vision.merge**2 * (3 * model.vision.intermediate + 6 * model.vision.hidden)
    return tokens * max(text, vision)


def _communication(model: Dimensions, width: int, zero_stage: int) -> float:
    """Bytes of DeepSpeed's buffers."""
    return _gathered(model, width) if zero_stage == 3 else BUCKET * width if zero_stage else 0


def _gathered(model: Dimensions, width: int) -> float:
    """Bytes of weights that ZeRO-3 holds whole at a time: those it leaves gathered, and the largest module."""
    return width * (min(LIVE, model.total) + max(model.head, model.layer))


def _training_logits(model: Dimensions, wanted: float, chunked: bool) -> float:
    """Bytes of logits that are held at a time."""
    everything = wanted * model.vocabulary
    return LOGITS * FLOAT * (min(CHUNK_ELEMENTS, everything) if chunked else everything)


def cached(model: Dimensions, width: int) -> float:
    """Bytes of keys and values of one token."""
    return 2 * width * model.layers * model.keys
