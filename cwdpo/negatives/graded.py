"""Several rejected responses a record, graded hard, medium or easy: what a curriculum goes by."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from typing import Literal

from pydantic import Field

from cwdpo.base.config import Config
from cwdpo.data.records import Record
from cwdpo.negatives.dataset import Dataset
from cwdpo.negatives.plain import Plain
from cwdpo.negatives.rule import Perturb
from cwdpo.negatives.source import Made, Offer, Part, Source, named, within


class Grades(Config):
    """A source for each grade."""

    hard: Plain = Field(default=Perturb(source="perturb"), discriminator="source")
    """One swap: nearly right."""
    medium: Plain = Field(default=Perturb(source="perturb", edits=3), discriminator="source")
    """Three swaps: right in parts."""
    easy: Plain = Field(default=Dataset(source="dataset", own=False), discriminator="source")
    """The caption of another image."""


class Graded(Source):
    """Rejected responses of three grades; a record that lacks one of them has none."""

    source: Literal["graded"]
    of: Grades = Grades()
    """Where each grade comes from; no model is needed by default."""

    def parts(self) -> Mapping[str, Part]:
        """Those of the three sources."""
        found: dict[str, Part] = {}
        for grade, negatives in self.of:
            found |= named(grade, negatives.parts())
        return found

    def offers(self, records: Sequence[Record], made: Made) -> Iterator[Offer]:
        """Those of the three sources, hard ones first."""
        sources = [_graded(grade, negatives.offers(records, within(made, grade))) for grade, negatives in self.of]
        for offers in zip(*sources, strict=True):
            complete = all(offer.rejected for offer in offers)
            yield Offer(tuple(chain.from_iterable(offer.rejected for offer in offers)) if complete else ())


def _graded(grade: str, offers: Iterator[Offer]) -> Iterator[Offer]:
    for offer in offers:
        yield replace(offer, rejected=tuple(replace(item, grade=grade) for item in offer.rejected))
