"""Images that show less than they do: what V-DPO and OPA-DPO compare an answer's log-probability with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from PIL import Image

from cwdpo.base.identity import seed_from

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class View:
    """What is seen of an image.

    Attributes:
        hidden: share of its pixels that show its mean colour instead, the same ones whenever it is opened.
        blank: the model is given zeros, which is what the processor's normalisation makes of a mean image.
    """

    hidden: float = 0.0
    blank: bool = False


WHOLE = View()
BLANK = View(blank=True)


def masked(picture: Image.Image, share: float, name: str) -> Image.Image:
    """An RGB picture with a share of its pixels in its mean colour; which ones follows from `name` alone."""
    import numpy as np

    pixels = np.asarray(picture).copy()
    height, width = pixels.shape[:2]
    order = np.random.default_rng(seed_from("mask", name)).permutation(height * width)
    hidden = order[: round(share * height * width)]
    pixels.reshape(height * width, -1)[hidden] = pixels.mean((0, 1)).round()
    return Image.fromarray(pixels)


def blanked(prefix: dict[str, Tensor]) -> dict[str, Tensor]:
    """An encoded prefix whose pixels are zeros; what only says where they are stays."""
    return {key: value.new_zeros(value.shape) if value.is_floating_point() else value for key, value in prefix.items()}
