"""SeVa (arXiv 2404.10501): the answer to a noised image loses against the answer to the clean one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

from pydantic import Field

from cwdpo.data.records import Record
from cwdpo.model.decoding import Decoding
from cwdpo.negatives.answers import Answers, AnswersOf, beaten
from cwdpo.negatives.source import Made, Offer, Part, Source


class AugmentedImage(Source):
    """Two greedy answers of the policy that is trained next; no truth is needed, and none is used but to drop it."""

    source: Literal["augmented_image"]
    noise: int = Field(default=500, ge=0, lt=1000)
    """Diffusion step of the noise, 0 to 999; the source has 500 and 800."""
    max_new_tokens: int = Field(default=64, gt=0)
    """Longest answer, end-of-turn included."""
    block: int = Field(default=32, gt=0)
    """Questions answered together: the unit of sharding and resume."""

    def parts(self) -> Mapping[str, Part]:
        """Answers to the clean and to the noised images."""
        decoding = Decoding(max_new_tokens=self.max_new_tokens, block=self.block)
        return {"clean": Answers(decoding=decoding), "noised": Answers(decoding=decoding, noise=self.noise)}

    def offers(self, records: Sequence[Record], made: Made) -> Iterator[Offer]:
        """One pair, or none where both answers say the same, an answer is empty or the loser is the truth."""
        clean, noised = AnswersOf(made["clean"]), AnswersOf(made["noised"])
        for record in records:
            yield beaten(record, clean.of(record)[0].text, noised.of(record)[0], self.source)
