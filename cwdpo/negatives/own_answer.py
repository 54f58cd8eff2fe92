"""GT-DPO: the truth beats the policy's own greedy answer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

from pydantic import Field

from cwdpo.data.records import Record
from cwdpo.model.decoding import Decoding
from cwdpo.negatives.answers import Answers, AnswersOf, wrong
from cwdpo.negatives.source import Made, Offer, Part, Source


class OwnAnswer(Source):
    """What the policy that is trained next answers by itself, where that is not the truth."""

    source: Literal["own_answer"]
    max_new_tokens: int = Field(default=64, gt=0)
    """Longest answer, end-of-turn included."""
    block: int = Field(default=32, gt=0)
    """Questions answered together: the unit of sharding and resume."""

    def parts(self) -> Mapping[str, Part]:
        """Greedy answers."""
        return {"answers": Answers(decoding=Decoding(max_new_tokens=self.max_new_tokens, block=self.block))}

    def offers(self, records: Sequence[Record], made: Made) -> Iterator[Offer]:
        """One answer, or none where it is right."""
        answers = AnswersOf(made["answers"])
        for record in records:
            yield wrong(record, answers.of(record), self.source)
