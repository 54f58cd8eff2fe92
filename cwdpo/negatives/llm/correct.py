"""Asking for a dialogue that corrects a rejected response."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from cwdpo.data.records import Record, Rejected
from cwdpo.endpoint.exchange import Unfit
from cwdpo.negatives.codebook import is_short
from cwdpo.negatives.llm.prompting import Prompt, filled_by
from cwdpo.negatives.llm.structured import Structured, text_of
from cwdpo.negatives.llm.task import Question, Task
from cwdpo.negatives.plain import Plain
from cwdpo.negatives.source import Made, Part, named, within

BY_RULE = "short answer, by rule"


class Exchange(Structured):
    """One question with its answer."""

    question: str
    answer: str


class Dialogue(Structured):
    """A reply."""

    dialogue: list[Exchange]


CorrectPrompt = Annotated[Prompt, filled_by("question", "chosen", "rejected", "codebook", "turns")]


class Correct(Task):
    """Corrective dialogues for what another source rejects; short answers are left to the rules."""

    reply: ClassVar[type[Structured]] = Dialogue

    task: Literal["correct"] = "correct"
    """Tag of this task."""
    prompt: CorrectPrompt = "correct"
    """$question, $chosen, $rejected, $codebook and $turns are filled in."""
    of: Plain = Field(discriminator="source")
    """Where the rejected responses come from."""
    codebook: str
    """What errors to look for, for the prompt; empty is the ablation without a codebook."""
    turns: int = Field(gt=0)
    """Most questions of a dialogue."""

    def parts(self) -> Mapping[str, Part]:
        """Those of `of`."""
        return named("of", self.of.parts())

    def questions(self, records: Sequence[Record], made: Made) -> Iterator[Sequence[Question | str]]:
        """One for each rejected response that is no short answer, in order."""
        for record, offer in zip(records, self.of.offers(records, within(made, "of")), strict=True):
            yield [self._question(record, item) for item in offer.rejected]

    def _question(self, record: Record, rejected: Rejected) -> Question | str:
        if is_short(record, rejected):
            return BY_RULE
        right = rejected.revised or record.chosen
        texts = {"question": record.prompt, "chosen": right, "rejected": rejected.text}
        return Question(record, {**texts, "codebook": self.codebook, "turns": str(self.turns)})

    def made(self, question: Question, reply: Dialogue) -> Mapping[str, Any]:
        """`{"dialogue": [[question, answer], ...]}`, the first `turns`."""
        turns = [[text_of(one.question, "question"), text_of(one.answer, "answer")] for one in reply.dialogue]
        if not turns:
            raise Unfit("no dialogue", "the dialogue is empty")
        return {"dialogue": turns[: self.turns]}
