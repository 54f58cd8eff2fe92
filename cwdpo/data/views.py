"""Images that show less than they do: what V-DPO and OPA-DPO compare with, and what SeVa's losers answer to."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from PIL import Image

from cwdpo.base.identity import seed_from

if TYPE_CHECKING:
    from torch import Tensor


CELLS = 112
"""Most cells along a side of the grid that is masked. Single pixels of a photograph would be averaged away when the
processor scales it down; cells of this size are three pixels of a model that sees 336."""

CHANNELS = 3

STEPS = 1000
"""Of the diffusion that adds noise."""

NOTHING = 1e-20
"""What a blank image is made of: Idefics takes an image of exact zeros for padding, and leaves it out."""


@dataclass(frozen=True)
class View:
    """What is seen of an image.

    Attributes:
        masked: share of its cells that show its mean colour instead, the same ones whenever it is opened.
        blank: the model is given zeros, which is what the processor's normalisation makes of a mean image.
        noise: step of the diffusion that has gone over it, of `STEPS`, the same noise whenever it is opened.
    """

    masked: float = 0.0
    blank: bool = False
    noise: int | None = None


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


def noised(prefix: dict[str, Tensor], step: int, name: str, repeats: int) -> dict[str, Tensor]:
    """An encoded prefix whose normalised pixels x are `sqrt(a) x + sqrt(1 - a) e`, e standard normal, drawn by `name`.

    a is the product of 1 - beta over the steps up to `step`, beta = sigmoid(linspace(-6, 6)) (0.005 - 1e-5) + 1e-5
    (SeVa, arXiv 2404.10501; VCD's schedule).

    Args:
        repeats: how often a processor that is made for videos repeats the picture in each row of pixels.
    """
    import torch

    betas = torch.linspace(-6, 6, STEPS, dtype=torch.float64).sigmoid() * (0.005 - 1e-5) + 1e-5
    kept = float((1 - betas).cumprod(0)[step])
    generator = torch.Generator().manual_seed(seed_from("noise", name))
    pixels = prefix["pixel_values"]
    shape = (len(pixels), CHANNELS, repeats, -1) if repeats > 1 else pixels.shape
    values = pixels.reshape(shape)
    drawn = torch.randn(values[:, :, :1].shape if repeats > 1 else shape, generator=generator)
    mixed = math.sqrt(kept) * values + math.sqrt(1 - kept) * drawn.to(values)
    return {**prefix, "pixel_values": mixed.reshape(pixels.shape)}
