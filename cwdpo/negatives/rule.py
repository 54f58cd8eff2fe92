"""Negatives by rule: a true caption with one colour, size, count, object, relation or action swapped."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from cwdpo.base.config import Config, Neutral
from cwdpo.base.identity import seed_from
from cwdpo.data.records import Record, Rejected
from cwdpo.negatives.perturb import Kind, perturb_many
from cwdpo.objectives.supply import Supply


class Perturb(Config):
    """Minimal edits that need no model; the lexicon covers everyday English captions."""

    source: Literal["perturb"]
    count: int = Field(default=1, gt=0)
    """Rejected responses per record."""
    kinds: Annotated[tuple[Kind, ...] | None, Neutral(None)] = None
    """What may be swapped; None is everything."""
    seed: int = 0
    """Of the draw among possible edits."""

    of: Annotated[Literal["chosen", "reference"], Neutral("chosen")] = "chosen"
    """Edit the chosen caption, or another reference of the image, drawn by seed; each rejected response then comes with
    that reference as its revised answer, and images with one reference give nothing."""

    makes: ClassVar[Mapping[Supply, str]] = {"revised": "with of: reference"}

    def provides(self, by_data: frozenset[Supply]) -> frozenset[Supply]:
        """A revised answer beside each edit of a reference, whatever the data has."""
        return frozenset(self.makes) if self.of == "reference" else frozenset()

    def reject(self, records: Sequence[Record]) -> Iterator[tuple[Rejected, ...]]:
        """Rejected responses of each record, in order; empty where no edit exists."""
        for record in records:
            edits = self._of_references(record) if self.of == "reference" else self._edits(record, record.chosen)
            yield tuple(islice(edits, self.count))

    def _edits(self, record: Record, caption: str, revised: str | None = None) -> Iterator[Rejected]:
        seed = seed_from("perturb", self.seed, record.id)
        for edit in perturb_many(caption, seed, self.count, self.kinds):
            yield Rejected(edit.text, f"perturb:{edit.kind}", revised=revised)

    def _of_references(self, record: Record) -> Iterator[Rejected]:
        """Edits of one drawn reference after the other: one alone may have no edit, or too few."""
        others = [text for text in dict.fromkeys(record.references) if text != record.chosen]
        random.Random(seed_from("reference", self.seed, record.id)).shuffle(others)
        for reference in others:
            yield from self._edits(record, reference, reference)
