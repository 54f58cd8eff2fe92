"""Negatives sampled from the policy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Literal

from pydantic import Field

from cwdpo.base.config import Neutral
from cwdpo.data.records import Record
from cwdpo.model.decoding import Decoding
from cwdpo.negatives.answers import Answers, AnswersOf, wrong
from cwdpo.negatives.source import Made, Offer, Part, Source


class Sampled(Source):
    """Draws from the policy that is trained next, each by a generator of its own (seed, question, draw)."""

    source: Literal["sample"]
    temperature: float = Field(default=1.0, gt=0)
    """Above 1 flatter than the policy, below 1 more peaked."""
    top_p: Annotated[float, Neutral(1.0)] = Field(default=1.0, gt=0, le=1)
    """Draw from the smallest set of tokens with this much probability."""
    draws: int = Field(default=4, gt=0)
    """Answers drawn to each question, so that some are not the truth."""
    count: Annotated[int, Neutral(1)] = Field(default=1, gt=0)
    """Rejected responses per record: the first distinct ones that are not the truth."""
    max_new_tokens: int = Field(default=64, gt=0)
    """Longest answer, end-of-turn included."""
    block: int = Field(default=32, gt=0)
    """Questions answered together: the unit of sharding and resume."""
    seed: int = 0
    """Of the draws; the source's own, the same for all seeds of training and all rounds of a refresh."""

    def parts(self) -> Mapping[str, Part]:
        """All draws."""
        shape = {"temperature": self.temperature, "top_p": self.top_p}
        room = {"max_new_tokens": self.max_new_tokens, "block": self.block}
        decoding = Decoding(strategy="sample", candidates=self.draws, **shape, **room)
        return {"answers": Answers(decoding=decoding, seed=self.seed)}

    def offers(self, records: Sequence[Record], made: Made) -> Iterator[Offer]:
        """The first draws that are not the truth."""
        answers = AnswersOf(made["answers"])
        for record in records:
            found = wrong(record, answers.of(record), self.source)
            yield replace(found, rejected=found.rejected[: self.count])
