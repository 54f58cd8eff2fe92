"""Negatives by rule: a true caption with one colour, size, count, object, relation or action swapped."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from cwdpo.base.config import Neutral
from cwdpo.base.identity import seed_from
from cwdpo.data.records import Record, Rejected
from cwdpo.negatives.perturb import Edit, Kind, perturb_many
from cwdpo.negatives.source import Made, Offer, Source
from cwdpo.objectives.supply import Supply


class Perturb(Source):
    """Minimal edits that need no model; the lexicon covers everyday English captions."""

    source: Literal["perturb"]
    count: int = Field(default=1, gt=0)
    """Rejected responses per record."""
    kinds: Annotated[tuple[Kind, ...] | None, Neutral(None)] = Field(default=None, min_length=1)
    """What may be swapped; None is everything."""
    edits: Annotated[int, Neutral(1)] = Field(default=1, gt=0)
    """Things that are swapped in each of them; where the caption has fewer, as many as it has."""
    seed: int = 0
    """Of the draw among possible edits."""

    of: Annotated[Literal["chosen", "reference"], Neutral("chosen")] = "chosen"
    """Edit the chosen caption, or another reference of the image, drawn by seed; each rejected response then comes with
    that reference as its revised answer, and images with one reference give nothing."""

    makes: ClassVar[Mapping[Supply, str]] = {"revised": "with of: reference"}

    def provides(self, by_data: frozenset[Supply]) -> frozenset[Supply]:
        """A revised answer beside each edit of a reference, whatever the data has."""
        return frozenset(self.makes) if self.of == "reference" else frozenset()

    def offers(self, records: Sequence[Record], made: Made) -> Iterator[Offer]:
        """Edits; none where none exists."""
        for record in records:
            edits = self._of_references(record) if self.of == "reference" else self._edits(record, record.chosen)
            yield Offer(tuple(islice(edits, self.count)))

    def _edits(self, record: Record, caption: str, revised: str | None = None) -> Iterator[Rejected]:
        seed = seed_from("perturb", self.seed, record.id)
        for edit in perturb_many(caption, seed, self.count, self.kinds):
            made = [edit, *self._more(caption, edit.text, seed)]
            how = {"old": [one.old for one in made], "new": [one.new for one in made]}
            kinds = dict.fromkeys(one.kind for one in made)
            yield Rejected(made[-1].text, f"perturb:{'+'.join(kinds)}", revised=revised, how=how)

    def _more(self, caption: str, text: str, seed: int) -> Iterator[Edit]:
        """Further swaps, one after the other, each of words that were there in the beginning."""
        words = set(caption.lower().split())
        for number in range(1, self.edits):
            choices = perturb_many(text, seed + number, 100, self.kinds)
            found = next((edit for edit in choices if set(edit.old.split()) <= words), None)
            if found is None:
                return
            words -= set(found.old.split())
            text = found.text
            yield found

    def _of_references(self, record: Record) -> Iterator[Rejected]:
        """Edits of one drawn reference after the other: one alone may have no edit, or too few."""
        others = [text for text in dict.fromkeys(record.references) if text != record.chosen]
        random.Random(seed_from("reference", self.seed, record.id)).shuffle(others)
        for reference in others:
            yield from self._edits(record, reference, reference)
