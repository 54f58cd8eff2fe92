"""JSON out of what a model wrote, checked; and what is wrong with it, in words that the model can act on."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from cwdpo.base.errors import DataError
from cwdpo.data.records import clean_text
from cwdpo.endpoint.exchange import Unfit, check_willing
from cwdpo.endpoint.replies import Reply

Answer = TypeVar("Answer", bound="Structured")

CUT = "length"
"""Why a reply ended that is longer than it may be."""


class Structured(BaseModel):
    """Base of what replies are parsed into; keys that were not asked for are passed over."""

    model_config = ConfigDict(extra="ignore", frozen=True, json_schema_extra={"additionalProperties": False})


@cache
def schema_of(model: type[Structured]) -> Mapping[str, Any]:
    """JSON schema of a reply."""
    return model.model_json_schema()


def parse(reply: Reply, model: type[Answer]) -> Answer:
    """The last JSON object of a reply that has the right keys; fences, thoughts and prose around it do not matter.

    Raises:
        Unfit: there is none.
    """
    check_willing(reply)
    problem = "it holds no JSON object"
    for found in reversed(list(_objects(reply.text))):
        try:
            return model.model_validate(found)
        except ValidationError as error:
            problem = f"the JSON is not as asked for: {_faults(error)}"
    if reply.finish == CUT:
        raise Unfit("cut off", "it was cut off before the JSON ended; be brief")
    raise Unfit("no usable JSON", problem)


def _objects(text: str) -> Iterator[dict[str, Any]]:
    """Every JSON object that is not inside another one, in order."""
    decoder, place = json.JSONDecoder(), text.find("{")
    while place >= 0:
        try:
            found, end = decoder.raw_decode(text, place)
            yield found
        except (ValueError, RecursionError):
            end = place + 1
        place = text.find("{", end)


def _faults(error: ValidationError) -> str:
    """`rewrites.0.text: Field required; ...`."""
    faults = [f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors()]
    return "; ".join(faults[:5])


def text_of(value: str, name: str) -> str:
    """A text of a reply with white space collapsed; raises `Unfit` where nothing is left."""
    try:
        return clean_text(value, name)
    except DataError as error:
        raise Unfit("empty or broken text", str(error)) from error
