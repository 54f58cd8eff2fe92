"""Corrective dialogues beside the rejected responses of another source, as nSFT trains on them.

What was wrong is asked about and denied, what is right is affirmed: of a short answer to a question the whole, of a
caption the phrases in which it differs and the whole. No model is needed; the questions are in `codebook.yaml`.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from cwdpo.base.config import Neutral
from cwdpo.base.identity import seed_from
from cwdpo.data.records import Record, Rejected, Turn
from cwdpo.negatives.codebook import corrections
from cwdpo.negatives.plain import Plain
from cwdpo.negatives.source import Made, Offer, Part, Source, named, within
from cwdpo.objectives.supply import Supply


class Corrective(Source):
    """Adds a dialogue to every rejected response of `of`, in place of the one it may have."""

    source: Literal["corrective"]
    of: Plain = Field(discriminator="source")
    """Where the rejected responses come from."""
    turns: int = Field(default=5, gt=0)
    """Most questions of a dialogue."""
    writer: Annotated[Literal["rule"], Neutral("rule")] = "rule"
    """Who writes the dialogues."""
    seed: int = 0
    """Of the wording and the order of the questions."""

    makes: ClassVar[Mapping[Supply, str]] = {"dialogue": ""}

    def parts(self) -> Mapping[str, Part]:
        """Those of `of`."""
        return named("of", self.of.parts())

    def provides(self, by_data: frozenset[Supply]) -> frozenset[Supply]:
        """A dialogue, and what `of` provides."""
        return self.of.provides(by_data) | frozenset(self.makes)

    def offers(self, records: Sequence[Record], made: Made) -> Iterator[Offer]:
        """Those of `of`, each rejected response with its dialogue."""
        for record, offer in zip(records, self.of.offers(records, within(made, "of")), strict=True):
            rejected = tuple(replace(item, dialogue=self._dialogue(record, item)) for item in offer.rejected)
            yield replace(offer, rejected=rejected)

    def _dialogue(self, record: Record, rejected: Rejected) -> tuple[Turn, ...]:
        """One to `turns` questions; shuffled, so that the answer does not follow from the place."""
        chance = random.Random(seed_from("corrective", self.seed, record.id, rejected.text))
        turns = corrections(record, rejected, chance)[: self.turns]
        return tuple(chance.sample(turns, len(turns)))
