"""What one training step is made of: samples, and the order they come in."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from cwdpo.base import files
from cwdpo.base.identity import seed_from
from cwdpo.data.records import Portion, read_records


@dataclass(frozen=True, slots=True)
class Sample:
    """One image and prompt with its chosen response and any number of rejected ones."""

    id: str
    image_id: str
    image: str
    prompt: str
    chosen: str
    rejected: tuple[str, ...] = ()


def load_samples(records: Path, negatives: Path | None, portion: Portion) -> list[Sample]:
    """Samples of one portion in the order of the records.

    Args:
        records: folder of the `pairs` stage.
        negatives: folder of a `negatives` stage, or None for samples without rejected responses.
    """
    rejected = _rejected_by_id(negatives) if negatives else {}
    return [
        Sample(record.id, record.image_id, record.image, record.prompt, record.chosen, rejected.get(record.id, ()))
        for record in read_records(records / "records.jsonl")
        if record.portion == portion
    ]


def _rejected_by_id(folder: Path) -> dict[str, tuple[str, ...]]:
    rows = files.read_jsonl(folder / "negatives.jsonl")
    return {row["id"]: tuple(item["text"] for item in row["rejected"]) for row in rows}


class DataOrder:
    """Which samples make up the global batch of each step: a function of the seed alone.

    The number of ranks and the micro-batch only decide who computes which part of a batch. The last batch of an epoch
    may be smaller.
    """

    def __init__(self, samples: Sequence[Sample], batch_size: int, seed: int, one_per_image: bool) -> None:
        self._samples = samples
        self._batch_size = batch_size
        self._seed = seed
        self._groups = self._group(one_per_image)
        self.steps_per_epoch = -(-len(self._groups) // batch_size)
        self._epoch = lru_cache(maxsize=2)(self._shuffled)

    def batch(self, step: int) -> list[Sample]:
        """Samples of optimizer step `step` (0-based)."""
        epoch, index = divmod(step, self.steps_per_epoch)
        order = self._epoch(epoch)[index * self._batch_size : (index + 1) * self._batch_size]
        return [self._samples[number] for number in order]

    def _group(self, one_per_image: bool) -> list[list[int]]:
        if not one_per_image:
            return [[number] for number in range(len(self._samples))]
        groups: dict[str, list[int]] = {}
        for number, sample in enumerate(self._samples):
            groups.setdefault(sample.image_id, []).append(number)
        return list(groups.values())

    def _shuffled(self, epoch: int) -> list[int]:
        generator = random.Random(seed_from("order", self._seed, epoch))
        chosen = [generator.choice(group) for group in self._groups]
        generator.shuffle(chosen)
        return chosen


@dataclass(frozen=True)
class MicroBatch:
    """Samples one rank takes in one forward pass; `weights` is 0 where the batch was padded to full size."""

    samples: list[Sample]
    weights: list[float]


def micro_batches(batch: Sequence[Sample], size: int, rank: int, world_size: int, count: int) -> list[MicroBatch]:
    """This rank's `count` micro-batches of a global batch.

    Every rank gets the same number of the same size, padded with repeats of weight 0: under ZeRO-3 all ranks must
    make the same module calls.
    """
    result = []
    for index in range(count):
        start = (index * world_size + rank) * size
        members = list(batch[start : start + size])
        padding = size - len(members)
        result.append(MicroBatch(members + [batch[0]] * padding, [1.0] * len(members) + [0.0] * padding))
    return result
