"""The vision error codebook: what a text can get wrong about an image, as data for prompts (`vision_errors.yaml`)."""

from __future__ import annotations

from collections.abc import Collection
from functools import cache
from pathlib import Path
from typing import Literal, get_args

from cwdpo.base.config import Config, read_yaml, validate

VisionError = Literal["object", "attribute", "count", "scene", "relation"]
VISION_ERRORS: tuple[VisionError, ...] = get_args(VisionError)


class Entry(Config):
    """One kind of error."""

    level: Literal["instance", "image"]
    """About one thing, or about the whole image."""
    title: str
    """Its name in words."""
    meaning: str
    """What is wrong then."""
    example: str
    """A wrong text, and how it is."""


class VisionErrors(Config):
    """The content of `vision_errors.yaml`."""

    object: Entry
    """Object existence."""
    attribute: Entry
    """Attributes."""
    count: Entry
    """Counts."""
    scene: Entry
    """Scene context."""
    relation: Entry
    """Spatial relations."""


@cache
def vision_errors() -> VisionErrors:
    """The shipped codebook, read and validated once; raises `ConfigError` when it is damaged."""
    path = Path(__file__).with_name("vision_errors.yaml")
    return validate(VisionErrors, read_yaml(path), str(path))


def described(kinds: Collection[VisionError] = VISION_ERRORS) -> str:
    """The codebook, or some kinds of it, for a prompt: a line each, in the order of the file."""
    entries = {kind: getattr(vision_errors(), kind) for kind in VISION_ERRORS if kind in kinds}
    lines = (f"- {kind} ({one.title}): {one.meaning}; {one.example}" for kind, one in entries.items())
    return "\n".join(lines)
