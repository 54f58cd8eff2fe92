"""Flickr30k captions, Karpathy test split: 1,000 images, five references."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Literal

from cwdpo.data.sources import Karpathy, Source
from cwdpo.evaluate.benchmarks.captions import PreparedCaptions


class Flickr30k(PreparedCaptions):
    """`dataset_flickr30k.json`: `data`, else that of the experiment where it trains on it, else what was prepared."""

    name: Literal["flickr30k"]
    prompt: str = "Provide a one-sentence caption for the provided image."

    annotations: ClassVar[str] = "dataset_flickr30k.json"
    source: ClassVar[str] = "dataset_flickr30k.json of Karpathy's splits, and the images of Flickr30k"
    published: ClassVar[Mapping[str, int]] = {"test": 1000}

    @classmethod
    def is_of(cls, data: Source) -> bool:
        """By the name of its file."""
        return isinstance(data, Karpathy) and Path(data.annotations).name == cls.annotations
