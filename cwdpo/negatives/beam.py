"""The paper's on-policy negatives: one candidate of a beam search, drawn among those that are not the truth."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Literal

from pydantic import Field

from cwdpo.base.config import Neutral
from cwdpo.base.identity import seed_from
from cwdpo.data.records import Record
from cwdpo.model.decoding import Decoding
from cwdpo.negatives.answers import Answers, AnswersOf, wrong
from cwdpo.negatives.source import Made, Offer, Part, Source


class Beam(Source):
    """Candidates of the policy that is trained next, drawn at random."""

    source: Literal["beam"]
    beams: int = Field(default=5, ge=2)
    """Width of the search; all of them are candidates."""
    count: Annotated[int, Neutral(1)] = Field(default=1, gt=0)
    """Rejected responses per record."""
    max_new_tokens: int = Field(default=64, gt=0)
    """Longest answer, end-of-turn included."""
    block: int = Field(default=32, gt=0)
    """Questions answered together: the unit of sharding and resume."""
    seed: int = 0
    """Of the draw of candidates; the source's own, the same for all seeds of training and all rounds of a refresh."""

    def parts(self) -> Mapping[str, Part]:
        """All candidates."""
        room = {"max_new_tokens": self.max_new_tokens, "block": self.block}
        return {"answers": Answers(decoding=Decoding(strategy="beam", beams=self.beams, candidates=self.beams, **room))}

    def offers(self, records: Sequence[Record], made: Made) -> Iterator[Offer]:
        """Candidates that are not the truth."""
        answers = AnswersOf(made["answers"])
        for record in records:
            found = wrong(record, answers.of(record), self.source)
            chance = random.Random(seed_from("beam", self.seed, record.id))
            drawn = chance.sample(found.rejected, min(self.count, len(found.rejected)))
            yield replace(found, rejected=tuple(drawn))
