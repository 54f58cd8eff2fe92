"""Asking for wrong answers that are a small step from the true one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from cwdpo.data.records import Record
from cwdpo.endpoint.exchange import Unfit
from cwdpo.negatives.answers import alike
from cwdpo.negatives.llm.prompting import Prompt, filled_by
from cwdpo.negatives.llm.structured import Structured, text_of
from cwdpo.negatives.llm.task import Question, Task, truths
from cwdpo.negatives.llm.vision_errors import VisionError
from cwdpo.negatives.source import Made

ROOM = 20
"""Characters that a rewrite of a short answer may always be longer."""


class Change(Structured):
    """One rewrite."""

    text: str
    kind: str


class Changes(Structured):
    """A reply."""

    rewrites: list[Change]


RewritePrompt = Annotated[Prompt, filled_by("question", "chosen", "references", "count", "kinds")]


class Rewrite(Task):
    """Rewrites of the chosen response that get one thing about the image wrong."""

    reply: ClassVar[type[Structured]] = Changes

    task: Literal["rewrite"] = "rewrite"
    """Tag of this task."""
    prompt: RewritePrompt = "rewrite"
    """$question, $chosen, $references, $count and $kinds are filled in."""
    kinds: tuple[VisionError, ...]
    """What may be made wrong."""
    meanings: str
    """What the kinds mean, for the prompt."""
    count: int = Field(gt=0)
    """Rewrites to ask for."""
    longest: float = Field(gt=0)
    """Longest rewrite, in lengths of the chosen response."""

    def questions(self, records: Sequence[Record], made: Made) -> Iterator[Sequence[Question | str]]:
        """One for each record."""
        for record in records:
            yield [Question(record, {**truths(record), "count": str(self.count), "kinds": self.meanings})]

    def made(self, question: Question, reply: Changes) -> Mapping[str, Any]:
        """`{"rewrites": [{"text", "kind"}]}`: those that can be used, `count` at most."""
        good: dict[str, dict[str, str]] = {}
        faults: list[Unfit] = []
        for change in reply.rewrites:
            try:
                text = self._checked(question.record, change)
                good.setdefault(text, {"text": text, "kind": change.kind.strip().lower()})
            except Unfit as unfit:
                faults.append(unfit)
        if not good:
            raise faults[0] if faults else Unfit("no rewrite", "the list of rewrites is empty")
        lacks = {"lacks": "fewer than asked for"} if len(good) < self.count else {}
        return {"rewrites": list(good.values())[: self.count], **lacks}

    def _checked(self, record: Record, change: Change) -> str:
        text = text_of(change.text, "text")
        if any(alike(text, true) for true in (record.chosen, *record.references)):
            raise Unfit("same as the truth", f'"{text}" is true of the image, so it is not wrong')
        most = max(self.longest * len(record.chosen), len(record.chosen) + ROOM)
        if len(text) > most:
            raise Unfit("too long", f"a rewrite has {len(text)} characters; change one thing and keep the rest")
        if change.kind.strip().lower() not in self.kinds:
            raise Unfit("unknown kind", f'"{change.kind}" is no kind; valid: {", ".join(self.kinds)}')
        return text
