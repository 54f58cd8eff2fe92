"""Flickr30k captions, Karpathy test split: 1,000 images, five references."""

from __future__ import annotations

from typing import Literal

from cwdpo.evaluate.benchmarks.captions import KarpathyCaptions


class Flickr30k(KarpathyCaptions):
    """`dataset_flickr30k.json`; set `data`."""

    name: Literal["flickr30k"]
    prompt: str = "Provide a one-sentence caption for the provided image."
