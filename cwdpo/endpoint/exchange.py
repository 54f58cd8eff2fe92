"""A question and the replies to it: what is sent next, and how it ends."""

from __future__ import annotations

import base64
import mimetypes
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cwdpo.base.errors import DataError
from cwdpo.endpoint.replies import Reply, Request
from cwdpo.endpoint.settings import Endpoint

REPAIRS = 1
"""How often a model is told what is wrong with its reply."""

SHOWN = 200
"""Characters of a dropped reply that are shown."""


class Unfit(Exception):
    """A reply that cannot be used.

    Attributes:
        reason: one of few, for counting.
        problem: a sentence for the model.
        final: nothing is gained by asking once more.
        sound: it is what was asked for; it says that there is nothing to use.
    """

    def __init__(self, reason: str, problem: str, final: bool = False, sound: bool = False) -> None:
        super().__init__(problem)
        self.reason, self.problem, self.final, self.sound = reason, problem, final, sound


@dataclass(frozen=True)
class Settled:
    """How a question ended.

    Attributes:
        made: what is used of the replies, None where there is nothing.
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


@dataclass(frozen=True)
class Exchange:
    """What is asked, and how replies are read.

    Attributes:
        opening: the first message.
        read: what is used of a reply; raises `Unfit`.
        repair: what is said about a reply that cannot be used.
        schema: JSON schema of a reply, None where it is free text.
    """

    endpoint: Endpoint
    opening: Mapping[str, Any]
    read: Callable[[Reply], Mapping[str, Any]]
    repair: Callable[[Unfit], str]
    schema: Mapping[str, Any] | None = None

    def after(self, replies: Sequence[Reply]) -> Request | Settled:
        """What comes after the replies so far; depends on nothing else."""
        messages = [self.opening]
        for number, reply in enumerate(replies, 1):
            try:
                return Settled(self.read(reply), replies=number)
            except Unfit as unfit:
                if unfit.final or number > REPAIRS:
                    return Settled(None, unfit.reason, number, said=reply.text[:SHOWN], sound=unfit.sound)
                messages += [message("assistant", reply.text or "..."), message("user", self.repair(unfit))]
        return Request(self.endpoint, tuple(messages), self.schema)


def message(role: str, text: str) -> Mapping[str, Any]:
    """As chat completions take it."""
    return {"role": role, "content": text}


def data_uri(path: Path) -> str:
    """The bytes of an image file inside an address; raises `DataError` when it cannot be read."""
    try:
        content = base64.b64encode(path.read_bytes()).decode("ascii")
    except OSError as error:
        raise DataError(f"image {path}: {error.strerror}") from error
    return f"data:{mimetypes.guess_type(path.name)[0] or 'image/jpeg'};base64,{content}"


def check_willing(reply: Reply) -> None:
    """Raise `Unfit` where the model declined."""
    if reply.finish in ("refusal", "content_filter"):
        raise Unfit("declined by the model", "the model declined", final=True)
