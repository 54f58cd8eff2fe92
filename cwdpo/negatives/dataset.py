"""Negatives from the data set: the rejected responses it comes with, else what is right for another image."""

from __future__ import annotations

import random
from array import array
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from cwdpo.base.config import Neutral
from cwdpo.base.identity import seed_from
from cwdpo.data.records import Record, Rejected
from cwdpo.negatives.source import Made, Offer, Source
from cwdpo.objectives.supply import Supply


class Dataset(Source):
    """The data's own rejected responses, or chosen ones to the same prompt, drawn from other images.

    With one prompt for all images that is any caption of another image. A question that is asked of no other image has
    none: the answer to another question is no wrong answer to this one.
    """

    source: Literal["dataset"]
    count: Annotated[int | None, Neutral(None)] = Field(default=None, gt=0)
    """Rejected responses per record, the first ones, of which those that lack what training needs are then left out;
    None is all the data has, or one drawn caption."""
    own: Annotated[bool, Neutral(True)] = True
    """Take the data's own where it has them; false draws captions of other images for every record."""
    seed: int = 0
    """Of the drawn captions; the source's own, the same for all seeds of training and all rounds of a refresh."""

    makes: ClassVar[Mapping[Supply, str]] = {
        "revised": "where the data has them",
        "dialogue": "where the data has them",
    }

    def provides(self, by_data: frozenset[Supply]) -> frozenset[Supply]:
        """What rejected responses come with, given what those of the data come with."""
        return by_data if self.own else frozenset()

    def offers(self, records: Sequence[Record], made: Made) -> Iterator[Offer]:
        """The data's own, else those of other images; so it depends on which other records there are."""
        asked = cache(lambda: _places_by_prompt(records))
        for record in records:
            given = record.rejected[: self.count] if self.own else ()
            yield Offer(given or self._other_captions(record, records, asked()[record.prompt]))

    def _other_captions(self, record: Record, records: Sequence[Record], places: Sequence[int]) -> tuple[Rejected, ...]:
        """Distinct ones, of the records at `places`."""
        generator = random.Random(seed_from("other caption", self.seed, record.id))
        texts: list[str] = []
        for _ in range(100):  # a data set of equal captions has no other one to offer
            other = records[generator.choice(places)]
            if other.image_id != record.image_id and other.chosen not in (*record.references, *texts):
                texts.append(other.chosen)
            if len(texts) == (self.count or 1):
                break
        return tuple(Rejected(text, "other image") for text in texts)


def _places_by_prompt(records: Sequence[Record]) -> Mapping[str, Sequence[int]]:
    """Where the records with each prompt are, in order; 8 bytes a record."""
    places: dict[str, array[int]] = defaultdict(lambda: array("q"))
    for place, record in enumerate(records):
        places[record.prompt].append(place)
    return places
