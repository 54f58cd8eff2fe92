"""Asking for the smallest correction of the policy's own answer, and for a score of each of its sentences."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

from cwdpo.data.records import Record
from cwdpo.endpoint.exchange import Unfit
from cwdpo.negatives.answers import Answers, AnswersOf, alike
from cwdpo.negatives.llm.prompting import Prompt, filled_by
from cwdpo.negatives.llm.structured import Structured, text_of
from cwdpo.negatives.llm.task import Question, Task, truths
from cwdpo.negatives.source import Made, Part

_ENDS = re.compile(
    r"""(?<=[.!?])\s+|(?<=[.!?]["')\]])\s+"""
    "|(?<=[\u3002\uff01\uff1f\uff61\u0964])\\s*"  # full stops of Chinese, Japanese, Hindi; no blank follows them
)
EMPTY = "empty answer"
TRUE = "answer equal to the truth"


class Score(Structured):
    """Of one sentence."""

    score: Literal[1, 2, 3, 4]
    image_error: bool


class Revision(Structured):
    """A reply."""

    scores: list[Score]
    revised: str


RevisePrompt = Annotated[Prompt, filled_by("question", "chosen", "references", "sentences", "answer")]


class Revise(Task):
    """Corrections of the policy's answers, best answer first."""

    reply: ClassVar[type[Structured]] = Revision

    task: Literal["revise"] = "revise"
    """Tag of this task."""
    prompt: RevisePrompt = "revise"
    """$question, $chosen, $references, $sentences (of the answer, numbered) and $answer are filled in."""
    answers: Answers
    """What is corrected."""

    def parts(self) -> Mapping[str, Part]:
        """The policy's answers."""
        return {"answers": self.answers}

    def questions(self, records: Sequence[Record], made: Made) -> Iterator[Sequence[Question | str]]:
        """One for each answer that is neither empty nor right."""
        answers = AnswersOf(made["answers"])
        for record in records:
            yield [self._question(record, answer.text) for answer in answers.of(record)]

    def _question(self, record: Record, answer: str) -> Question | str:
        if not answer.strip():
            return EMPTY
        if any(alike(answer, true) for true in (record.chosen, *record.references)):
            return TRUE
        numbered = (f"{number}. {text}" for number, text in enumerate(sentences(answer), 1))
        return Question(record, {**truths(record), "sentences": "\n".join(numbered), "answer": answer})

    def made(self, question: Question, reply: Revision) -> Mapping[str, Any]:
        """`{"revised", "scores"}`; scores are empty where there are not as many as sentences.

        A model that gives the answer back says that it is right in other words: it is not pressed to change it.
        """
        answer = question.texts["answer"]
        revised = text_of(reply.revised, "revised")
        if alike(revised, answer):
            raise Unfit("nothing to correct", "the corrected answer is the model's answer", final=True, sound=True)
        if len(reply.scores) != len(sentences(answer)):
            return {"revised": revised, "scores": [], "lacks": "scores that fit the sentences"}
        return {"revised": revised, "scores": [one.model_dump() for one in reply.scores]}


def sentences(text: str) -> list[str]:
    """Sentences of a text in any script, in order; a text without a full stop is one."""
    pieces = _ENDS.split(text)
    return [piece for piece in (piece.strip() for piece in pieces) if piece]
