"""OPA-DPO: what the policy itself answers, beside a language model's smallest correction of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from cwdpo.base.config import Neutral
from cwdpo.data.records import Record, Rejected, scores_of
from cwdpo.endpoint.settings import Endpoint
from cwdpo.model.decoding import Decoding
from cwdpo.negatives.answers import Answer, Answers, AnswersOf, rejected
from cwdpo.negatives.llm.revise import Revise, RevisePrompt
from cwdpo.negatives.llm.rows import replies_of
from cwdpo.negatives.source import Made, Offer, Part, Source
from cwdpo.objectives.supply import Supply


class Revised(Source):
    """The greedy answer of the policy that is trained next, its correction, and scores of its sentences."""

    source: Literal["revised"]
    endpoint: Endpoint
    """Who corrects."""
    max_new_tokens: int = Field(default=64, gt=0)
    """Longest answer of the policy, end-of-turn included."""
    block: int = Field(default=32, gt=0)
    """Questions answered together: the unit of sharding and resume."""
    prompt: RevisePrompt = "revise"
    """A shipped prompt, or a .txt file; $question, $chosen, $references, $sentences and $answer are filled in."""
    images: Annotated[bool, Neutral(False)] = False
    """Send the image, too, to an endpoint that sees."""

    makes: ClassVar[Mapping[Supply, str]] = {"revised": ""}

    def parts(self) -> Mapping[str, Part]:
        """The policy's answers, and what the endpoint makes of them."""
        decoding = Decoding(max_new_tokens=self.max_new_tokens, block=self.block)
        answers = Answers(decoding=decoding)
        asked = Revise(endpoint=self.endpoint, prompt=self.prompt, images=self.images, answers=answers)
        return {"answers": answers, "llm": asked}

    def provides(self, by_data: frozenset[Supply]) -> frozenset[Supply]:
        """A revised answer, whatever the data has."""
        return frozenset(self.makes)

    def offers(self, records: Sequence[Record], made: Made) -> Iterator[Offer]:
        """The answers that were corrected; none where the answer is right or no reply could be used."""
        answers, rows = AnswersOf(made["answers"]), replies_of(made["llm"])
        for record in records:
            pairs = zip(answers.of(record), rows[record.id], strict=True)
            yield Offer(tuple(self._rejected(answer, reply) for answer, reply in pairs if reply))

    def _rejected(self, answer: Answer, reply: Mapping[str, Any]) -> Rejected:
        own = rejected(answer, "own_answer")
        how = {**own.how, "model": self.endpoint.model}
        return replace(own, revised=reply["revised"], scores=scores_of(reply["scores"]), how=how)
