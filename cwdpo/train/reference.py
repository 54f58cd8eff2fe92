"""Stage `reference`: log-probabilities of every Stage-2 response under the frozen policy, computed once.

One row per sample in reference.jsonl: `{"id", "chosen", "rejected": [...]}`, nats, float32 written without loss.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cwdpo.base import files
from cwdpo.base.config import Config
from cwdpo.base.context import Blocks, StageContext
from cwdpo.base.errors import DataError, StoreError, TrainingError
from cwdpo.data.batches import Collator
from cwdpo.data.samples import Sample, load_samples
from cwdpo.model.config import Policy
from cwdpo.model.inference import Replica
from cwdpo.model.load import context_length
from cwdpo.model.logps import response_logps


class ReferenceSpec(Config):
    """The reference and the data are parents; only the precision is left to say."""

    policy: Policy
    block: int = 32
    """Samples that are scored together."""


@dataclass(frozen=True, slots=True)
class ReferenceLogps:
    """logp_reference of a sample's chosen and rejected responses, nats."""

    chosen: float
    rejected: tuple[float, ...]


def run(context: StageContext) -> None:
    """Score the Stage-2 portion under the policy in `inputs` and write reference.jsonl."""
    spec: ReferenceSpec = context.spec
    found = load_samples(context.inputs["pairs"], context.inputs["negatives"], "stage2")
    samples = [sample for sample in found if sample.rejected]
    if not samples:
        raise DataError("no sample of the Stage-2 portion has a rejected response")
    blocks = Blocks(context, samples, spec.block)
    replica = Replica(context, spec.policy)
    collator = Collator(replica.processor, context.inputs["images"], context_length(replica.model))
    for index, write in replica.blocks(blocks):
        members = blocks.members(index)
        longest = blocks.members(0) if replica.lockstep else members
        rows = _score(replica, collator, members, context.execution.micro_batch, len(longest))
        if write:
            blocks.write(index, rows)
    context.barrier()
    if context.rank.is_first:
        files.write_jsonl(context.out / "reference.jsonl", blocks.rows())


def _score(
    replica: Replica, collator: Collator, samples: Sequence[Sample], size: int, longest: int
) -> list[dict[str, Any]]:
    """Rows of one block, `size` samples a forward pass, in as many passes as a block of `longest` samples takes."""
    rows = []
    for start in range(0, longest, size):
        part = samples[start : start + size]
        logps = _logps(replica, collator, part or samples[:1])
        for sample in part:
            mine, logps = logps[: 1 + len(sample.rejected)], logps[1 + len(sample.rejected) :]
            if not all(map(math.isfinite, mine)):
                raise TrainingError(f"sample '{sample.id}': its log-probabilities under the reference are {mine}")
            rows.append({"id": sample.id, "chosen": mine[0], "rejected": mine[1:]})
    return rows


def _logps(replica: Replica, collator: Collator, samples: Sequence[Sample]) -> list[float]:
    import torch

    batch = collator.rows([(sample, text) for sample in samples for text in (sample.chosen, *sample.rejected)])
    with torch.no_grad():
        logps, _ = response_logps(replica.model, batch.to(replica.device))
    return [float(value) for value in logps.tolist()]


def load_reference(folder: Path, samples: Sequence[Sample]) -> Mapping[str, ReferenceLogps]:
    """The cache, checked to hold a value for every response of `samples`.

    Raises:
        StoreError: a sample or a response has no value.
    """
    rows = files.read_jsonl(folder / "reference.jsonl")
    cache = {row["id"]: ReferenceLogps(row["chosen"], tuple(row["rejected"])) for row in rows}
    for sample in samples:
        entry = cache.get(sample.id)
        if entry is None or len(entry.rejected) != len(sample.rejected):
            raise StoreError(f"{folder}: the reference cache has no complete entry for sample '{sample.id}'")
    return cache
