"""What one training step is made of: samples, and the order they come in."""

from __future__ import annotations

import random
from array import array
from collections.abc import Callable, Mapping, MutableSequence, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

from cwdpo.base.identity import seed_from
from cwdpo.base.lines import JsonLines, Rows, RowsById, short_hash
from cwdpo.data.records import Portion, SentenceScore, Turn, dialogue_of, record_of, scores_of

Item = TypeVar("Item")
Negatives = Mapping[str, Any]
"""The row of one record in negatives.jsonl."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One image and prompt with its chosen response and any number of rejected ones.

    Attributes:
        chosen: of the record, or what the rejected ones lost to where their source says otherwise.
        revised: a minimal correction of each rejected response.
        dialogues: a corrective dialogue for each rejected response.
        scores: the sentence scores of each rejected response.

    The last three are in the order of `rejected`, and empty where not every rejected response has one.
    """

    id: str
    image_id: str
    image: str
    prompt: str
    chosen: str
    rejected: tuple[str, ...] = ()
    revised: tuple[str, ...] = ()
    dialogues: tuple[tuple[Turn, ...], ...] = ()
    scores: tuple[tuple[SentenceScore, ...], ...] = ()


class Samples(Rows[Sample]):
    """Samples in the order of the records, read when they are asked for.

    Attributes:
        left_out: how many samples of the portions are not here, for they have no rejected response.
    """

    def __init__(
        self, lines: JsonLines, starts: Sequence[int], make: Callable[[dict[str, Any]], Sample], left_out: int
    ) -> None:
        super().__init__(lines, starts, make)
        self.left_out = left_out


def load_samples(records: Path, negatives: Path | None, *portions: Portion, paired: bool = False) -> Samples:
    """Samples of one portion after the other, each in the order of the records; both files are checked line by line.

    Args:
        records: folder of the `pairs` stage.
        negatives: folder of a `negatives` stage, or None for samples without rejected responses.
        paired: leave out samples without a rejected response.
    """
    lines = JsonLines(records / "records.jsonl")
    rejected = _negatives_by_id(negatives) if negatives else {}
    starts = {portion: array("q") for portion in portions}
    left_out = 0
    for start, row in lines.scan():
        record = record_of(row)
        if record.portion not in starts:
            continue
        if paired and record.id not in rejected:
            left_out += 1
        else:
            starts[record.portion].append(start)
    return Samples(lines, array("q", chain(*starts.values())), partial(_sample, rejected), left_out)


def _sample(negatives: Mapping[str, Negatives], row: dict[str, Any]) -> Sample:
    found = negatives.get(row["id"], {})
    wrong = found.get("rejected", ())
    return Sample(
        row["id"],
        row["image_id"],
        row["image"],
        row["prompt"],
        found.get("chosen", row["chosen"]),
        rejected=_of_each(wrong, "text", str),
        revised=_of_each(wrong, "revised", str),
        dialogues=_of_each(wrong, "dialogue", dialogue_of),
        scores=_of_each(wrong, "scores", scores_of),
    )


def _of_each(wrong: Sequence[Mapping[str, Any]], key: str, make: Callable[[Any], Item]) -> tuple[Item, ...]:
    """What lies under `key`, of each rejected response; empty where one lacks it."""
    return tuple(make(item[key]) for item in wrong) if all(key in item for item in wrong) else ()


def _negatives_by_id(folder: Path) -> RowsById[Negatives]:
    return RowsById(folder / "negatives.jsonl", lambda row: row if row["rejected"] else {})


class DataOrder:
    """Which samples make up the global batch of each step: a function of the seed alone.

    The number of ranks and the micro-batch only decide who computes which part of a batch. The last batch of an epoch
    may be smaller.
    """

    def __init__(self, samples: Sequence[Sample], batch_size: int, seed: int, one_per_image: bool) -> None:
        self._samples = samples
        self._batch_size = batch_size
        self._seed = seed
        self._members, self._starts = _by_image(samples) if one_per_image else _one_by_one(len(samples))
        self.steps_per_epoch = -(-(len(self._starts) - 1) // batch_size)
        self._epoch = lru_cache(maxsize=2)(self._shuffled)

    def batch(self, step: int) -> list[Sample]:
        """Samples of optimizer step `step` (0-based)."""
        epoch, index = divmod(step, self.steps_per_epoch)
        order = self._epoch(epoch)[index * self._batch_size : (index + 1) * self._batch_size]
        return [self._samples[number] for number in order]

    def _shuffled(self, epoch: int) -> MutableSequence[int]:
        generator = random.Random(seed_from("order", self._seed, epoch))
        groups = map(range, self._starts, self._starts[1:])
        chosen = array("q", (self._members[generator.choice(places)] for places in groups))
        generator.shuffle(chosen)
        return chosen


def _one_by_one(count: int) -> tuple[Sequence[int], Sequence[int]]:
    """As `_by_image`, when every sample is a group of its own."""
    return range(count), range(count + 1)


def _by_image(samples: Sequence[Sample]) -> tuple[Sequence[int], Sequence[int]]:
    """Numbers of the samples with those of one image together, and where in it each image starts, the end added.

    Images are in the order of their first samples; they are told apart by a 64-bit hash.
    """
    import numpy as np

    hashes = np.fromiter((short_hash(sample.image_id) for sample in samples), np.int64, len(samples))
    _, first, image, sizes = np.unique(hashes, return_index=True, return_inverse=True, return_counts=True)
    members = np.argsort(first[image], kind="stable")
    starts = np.concatenate([[0], sizes[np.argsort(first)].cumsum()])
    return array("q", members.tobytes()), array("q", starts.tobytes())
