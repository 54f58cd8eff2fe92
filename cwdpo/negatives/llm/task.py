"""What is asked about each record, and how a reply becomes something that a source can use."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Annotated, Any, ClassVar

from cwdpo.base.config import Neutral
from cwdpo.data.records import Record
from cwdpo.endpoint.exchange import Exchange, Settled, Unfit, data_uri, message
from cwdpo.endpoint.replies import Reply, Request
from cwdpo.endpoint.settings import Endpoint
from cwdpo.negatives.llm.prompting import Prompt, filled_by
from cwdpo.negatives.llm.structured import Structured, parse, schema_of
from cwdpo.negatives.source import Made, Part


@dataclass(frozen=True)
class Question:
    """Something to ask about a record.

    Attributes:
        texts: what fills the prompt.
    """

    record: Record
    texts: Mapping[str, str]


class Task(Part):
    """A kind of question to an endpoint, for every record of a portion."""

    stage: ClassVar[str] = "llm"
    reply: ClassVar[type[Structured]]
    """What a reply must hold."""

    endpoint: Endpoint
    """Who is asked."""
    prompt: Prompt
    """What is asked."""
    repair: Annotated[Prompt, filled_by("problem")] = "repair"
    """What is said about a reply that cannot be used; $problem says what is wrong."""
    images: Annotated[bool, Neutral(False)] = False
    """Send the image, too, to an endpoint that sees."""

    @property
    def needs_images(self) -> bool:
        """Whether the stage reads the image folder."""
        return self.images

    @abstractmethod
    def questions(self, records: Sequence[Record], made: Made) -> Iterator[Sequence[Question | str]]:
        """What to ask about each record, in order; a reason in place of a question that needs not be asked.

        Args:
            made: the folders of `parts`.
        """

    @abstractmethod
    def made(self, question: Question, reply: Any) -> Mapping[str, Any]:
        """What a source uses of a reply; a key `lacks` says what is missing from it, for counting.

        Args:
            reply: a `self.reply`.

        Raises:
            Unfit: the reply is not what was asked for.
        """

    def next_step(self, question: Question, replies: Sequence[Reply], images: Path) -> Request | Settled:
        """What comes after the replies so far; depends on nothing else.

        Args:
            images: folder of the images, read where they are sent.
        """

        def read(reply: Reply) -> Mapping[str, Any]:
            return self.made(question, parse(reply, self.reply))

        opening = self._opening(question, images)
        return Exchange(self.endpoint, opening, read, self._repair, schema_of(self.reply)).after(replies)

    def _opening(self, question: Question, images: Path) -> Mapping[str, Any]:
        text = Template(self.prompt).substitute(question.texts)
        if not self.images:
            return message("user", text)
        image = {"type": "image_url", "image_url": {"url": data_uri(images / question.record.image)}}
        return {"role": "user", "content": [image, {"type": "text", "text": text}]}

    def _repair(self, unfit: Unfit) -> str:
        return Template(self.repair).substitute(problem=unfit.problem)


def truths(record: Record) -> dict[str, str]:
    """The question and its true answers, as prompts show them: $question, $chosen and $references."""
    others = [text for text in dict.fromkeys(record.references) if text != record.chosen]
    return {"question": record.prompt, "chosen": record.chosen, "references": "\n".join(others) or "none"}
