"""Negatives from the data set: the rejected responses it comes with, else the caption of another image."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from cwdpo.base.config import Neutral
from cwdpo.base.identity import seed_from
from cwdpo.data.records import Record, Rejected
from cwdpo.negatives.source import Made, Offer, Source
from cwdpo.objectives.supply import Supply


class Dataset(Source):
    """The data's own rejected responses, or captions drawn from other images."""

    source: Literal["dataset"]
    count: Annotated[int | None, Neutral(None)] = Field(default=None, gt=0)
    """Rejected responses per record, the first ones, of which those that lack what training needs are then left out;
    None is all the data has, or one drawn caption."""
    own: Annotated[bool, Neutral(True)] = True
    """Take the data's own where it has them; false draws captions of other images for every record."""
    seed: int = 0
    """Of the drawn captions."""

    makes: ClassVar[Mapping[Supply, str]] = {
        "revised": "where the data has them",
        "dialogue": "where the data has them",
    }

    def provides(self, by_data: frozenset[Supply]) -> frozenset[Supply]:
        """What rejected responses come with, given what those of the data come with."""
        return by_data if self.own else frozenset()

    def offers(self, records: Sequence[Record], made: Made) -> Iterator[Offer]:
        """The data's own, else those of other images."""
        for record in records:
            given = record.rejected[: self.count] if self.own else ()
            yield Offer(given or self._other_captions(record, records))

    def _other_captions(self, record: Record, records: Sequence[Record]) -> tuple[Rejected, ...]:
        generator = random.Random(seed_from("other caption", self.seed, record.id))
        texts: list[str] = []
        for _ in range(100):  # a data set of equal captions has no other one to offer
            other = generator.choice(records)
            if other.image_id != record.image_id and other.chosen not in (*record.references, *texts):
                texts.append(other.chosen)
            if len(texts) == (self.count or 1):
                break
        return tuple(Rejected(text, "other image") for text in texts)
