"""What is asked about each record, and how a reply becomes something that a source can use."""

from __future__ import annotations

import base64
import mimetypes
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Annotated, Any, ClassVar

from cwdpo.base.config import Neutral
from cwdpo.base.errors import DataError
from cwdpo.data.records import Record
from cwdpo.negatives.llm.endpoint import Endpoint
from cwdpo.negatives.llm.prompting import Prompt, filled_by
from cwdpo.negatives.llm.replies import Reply, Request
from cwdpo.negatives.llm.structured import Structured, Unfit, parse, schema_of
from cwdpo.negatives.source import Made, Part

REPAIRS = 1
"""How often a model is told what is wrong with its reply."""

SHOWN = 200
"""Characters of a dropped reply that are shown."""


@dataclass(frozen=True)
class Question:
    """Something to ask about a record.

    Attributes:
        texts: what fills the prompt.
    """

    record: Record
    texts: Mapping[str, str]


@dataclass(frozen=True)
class Settled:
    """How a question ended.

    Attributes:
        made: what a source uses, None where there is nothing.
        reason: why there is nothing.
        replies: how many it took.
        asked: False where it needs not be asked.
        said: the beginning of the last reply, where it could not be used.
        sound: False where the endpoint did not say what was asked for.
    """

    made: Mapping[str, Any] | None
    reason: str = ""
    replies: int = 0
    asked: bool = True
    said: str = ""
    sound: bool = True


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
        messages = [self._opening(question, images)]
        for number, reply in enumerate(replies, 1):
            try:
                return Settled(self.made(question, parse(reply, self.reply)), replies=number)
            except Unfit as unfit:
                if unfit.final or number > REPAIRS:
                    return Settled(None, unfit.reason, number, said=reply.text[:SHOWN], sound=unfit.sound)
                messages += [_message("assistant", reply.text or "..."), _message("user", self._repair(unfit))]
        return Request(self.endpoint, tuple(messages), schema_of(self.reply))

    def _opening(self, question: Question, images: Path) -> Mapping[str, Any]:
        text = Template(self.prompt).substitute(question.texts)
        if not self.images:
            return _message("user", text)
        image = {"type": "image_url", "image_url": {"url": data_uri(images / question.record.image)}}
        return {"role": "user", "content": [image, {"type": "text", "text": text}]}

    def _repair(self, unfit: Unfit) -> str:
        return Template(self.repair).substitute(problem=unfit.problem)


def truths(record: Record) -> dict[str, str]:
    """The question and its true answers, as prompts show them: $question, $chosen and $references."""
    others = [text for text in dict.fromkeys(record.references) if text != record.chosen]
    return {"question": record.prompt, "chosen": record.chosen, "references": "\n".join(others) or "none"}


def _message(role: str, text: str) -> Mapping[str, Any]:
    return {"role": role, "content": text}


def data_uri(path: Path) -> str:
    """The bytes of an image file inside an address; raises `DataError` when it cannot be read."""
    try:
        content = base64.b64encode(path.read_bytes()).decode("ascii")
    except OSError as error:
        raise DataError(f"image {path}: {error.strerror}") from error
    return f"data:{mimetypes.guess_type(path.name)[0] or 'image/jpeg'};base64,{content}"
