"""Stage `reference`: log-probabilities of every Stage-2 response under the frozen policy, computed once.

One row per sample in reference.jsonl: `{"id", "chosen", "rejected": [...]}`, nats, float32 written without loss; other
terms of the objective (`objectives/preference.py`) lie beside them, one value for each text.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from cwdpo.base.config import Config, Neutral
from cwdpo.base.context import Blocks, StageContext
from cwdpo.base.errors import DataError, StoreError, TrainingError
from cwdpo.base.lines import RowsById
from cwdpo.data.ahead import ahead
from cwdpo.data.encoding import Collator, Group
from cwdpo.data.samples import Sample, load_samples
from cwdpo.model.config import Policy
from cwdpo.model.inference import Replica, pending_of
from cwdpo.model.load import context_length
from cwdpo.model.micro import Member
from cwdpo.model.scored import score_members
from cwdpo.model.trial import choose_scorer
from cwdpo.objectives.preference import PLAIN_TERMS, Term
from cwdpo.train.terms import groups_of, places_of, texts_of


class ReferenceSpec(Config):
    """The reference and the data are parents; only the precision is left to say."""

    policy: Policy
    block: int = 32
    """Samples that are scored together."""
    terms: Annotated[tuple[Term, ...], Neutral(PLAIN_TERMS)] = PLAIN_TERMS
    """What the objective compares with the reference."""
    masked_share: Annotated[float | None, Neutral(None)] = None
    """Share of the image that terms under the masked image do not see."""


@dataclass(frozen=True, slots=True)
class ReferenceLogps:
    """logp_reference of a sample's responses, nats: term -> one value for each of its texts."""

    terms: Mapping[Term, tuple[float, ...]]

    def of(self, term: Term, pairs: int) -> tuple[float, ...]:
        """One value for each pair: that of the chosen response is in all of them."""
        values = self.terms[term]
        return values * pairs if term.startswith("chosen") else values


def run(context: StageContext) -> None:
    """Score the Stage-2 portion under the policy in `inputs` and write reference.jsonl."""
    spec: ReferenceSpec = context.spec
    samples = load_samples(context.inputs["pairs"], context.inputs["negatives"], "stage2", paired=True)
    if not samples:
        raise DataError("no sample of the Stage-2 portion has a rejected response")
    blocks = Blocks(context, samples, spec.block)
    if pending_of(blocks):
        _score_all(context, blocks)
    context.barrier()
    blocks.publish("reference.jsonl")


def _score_all(context: StageContext, blocks: Blocks[Sample]) -> None:
    """All blocks that are not there yet."""
    spec, samples = context.spec, blocks.items
    replica = Replica(context, spec.policy)
    collator = Collator(replica.processor, context.inputs["images"], context_length(replica.model))
    mine = range(context.rank.rank, len(samples), context.rank.world_size)
    collator.check_texts((samples[number] for number in mine), spec.terms)

    def encode(sample: Sample) -> tuple[Group, ...]:
        return groups_of(collator, sample, spec.terms, spec.masked_share)

    scorer = choose_scorer(context, replica.model, collator.pad, samples, encode, spec.policy.dtype)
    turns = ahead(
        replica.blocks(blocks),
        lambda turn: blocks.members(turn[0]),
        encode,
        context.execution.feed_workers,
    )
    with closing(turns):
        for (index, write), groups in turns:
            members = list(map(Member, blocks.members(index), groups))
            found = score_members(context, replica.lockstep, scorer, members, blocks.length(0))
            if write:
                own = zip(blocks.members(index), found, strict=True)
                blocks.write(index, [_row(sample, spec.terms, [logp for logp, _ in logps]) for sample, logps in own])


def _row(sample: Sample, terms: Sequence[Term], logps: Sequence[float]) -> dict[str, Any]:
    """The values of one sample, by term."""
    if not all(map(math.isfinite, logps)):
        raise TrainingError(f"sample '{sample.id}': its log-probabilities under the reference are {logps}")
    row: dict[str, Any] = {"id": sample.id}
    for term in terms:
        values = [logps[place] for place in places_of(sample, terms)[term]]
        row[term] = values[0] if term.startswith("chosen") else values
    return row


def load_reference(
    folder: Path, samples: Sequence[Sample], terms: Sequence[Term] = PLAIN_TERMS
) -> Mapping[str, ReferenceLogps]:
    """The cache, checked to hold a value for every response of `samples`; a row is read when it is asked for.

    Raises:
        StoreError: a sample or a response has no value.
    """

    def entry_of(row: dict[str, Any]) -> ReferenceLogps:
        found = {term: row[term] for term in terms if term in row}
        return ReferenceLogps(
            {term: tuple(values) if isinstance(values, list) else (values,) for term, values in found.items()}
        )

    cache = RowsById(folder / "reference.jsonl", entry_of)
    for sample in samples:
        entry = cache.get(sample.id)
        if entry is None or any(len(entry.terms.get(term, ())) != len(texts_of(sample, term)) for term in terms):
            raise StoreError(f"{folder}: the reference cache has no complete entry for sample '{sample.id}'")
    return cache
