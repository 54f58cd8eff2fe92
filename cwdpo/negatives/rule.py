"""Negatives by rule: the chosen caption with one colour, size, count, object, relation or action swapped."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Literal

from pydantic import Field

from cwdpo.base.config import Config, Neutral
from cwdpo.base.identity import seed_from
from cwdpo.data.records import Record, Rejected
from cwdpo.negatives.perturb import Kind, perturb_many


class Perturb(Config):
    """Minimal edits that need no model; the lexicon covers everyday English captions."""

    source: Literal["perturb"]
    count: int = Field(default=1, gt=0)
    """Rejected responses per record."""
    kinds: Annotated[tuple[Kind, ...] | None, Neutral(None)] = None
    """What may be swapped; None is everything."""
    seed: int = 0
    """Of the draw among possible edits."""

    def reject(self, records: Sequence[Record]) -> Iterator[tuple[Rejected, ...]]:
        """Rejected responses of each record, in order; empty where no edit exists."""
        for record in records:
            seed = seed_from("perturb", self.seed, record.id)
            edits = perturb_many(record.chosen, seed, self.count, self.kinds)
            yield tuple(Rejected(edit.text, f"perturb:{edit.kind}") for edit in edits)
