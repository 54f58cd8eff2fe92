"""What a user's turn is made of: text, with pictures where it speaks of them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Picture:
    """An image, by its path in the image folder."""

    path: str


Content = tuple[str | Picture, ...]
"""Parts of a turn, in order."""


def interleaved(text: str, images: Sequence[str], marker: str = r"<image (\d+)>") -> Content:
    """The content of a text that names its images by number.

    A picture stands where its number is first named; numbers named again stay text, without the brackets. Images that
    the text does not name stand before it, in their order.

    Args:
        marker: pattern of a name, with the number (from 1) as its group.

    Raises:
        ValueError: the text names an image that there is not.
    """
    parts: list[str | Picture] = []
    shown: list[int] = []
    start = 0
    for found in re.finditer(marker, text):
        number = int(found.group(1))
        if not 1 <= number <= len(images):
            raise ValueError(f"the text names image {number}, but there are {len(images)}")
        parts.append(text[start : found.start()])
        parts.append(f"image {number}" if number in shown else Picture(images[number - 1]))
        shown.append(number)
        start = found.end()
    parts.append(text[start:])
    unnamed = [Picture(image) for number, image in enumerate(images, 1) if number not in shown]
    return joined([*unnamed, *parts])


def joined(parts: Sequence[str | Picture]) -> Content:
    """Texts that follow one another as one, empty ones left out."""
    joined: list[str | Picture] = []
    for part in parts:
        if isinstance(part, str) and joined and isinstance(joined[-1], str):
            joined[-1] += part
        elif part:
            joined.append(part)
    return tuple(joined)


def pictures(content: Content) -> list[str]:
    """Paths of the images, in order."""
    return [part.path for part in content if isinstance(part, Picture)]
