"""Several rejected responses a record, graded hard, medium or easy: what a curriculum goes by."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Literal

from pydantic import Field

from cwdpo.base.config import Config
from cwdpo.data.records import Record, Rejected
from cwdpo.negatives.dataset import Dataset
from cwdpo.negatives.plain import Plain
from cwdpo.negatives.rule import Perturb
from cwdpo.negatives.source import Made, Offer, Part, Source, all_named, within


class Grades(Config):
    """A source for each grade."""

    hard: Plain = Field(default=Perturb(source="perturb"), discriminator="source")
    """One swap: nearly right."""
    medium: Plain = Field(default=Perturb(source="perturb", edits=3), discriminator="source")
    """Three swaps, or as many as there are: right in parts."""
    easy: Plain = Field(default=Dataset(source="dataset", own=False), discriminator="source")
    """The caption of another image."""


class Graded(Source):
    """Rejected responses of three grades; a record that lacks one of them has none.

    All of them lose to the record's own chosen response, whatever they lost to in their sources.
    """

    source: Literal["graded"]
    of: Grades = Grades()
    """Where each grade comes from; no model is needed by default."""

    def parts(self) -> Mapping[str, Part]:
        """Those of the three sources."""
        return all_named(dict(self.of))

    def offers(self, records: Sequence[Record], made: Made) -> Iterator[Offer]:
        """Those of the three sources, hard ones first."""
        sources = [_graded(grade, negatives.offers(records, within(made, grade))) for grade, negatives in self.of]
        for record, *offers in zip(records, *sources, strict=True):
            dropped = tuple(reason for offer in offers for reason in offer.dropped)
            yield Offer(_complete(record, [offer.rejected for offer in offers]), dropped=dropped)


def _complete(record: Record, grades: Sequence[Sequence[Rejected]]) -> tuple[Rejected, ...]:
    """What each grade has that is not the truth nor a harder one's; nothing where a grade has nothing of its own."""
    seen = {"", record.chosen, *record.references}
    found: list[Rejected] = []
    for given in grades:
        own = [item for item in given if item.text not in seen]
        if not own:
            return ()
        seen.update(item.text for item in own)
        found += own
    return tuple(found)


def _graded(grade: str, offers: Iterator[Offer]) -> Iterator[Offer]:
    for offer in offers:
        yield replace(offer, rejected=tuple(replace(item, grade=grade) for item in offer.rejected))
