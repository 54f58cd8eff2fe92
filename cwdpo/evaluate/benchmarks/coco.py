"""COCO captions, Karpathy test split: 5,000 images, all references."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Literal

from cwdpo.data.sources import Demo, Karpathy, Source
from cwdpo.evaluate.benchmarks.captions import PreparedCaptions


class Coco(PreparedCaptions):
    """`dataset_coco.json`: `data`, else that of the experiment where it trains on it, else what was prepared."""

    name: Literal["coco"]

    annotations: ClassVar[str] = "dataset_coco.json"
    source: ClassVar[str] = "dataset_coco.json of Karpathy's splits, and COCO's train2014 and val2014 images"
    published: ClassVar[Mapping[str, int]] = {"test": 5000}

    @classmethod
    def is_of(cls, data: Source) -> bool:
        """By the name of its file, for Flickr30k's has the same format; the demo's world is written as COCO is."""
        return isinstance(data, Demo) or (isinstance(data, Karpathy) and Path(data.annotations).name == cls.annotations)
