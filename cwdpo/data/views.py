"""Images that show less than they do: what V-DPO and OPA-DPO compare an answer's log-probability with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from PIL import Image

from cwdpo.base.identity import seed_from

if TYPE_CHECKING:
    from torch import Tensor


CELLS = 112
"""Most cells along a side of the grid that is masked. Single pixels of a photograph would be averaged away when the
processor scales it down; cells of this size are three pixels of a model that sees 336."""

NOTHING = 1e-20
"""What a blank image is made of: Idefics takes an image of exact zeros for padding, and leaves it out."""


@dataclass(frozen=True)
class View:
    """What is seen of an image.

    Attributes:
        masked: share of its cells that show its mean colour instead, the same ones whenever it is opened.
        blank: the model is given zeros, which is what the processor's normalisation makes of a mean image.
    """

    masked: float = 0.0
    blank: bool = False


WHOLE = View()
BLANK = View(blank=True)


def masked(picture: Image.Image, share: float, name: str) -> Image.Image:
    """An RGB picture with a share of its cells in its mean colour; which ones follows from `name` and its shape."""
    import numpy as np

    pixels = np.array(picture)
    sides = [min(CELLS, size) for size in pixels.shape[:2]]
    hidden = np.zeros(sides[0] * sides[1], bool)
    drawn = np.random.default_rng(seed_from("mask", name)).permutation(len(hidden))
    hidden[drawn[: round(share * len(hidden))]] = True
    row, column = (np.arange(size) * side // size for size, side in zip(pixels.shape, sides, strict=False))
    pixels[hidden.reshape(sides)[row][:, column]] = pixels.mean((0, 1)).round()
    return Image.fromarray(pixels)


def blanked(prefix: dict[str, Tensor]) -> dict[str, Tensor]:
    """An encoded prefix whose pixels are nothing; what only says where they are stays."""
    return {
        key: value.new_full(value.shape, NOTHING) if value.is_floating_point() else value
        for key, value in prefix.items()
    }
